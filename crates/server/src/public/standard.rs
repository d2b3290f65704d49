//! What standards define: keys, metadata, tokens, health. Served by both listeners.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use cloakroom_core::limits::JWKS_CACHE;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde_json::json as object;

use super::{Place, oauth};
use crate::http::json;
use crate::problem::{Code, Problem};
use crate::site::Site;
use crate::store::DRIFT_MAX;

/// The endpoints of section 7 of the HTTP contract.
static STANDARD: [Place; 7] = [
    ("/.well-known/jwks.json", || get(jwks)),
    ("/.well-known/oauth-authorization-server", || get(metadata)),
    ("/oauth2/introspect", || post(oauth::introspect)),
    ("/oauth2/revoke", || post(oauth::revoke)),
    ("/oauth2/token", || post(oauth::token)),
    ("/healthz", || get(healthz)),
    ("/readyz", || get(readyz)),
];

/// Their routes.
pub fn standard_routes() -> Router<Arc<Site>> {
    STANDARD.iter().fold(Router::new(), |router, (path, handler)| router.route(path, handler()))
}

/// The templates of these routes.
pub(crate) fn standard_templates() -> impl Iterator<Item = String> {
    STANDARD.iter().map(|(path, _)| (*path).to_owned())
}

/// The public keys (RFC 7517 section 5).
async fn jwks(State(site): State<Arc<Site>>) -> Response {
    cacheable(json(StatusCode::OK, &site.authority.jwks()))
}

/// Where everything is (RFC 8414). All of it from the settings: a `Host` says nothing here.
async fn metadata(State(site): State<Arc<Site>>) -> Response {
    let origin = &site.config.server.origin;
    let at = |path: &str| format!("{origin}{path}");
    let body = object!({
        "issuer": site.config.token.issuer,
        "jwks_uri": at("/.well-known/jwks.json"),
        "token_endpoint": at("/oauth2/token"),
        "introspection_endpoint": at("/oauth2/introspect"),
        "revocation_endpoint": at("/oauth2/revoke"),
        "grant_types_supported": ["refresh_token"],
        // Required by the RFC; there is no authorization endpoint.
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["Bearer", "client_secret_basic"],
    });
    cacheable(json(StatusCode::OK, &body))
}

fn cacheable(mut response: Response) -> Response {
    let secs = JWKS_CACHE.as_secs();
    if let Ok(value) = HeaderValue::try_from(format!("public, max-age={secs}")) {
        response.headers_mut().insert(CACHE_CONTROL, value);
    }
    response
}

/// Whether the process answers at all.
async fn healthz() -> Response {
    json(StatusCode::OK, &object!({"status": "ok"}))
}

/// Whether it can do its work, and will go on doing it.
async fn readyz(State(site): State<Arc<Site>>) -> Result<Response, Problem> {
    if site.is_draining() {
        return Err(Problem::new(Code::Overloaded, "this node is about to stop"));
    }
    site.authority.ready().await?;
    let store = site.authority.store();
    let watch = &site.store_watch;
    watch.look(store).await.map_err(cloakroom::Error::from)?;
    if watch.drift() > DRIFT_MAX {
        return Err(Problem::clock_is_off(watch.ahead_ms()));
    }
    let mut body = object!({
        "status": "ready",
        "store": store.name(),
        "durability": crate::view::durability_name(watch.promise()),
    });
    if store.is_shared() {
        body["store_clock_ahead_ms"] = watch.ahead_ms().into();
    }
    Ok(json(StatusCode::OK, &body))
}
