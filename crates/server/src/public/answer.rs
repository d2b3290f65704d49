//! Answers with credentials, and the headers of an ending.

use axum::response::Response;
use cloakroom::Opened;
use cloakroom_core::cookie::{CookieKind, OwnCookies};
use cloakroom_core::session::Delivery;
use hyper::header::{HeaderValue, SET_COOKIE};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::http::json;
use crate::site::Site;
use crate::view::{SessionView, with_durability};

/// A sign-in's or a refresh's body: each delivery has its own members.
#[derive(Serialize)]
struct Credentials<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_expires_in: Option<u64>,
    session: SessionView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
}

/// Hands a session's credentials to its client, each where its delivery has it.
pub(super) fn credentials(site: &Site, opened: &Opened) -> Response {
    let session = &opened.session;
    let access = opened.access.as_ref();
    let in_cookie = match session.delivery {
        Delivery::Cookie | Delivery::Split => true,
        Delivery::Bearer => false,
    };
    let body = Credentials {
        access_token: access.map(|access| access.token.expose().as_str()),
        token_type: access.map(|_| "Bearer"),
        expires_in: access.map(|access| access.expires_in),
        refresh_token: (!in_cookie).then(|| opened.token.expose().as_str()),
        refresh_expires_in: opened.refresh_expires_in,
        session: SessionView::in_use(session, &opened.claims, site.authority.now()),
        csrf_token: in_cookie.then(|| site.authority.csrf_token(session.sid)),
    };
    let mut response = json(StatusCode::OK, &body);
    if let Some(kind) = cookie_of(session.delivery) {
        // Never longer than the session; without `remember`, as long as the browser.
        let left = session.expires_at.since(site.authority.now());
        let max_age = session.remember.then_some(left);
        let line = site.cookies.set(kind, opened.token.expose(), max_age);
        append_cookie(response.headers_mut(), &line);
    }
    with_durability(response, opened.ended)
}

/// Removes the cookies that a sign-in superseded: whatever the browser sent and `kept` isn't.
pub(super) fn clear_cookies(
    site: &Site,
    headers: &mut HeaderMap,
    sent: &OwnCookies<'_>,
    kept: Option<CookieKind>,
) {
    for (kind, given) in [
        (CookieKind::Session, sent.session),
        (CookieKind::Refresh, sent.refresh),
        (CookieKind::Csrf, sent.csrf),
    ] {
        if !given.is_absent() && kept != Some(kind) {
            append_cookie(headers, &site.cookies.clear(kind));
        }
    }
}

/// The cookie that carries the credential of this delivery.
pub(super) const fn cookie_of(delivery: Delivery) -> Option<CookieKind> {
    match delivery {
        Delivery::Cookie => Some(CookieKind::Session),
        Delivery::Split => Some(CookieKind::Refresh),
        Delivery::Bearer => None,
    }
}

pub(super) fn append_cookie(headers: &mut HeaderMap, line: &str) {
    match HeaderValue::from_str(line) {
        Ok(mut value) => {
            value.set_sensitive(true);
            headers.append(SET_COOKIE, value);
        }
        Err(_) => tracing::error!("a cookie of ours is no header value"),
    }
}
