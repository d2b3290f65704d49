//! The OpenAPI 3.1 document of both listeners, and the page that shows it.
//!
//! It is made from the same enums and tables which the server answers by: codes, scopes, reasons,
//! event types and limits. Tests walk the routes against it, and judge every answer by it.

mod admin;
mod codes;
mod headers;
mod operation;
mod page;
mod public;
mod schemas;
mod shape;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cloakroom_core::cookie::CookieKind;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use self::operation::{Operation, Served};
use crate::config::Config;
use crate::problem::{Code, Problem};
use crate::site::Site;

pub(crate) use self::page::read as read_page;

/// The document of a node.
pub fn document(site: &Site) -> Value {
    let config = &site.config;
    let schemas = schemas::all();
    let mut responses = Map::new();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations(config) {
        let rendered = operation.render(&schemas, &mut responses);
        let place = paths
            .entry(operation.path.clone())
            .or_insert_with(|| json!({"servers": servers(config, operation.served)}));
        place[operation.method] = rendered;
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": info(),
        "servers": servers(config, Served::Both),
        "tags": tags(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            "headers": headers::components(),
            "securitySchemes": security_schemes(site),
        },
    });
    retain_named(&mut document, "headers");
    retain_named(&mut document, "schemas");
    document
}

/// Leaves out what nothing refers to, but for the problem that only unknown methods are answered.
fn retain_named(document: &mut Value, kind: &str) {
    let text = document.to_string();
    if let Some(components) = document["components"][kind].as_object_mut() {
        components.retain(|name, _| {
            let target = format!("\"#/components/{kind}/{name}\"");
            text.contains(&target) || *name == codes::schema_name(Code::MethodNotAllowed)
        });
    }
}

/// The names of headers that mean something in the document: an answer that carries one of them
/// has to have it there.
pub fn header_names() -> impl Iterator<Item = &'static str> {
    headers::names()
}

/// Answers the document.
pub(crate) async fn read(State(site): State<Arc<Site>>) -> Result<Response, Problem> {
    Ok(crate::http::json(StatusCode::OK, &document(&site)))
}

fn operations(config: &Config) -> Vec<Operation> {
    let mut all = public::operations(config.server.base_path.as_str());
    all.extend(public::standard());
    all.extend(admin::operations());
    all
}

fn info() -> Value {
    json!({
        "title": "Cloakroom",
        "version": env!("CARGO_PKG_VERSION"),
        "summary": "Sessions: signing in, refreshing, verifying and ending them.",
        "description": ABOUT,
        "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT"},
    })
}

const ABOUT: &str = "\
Two listeners: the public one, which browsers and clients reach, and the admin one, for the \
operator and backends. Each path names its server.

Errors are `application/problem+json` (RFC 9457) with a stable `code`; below `/oauth2` they are as \
RFC 6749 section 5.2 has them. A path that isn't here answers 404 `not_found` (below `/admin` only \
to who has a key), another method of one that is answers 405 `method_not_allowed` with `Allow`. \
Every answer carries `X-Request-Id`.";

/// The groups of operations, in the order of reading.
const TAGS: [(&str, &str); 12] = [
    ("session", "A user's own session: sign in, refresh, sign out."),
    ("forward authentication", "What gateways ask for each request."),
    ("standard", "Keys, metadata, tokens and health, as standards define them."),
    ("sessions", "Sessions, for backends and the operator."),
    ("data", "A session's data, with versions."),
    ("handles", "Sessions under an id that another framework mints."),
    ("subjects", "Whose sessions are: epoch, claims, erasure."),
    ("users", "The directory."),
    ("keys", "Signing keys, and single tokens."),
    ("API keys", "Keys of backends."),
    ("events", "The audit log and the revocation feed."),
    ("upkeep", "Figures, clean-up, this document."),
];

fn tags() -> Value {
    TAGS.map(|(name, about)| json!({"name": name, "description": about})).into_iter().collect()
}

fn servers(config: &Config, served: Served) -> Value {
    let public = json!({
        "url": config.server.origin.to_string(),
        "description": "The public listener.",
    });
    let admin = json!({
        "url": "http://localhost:{port}",
        "description": "The admin listener, never reachable by browsers of the public.",
        "variables": {"port": {"default": "7401", "description": "By `server.admin`."}},
    });
    match served {
        Served::Public => json!([public]),
        Served::Admin => json!([admin]),
        Served::Both => json!([public, admin]),
    }
}

fn security_schemes(site: &Site) -> Value {
    let names = site.cookies.names();
    json!({
        "sessionCookie": {"type": "apiKey", "in": "cookie", "name": names.of(CookieKind::Session),
            "description": "The cookie of a `cookie` session; what isn't GET also needs \
                            `X-CSRF-Token`."},
        "refreshCookie": {"type": "apiKey", "in": "cookie", "name": names.of(CookieKind::Refresh),
            "description": "The refresh token of a `split` session."},
        "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "An access token (RFC 9068)."},
        "apiKey": {"type": "http", "scheme": "bearer", "bearerFormat": "cka_…",
            "description": "An API key; the scope is the role that is named."},
        "apiKeyAsPassword": {"type": "http", "scheme": "basic",
            "description": "An API key as the password, under any name."},
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Flags, Loaded, Surroundings};

    fn config(base: &str) -> Config {
        let variables = [
            ("CLOAKROOM_STORE__URL", "memory:"),
            ("CLOAKROOM_REGISTRATION__ENABLED", "true"),
            ("CLOAKROOM_SERVER__BASE_PATH", base),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let surroundings = Surroundings { variables: variables.into(), ..Surroundings::bare() };
        *Loaded::read(&Flags::default(), &surroundings).outcome.expect("a good configuration")
    }

    #[test]
    fn the_document_has_the_paths_of_the_route_tables_and_no_others() {
        for base in ["/auth", "/a/b"] {
            let config = config(base);
            let mut routed: BTreeSet<String> =
                crate::public::templates(&config).into_iter().collect();
            routed.extend(crate::admin::templates());
            // What no endpoint has isn't an endpoint.
            routed.retain(|path| !path.contains('*'));
            let documented: BTreeSet<String> =
                operations(&config).into_iter().map(|operation| operation.path).collect();
            assert_eq!(documented, routed);
        }
    }

    #[test]
    fn every_operation_has_a_group_that_is_told() {
        for operation in operations(&config("/auth")) {
            assert!(TAGS.iter().any(|(name, _)| *name == operation.tag), "{}", operation.id);
        }
    }
}
