//! The public listener: the session's own endpoints and the standard ones.

mod answer;
mod csrf;
mod login;
mod logout;
mod oauth;
mod password;
mod refresh;
mod register;
mod sessions;
mod standard;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, delete, get, post};

pub(crate) use refresh::idempotency_key;
pub use standard::standard_routes;
pub(crate) use standard::standard_templates;

use crate::config::Config;
use crate::site::Site;

/// A place and what answers there; the method is the handler's own.
type Place = (&'static str, fn() -> MethodRouter<Arc<Site>>);

/// Every endpoint below the base path, but for forward authentication, which is routed before them,
/// and `register`, which is there only where it is enabled.
static BELOW_BASE: [Place; 10] = [
    ("/login", || post(login::login)),
    ("/refresh", || post(refresh::refresh)),
    ("/logout", || post(logout::logout)),
    ("/logout/all", || post(logout::logout_all)),
    ("/session", || get(sessions::current)),
    ("/sessions", || get(sessions::list)),
    ("/sessions/{sid}", || delete(sessions::end)),
    ("/reauthenticate", || post(password::reauthenticate)),
    ("/password", || post(password::change)),
    ("/csrf-token", || get(csrf::token)),
];
const REGISTER: Place = ("/register", || post(register::register));
const VERIFY: [&str; 2] = ["/verify", "/verify/{policy}"];

fn below_base(config: &Config) -> impl Iterator<Item = Place> {
    BELOW_BASE.into_iter().chain(config.registration.enabled.then_some(REGISTER))
}

/// The routes of the public listener, but for forward authentication, which is routed before them.
pub fn routes(site: &Site) -> Router<Arc<Site>> {
    let base = site.config.server.base_path.as_str();
    below_base(&site.config).fold(standard_routes(), |router, (path, handler)| {
        router.route(&format!("{base}{path}"), handler())
    })
}

/// The templates of all routes of this listener, forward authentication's included.
pub(crate) fn templates(config: &Config) -> Vec<String> {
    let base = config.server.base_path.as_str();
    let paths = below_base(config).map(|(path, _)| path).chain(VERIFY);
    paths.map(|path| format!("{base}{path}")).chain(standard_templates()).collect()
}
