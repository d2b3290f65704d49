//! What the admin listener shows of a session, and the parts that its answers share.

use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::Listed;
use cloakroom::store::Durability;
use cloakroom_core::session::{Ending, Object, Session};
use cloakroom_core::types::Timestamp;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::Serialize;

use crate::site::Site;
use crate::view::SessionView;

pub(super) use crate::view::{rfc3339 as time, with_durability};

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
        ended: ending
            .map(|ending| EndedView { at: time(ending.at), reason: ending.reason.as_str() }),
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
    site.store_watch.promise()
}

/// A header's value of our own making: visible ASCII.
pub(super) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// An instant in RFC 3339; nothing else counts. One later than any that is used is the last one.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let at = |index: usize| text.as_bytes().get(index).copied().unwrap_or_default();
    let is_rfc3339 = (at(4), at(7), at(13), at(16)) == (b'-', b'-', b':', b':')
        && matches!(at(10), b'T' | b't')
        && !text.contains('[');
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok().filter(|_| is_rfc3339)?;
    let local = pieces.date().to_datetime(pieces.time()?);
    match pieces.to_numeric_offset()?.to_timestamp(local) {
        Ok(at) => Some(Timestamp::from_millis(at.as_millisecond()).min(Timestamp::MAX)),
        // The library leaves out the last day, for the sake of its offsets.
        Err(_) => (local.year() == 9999).then_some(Timestamp::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k3_times_are_rfc_3339_and_never_overflow() {
        let secs = |text: &str| parse_time(text).map(Timestamp::as_secs);
        assert_eq!(secs("2027-01-15T08:00:00Z"), Some(1_800_000_000));
        assert_eq!(secs("2027-01-15T09:00:00.25+01:00"), Some(1_800_000_000));
        assert_eq!(parse_time("9999-12-31T23:59:59Z"), Some(Timestamp::MAX));
        for bad in [
            "",
            "soon",
            "1800000000",
            "2027-01-15",
            "2027-01-15T08:00:00",
            "2027-13-15T08:00:00Z",
            "2027-01-15T08:00:00Z[Europe/Berlin]",
            "20270115T080000Z",
            "+012027-01-15T08:00:00Z",
            "10000-01-01T00:00:00Z",
            "2027-01-15T08Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
