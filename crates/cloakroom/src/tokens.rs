//! Tokens: issuing them, what they are, and CSRF.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::csrf::{check_token, issue_token};
use cloakroom_core::given::Given;
use cloakroom_core::limits::TOKEN_LEEWAY;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::Session;
use cloakroom_core::subject::SubjectState;
use cloakroom_core::token::Looks;
use cloakroom_core::token::access::{AccessClaims, issue, new_jti};
use cloakroom_core::token::opaque::OpaqueKind;
use cloakroom_core::types::{Secret, Sid, Subject, Timestamp};
use cloakroom_store::Store;

use crate::authority::Authority;
use crate::cache::{Assertion, GatewayAssertion};
use crate::clock::draw;
use crate::context::{Error, Unavailable};
use crate::opening::AccessToken;
use crate::verify::{Credential, Verified, Via};

/// A gateway's assertion is handed out while it has this long to live.
const ASSERTION_LEFT_MIN: Duration = Duration::from_secs(5);

/// What a token is, while its session lives.
#[derive(Clone, Debug)]
pub enum Introspection {
    /// An access token.
    Access(Arc<AccessClaims>, Verified),
    /// A current refresh token, or its predecessor within the grace.
    Refresh(Verified),
    /// A session cookie's value.
    Session(Verified),
}

impl<S: Store> Authority<S> {
    /// An access token of a session, which never outlives it. Signed by the keys as this node
    /// has them: whoever is about to promise one asks for fresh ones first.
    pub(crate) fn access_token(
        &self,
        session: &Session,
        subject: Option<&SubjectState>,
        now: Timestamp,
    ) -> Result<AccessToken, Error> {
        let ttl = self.settings.access_ttl;
        let audience = self.settings.audience.clone();
        let (token, expires_at) = self.sign(session, subject, audience, ttl, now)?;
        Ok(AccessToken { token, expires_in: expires_at.since(now).as_secs() })
    }

    fn sign(
        &self,
        session: &Session,
        subject: Option<&SubjectState>,
        audience: Vec<String>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<(Secret<String>, Timestamp), Error> {
        let name = session.subject.clone().ok_or(Refusal::CredentialsRequired)?;
        let actor = session.actor.as_deref().map(Subject::parse).transpose();
        let claims = AccessClaims {
            issuer: self.settings.issuer.clone(),
            subject: name,
            audience,
            expires_at: now.plus(ttl).min(session.tokens_end(now)),
            not_before: now.minus(TOKEN_LEEWAY),
            issued_at: now,
            jti: new_jti(session.sid.partition(), draw(&*self.entropy)),
            sid: session.sid,
            auth_time: session.auth_time,
            amr: session.amr.clone(),
            acr: session.acr.clone(),
            epoch: session.subject_epoch,
            actor: actor.map_err(|_| Unavailable::Missing("a well-formed actor".into()))?,
            claims: session.effective_claims(subject),
        };
        let ring = self.ring.last();
        let key = ring.keys.signer().ok_or_else(|| Unavailable::Missing("a signing key".into()))?;
        let token = issue(key, &claims, &self.settings.extra_claims)
            .map_err(|fault| Unavailable::Key(fault.to_string()))?;
        Ok((Secret::new(token), claims.expires_at))
    }

    /// The gateway's assertion of a verified session: a token of an audience of its own, which
    /// nothing here takes. The same one is handed out again while it is true and long enough valid.
    pub async fn assertion(&self, verified: &Verified) -> Result<Arc<GatewayAssertion>, Error> {
        let ring = self.fresh_ring().await?;
        let now = self.now();
        let kid = ring.keys.signer().map(|key| key.kid().clone());
        let mut slot = verified.meters().assertion();
        if let Some(assertion) = &*slot
            && now < assertion.fresh_until
            && assertion.made_of(verified, kid.as_ref())
        {
            return Ok(Arc::clone(&assertion.token));
        }
        let audience = vec![self.settings.gateway_audience.clone()];
        let subject = verified.subject.as_deref();
        let ttl = self.settings.gateway_ttl;
        let (token, expires_at) = self.sign(&verified.session, subject, audience, ttl, now)?;
        let token = Arc::new(GatewayAssertion::new(token));
        *slot = Some(Assertion {
            token: Arc::clone(&token),
            fresh_until: expires_at.minus(ASSERTION_LEFT_MIN),
            session: Arc::clone(&verified.session),
            subject: verified.subject.clone(),
            kid,
        });
        Ok(token)
    }

    /// What a token is, if it counts right now. Has no effect on the session, not even a use.
    pub async fn introspect(&self, token: &str) -> Result<Option<Introspection>, Error> {
        let credential = match Looks::of(token) {
            Looks::Opaque(OpaqueKind::Session) => Credential::Cookie(token),
            Looks::Opaque(OpaqueKind::Refresh) => Credential::Refresh(token),
            Looks::Jwt => Credential::Access(token),
            Looks::Opaque(OpaqueKind::ApiKey) | Looks::Csrf | Looks::Unknown => return Ok(None),
        };
        let verified = match self.prove(credential).await {
            Ok(verified) => verified,
            Err(Error::Refused(_)) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        Ok(Some(match &verified.via {
            Via::Cookie => Introspection::Session(verified),
            Via::Refresh => Introspection::Refresh(verified),
            Via::Access(claims) => Introspection::Access(Arc::clone(claims), verified),
        }))
    }

    /// A CSRF token of a session; each is different, all stay valid for the session's life.
    pub fn csrf_token(&self, sid: Sid) -> String {
        issue_token(&self.csrf_key(sid), draw(&*self.entropy))
    }

    /// The key that a session's CSRF tokens are made with, for backends that make them.
    pub fn csrf_key(&self, sid: Sid) -> Secret<[u8; 32]> {
        self.keys.csrf_key(&[b"session ".as_slice(), sid.as_bytes()].concat())
    }

    /// Whether a token was issued for this session.
    pub fn check_csrf(&self, sid: Sid, token: &str) -> bool {
        check_token(&self.csrf_key(sid), Given::One(token.as_bytes())).is_ok()
    }

    /// A fresh value for the `csrf` cookie of a browser without a session.
    pub fn pre_csrf_cookie(&self) -> String {
        let id = Sid::from_bytes(draw(&*self.entropy));
        id.to_string()
    }

    /// A CSRF token bound to that cookie.
    pub fn pre_csrf_token(&self, cookie: &str) -> String {
        issue_token(&self.pre_csrf_key(cookie), draw(&*self.entropy))
    }

    /// Whether a token was issued for that cookie.
    pub fn check_pre_csrf(&self, cookie: &str, token: &str) -> bool {
        check_token(&self.pre_csrf_key(cookie), Given::One(token.as_bytes())).is_ok()
    }

    fn pre_csrf_key(&self, cookie: &str) -> Secret<[u8; 32]> {
        self.keys.csrf_key(&[b"cookie ".as_slice(), cookie.as_bytes()].concat())
    }
}
