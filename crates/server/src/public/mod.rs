//! The public listener: the session's own endpoints and the standard ones.

mod answer;
mod csrf;
mod device;
mod gate;
mod login;
mod logout;
mod oauth;
mod password;
mod refresh;
mod register;
mod sessions;
mod standard;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post};

pub use answer::{durability_name, with_durability};
pub(crate) use gate::{Presented, prove, request_origin};
pub use standard::standard_routes;
pub(crate) use standard::standard_templates;
pub use view::{SessionView, rfc3339};

use crate::config::Config;
use crate::site::Site;

/// The routes of the public listener, but for forward authentication, which is routed before them.
pub fn routes(site: &Site) -> Router<Arc<Site>> {
    let base = site.config.server.base_path.as_str();
    let at = |path: &str| format!("{base}{path}");
    let router = Router::new()
        .route(&at("/login"), post(login::login))
        .route(&at("/refresh"), post(refresh::refresh))
        .route(&at("/logout"), post(logout::logout))
        .route(&at("/logout/all"), post(logout::logout_all))
        .route(&at("/session"), get(sessions::current))
        .route(&at("/sessions"), get(sessions::list))
        .route(&at("/sessions/{sid}"), delete(sessions::end))
        .route(&at("/reauthenticate"), post(password::reauthenticate))
        .route(&at("/password"), post(password::change))
        .route(&at("/csrf-token"), get(csrf::token))
        .merge(standard_routes());
    if site.config.registration.enabled {
        router.route(&at("/register"), post(register::register))
    } else {
        router
    }
}

/// The templates of all routes of this listener, as [`routes`] has them, and forward
/// authentication's.
pub(crate) fn templates(config: &Config) -> Vec<String> {
    const BELOW_BASE: [&str; 12] = [
        "/login",
        "/refresh",
        "/logout",
        "/logout/all",
        "/session",
        "/sessions",
        "/sessions/{sid}",
        "/reauthenticate",
        "/password",
        "/csrf-token",
        "/verify",
        "/verify/{policy}",
    ];
    let base = config.server.base_path.as_str();
    let register = config.registration.enabled.then_some("/register");
    let own = BELOW_BASE.into_iter().chain(register).map(|path| format!("{base}{path}"));
    own.chain(standard_templates()).collect()
}
