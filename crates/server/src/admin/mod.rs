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
use axum::routing::{MethodFilter, MethodRouter, any, get, on};
use hyper::Method;

use crate::problem::Problem;
use crate::site::Site;

pub use guard::Scope;
pub use listeners::Listeners;

/// One endpoint: its method, its path, what a key needs for it, what it reads, and what answers.
struct Endpoint {
    method: &'static Method,
    path: &'static str,
    scope: Scope,
    reads: Reads,
    /// Its part of the router, for this method and no other.
    route: fn(MethodFilter) -> MethodRouter<Arc<Site>>,
    filter: MethodFilter,
}

/// A method, and what the router calls it.
#[derive(Clone, Copy)]
struct Verb(&'static Method, MethodFilter);

const GET: Verb = Verb(&Method::GET, MethodFilter::GET);
const POST: Verb = Verb(&Method::POST, MethodFilter::POST);
const PUT: Verb = Verb(&Method::PUT, MethodFilter::PUT);
const PATCH: Verb = Verb(&Method::PATCH, MethodFilter::PATCH);
const DELETE: Verb = Verb(&Method::DELETE, MethodFilter::DELETE);

/// What an endpoint reads of a request beside its path and headers. The rest has to be empty: who
/// sends something there believes that it does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// Neither query nor body.
    Nothing,
    /// Its query.
    Query,
    /// Its body.
    Body,
}

const fn at(
    Verb(method, filter): Verb,
    path: &'static str,
    scope: Scope,
    reads: Reads,
    route: fn(MethodFilter) -> MethodRouter<Arc<Site>>,
) -> Endpoint {
    Endpoint { method, path, scope, reads, route, filter }
}

use Reads::{Body, Nothing, Query};
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

/// What no endpoint has: only who holds a key learns that it isn't there.
const NOTHING: &str = "/admin/{*rest}";

/// Every endpoint that needs a key.
static ROUTES: [Endpoint; 41] = [
    at(POST, SESSIONS, SessionsWrite, Body, |m| on(m, open::open)),
    at(GET, SESSIONS, SessionsRead, Query, |m| on(m, sessions::list)),
    at(POST, "/admin/v1/sessions/verify", SessionsRead, Body, |m| on(m, sessions::verify)),
    at(POST, "/admin/v1/sessions/touch", SessionsWrite, Body, |m| on(m, sessions::touch)),
    at(POST, "/admin/v1/sessions/end-all", Admin, Nothing, |m| on(m, end_all::end_all)),
    at(GET, SESSION, SessionsRead, Nothing, |m| on(m, sessions::read)),
    at(PATCH, SESSION, SessionsWrite, Body, |m| on(m, sessions::change)),
    at(DELETE, SESSION, SessionsWrite, Query, |m| on(m, sessions::end)),
    at(GET, DATA, SessionsRead, Nothing, |m| on(m, data::read)),
    at(PUT, DATA, SessionsWrite, Body, |m| on(m, data::replace)),
    at(PATCH, DATA, SessionsWrite, Body, |m| on(m, data::change)),
    at(GET, HANDLE, SessionsRead, Nothing, |m| on(m, handles::read)),
    at(PUT, HANDLE, SessionsWrite, Body, |m| on(m, handles::put)),
    at(DELETE, HANDLE, SessionsWrite, Nothing, |m| on(m, handles::delete)),
    at(GET, SUBJECT_SESSIONS, SessionsRead, Nothing, |m| on(m, subjects::sessions)),
    at(DELETE, SUBJECT_SESSIONS, SessionsWrite, Nothing, |m| on(m, subjects::sign_out)),
    at(GET, SUBJECT, UsersRead, Nothing, |m| on(m, subjects::read)),
    at(PATCH, SUBJECT, UsersWrite, Body, |m| on(m, subjects::change)),
    at(DELETE, SUBJECT, UsersWrite, Nothing, |m| on(m, subjects::erase)),
    at(POST, "/admin/v1/tokens/revoke", SessionsWrite, Body, |m| on(m, tokens::revoke)),
    at(GET, USERS, UsersRead, Query, |m| on(m, users::list)),
    at(POST, USERS, UsersWrite, Body, |m| on(m, users::create)),
    at(GET, USER, UsersRead, Nothing, |m| on(m, users::read)),
    at(PATCH, USER, UsersWrite, Body, |m| on(m, users::change)),
    at(DELETE, USER, UsersWrite, Nothing, |m| on(m, users::delete)),
    at(POST, "/admin/v1/users/{id}/reset", UsersWrite, Nothing, |m| on(m, users::reset)),
    at(GET, "/admin/v1/stats", Admin, Nothing, |m| on(m, stats::read)),
    at(GET, "/admin/v1/keys", Keys, Nothing, |m| on(m, keys::list)),
    at(POST, "/admin/v1/keys/rotate", Keys, Nothing, |m| on(m, keys::rotate)),
    at(POST, "/admin/v1/keys/rewrap", Keys, Nothing, |m| on(m, keys::rewrap)),
    at(POST, "/admin/v1/keys/{kid}/revoke", Keys, Nothing, |m| on(m, keys::revoke)),
    at(GET, API_KEYS, Admin, Query, |m| on(m, api_keys::list)),
    at(POST, API_KEYS, Admin, Body, |m| on(m, api_keys::create)),
    at(DELETE, API_KEY, Admin, Nothing, |m| on(m, api_keys::delete)),
    at(GET, "/admin/v1/events", Events, Query, |m| on(m, events::list)),
    at(GET, "/admin/v1/events/stream", Events, Nothing, |m| on(m, events::stream)),
    at(GET, "/admin/v1/revocations", SessionsRead, Nothing, |m| on(m, revocations::snapshot)),
    at(GET, REVOCATION_STREAM, SessionsRead, Nothing, |m| on(m, revocations::stream)),
    at(POST, "/admin/v1/sweep", Admin, Nothing, |m| on(m, end_all::sweep)),
    at(GET, "/metrics", Scope::Any, Nothing, |m| on(m, crate::metrics::read)),
    at(GET, "/openapi.json", Scope::Any, Nothing, |m| on(m, crate::openapi::read)),
];

/// What is served on the admin listener: the endpoints of this module behind their scopes, and
/// `standard` as it is, all of it for requests to this listener's own name only.
pub fn routes(site: &Arc<Site>, standard: Router<Arc<Site>>) -> Router<Arc<Site>> {
    let endpoints = ROUTES.iter().fold(Router::new(), |router, endpoint| {
        router.route(endpoint.path, (endpoint.route)(endpoint.filter))
    });
    let key = axum::middleware::from_fn_with_state(Arc::clone(site), guard::require_scope);
    let own = axum::middleware::from_fn_with_state(Arc::clone(site), guard::require_own_name);
    endpoints
        .route(NOTHING, any(nothing_here))
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
    own.chain([NOTHING.to_owned(), REFERENCE.to_owned()])
        .chain(crate::public::standard_templates())
        .collect()
}

/// Method, path and scope of every endpoint, for tests and for whoever describes them.
pub fn table() -> impl Iterator<Item = (&'static Method, &'static str, Scope)> {
    ROUTES.iter().map(|endpoint| (endpoint.method, endpoint.path, endpoint.scope))
}

async fn nothing_here() -> Problem {
    Problem::not_found()
}
