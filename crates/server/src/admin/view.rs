//! What the admin listener shows of a session, and the parts that its answers share.

use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::Listed;
use cloakroom::store::Durability;
use cloakroom_core::session::{Ending, Object, Session};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::Serialize;

use crate::any_store::AnyStore;
use crate::public::SessionView;
use crate::site::Site;

pub(super) use crate::public::{rfc3339 as time, with_durability};

/// A session as holders of an API key see it.
#[derive(Serialize)]
pub(super) struct AdminSession<'a> {
    #[serde(flatten)]
    session: SessionView<'a>,
    csrf_key: String,
    ended: Option<EndedView>,
}

#[derive(Serialize)]
struct EndedView {
    at: String,
    reason: &'static str,
}

/// A session with the key of its CSRF tokens and, if it is over, since when and why.
pub(super) fn session_of<'a>(
    site: &Site,
    session: &'a Session,
    claims: &'a Object,
    ending: Option<Ending>,
) -> AdminSession<'a> {
    AdminSession {
        session: SessionView::new(session, claims, false),
        csrf_key: URL_SAFE_NO_PAD.encode(site.authority.csrf_key(session.sid).expose()),
        ended: ending.map(|ending| EndedView {
            at: time(ending.at),
            reason: ending.reason.as_str(),
        }),
    }
}

/// A session of a listing.
pub(super) fn listed<'a>(site: &Site, found: &'a Listed) -> AdminSession<'a> {
    session_of(site, &found.session, &found.claims, found.ending)
}

/// 204.
pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// An answer to an ending says what the store promises of it.
pub(super) fn ended(response: Response, durability: Durability) -> Response {
    with_durability(response, Some(durability))
}

/// What the store promises of every commit, for answers that don't carry a commit's own promise.
pub(super) fn standing_durability(site: &Site) -> Durability {
    match site.authority.store() {
        AnyStore::Memory(_) => Durability::Local,
        AnyStore::Embedded(_) => Durability::Durable,
    }
}

/// A header's value of our own making: visible ASCII.
pub(super) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// An instant in RFC 3339; nothing else counts.
pub(super) fn parse_time(text: &str) -> Option<cloakroom_core::types::Timestamp> {
    let parsed: jiff::Timestamp = text.parse().ok()?;
    Some(cloakroom_core::types::Timestamp::from_millis(parsed.as_millisecond()))
}
