//! Who asks, and how an operation can fail.

use cloakroom_core::event::{Actor, Event, EventKind};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::Client;
use cloakroom_core::types::{Sid, Subject, Timestamp};
use cloakroom_store::StoreError;

/// Who asks for an operation, from where, in which request.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who.
    pub actor: Actor,
    /// From where: the client's address and agent, cleaned and bounded.
    pub client: Client,
    /// The request's id.
    pub request_id: Option<String>,
}

impl Context {
    /// Cloakroom itself.
    pub fn system() -> Self {
        Self { actor: Actor::System, client: Client::default(), request_id: None }
    }

    /// An event of this request.
    pub(crate) fn event(
        &self,
        kind: EventKind,
        at: Timestamp,
        sid: Option<Sid>,
        subject: Option<&Subject>,
    ) -> Event {
        Event {
            kind,
            at,
            sid,
            subject: subject.cloned(),
            actor: self.actor.clone(),
            client: self.client.clone(),
            request_id: self.request_id.clone(),
            reason: None,
            count: 1,
        }
    }
}

/// Why the authority can't tell.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The deadline passed.
    #[error("the deadline passed before the store was done")]
    Deadline,
    /// What must be there isn't: a fault of the store, never taken for a "no".
    #[error("the store lacks {0}")]
    Missing(String),
    /// A cryptographic operation failed.
    #[error("a key can't be used: {0}")]
    Key(String),
}

/// How an operation fails: by a "no", or by "I can't tell". Never one for the other.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The answer is no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The authority can't tell (503).
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A bounded queue is full (503).
    #[error("too much is waiting already")]
    Overloaded,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(Unavailable::Store(error))
    }
}
