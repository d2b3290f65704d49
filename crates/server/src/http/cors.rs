//! Which pages of other origins may read answers (Fetch standard section 3.3): those listed in
//! `cors.allowed_origins`, with credentials, and no others.

use axum::body::Body;
use axum::response::Response;
use cloakroom_core::given::Given;
use cloakroom_core::origin::Origin;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method, StatusCode};

use super::ask::header;

const METHODS: &str = "GET, HEAD, POST, DELETE";
const HEADERS: &str = "authorization, content-type, idempotency-key, x-csrf-token, x-request-id";
const EXPOSED: &str =
    "cloakroom-durability, ratelimit, ratelimit-policy, retry-after, x-request-id";
/// Seconds for which a browser may remember the answer to a preflight.
const PREFLIGHT_SECS: &str = "600";

/// The setting `cors.allowed_origins`.
#[derive(Debug)]
pub(crate) struct Cors(Vec<HeaderValue>);

/// What one request may be told.
#[derive(Debug)]
pub(crate) enum Grant {
    /// No origin is listed: nothing is said at all.
    Silent,
    /// Origins are listed, and this request's is none of them.
    Refused,
    /// The request's origin, which is listed.
    Allowed(HeaderValue),
}

impl Cors {
    pub(crate) fn new(allowed: &[Origin]) -> Self {
        let texts = allowed.iter().map(ToString::to_string);
        Self(texts.filter_map(|text| HeaderValue::try_from(text).ok()).collect())
    }

    /// Compares the origin byte for byte with those listed.
    pub(crate) fn grant(&self, headers: &HeaderMap) -> Grant {
        if self.0.is_empty() {
            return Grant::Silent;
        }
        let found = match header(headers, ORIGIN.as_str()) {
            Given::One(origin) => self.0.iter().find(|allowed| allowed.as_bytes() == origin),
            Given::Absent | Given::Several => None,
        };
        found.map_or(Grant::Refused, |origin| Grant::Allowed(origin.clone()))
    }
}

impl Grant {
    /// The answer to a preflight of an allowed origin; nothing if this is none.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let preflight =
            *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        match self {
            Self::Allowed(_) if preflight => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                let headers = response.headers_mut();
                let mut say = |name, value| headers.insert(name, HeaderValue::from_static(value));
                say(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
                say(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
                say(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECS);
                Some(response)
            }
            Self::Allowed(_) | Self::Refused | Self::Silent => None,
        }
    }

    /// Tells the browser whether its page may read the answer.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Silent => {}
            Self::Refused => {
                headers.append(VARY, HeaderValue::from_static("Origin"));
            }
            Self::Allowed(origin) => {
                headers.append(VARY, HeaderValue::from_static("Origin"));
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                let yes = HeaderValue::from_static("true");
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
                let exposed = HeaderValue::from_static(EXPOSED);
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d11_only_a_listed_origin_is_allowed_and_only_in_its_own_spelling() {
        let listed = Origin::parse("https://shop.example").expect("an origin");
        let cors = Cors::new(&[listed]);
        let grant = |origins: &[&str]| {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(ORIGIN, origin.parse().expect("a header value"));
            }
            cors.grant(&headers)
        };
        assert!(matches!(grant(&["https://shop.example"]), Grant::Allowed(_)));
        for foreign in [
            "null",
            "https://evil",
            "http://shop.example",
            "https://shop.example.evil",
            "https://evilshop.example",
            "https://shop.example/",
            "https://SHOP.example",
            "",
        ] {
            assert!(matches!(grant(&[foreign]), Grant::Refused), "{foreign}");
        }
        let twice = grant(&["https://shop.example", "https://shop.example"]);
        assert!(matches!(twice, Grant::Refused));
        assert!(matches!(Cors::new(&[]).grant(&HeaderMap::new()), Grant::Silent));
    }
}
