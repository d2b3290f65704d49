//! What records are called.

use std::fmt;
use std::sync::Arc;

use cloakroom_core::types::{Sid, Subject};

/// The name of a record within its partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A session.
    Session(Sid),
    /// A session's data.
    Data(Sid),
    /// A subject's epoch, claims and state.
    Subject(Subject),
    /// The sids of a subject's sessions.
    Index(Subject),
    /// A user of the directory, by its id.
    User(Subject),
    /// The pointer from an identifier to its user, by keyed hash.
    Identifier([u8; 32]),
    /// The pointer from a handle to its session, by keyed hash.
    Handle([u8; 32]),
    /// A denied access token, by its `jti`.
    DeniedToken(Arc<str>),
    /// A counter of failed sign-ins, by keyed hash.
    Throttle([u8; 32]),
    /// The partition's own epoch.
    Partition,
    /// A signing key, by its `kid`; in partition 0.
    SigningKey(Arc<str>),
    /// A key of a backend, by its id; in partition 0.
    ApiKey(Sid),
    /// The wrapped store key; in partition 0.
    StoreKey,
    /// What was fixed when the store was made; in partition 0.
    Settings,
}

/// The kinds of records, for paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "named after the keys")]
pub enum Kind {
    Session,
    Data,
    Subject,
    Index,
    User,
    Identifier,
    Handle,
    DeniedToken,
    Throttle,
    Partition,
    SigningKey,
    ApiKey,
    StoreKey,
    Settings,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 14] = [
        Self::Session,
        Self::Data,
        Self::Subject,
        Self::Index,
        Self::User,
        Self::Identifier,
        Self::Handle,
        Self::DeniedToken,
        Self::Throttle,
        Self::Partition,
        Self::SigningKey,
        Self::ApiKey,
        Self::StoreKey,
        Self::Settings,
    ];
}

impl Key {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Session(_) => Kind::Session,
            Self::Data(_) => Kind::Data,
            Self::Subject(_) => Kind::Subject,
            Self::Index(_) => Kind::Index,
            Self::User(_) => Kind::User,
            Self::Identifier(_) => Kind::Identifier,
            Self::Handle(_) => Kind::Handle,
            Self::DeniedToken(_) => Kind::DeniedToken,
            Self::Throttle(_) => Kind::Throttle,
            Self::Partition => Kind::Partition,
            Self::SigningKey(_) => Kind::SigningKey,
            Self::ApiKey(_) => Kind::ApiKey,
            Self::StoreKey => Kind::StoreKey,
            Self::Settings => Kind::Settings,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
