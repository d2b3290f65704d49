//! `/oauth2/*`: introspection (RFC 7662), revocation (RFC 7009), refreshing (RFC 6749 section 6).
//!
//! Cookies count for nothing here, so a browser can't be made to call these for its user.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloakroom::{Introspection, Verified};
use cloakroom_core::event::Actor;
use cloakroom_core::refresh::Channel;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::token::access::AccessClaims;
use cloakroom_core::types::Secret;
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json as value};

use super::refresh::exchange;
use crate::gate::{Bearer, refused_to_nobody};
use crate::http::{Ask, json};
use crate::problem::{Code, Problem};
use crate::site::Site;
use crate::view::with_durability;

/// The scope that an API key needs to introspect; `admin` is all scopes.
const INTROSPECT: &str = "sessions:read";

/// Tells a backend what a token is. A token that doesn't count is `{"active": false}`, whatever
/// it is otherwise.
pub(super) async fn introspect(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    authorize(&site, &ask).await?;
    let mut form = ask.form().await?;
    let inactive = value!({"active": false});
    let Some(token) = form.take("token") else { return Ok(json(StatusCode::OK, &inactive)) };
    let body = match site.authority.introspect(&token).await? {
        None => inactive,
        Some(Introspection::Access(claims, _)) => of_access(&claims),
        Some(Introspection::Refresh(verified)) => of_session(&site, &verified, "refresh"),
        Some(Introspection::Session(verified)) => of_session(&site, &verified, "session"),
    };
    Ok(json(StatusCode::OK, &body))
}

/// Lets in whoever has an API key with the scope.
async fn authorize(site: &Site, ask: &Ask) -> Result<(), Problem> {
    let required = || Problem::new(Code::CredentialsRequired, "an API key is required");
    let Some(key) = api_key(ask.headers()) else {
        site.admit_network(ask)?;
        return Err(required());
    };
    let identity = match site.authority.authenticate_api_key(key.expose()).await {
        Ok(identity) => identity,
        Err(error) => return Err(refused_to_nobody(site, ask, error)),
    };
    let allowed = identity.is_root
        || identity.scopes.iter().any(|scope| scope == "admin" || scope == INTROSPECT);
    if allowed {
        Ok(())
    } else {
        Err(Problem::new(Code::InsufficientScope, "the API key lacks the scope sessions:read"))
    }
}

/// The key as a bearer token, or as the password of HTTP Basic (RFC 7617) under any name.
fn api_key(headers: &HeaderMap) -> Option<Secret<String>> {
    match Bearer::of(headers) {
        Bearer::Token(token) => return Some(Secret::new(token.to_owned())),
        Bearer::Malformed => return None,
        Bearer::Absent => {}
    }
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let pair = Secret::new(String::from_utf8(STANDARD.decode(rest).ok()?).ok()?);
    let (_, password) = pair.expose().split_once(':')?;
    (!password.is_empty()).then(|| Secret::new(password.to_owned()))
}

fn of_access(claims: &AccessClaims) -> Value {
    // Our own members last: a claim of the session's must not pass for one of them.
    let mut body = claims.claims.clone();
    let audience = match claims.audience.as_slice() {
        [one] => Value::from(one.as_str()),
        several => Value::from(several),
    };
    put(&mut body, "active", true);
    put(&mut body, "token_type", "Bearer");
    put(&mut body, "token_use", "access");
    put(&mut body, "iss", claims.issuer.as_str());
    put(&mut body, "sub", claims.subject.as_str());
    put(&mut body, "aud", audience);
    put(&mut body, "exp", claims.expires_at.as_secs());
    put(&mut body, "nbf", claims.not_before.as_secs());
    put(&mut body, "iat", claims.issued_at.as_secs());
    put(&mut body, "jti", claims.jti.as_str());
    put(&mut body, "sid", claims.sid.to_string());
    put(&mut body, "auth_time", claims.auth_time.as_secs());
    put(&mut body, "amr", claims.amr.as_slice());
    put(&mut body, "acr", claims.acr.as_str());
    put(&mut body, "epoch", claims.epoch);
    if let Some(actor) = &claims.actor {
        put(&mut body, "act", value!({"sub": actor.as_str()}));
    }
    Value::Object(body)
}

fn of_session(site: &Site, verified: &Verified, token_use: &str) -> Value {
    let session = &verified.session;
    let mut body = verified.claims();
    put(&mut body, "active", true);
    put(&mut body, "token_use", token_use);
    put(&mut body, "iss", site.config.token.issuer.as_str());
    put(&mut body, "sub", session.subject.as_ref().map(|subject| subject.as_str()));
    put(&mut body, "exp", session.idle_expires_at().as_secs());
    put(&mut body, "iat", session.created_at.as_secs());
    put(&mut body, "sid", session.sid.to_string());
    put(&mut body, "auth_time", session.auth_time.as_secs());
    put(&mut body, "amr", session.amr.as_slice());
    put(&mut body, "acr", session.acr.as_str());
    if let Some(actor) = &session.actor {
        put(&mut body, "act", value!({"sub": actor}));
    }
    Value::Object(body)
}

fn put(body: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    body.insert(name.to_owned(), value.into());
}

/// Ends the session of a token. Holding the token is enough (RFC 7009 section 2.1), and an unknown
/// one is as good as revoked (section 2.2).
pub(super) async fn revoke(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    site.admit_network(&ask)?;
    let mut form = ask.form().await?;
    let token = Secret::new(form.require("token")?);
    let ctx = ask.context(Actor::User(None), site.trusted());
    let ended = site.authority.revoke_token(token.expose(), &ctx).await?;
    let response = Response::new(Body::empty());
    Ok(with_durability(response, ended.map(|ended| ended.durability)))
}

/// A successful answer of the token endpoint (RFC 6749 section 5.1).
#[derive(Serialize)]
struct TokenAnswer<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_expires_in: Option<u64>,
}

/// Exchanges a refresh token for its successor. Whatever else a client asks for here (scope,
/// audience) widens nothing and is ignored.
pub(super) async fn token(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let mut form = ask.form().await?;
    if form.require("grant_type")? != "refresh_token" {
        site.admit_network(&ask)?;
        return Err(Problem::unsupported_grant());
    }
    let token = Secret::new(form.require("refresh_token")?);
    let opened = exchange(&site, &ask, token.expose(), Channel::Body).await;
    let opened = opened.map_err(Problem::as_invalid_grant)?;
    let Some(access) = &opened.access else {
        return Err(Problem::from(Refusal::TokenInvalid).as_invalid_grant());
    };
    let answer = TokenAnswer {
        access_token: access.token.expose(),
        token_type: "Bearer",
        expires_in: access.expires_in,
        refresh_token: opened.token.expose(),
        refresh_expires_in: opened.refresh_expires_in,
    };
    Ok(json(StatusCode::OK, &answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_in(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().expect("a header value"));
        api_key(&headers).map(|key| key.expose().clone())
    }

    #[test]
    fn l5_a_key_is_a_bearer_token_or_basics_password_and_never_its_name() {
        assert_eq!(key_in("Bearer cka_x").as_deref(), Some("cka_x"));
        let basic = |pair: &str| key_in(&format!("Basic {}", STANDARD.encode(pair)));
        assert_eq!(basic("shop:cka_x").as_deref(), Some("cka_x"));
        assert_eq!(basic(":cka_x").as_deref(), Some("cka_x"));
        assert_eq!(basic("cka_x:"), None);
        assert_eq!(basic("cka_x"), None);
        assert_eq!(key_in("Basic ~"), None);
        assert_eq!(key_in("Digest cka_x"), None);
    }
}
