//! What a store promises about an ending, as its answer says it.

use axum::response::Response;
use cloakroom_store::Durability;
use hyper::header::{HeaderName, HeaderValue};

/// What the store promises about the ending.
const DURABILITY: HeaderName = HeaderName::from_static("cloakroom-durability");

/// Says what the store promises about an ending, if there was one.
pub fn with_durability(mut response: Response, durability: Option<Durability>) -> Response {
    if let Some(durability) = durability {
        let value = HeaderValue::from_static(durability_name(durability));
        response.headers_mut().insert(DURABILITY, value);
    }
    response
}

/// The name of a promise on the wire.
pub const fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Local => "local",
        Durability::Replicated => "replicated",
        Durability::Durable => "durable",
    }
}
