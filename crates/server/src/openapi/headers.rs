//! The headers of answers.

use serde_json::{Map, Value, json};

/// The headers by name: as one that is always there, and as one that may be.
pub(super) fn components() -> Map<String, Value> {
    let mut components = Map::new();
    for (name, about, schema) in all() {
        let header =
            |required: bool| json!({"description": about, "required": required, "schema": schema});
        components.insert(name.to_owned(), header(true));
        components.insert(format!("{name}.maybe"), header(false));
    }
    components
}

/// The names of all headers that an answer must not have undocumented.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    all().into_iter().map(|(name, ..)| name)
}

fn all() -> Vec<(&'static str, &'static str, Value)> {
    let text = |example: &str| json!({"type": "string", "examples": [example]});
    vec![
        (
            "X-Request-Id",
            "The request's own id if it was 1 to 128 visible ASCII characters and nothing in it \
             looks like a credential of ours, else a fresh one.",
            json!({"type": "string", "minLength": 1, "maxLength": 128,
                "examples": [super::codes::REQUEST_ID]}),
        ),
        (
            "Cloakroom-Durability",
            "What the store promises about the ending that this answers.",
            json!({"type": "string", "enum": ["durable", "replicated", "local"]}),
        ),
        ("Location", "Where what was made is.", text("/admin/v1/users/usr_01JH6Z3V4Q")),
        ("ETag", "The version of the session's data.", text("\"7\"")),
        ("Set-Cookie", "The session's cookies, or their removal.", text("session=cks_…; HttpOnly")),
        ("Clear-Site-Data", "Drops what the browser keeps of our pages.", text("\"cache\"")),
        (
            "Retry-After",
            "Seconds until another try is worth it.",
            json!({"type": "string", "pattern": "^[0-9]+$", "examples": ["1"]}),
        ),
        ("WWW-Authenticate", "The challenge (RFC 6750 section 3).", text("Bearer")),
        ("RateLimit", "What is left of a quota (IETF draft).", text("\"session\";r=99;t=900")),
        ("RateLimit-Policy", "The quota itself.", text("\"session\";q=100;w=900")),
        ("X-Auth-Subject", "The session's subject.", text("usr_01JH6Z3V4Q")),
        ("X-Auth-Session", "The session's id.", text("01JH6Z3V4Q8R5T7W9XBDFGHJKM")),
        ("X-Auth-Claims", "The session's claims: JSON in base64url.", text("eyJyb2xlIjoidXNlciJ9")),
        ("X-Auth-Cookie", "The request's `Cookie` less our own.", text("theme=dark")),
        (
            "Authorization",
            "A signed assertion of the session for the upstream.",
            text("Bearer eyJ…"),
        ),
    ]
}
