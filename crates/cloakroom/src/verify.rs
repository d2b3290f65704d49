//! Who is this, and are they still allowed in? No writes, at most one read, often none.

use std::sync::Arc;

#[cfg(feature = "mutants")]
use cloakroom_core::mutants::{Mutant, active};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{CookieMatch, Ending, Object, Session};
use cloakroom_core::subject::{PartitionState, SubjectState};
use cloakroom_core::token::access::AccessClaims;
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::token::{Looks, TokenRefusal};
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::{Follow, Key, Store};

use crate::authority::Authority;
use crate::cache::{CachedSession, Meters};
use crate::context::{Error, Unavailable};
use crate::figures::CredentialKind;
use crate::stats::Stat;

/// A credential as it was presented: where it came from says what it must be.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// The value of a session cookie.
    Cookie(&'a str),
    /// A bearer token.
    Access(&'a str),
    /// A refresh token, from a body or a cookie.
    Refresh(&'a str),
}

impl Credential<'_> {
    const fn kind(self) -> CredentialKind {
        match self {
            Self::Cookie(_) => CredentialKind::Cookie,
            Self::Access(_) => CredentialKind::Access,
            Self::Refresh(_) => CredentialKind::Refresh,
        }
    }
}

/// How a session was proven.
#[derive(Clone, Debug)]
pub enum Via {
    /// By its cookie.
    Cookie,
    /// By an access token.
    Access(Arc<AccessClaims>),
    /// By its refresh token.
    Refresh,
}

/// A live session whose credential was presented.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The session.
    pub session: Arc<Session>,
    /// Its subject's record; none before a sign-in.
    pub subject: Option<Arc<SubjectState>>,
    /// How it was proven.
    pub via: Via,
    meters: Arc<Meters>,
}

impl Verified {
    /// The session's claims over its subject's.
    pub fn claims(&self) -> Object {
        self.session.effective_claims(self.subject.as_deref())
    }

    /// Whose session it is. An anonymous one is nobody's.
    pub fn user(&self) -> Result<&Subject, Refusal> {
        self.session.subject.as_ref().ok_or(Refusal::CredentialsRequired)
    }

    /// This node's counters of the session.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// What a caller makes of these very records and of how they were proven: made once, and kept
    /// with the session.
    pub fn made<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.meters.made(self, make)
    }
}

/// A session and all that decides whether it lives.
pub(crate) struct Known {
    pub(crate) session: Arc<Session>,
    pub(crate) subject: Option<Arc<SubjectState>>,
    pub(crate) partition: Arc<PartitionState>,
    pub(crate) meters: Arc<Meters>,
    cached: bool,
    denied: bool,
}

impl Known {
    fn standing(&self, now: Timestamp) -> Result<(), Ending> {
        let seen_at = self.meters.seen_at();
        self.session.standing_when_seen(seen_at, self.subject.as_deref(), &self.partition, now)
    }

    fn verified(self, via: Via) -> Verified {
        Verified { session: self.session, subject: self.subject, via, meters: self.meters }
    }
}

impl From<TokenRefusal> for Error {
    fn from(refusal: TokenRefusal) -> Self {
        Self::Refused(match refusal {
            TokenRefusal::Invalid | TokenRefusal::KeyRevoked => Refusal::TokenInvalid,
            TokenRefusal::WrongType => Refusal::TokenWrongType,
            TokenRefusal::Expired(_) => Refusal::TokenExpired,
        })
    }
}

/// The claims of an access token whose signature was checked.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    claims: Arc<AccessClaims>,
    /// Which reading of the keys it was checked by: by a later one it must be checked anew, since
    /// its key may be revoked.
    reading: u64,
}

const TOKEN_INVALID: Error = Error::Refused(Refusal::TokenInvalid);

impl<S: Store> Authority<S> {
    /// Proves a live session by a credential, and notes the use.
    ///
    /// Writes nothing; a refresh token is only looked at, never rotated.
    pub async fn verify(&self, credential: Credential<'_>) -> Result<Verified, Error> {
        let verified = self.prove(credential).await?;
        self.counters.add(Stat::Verified, 1);
        self.note_use(&verified.session, &verified.meters).await;
        Ok(verified)
    }

    /// The same without noting a use.
    pub(crate) async fn prove(&self, credential: Credential<'_>) -> Result<Verified, Error> {
        let kind = credential.kind();
        let verdict = self.judge(credential).await;
        self.counters.tallies.verdict(kind, &verdict);
        verdict
    }

    async fn judge(&self, credential: Credential<'_>) -> Result<Verified, Error> {
        match credential {
            Credential::Cookie(text) => {
                let token = OpaqueToken::parse(OpaqueKind::Session, text, &self.keys)?;
                self.verify_cookie(&token).await
            }
            Credential::Refresh(text) => {
                let token = OpaqueToken::parse(OpaqueKind::Refresh, text, &self.keys)?;
                self.verify_refresh(&token).await
            }
            Credential::Access(text) => self.verify_access(text).await,
        }
    }

