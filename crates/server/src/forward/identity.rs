//! What a gateway is told of a session, in headers: made once and kept while it is true.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::Verified;
use cloakroom_core::policy::{ClaimHeader, encode_claim_header};
use cloakroom_core::session::{Object, Session};
use cloakroom_core::subject::SubjectState;
use cloakroom_core::types::{Secret, Sid};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use moka::sync::Cache;
use serde_json::Value;

use crate::config::ForwardAuth;

/// Sessions whose headers are kept.
const IDENTITIES_MAX: u64 = 50_000;
/// All identity headers together, in bytes: gateways give an answer's head 8 KiB, often no more.
const IDENTITY_BYTES_MAX: usize = 7 * 1024;
/// What a header costs beside its name and value: a colon, a space and a line's end.
const HEADER_OVERHEAD_BYTES: usize = 4;

const X_AUTH_SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
const X_AUTH_SESSION: HeaderName = HeaderName::from_static("x-auth-session");
const X_AUTH_CLAIMS: HeaderName = HeaderName::from_static("x-auth-claims");

/// Makes and keeps the identity headers of sessions.
pub(crate) struct IdentityHeaders {
    claims: Vec<(ClaimHeader, HeaderName)>,
    kept: Cache<Sid, Arc<Identity>>,
}

/// A session as an upstream sees it.
pub(crate) struct Identity {
    session: Arc<Session>,
    subject: Option<Arc<SubjectState>>,
    token: Arc<Secret<String>>,
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
        Self { claims: claims.collect(), kept: Cache::new(IDENTITIES_MAX) }
    }

    /// What is to be said of a session, with this assertion of it.
    pub(crate) fn of(&self, verified: &Verified, token: Arc<Secret<String>>) -> Arc<Identity> {
        let sid = verified.session.sid;
        if let Some(identity) = self.kept.get(&sid).filter(|known| known.is_of(verified, &token)) {
            return identity;
        }
        let identity = Arc::new(self.make(verified, token));
        self.kept.insert(sid, Arc::clone(&identity));
        identity
    }

    fn make(&self, verified: &Verified, token: Arc<Secret<String>>) -> Identity {
        let session = Arc::clone(&verified.session);
        let claims = verified.claims();
        let subject = session.subject.as_ref().map(|subject| Value::from(subject.as_str()));
        let subject = subject.as_ref().map(encode_claim_header).unwrap_or_default();
        let json = serde_json::to_vec(&claims).unwrap_or_default();
        let mut bearer = value_of(format!("Bearer {}", token.expose()));
        bearer.set_sensitive(true);
        let mut headers = vec![
            (AUTHORIZATION, bearer),
            (X_AUTH_SUBJECT, value_of(subject)),
            (X_AUTH_SESSION, value_of(session.sid.to_string())),
        ];
        let single = self.claims.iter().map(|(claim, name)| (name.clone(), claim.value(&claims)));
        let whole = (X_AUTH_CLAIMS, URL_SAFE_NO_PAD.encode(json));
        for (name, text) in single.chain([whole]) {
            let value = value_that_fits(&headers, &name, text);
            headers.push((name, value));
        }
        let subject = verified.subject.clone();
        Identity { session, subject, token, claims, headers }
    }
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

    /// Whether it was made of the very same records.
    fn is_of(&self, verified: &Verified, token: &Arc<Secret<String>>) -> bool {
        let same_subject = match (&self.subject, &verified.subject) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        Arc::ptr_eq(&self.session, &verified.session)
            && same_subject
            && Arc::ptr_eq(&self.token, token)
    }
}

/// The value, or an empty one if the headers would grow over what gateways take. The assertion has
/// all the claims, so that nothing is lost with it.
fn value_that_fits(
    headers: &[(HeaderName, HeaderValue)],
    name: &HeaderName,
    text: String,
) -> HeaderValue {
    let cost = |name: &HeaderName, length| name.as_str().len() + length + HEADER_OVERHEAD_BYTES;
    let so_far: usize = headers.iter().map(|(name, value)| cost(name, value.len())).sum();
    if so_far + cost(name, text.len()) > IDENTITY_BYTES_MAX {
        return HeaderValue::from_static("");
    }
    value_of(text)
}

/// Everything here is visible ASCII; what isn't would be said as if it weren't there.
fn value_of(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}
