//! Bodies: bounded, of one declared kind, and read in one way only.

use axum::body::Body;
use cloakroom_core::given::{Given, Header};
use cloakroom_core::json::{Map, parse_object};
use cloakroom_core::limits::BODY_BYTES_MAX;
use http_body_util::{BodyExt, Limited};
use hyper::HeaderMap;
use hyper::body::{Body as _, Bytes};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::http::request::Parts;

use super::ask::header;
use super::form::Form;
use super::members::Members;
use crate::problem::{Code, Problem};

/// Whether a body has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It has to.
    Required,
    /// None at all counts as one without members.
    Optional,
}

/// Reads a JSON object.
pub(super) async fn members(
    headers: &HeaderMap,
    body: Body,
    need: Need,
) -> Result<Members, Problem> {
    refuse_encoded(headers)?;
    let kind = media_type(headers, "application/json");
    if need == Need::Optional && kind == Kind::Absent {
        let bytes = read(body).await?;
        return if bytes.is_empty() { Ok(Members::new(Map::new())) } else { Err(not_json()) };
    }
    if kind != Kind::Wanted {
        return Err(not_json());
    }
    let bytes = read(body).await?;
    if need == Need::Optional && bytes.is_empty() {
        return Ok(Members::new(Map::new()));
    }
    Ok(Members::new(parse_object(&bytes)?))
}

/// Refuses a body where none is read; one without members says nothing.
pub async fn refuse_body(headers: &HeaderMap, body: Body) -> Result<(), Problem> {
    if body.is_end_stream() {
        return Ok(());
    }
    members(headers, body, Need::Optional).await?.finish()
}

/// Reads a form (`application/x-www-form-urlencoded`).
pub(super) async fn form(parts: &Parts, body: Body) -> Result<Form, Problem> {
    refuse_encoded(&parts.headers)?;
    if media_type(&parts.headers, "application/x-www-form-urlencoded") != Kind::Wanted {
        let detail = "the body must be application/x-www-form-urlencoded";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        // RFC 6749 section 2.3.1: credentials must not be in the URI, where they are logged.
        return Err(Problem::malformed("parameters belong into the body, not into the URI"));
    }
    Form::parse(&read(body).await?)
}

fn not_json() -> Problem {
    Problem::new(Code::UnsupportedMediaType, "the body must be application/json in UTF-8")
}

/// A small body that unfolds into a large one is a way around the bound.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(CONTENT_ENCODING) {
        let detail = "a body with Content-Encoding isn't taken";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Wanted,
    Absent,
    Other,
}

/// Compares the whole `Content-Type`: what a browser sends across sites without asking first
/// (`text/plain`, forms) must never pass for JSON.
fn media_type(headers: &HeaderMap, wanted: &str) -> Kind {
    let value = match header(headers, CONTENT_TYPE.as_str()) {
        Header::Absent => return Kind::Absent,
        Given::Several => return Kind::Other,
        Given::One(value) => value,
    };
    let Ok(text) = str::from_utf8(value) else { return Kind::Other };
    let (essence, parameters) = match text.split_once(';') {
        Some((essence, parameters)) => (essence, Some(parameters)),
        None => (text, None),
    };
    let utf8 = parameters.is_none_or(|parameters| {
        let parameters = parameters.trim().to_ascii_lowercase();
        matches!(parameters.as_str(), "charset=utf-8" | "charset=\"utf-8\"")
    });
    if essence.trim().eq_ignore_ascii_case(wanted) && utf8 { Kind::Wanted } else { Kind::Other }
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(Code::BodyTooLarge, format!("a body may have {BODY_BYTES_MAX} bytes"));
    // What is declared too large isn't read at all.
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Problem::malformed("the body didn't arrive whole")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(values: &[&str]) -> Kind {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_TYPE, value.parse().expect("a header value"));
        }
        media_type(&headers, "application/json")
    }

    #[test]
    fn d9_only_json_in_utf8_is_json() {
        for json in [
            "application/json",
            "Application/JSON",
            "application/json;charset=utf-8",
            "application/json; charset=UTF-8",
        ] {
            assert_eq!(kind(&[json]), Kind::Wanted, "{json}");
        }
        for other in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "text/plain; application/json",
            "application/json;charset=utf-7",
            "application/json;charset=utf-8;x=y",
            "application/json, text/plain",
            "application/jsonp",
            "",
        ] {
            assert_eq!(kind(&[other]), Kind::Other, "{other}");
        }
        assert_eq!(kind(&[]), Kind::Absent);
        assert_eq!(kind(&["application/json", "application/json"]), Kind::Other);
    }
}
