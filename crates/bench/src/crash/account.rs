//! A worker's account: what was acknowledged of each of its sessions, and what is in doubt.

use std::time::Instant;

use serde_json::Value;

/// A session as far as its owner knows.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) sid: String,
    pub(crate) subject: String,
    pub(crate) proof: Proof,
    /// Whether an ending of it was acknowledged.
    pub(crate) ended: bool,
    /// The session's data as last acknowledged.
    pub(crate) data: Value,
    /// The trial in which something was last done with it.
    pub(crate) trial: u64,
}

/// What the owner shows.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    /// A session cookie and a CSRF token for it.
    Cookie { token: String, csrf: String },
    /// Tokens of a `bearer` session.
    Bearer(Tokens),
}

/// An access token and the end of a chain of refresh tokens.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
    /// The token before, when its exchange was answered, and the key it was exchanged with.
    pub(crate) before: Option<Exchanged>,
}

/// A refresh token whose successor was answered.
#[derive(Clone, Debug)]
pub(crate) struct Exchanged {
    pub(crate) token: String,
    pub(crate) at: Instant,
}

/// A request that was never answered: it happened, or it didn't.
#[derive(Clone, Debug)]
pub(crate) enum Doubt {
    /// Another session of this subject.
    Opened(String),
    /// The end of the session at this place.
    Ended(usize),
    /// The end of all sessions of this subject.
    SubjectEnded(String),
    /// The exchange of the refresh token of the session at this place.
    Refreshed(usize),
    /// This data of the session at this place.
    Written(usize, Value),
}

impl Held {
    /// Whether a doubt leaves open if this session, at `place`, is over.
    pub(crate) fn is_doubtful(&self, place: usize, doubt: Option<&Doubt>) -> bool {
        match doubt {
            Some(Doubt::Ended(other)) => *other == place,
            Some(Doubt::SubjectEnded(subject)) => *subject == self.subject,
            Some(Doubt::Opened(_) | Doubt::Refreshed(_) | Doubt::Written(..)) | None => false,
        }
    }
}

impl Tokens {
    /// Takes the answer of an exchange.
    pub(crate) fn exchanged(&mut self, refresh: String, access: String) {
        let token = std::mem::replace(&mut self.refresh, refresh);
        self.before = Some(Exchanged { token, at: Instant::now() });
        self.access = access;
    }
}