    /// Proves a live session by a session or access token, told by its looks.
    pub async fn verify_any(&self, text: &str) -> Result<Verified, Error> {
        match Looks::of(text) {
            Looks::Opaque(OpaqueKind::Session) => self.verify(Credential::Cookie(text)).await,
            Looks::Opaque(OpaqueKind::Refresh | OpaqueKind::ApiKey) => {
                Err(Refusal::TokenWrongType.into())
            }
            Looks::Jwt | Looks::Csrf | Looks::Unknown => {
                self.verify(Credential::Access(text)).await
            }
        }
    }

    async fn verify_cookie(&self, token: &OpaqueToken) -> Result<Verified, Error> {
        let known = self.known(token.sid).await?.ok_or(TOKEN_INVALID)?;
        let known = self.judged(known, |known| match known.session.match_cookie(token) {
            CookieMatch::Genuine => Ok(()),
            CookieMatch::Superseded | CookieMatch::Ahead => Err(TOKEN_INVALID),
        });
        Ok(known.await?.verified(Via::Cookie))
    }

    async fn verify_refresh(&self, token: &OpaqueToken) -> Result<Verified, Error> {
        let known = self.known(token.sid).await?.ok_or(TOKEN_INVALID)?;
        let grace = self.settings.refresh.grace;
        let known = self.judged(known, |known| {
            let accepts = known.session.accepts_refresh(token, grace, self.now());
            if accepts { Ok(()) } else { Err(TOKEN_INVALID) }
        });
        Ok(known.await?.verified(Via::Refresh))
    }

    async fn verify_access(&self, text: &str) -> Result<Verified, Error> {
        let (Checked { claims, reading }, looked_up) = self.access_claims(text).await?;
        let sid = claims.sid;
        // Only a token that is met for the first time is kept.
        let is_new = looked_up.is_none();
        let settled = is_new && self.cache.is_settled(sid.partition(), self.now());
        let (subject, jti) = (Some(&claims.subject), Some(claims.jti.as_str()));
        // Whether a token was denied is read with its session; the cache knows it only of tokens
        // that were read once, and only while it decides at all.
        #[cfg(feature = "mutants")]
        let jti = jti.filter(|_| looked_up.is_none() || !active(Mutant::DenialUnread));
        let known = match looked_up.and_then(|_| self.cached_where_decisive(sid)) {
            Some(known) => Some(known),
            None => self.read_or_outlast(sid, subject, jti).await?,
        };
        let known = known.ok_or(TOKEN_INVALID)?;
        if known.denied || self.cache.denied_lately(sid.partition(), &claims.jti) {
            return Err(TOKEN_INVALID);
        }
        let settled = settled && self.cache.is_settled(sid.partition(), self.now());
        if settled {
            let fresh = self.token_digest(text);
            self.access_tokens.insert(fresh, Checked { claims: Arc::clone(&claims), reading });
        }
        let judged = self.judged(known, |known| access_matches(&claims, known));
        let known = judged.await?;
        Ok(known.verified(Via::Access(claims)))
    }

    /// The claims of a genuine access token, and its digest where it was met before.
    async fn access_claims(&self, text: &str) -> Result<(Checked, Option<[u8; 32]>), Error> {
        if text.len() > cloakroom_core::limits::JWT_BYTES_MAX {
            return Err(TOKEN_INVALID);
        }
        // First of all: a revoked key's tokens are let go of when the keys are read.
        let ring = self.fresh_ring().await?;
        let now = self.now();
        let digest = self.token_digest(text);
        let known = self.access_tokens.get(&digest);
        if let Some(known) = known.filter(|known| known.reading == ring.number) {
            if now >= known.claims.expires_at.plus(cloakroom_core::limits::TOKEN_LEEWAY) {
                return Err(Refusal::TokenExpired.into());
            }
            self.counters.tallies.token_lookup(true);
            return Ok((known, Some(digest)));
        }
        self.counters.tallies.token_lookup(false);
        let (verdict, ring) = self.genuine_claims(text).await?;
        Ok((Checked { claims: Arc::new(verdict?), reading: ring.number }, None))
    }

    /// What the session's own state says after `matches` found the credential genuine.
    ///
    /// A refusal is never taken from a cache: another node may know of a later use, and records
    /// cached at two instants may contradict each other. What ended lately is consulted every
    /// time: neither a slow read nor a store that went back makes it live.
    async fn judged(
        &self,
        known: Known,
        matches: impl Fn(&Known) -> Result<(), Error> + Send,
    ) -> Result<Known, Error> {
        let judge = |known: &Known| -> Result<(), Error> {
            matches(known)?;
            let standing = known.standing(self.now());
            standing.map_err(|ending| Refusal::SessionEnded(ending.reason).into())
        };
        let mut known = known;
        let mut verdict = judge(&known);
        if known.cached && verdict.is_err() {
            known = self.read(known.session.sid, None, None).await?.ok_or(TOKEN_INVALID)?;
            verdict = judge(&known);
        }
        verdict?;
        match self.cache.ended_lately(&known.session, known.subject.as_deref(), &known.partition) {
            Some(ending) => Err(Refusal::SessionEnded(ending.reason).into()),
            None => Ok(known),
        }
    }

