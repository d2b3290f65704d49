//! What a record is, and its stored form.
//!
//! Stored bytes are one byte of format and then compact JSON, whose shapes are private to this
//! module. A release ignores members it doesn't know and fills in optional ones that are absent,
//! so that members can be added within a format; a greater format is refused by its number.

mod bytes;
mod entry;
mod shape;

use cloakroom_core::keys::KeyRecord;
use cloakroom_core::session::{Object, Session};
use cloakroom_core::store_key::WrappedKey;
use cloakroom_core::subject::{PartitionState, SubjectState, User};
use cloakroom_core::types::{Sid, Subject, Timestamp, TokenHash};

use crate::{Entry, Kind};

/// What is kept under a key.
#[derive(Clone, Debug)]
pub enum Record {
    /// A session.
    Session(Box<Session>),
    /// A session's data.
    Data(Object),
    /// A subject's epoch, claims and state.
    Subject(SubjectState),
    /// The sids of a subject's sessions, in no order.
    Index(Vec<Sid>),
    /// A user of the directory.
    User(User),
    /// Where an identifier leads.
    Identifier(IdentifierPointer),
    /// Where a handle leads.
    Handle(HandlePointer),
    /// That an access token is denied.
    DeniedToken(DeniedToken),
    /// The state of a counter of failed sign-ins, as the core's rate rules keep it.
    Throttle(u64),
    /// A partition's own epoch.
    Partition(PartitionState),
    /// A signing key.
    SigningKey(KeyRecord),
    /// A key of a backend.
    ApiKey(ApiKey),
    /// The wrapped store key.
    StoreKey(WrappedKey),
    /// What was fixed when the store was made.
    Settings(StoreSettings),
}

/// The way from an identifier to its user; it counts only if that user bears the identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentifierPointer {
    /// The user that it names.
    pub user: Subject,
    /// When it was put.
    pub at: Timestamp,
}

/// Where the id that another framework minted leads. It counts while the session is there, and for
/// a minute without it: then it is about to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandlePointer {
    /// The session.
    pub sid: Sid,
    /// When it was put.
    pub at: Timestamp,
    /// Until when its handle is over if the session is gone; known once that was opened.
    pub until: Option<Timestamp>,
}

/// What is kept of a denied access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeniedToken {
    /// Its `exp`: from then on it is refused for that.
    pub until: Timestamp,
}

/// A key by which a backend calls the admin API. Its secret is kept nowhere.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Its id.
    pub id: Sid,
    /// What its operator calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Hash of its secret.
    pub secret: TokenHash,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, roughly.
    pub last_used_at: Option<Timestamp>,
}

/// What was fixed when the store was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Into how many partitions subjects are hashed.
    pub partitions: u16,
    /// Drawn at random; tells two stores apart.
    pub store_id: [u8; 16],
    /// When the store was made.
    pub created_at: Timestamp,
}

/// The format that is written.
pub const FORMAT: u8 = 1;
/// The oldest format that is read: the one before the written, once there is one.
pub const FORMAT_MIN: u8 = 1;
const _: () = assert!(FORMAT_MIN == FORMAT || FORMAT_MIN + 1 == FORMAT);

/// Stored bytes that can't be read. Says nothing of their content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is nothing, not even a format.
    #[error("it is empty")]
    Empty,
    /// It was written by a release that this one knows nothing of, later or too early.
    #[error("it has format {found}, this release reads formats {FORMAT_MIN} to {FORMAT}")]
    Format {
        /// The format it has.
        found: u8,
    },
    /// It is not JSON of the shape that its kind has.
    #[error("it is malformed at byte {at}")]
    Shape {
        /// How far it was read, roughly.
        at: usize,
    },
}

/// The stored form of a record.
pub fn encode(record: &Record) -> Vec<u8> {
    shape::encode(record)
}

/// The record of a kind from its stored form.
pub fn decode(kind: Kind, stored: &[u8]) -> Result<Record, DecodeError> {
    shape::decode(kind, stored)
}

/// The stored form of a log entry.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    entry::encode(entry)
}

/// A log entry from its stored form.
pub fn decode_entry(stored: &[u8]) -> Result<Entry, DecodeError> {
    entry::decode(stored)
}

impl Record {
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
            Self::Partition(_) => Kind::Partition,
            Self::SigningKey(_) => Kind::SigningKey,
            Self::ApiKey(_) => Kind::ApiKey,
            Self::StoreKey(_) => Kind::StoreKey,
            Self::Settings(_) => Kind::Settings,
        }
    }
}

/// For each variant: what it holds, borrowed and owned.
macro_rules! accessors {
    ($($variant:ident($held:ty): $borrow:ident, $take:ident;)*) => {
        impl Record {
            $(
                #[doc = concat!("What it holds, if it is a `", stringify!($variant), "`.")]
                pub fn $borrow(&self) -> Option<&$held> {
                    if let Self::$variant(held) = self { Some(held) } else { None }
                }

                #[doc = concat!("Takes what it holds, if it is a `", stringify!($variant), "`.")]
                pub fn $take(self) -> Option<$held> {
                    if let Self::$variant(held) = self { Some(held) } else { None }
                }
            )*
        }
    };
}

accessors! {
    Data(Object): as_data, into_data;
    Subject(SubjectState): as_subject, into_subject;
    Index(Vec<Sid>): as_index, into_index;
    User(User): as_user, into_user;
    Identifier(IdentifierPointer): as_identifier, into_identifier;
    Handle(HandlePointer): as_handle, into_handle;
    DeniedToken(DeniedToken): as_denied_token, into_denied_token;
    Throttle(u64): as_throttle, into_throttle;
    Partition(PartitionState): as_partition, into_partition;
    SigningKey(KeyRecord): as_signing_key, into_signing_key;
    ApiKey(ApiKey): as_api_key, into_api_key;
    StoreKey(WrappedKey): as_store_key, into_store_key;
    Settings(StoreSettings): as_settings, into_settings;
}

impl Record {
    /// What it holds, if it is a `Session`.
    pub fn as_session(&self) -> Option<&Session> {
        if let Self::Session(held) = self { Some(held) } else { None }
    }

    /// Takes what it holds, if it is a `Session`.
    pub fn into_session(self) -> Option<Session> {
        if let Self::Session(held) = self { Some(*held) } else { None }
    }
}
