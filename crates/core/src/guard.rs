//! What a backend's middleware asks of an authority, whether it runs in this process or elsewhere.
//!
//! Only signatures: the crate `cloakroom` answers in process, `cloakroom-client` asks a server, and
//! `cloakroom-tower` needs neither of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::refusal::Refusal;
use crate::session::{Client, Delivery, Object};
use crate::types::{Secret, Sid, Subject, Timestamp};

/// What an authority will answer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// How a question to an authority fails: by a "no", or by "I can't tell". Never one for the other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The answer is no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The authority can't tell, or can't be reached.
    #[error("the authority can't tell: {why}")]
    Unavailable {
        /// What went wrong, for a log; no credential is in it.
        why: String,
        /// When to ask again.
        retry_after: Duration,
    },
}

/// A credential as a request presents it: where it came from says what it must be.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// The value of the session cookie.
    Cookie(&'a str),
    /// A bearer token.
    Access(&'a str),
}

/// How a session was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// By its cookie.
    Cookie,
    /// By an access token.
    Access,
}

/// A live session whose credential was presented.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The session's id.
    pub sid: Sid,
    /// Whose it is; none before a sign-in.
    pub subject: Option<Subject>,
    /// Its claims over its subject's. By an access token: as they were when it was issued.
    pub claims: Object,
    /// When its user last proved who they are.
    pub auth_time: Timestamp,
    /// How they did (RFC 8176).
    pub amr: Vec<String>,
    /// How far that is to be trusted.
    pub acr: String,
    /// Who acts on behalf of its user, if somebody does: such a session ends itself only.
    pub actor: Option<String>,
    /// How it was proven.
    pub via: Via,
    /// What its CSRF tokens are made with; none where an access token proved it.
    pub csrf_key: Option<Secret<[u8; 32]>>,
}

/// A session to be opened for a user whom the backend has checked itself, or for nobody yet.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Whose; none: anonymous.
    pub subject: Option<Subject>,
    /// How its credentials travel.
    pub delivery: Delivery,
    /// Its own claims.
    pub claims: Object,
    /// How the user was authenticated.
    pub amr: Vec<String>,
    /// How strongly; none: by one factor.
    pub acr: Option<String>,
    /// A session cookie whose session ends in its favour; its data comes along.
    pub replaces: Option<Secret<String>>,
    /// Its data, which wins over what comes along.
    pub data: Object,
    /// An idle timeout of its own.
    pub idle_timeout: Option<Duration>,
    /// A lifetime of its own.
    pub lifetime: Option<Duration>,
    /// Who asks, from where.
    pub client: Client,
}

/// A session's credentials, which are told once.
#[derive(Debug)]
pub struct Issued {
    /// The session cookie's value, or the refresh token.
    pub token: Secret<String>,
    /// The access token and its life in seconds; none for `cookie`.
    pub access: Option<(Secret<String>, u64)>,
    /// How long the refresh token can be used, in seconds; none for `cookie`.
    pub refresh_expires_in: Option<u64>,
}

/// A session's data and the version that a write has to name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The data.
    pub data: Object,
    /// Its version; zero where nothing was stored yet.
    pub version: u64,
}

/// One of a user's live sessions, as the user may see it: nothing that lets anybody be it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The session's id.
    pub sid: Sid,
    /// Since when it is.
    pub created_at: Timestamp,
    /// When it was last used, as far as that is written down.
    pub last_seen_at: Timestamp,
    /// Where it was opened from, by what.
    pub client: Client,
}

/// A session under a handle: the SHA-256 of an id that another framework minted.
pub type HandleHash = [u8; 32];

/// Answers for one authority.
pub trait Guard: Send + Sync + 'static {
    /// Proves a live session by a credential, and notes the use. Changes nothing else.
    fn verify<'a>(&'a self, credential: Presented<'a>) -> Answer<'a, Arc<Pass>>;

    /// Opens a session. One that it replaces ends with it.
    fn open(&self, opening: Opening) -> Answer<'_, (Pass, Issued)>;

    /// Exchanges a refresh token for its successor.
    fn refresh<'a>(&'a self, token: &'a str, client: Client) -> Answer<'a, Issued>;

    /// Ends a session because its user signed out. One that is over already is no fault.
    fn end(&self, sid: Sid, client: Client) -> Answer<'_, ()>;

    /// Ends every session of a subject, and every sign-in in flight; says how many lived.
    fn end_subject<'a>(&'a self, subject: &'a Subject, client: Client) -> Answer<'a, usize>;

    /// The live sessions of a subject, the one that was used last first.
    fn devices<'a>(&'a self, subject: &'a Subject) -> Answer<'a, Vec<Device>>;

    /// Ends one of a subject's sessions from another of them. One that is over already is no
    /// fault; one that isn't the subject's is [`Refusal::NotFound`], as if there were none.
    fn end_device<'a>(&'a self, subject: &'a Subject, sid: Sid, client: Client) -> Answer<'a, ()>;

    /// A live session's data.
    fn data(&self, sid: Sid) -> Answer<'_, Stored>;

    /// Replaces a live session's data if it still has `version`, else
    /// [`Refusal::PreconditionFailed`]. Never brings back what has ended.
    fn put_data(&self, sid: Sid, data: Object, version: u64) -> Answer<'_, ()>;

    /// The data of the live session under a handle; [`Refusal::NotFound`] where none is.
    fn handle(&self, handle: HandleHash) -> Answer<'_, Stored>;

    /// Creates the session under a handle or replaces its data, to live for `lifetime` from now.
    /// Where it has ended, [`Refusal::SessionEnded`].
    fn put_handle(&self, handle: HandleHash, data: Object, lifetime: Duration) -> Answer<'_, ()>;

    /// Ends the session under a handle. One that isn't there is no fault.
    fn end_handle(&self, handle: HandleHash) -> Answer<'_, ()>;

    /// Now, by the authority's clock as far as is known.
    fn now(&self) -> Timestamp;

    /// Fresh random bytes.
    fn random(&self) -> [u8; 16];
}
