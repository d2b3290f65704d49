//! GET `/auth/csrf-token`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cloakroom_core::cookie::CookieKind;
use cloakroom_core::types::Sid;
use hyper::StatusCode;
use serde::Serialize;

use super::answer::append_cookie;
use crate::gate::{Bearer, Presented, of_cookies, one, prove, refused_to_nobody};
use crate::http::{Ask, json};
use crate::problem::Problem;
use crate::site::{Meter, Site};

#[derive(Serialize)]
struct Token {
    csrf_token: String,
}

/// A CSRF token for the current session, or, before sign-in, for the `csrf` cookie that comes
/// with it. Stores nothing.
pub(super) async fn token(State(site): State<Arc<Site>>, ask: Ask) -> Result<Response, Problem> {
    let presented = Presented::of(ask.headers(), site.cookies.names());
    let verified = match presented.bearer {
        Bearer::Absent => of_cookies(&site, &presented.cookies).await?,
        Bearer::Token(_) | Bearer::Malformed => match prove(&site, &presented).await {
            Ok(verified) => Some(verified),
            Err(error) => return Err(refused_to_nobody(&site, &ask, error)),
        },
    };
    if let Some(verified) = verified {
        site.admit(ask.asked(), verified.meters(), Meter::Session)?;
        let csrf_token = site.authority.csrf_token(verified.session.sid);
        return Ok(json(StatusCode::OK, &Token { csrf_token }));
    }
    site.admit_network(&ask)?;
    // A well-formed cookie is kept, so that a second tab doesn't void the first one's form.
    let kept = one(presented.cookies.csrf).filter(|text| text.parse::<Sid>().is_ok());
    let cookie = kept.map_or_else(|| site.authority.pre_csrf_cookie(), str::to_owned);
    let csrf_token = site.authority.pre_csrf_token(&cookie);
    let mut response = json(StatusCode::OK, &Token { csrf_token });
    append_cookie(response.headers_mut(), &site.cookies.set(CookieKind::Csrf, &cookie, None));
    Ok(response)
}
