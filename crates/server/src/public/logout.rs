//! POST `/auth/logout` and `/auth/logout/all`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use cloakroom::Credential;
use cloakroom_core::cookie::OwnCookies;
use cloakroom_core::event::Actor;
use cloakroom_store::Durability;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde::Serialize;

use super::answer::clear_cookies;
use crate::gate::{
    Bearer, Presented, Rules, actor_of, authenticate, check_csrf, check_provenance, of_cookies, one,
};
use crate::http::{Ask, Need, json};
use crate::problem::Problem;
use crate::site::Site;
use crate::view::with_durability;

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Signs the current session out and clears its cookies.
///
/// A dead or forged credential ends nothing, and is cleared all the same: nobody should be stuck
/// with it. A fault of the store clears nothing: the session may still live.
pub(super) async fn logout(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let mut members = ask.members(Need::Optional).await?;
    let in_body = members.opt_secret("refresh_token")?;
    members.finish()?;
    let presented = Presented::of(ask.headers(), site.cookies.names());
    let credentials = match (presented.bearer, &in_body) {
        (Bearer::Token(token), _) => {
            site.admit_network(&ask)?;
            vec![Credential::Access(token)]
        }
        (Bearer::Malformed, _) => {
            site.admit_network(&ask)?;
            Vec::new()
        }
        (Bearer::Absent, Some(token)) => {
            site.admit_network(&ask)?;
            vec![Credential::Refresh(token.expose())]
        }
        (Bearer::Absent, None) => by_cookies(&site, &ask, &presented.cookies).await?,
    };
    let ctx = ask.context(Actor::User(None), site.trusted());
    let mut durability: Option<Durability> = None;
    for credential in credentials {
        if let Some(ended) = site.authority.logout(credential, &ctx).await? {
            // The weakest promise is the one that holds for all of it.
            let weakest = durability.map_or(ended.durability, |other| other.min(ended.durability));
            durability = Some(weakest);
        }
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    signed_out(&site, &mut response, &presented.cookies);
    Ok(with_durability(response, durability))
}

/// The cookies to end, after the request proved that one of our own pages sent it.
async fn by_cookies<'a>(
    site: &Site,
    ask: &Ask,
    cookies: &OwnCookies<'a>,
) -> Result<Vec<Credential<'a>>, Problem> {
    match of_cookies(site, cookies).await? {
        Some(verified) => {
            check_csrf(site, ask, verified.session.sid)?;
        }
        None => {
            // Nothing to end, but another site must not make a browser drop its cookies either.
            check_provenance(site, ask)?;
        }
    }
    site.admit_network(ask)?;
    let session = one(cookies.session).map(Credential::Cookie);
    let refresh = one(cookies.refresh).map(Credential::Refresh);
    Ok([session, refresh].into_iter().flatten().collect())
}

#[derive(Serialize)]
struct Revoked {
    revoked: usize,
}

/// Signs the user out everywhere; the current session may stay.
pub(super) async fn logout_all(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let verified = authenticate(&site, &ask, Rules::SIGN_OUT).await?;
    let mut members = ask.members(Need::Optional).await?;
    let keep_current = members.opt_bool("keep_current")?.unwrap_or(false);
    members.finish()?;
    let ctx = ask.context(actor_of(&verified), site.trusted());
    let ended = site.authority.end_all_own(&verified, keep_current, &ctx).await?;
    let mut response = json(StatusCode::OK, &Revoked { revoked: ended.revoked });
    if !keep_current {
        let presented = Presented::of(ask.headers(), site.cookies.names());
        signed_out(&site, &mut response, &presented.cookies);
    }
    Ok(with_durability(response, Some(ended.durability)))
}

/// Removes our cookies, and what the browser kept of the pages that they showed.
pub(super) fn signed_out(site: &Site, response: &mut Response, sent: &OwnCookies<'_>) {
    clear_cookies(site, response.headers_mut(), sent, None);
    let cache = HeaderValue::from_static("\"cache\"");
    response.headers_mut().insert(CLEAR_SITE_DATA, cache);
}