    /// A session and what decides over it: from the cache where that may decide, else read.
    pub(crate) async fn known(&self, sid: Sid) -> Result<Option<Known>, Error> {
        match self.cached_where_decisive(sid) {
            Some(known) => Ok(Some(known)),
            None => self.read_or_outlast(sid, None, None).await,
        }
    }

    /// A session that is known to live without a read. A "no" is never taken from the cache.
    pub(crate) fn living_by_cache(&self, sid: Sid) -> Option<(Arc<Session>, Arc<Meters>)> {
        let known = self.cached_where_decisive(sid)?;
        let Known { session, subject, partition, .. } = &known;
        let lives = known.standing(self.now()).is_ok()
            && self.cache.ended_lately(session, subject.as_deref(), partition).is_none();
        lives.then_some((known.session, known.meters))
    }

    fn cached_where_decisive(&self, sid: Sid) -> Option<Known> {
        if !self.cache_decides(sid.partition()) {
            return None;
        }
        let cached = self.cached(sid);
        self.counters.tallies.session_lookup(cached.is_some());
        cached
    }

    /// Reads; where the store can't be reached, the cache decides for the grace of an outage.
    async fn read_or_outlast(
        &self,
        sid: Sid,
        subject: Option<&Subject>,
        jti: Option<&str>,
    ) -> Result<Option<Known>, Error> {
        match self.read(sid, subject, jti).await {
            Err(Error::Unavailable(_)) if self.within_outage_grace(sid.partition()) => {
                match self.cached(sid) {
                    Some(known) => Ok(Some(known)),
                    None => Err(Unavailable::Deadline.into()),
                }
            }
            answer => answer,
        }
    }

    fn cached(&self, sid: Sid) -> Option<Known> {
        let CachedSession { session, meters } = self.cache.session(sid)?;
        let subject = match &session.subject {
            Some(subject) => Some(self.cache.subject(subject)?),
            None => None,
        };
        let partition = self.cache.partition(sid.partition())?;
        Some(Known { session, subject, partition, meters, cached: true, denied: false })
    }

    fn cache_decides(&self, partition: Partition) -> bool {
        let verify = &self.settings.verify;
        verify.cache
            && verify
                .max_staleness
                .is_none_or(|max| self.now().since(self.cache.fresh_at(partition)) < max)
    }

    pub(crate) fn within_outage_grace(&self, partition: Partition) -> bool {
        let grace = self.settings.verify.outage_grace;
        !grace.is_zero() && self.now().since(self.cache.fresh_at(partition)) < grace
    }

    pub(crate) async fn read(
        &self,
        sid: Sid,
        subject: Option<&Subject>,
        jti: Option<&str>,
    ) -> Result<Option<Known>, Error> {
        let partition = sid.partition();
        if partition.0 >= self.store.partitions() {
            return Ok(None);
        }
        let mark = self.cache.mark(partition, self.now());
        let mut keys = vec![Key::Session(sid), Key::Partition];
        keys.extend(subject.map(|subject| Key::Subject(subject.clone())));
        let denied_key = jti.map(|jti| Key::DeniedToken(jti.into()));
        keys.extend(denied_key.clone());
        // From one state: a session and an epoch of two instants may contradict each other, where a
        // sign-out everywhere took this session along.
        let loaded = self.load_following(partition, &keys, Follow::Subject).await?;
        let denied = denied_key.is_some_and(|key| loaded.get(&key).is_some());
        let Some(session) = loaded.session(sid) else {
            self.cache.evict(sid);
            return Ok(None);
        };
        let session = Arc::new(session.clone());
        let state = Arc::new(*loaded.partition()?);
        let subject = session.subject.as_ref().and_then(|name| loaded.subject(name)).cloned();
        if session.subject.is_some() && subject.is_none() {
            return Err(Unavailable::Missing("the subject's record".into()).into());
        }
        let subject = subject.map(Arc::new);
        let meters = self.cache.meters(sid);
        let cached = CachedSession { session: Arc::clone(&session), meters: Arc::clone(&meters) };
        if self.settings.verify.cache {
            self.cache.fill(mark, Some(&cached), subject.as_ref(), &state);
        }
        Ok(Some(Known { session, subject, partition: state, meters, cached: false, denied }))
    }
}

/// Whether an access token speaks of the session as it is now.
fn access_matches(claims: &AccessClaims, known: &Known) -> Result<(), Error> {
    let session = &known.session;
    if session.subject.as_ref() != Some(&claims.subject) || claims.epoch > session.subject_epoch {
        return Err(TOKEN_INVALID);
    }
    if claims.epoch < session.subject_epoch {
        // The session was taken along by "sign out everywhere"; its earlier tokens were not.
        return Err(Refusal::TokenExpired.into());
    }
    if claims.auth_time.as_secs() < session.auth_time.as_secs() {
        return Err(TOKEN_INVALID);
    }
    Ok(())
}
