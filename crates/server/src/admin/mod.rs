//! The admin listener: the operator's and the backends' endpoints, one file per resource.
//!
//! `ROUTES` is the one table of what there is, and which scope each needs.

mod api_keys;
mod data;
mod end_all;
mod events;
mod guard;
mod handles;
mod keys;
mod listeners;
mod open;
mod query;
mod revocations;
mod sessions;
mod sse;
mod stats;
mod subjects;
mod tokens;
mod users;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, any, delete, get, patch, post, put};
use hyper::Method;

use crate::problem::Problem;
use crate::site::Site;

pub use guard::Scope;
pub use listeners::Listeners;

/// One endpoint: its method, its path, what a key needs for it, and what answers.
struct Endpoint {
    method: Method,
    path: &'static str,
    scope: Scope,
    handler: fn() -> MethodRouter<Arc<Site>>,
}

const fn at(
    method: Method,
    path: &'static str,
    scope: Scope,
    handler: fn() -> MethodRouter<Arc<Site>>,
) -> Endpoint {
    Endpoint { method, path, scope, handler }
}

use Scope::{Admin, Events, Keys, SessionsRead, SessionsWrite, UsersRead, UsersWrite};

const SESSIONS: &str = "/admin/v1/sessions";
const SESSION: &str = "/admin/v1/sessions/{sid}";
const DATA: &str = "/admin/v1/sessions/{sid}/data";
const SUBJECT: &str = "/admin/v1/subjects/{subject}";
const SUBJECT_SESSIONS: &str = "/admin/v1/subjects/{subject}/sessions";
const API_KEYS: &str = "/admin/v1/api-keys";
const API_KEY: &str = "/admin/v1/api-keys/{id}";
const REVOCATION_STREAM: &str = "/admin/v1/revocations/stream";
const HANDLE: &str = "/admin/v1/handles/{handle}";
const USERS: &str = "/admin/v1/users";
const USER: &str = "/admin/v1/users/{id}";

/// The page of the OpenAPI document: for people, who have no key in their browser. It tells nothing
/// of this node.
const REFERENCE: &str = "/openapi";

/// Every endpoint that needs a key.
static ROUTES: [Endpoint; 42] = [
    at(Method::POST, SESSIONS, SessionsWrite, || post(open::open)),
    at(Method::GET, SESSIONS, SessionsRead, || get(sessions::list)),
    at(Method::POST, "/admin/v1/sessions/verify", SessionsRead, || post(sessions::verify)),
    at(Method::POST, "/admin/v1/sessions/touch", SessionsWrite, || post(sessions::touch)),
    at(Method::POST, "/admin/v1/sessions/end-all", Admin, || post(end_all::end_all)),
    at(Method::GET, SESSION, SessionsRead, || get(sessions::read)),
    at(Method::PATCH, SESSION, SessionsWrite, || patch(sessions::change)),
    at(Method::DELETE, SESSION, SessionsWrite, || delete(sessions::end)),
    at(Method::GET, DATA, SessionsRead, || get(data::read)),
    at(Method::PUT, DATA, SessionsWrite, || put(data::replace)),
    at(Method::PATCH, DATA, SessionsWrite, || patch(data::change)),
    at(Method::GET, HANDLE, SessionsRead, || get(handles::read)),
    at(Method::PUT, HANDLE, SessionsWrite, || put(handles::put)),
    at(Method::DELETE, HANDLE, SessionsWrite, || delete(handles::delete)),
    at(Method::GET, SUBJECT_SESSIONS, SessionsRead, || get(subjects::sessions)),
    at(Method::DELETE, SUBJECT_SESSIONS, SessionsWrite, || delete(subjects::sign_out)),
    at(Method::GET, SUBJECT, UsersRead, || get(subjects::read)),
    at(Method::PATCH, SUBJECT, UsersWrite, || patch(subjects::change)),
    at(Method::DELETE, SUBJECT, UsersWrite, || delete(subjects::erase)),
    at(Method::POST, "/admin/v1/tokens/revoke", SessionsWrite, || post(tokens::revoke)),
    at(Method::GET, USERS, UsersRead, || get(users::list)),
    at(Method::POST, USERS, UsersWrite, || post(users::create)),
    at(Method::GET, USER, UsersRead, || get(users::read)),
    at(Method::PATCH, USER, UsersWrite, || patch(users::change)),
    at(Method::DELETE, USER, UsersWrite, || delete(users::delete)),
    at(Method::POST, "/admin/v1/users/{id}/reset", UsersWrite, || post(users::reset)),
    at(Method::GET, "/admin/v1/stats", Admin, || get(stats::read)),
    at(Method::GET, "/admin/v1/keys", Keys, || get(keys::list)),
    at(Method::POST, "/admin/v1/keys/rotate", Keys, || post(keys::rotate)),
    at(Method::POST, "/admin/v1/keys/rewrap", Keys, || post(keys::rewrap)),
    at(Method::POST, "/admin/v1/keys/{kid}/revoke", Keys, || post(keys::revoke)),
    at(Method::GET, API_KEYS, Admin, || get(api_keys::list)),
    at(Method::POST, API_KEYS, Admin, || post(api_keys::create)),
    at(Method::DELETE, API_KEY, Admin, || delete(api_keys::delete)),
    at(Method::GET, "/admin/v1/events", Events, || get(events::list)),
    at(Method::GET, "/admin/v1/events/stream", Events, || get(events::stream)),
    at(Method::GET, "/admin/v1/revocations", SessionsRead, || get(revocations::snapshot)),
    at(Method::GET, REVOCATION_STREAM, SessionsRead, || get(revocations::stream)),
    at(Method::POST, "/admin/v1/sweep", Admin, || post(end_all::sweep)),
    at(Method::GET, "/metrics", Scope::Any, || get(crate::metrics::read)),
    at(Method::GET, "/openapi.json", Scope::Any, || get(crate::openapi::read)),
    // What no endpoint has: only who holds a key learns that it isn't there.
    at(Method::OPTIONS, "/admin/{*rest}", Scope::Any, || any(nothing_here)),
];

/// What is served on the admin listener: the endpoints of this module behind their scopes, and
/// `standard` as it is, all of it for requests to this listener's own name only.
pub fn routes(site: &Arc<Site>, standard: Router<Arc<Site>>) -> Router<Arc<Site>> {
    let endpoints = ROUTES
        .iter()
        .fold(Router::new(), |router, endpoint| router.route(endpoint.path, (endpoint.handler)()));
    let key = axum::middleware::from_fn_with_state(Arc::clone(site), guard::require_scope);
    let own = axum::middleware::from_fn_with_state(Arc::clone(site), guard::require_own_name);
    endpoints
        .layer(key)
        .merge(standard)
        .route(REFERENCE, get(crate::openapi::read_page))
        .route("/{*rest}", any(nothing_here))
        .route("/", any(nothing_here))
        .layer(own)
}

/// The templates of all routes of this listener.
pub(crate) fn templates() -> Vec<String> {
    let own = ROUTES.iter().map(|endpoint| endpoint.path.to_owned());
    own.chain([REFERENCE.to_owned()]).chain(crate::public::standard_templates()).collect()
}

/// Method, path and scope of every endpoint, for tests and for whoever describes them.
pub fn table() -> impl Iterator<Item = (&'static Method, &'static str, Scope)> {
    ROUTES.iter().map(|endpoint| (&endpoint.method, endpoint.path, endpoint.scope))
}

async fn nothing_here() -> Problem {
    Problem::not_found()
}
