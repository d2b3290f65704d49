//! POST `/auth/refresh`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cloakroom::Opened;
use cloakroom_core::event::Actor;
use cloakroom_core::given::{Given, Header};
use cloakroom_core::limits::IDEMPOTENCY_KEY_CHARS;
use cloakroom_core::refresh::Channel;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::types::Sid;
use hyper::StatusCode;
use serde::Serialize;

use super::answer::credentials;
use crate::gate::{
    Bearer, Meter, Presented, Rules, authenticate, check_csrf, prove, refused_to_nobody,
};
use crate::http::{Ask, Need, json};
use crate::problem::Problem;
use crate::site::Site;
use crate::view::SessionView;

/// Exchanges a refresh token for its successor, or slides a session cookie.
///
/// Exactly one refresh token counts, in the body or in the cookie. An access token beside it is
/// what the token is there to replace, and isn't looked at.
pub(super) async fn refresh(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    idempotency_key(&ask)?;
    let mut members = ask.members(Need::Optional).await?;
    let in_body = members.opt_secret("refresh_token")?;
    members.finish()?;
    let presented = Presented::of(ask.headers(), site.cookies.names());
    let (token, channel) = match (&in_body, presented.cookies.refresh) {
        (Some(token), Given::Absent) => (token.expose().as_str(), Channel::Body),
        (None, Given::One(cookie)) => (cookie, Channel::Cookie),
        (Some(_), Given::One(_) | Given::Several) => {
            return Err(Refusal::RefreshTokenRequired.into());
        }
        // Perhaps planted by a sibling domain: refused, and not taken for a reuse.
        (None, Given::Several) => {
            return Err(refused_to_nobody(&site, &ask, Refusal::TokenInvalid.into()));
        }
        (None, Given::Absent) => return slide(&site, &ask, &presented).await,
    };
    Ok(credentials(&site, &exchange(&site, &ask, token, channel).await?))
}

/// Exchanges a refresh token. Counted for its session if it holds that, else for the network: a
/// token of before is genuine too, and must not spend what is the holder's.
pub(super) async fn exchange(
    site: &Site,
    ask: &Ask,
    token: &str,
    channel: Channel,
) -> Result<Opened, Problem> {
    let key = idempotency_key(ask)?;
    let sid = sid_of(site, ask, token)?;
    match channel {
        Channel::Cookie => check_csrf(site, ask, sid)?,
        Channel::Body => {}
    }
    let meters = site.authority.meters(sid);
    site.expect_room(ask.asked(), &meters)?;
    let ctx = ask.context(Actor::User(None), site.trusted());
    let opened = site.authority.refresh(token, channel, key, &ctx).await;
    let opened = opened.map_err(|error| refused_to_nobody(site, ask, error))?;
    // Whoever came at the same time may have taken the last place, but the successor is made.
    let _ = site.admit(ask.asked(), &meters, Meter::Session);
    Ok(opened)
}

/// The session that a genuine refresh token names; read from the token, not from the store.
fn sid_of(site: &Site, ask: &Ask, token: &str) -> Result<Sid, Problem> {
    match OpaqueToken::parse(OpaqueKind::Refresh, token, site.authority.keys()) {
        Ok(token) => Ok(token.sid),
        Err(refusal) => Err(refused_to_nobody(site, ask, refusal.into())),
    }
}

/// The `Idempotency-Key`, if there is one.
pub(crate) fn idempotency_key(ask: &Ask) -> Result<Option<&str>, Problem> {
    let malformed =
        || Problem::malformed("Idempotency-Key must be 16 to 128 visible ASCII characters, once");
    match ask.header("idempotency-key") {
        Header::Absent => Ok(None),
        Header::Several => Err(malformed()),
        Header::One(value) => {
            let visible = value.iter().all(u8::is_ascii_graphic);
            let text = str::from_utf8(value).map_err(|_| malformed())?;
            if visible && IDEMPOTENCY_KEY_CHARS.contains(&text.len()) {
                Ok(Some(text))
            } else {
                Err(malformed())
            }
        }
    }
}

#[derive(Serialize)]
struct Slid<'a> {
    session: SessionView<'a>,
    csrf_token: String,
}

async fn slide(site: &Site, ask: &Ask, presented: &Presented<'_>) -> Result<Response, Problem> {
    match presented.bearer {
        Bearer::Absent => {}
        Bearer::Token(_) | Bearer::Malformed => {
            // It decides, but it is no refresh token.
            return Err(match prove(site, presented).await {
                Ok(_) => Refusal::RefreshTokenRequired.into(),
                Err(error) => refused_to_nobody(site, ask, error),
            });
        }
    }
    if presented.cookies.session.is_absent() {
        site.admit_network(ask)?;
        return Err(Refusal::RefreshTokenRequired.into());
    }
    let verified = authenticate(site, ask, Rules::USER).await?;
    let claims = verified.claims();
    let session = SessionView::in_use(&verified.session, &claims, site.authority.now());
    let csrf_token = site.authority.csrf_token(verified.session.sid);
    Ok(json(StatusCode::OK, &Slid { session, csrf_token }))
}
