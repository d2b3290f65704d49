//! What a gateway is told of a session, in headers: made once for each assertion.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::Verified;
use cloakroom_core::policy::{ClaimHeader, encode_claim_header};
use cloakroom_core::session::Object;
use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde_json::Value;

use crate::config::ForwardAuth;

/// All identity headers together, in bytes: gateways give an answer's head 8 KiB, often no more.
const IDENTITY_BYTES_MAX: usize = 7 * 1024;
/// What a header costs beside its name and value: a colon, a space and a line's end.
const HEADER_OVERHEAD_BYTES: usize = 4;

const X_AUTH_SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
const X_AUTH_SESSION: HeaderName = HeaderName::from_static("x-auth-session");
const X_AUTH_CLAIMS: HeaderName = HeaderName::from_static("x-auth-claims");

/// Makes the identity headers of sessions.
pub(crate) struct IdentityHeaders {
    claims: Vec<(ClaimHeader, HeaderName)>,
}

/// A session as an upstream sees it.
pub(crate) struct Identity {
    claims: Object,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl IdentityHeaders {
    /// For these claims.
    pub(crate) fn new(settings: &ForwardAuth) -> Self {
        let claims = settings.claim_headers.as_slice().iter().filter_map(|claim| {
            let name = HeaderName::from_bytes(claim.header().as_bytes()).ok()?;
            Some((claim.clone(), name))
        });
        Self { claims: claims.collect() }
    }

    /// What is to be said of a session, with this assertion of it. To be kept with the assertion:
    /// both are of the same claims.
    pub(crate) fn make(&self, verified: &Verified, assertion: &str) -> Identity {
        let session = &verified.session;
        let claims = verified.claims();
        let subject = session.subject.as_ref().map(|subject| Value::from(subject.as_str()));
        let subject = subject.as_ref().map(encode_claim_header).unwrap_or_default();
        let json = serde_json::to_vec(&claims).unwrap_or_default();
        let mut said = vec![
            (AUTHORIZATION, format!("Bearer {assertion}")),
            (X_AUTH_SUBJECT, subject),
            (X_AUTH_SESSION, session.sid.to_string()),
        ];
        let single = self.claims.iter().map(|(claim, name)| (name.clone(), claim.value(&claims)));
        let whole = (X_AUTH_CLAIMS, URL_SAFE_NO_PAD.encode(json));
        for (name, text) in single.chain([whole]) {
            let text = text_that_fits(&said, &name, text);
            said.push((name, text));
        }
        Identity { claims, headers: in_one_piece(said) }
    }
}

/// The text, or an empty one if the headers would grow over what gateways take. The assertion has
/// all the claims, so that nothing is lost with it.
fn text_that_fits(said: &[(HeaderName, String)], name: &HeaderName, text: String) -> String {
    let cost = |name: &HeaderName, length| name.as_str().len() + length + HEADER_OVERHEAD_BYTES;
    let so_far: usize = said.iter().map(|(name, text)| cost(name, text.len())).sum();
    if so_far + cost(name, text.len()) > IDENTITY_BYTES_MAX { String::new() } else { text }
}

/// The values as parts of one piece of memory: an answer takes them by one reference count, and
/// what is written out lies side by side.
fn in_one_piece(said: Vec<(HeaderName, String)>) -> Vec<(HeaderName, HeaderValue)> {
    let all: String = said.iter().map(|(_, value)| value.as_str()).collect();
    let (all, mut from) = (Bytes::from(all), 0);
    let value_of = |(name, value): (HeaderName, String)| {
        let to = from + value.len();
        // Everything here is visible ASCII; what isn't would be said as if it weren't there.
        let value = HeaderValue::from_maybe_shared(all.slice(from..to));
        let mut value = value.unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(name == AUTHORIZATION);
        from = to;
        (name, value)
    };
    said.into_iter().map(value_of).collect()
}

impl Identity {
    /// The session's claims, its subject's included.
    pub(crate) const fn claims(&self) -> &Object {
        &self.claims
    }

    /// Adds the headers, each of them: an absent one would let the client's own through.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }
}
