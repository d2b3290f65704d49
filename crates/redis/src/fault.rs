//! What a server's refusal means for a call.

use cloakroom_core::types::Partition;
use cloakroom_store::StoreError;
use redis::{ErrorKind, ServerErrorKind};

use crate::settings::Address;

/// Why a command has no answer. But for `Lost` it had no effect.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection broke: nobody knows whether the command was run.
    Lost(String),
    /// Another server has the slot now.
    Moved(Address),
    /// Another server has the key already; the slot is on its way.
    Ask(Address),
    /// The script isn't loaded.
    NoScript,
    /// Not now, but soon: it loads, the slot moves, a master is being chosen.
    Later(String),
    /// It is a replica.
    Replica(String),
    /// It takes no writes: full, its disk fails, too few replicas.
    NoWrites(String),
    /// A key holds something else than it should.
    WrongType(String),
    /// The user or the password is wrong.
    Login(String),
    /// The user may not do that.
    Privilege(String),
    /// Anything else.
    Other(String),
}

impl Fault {
    /// What went wrong, for people.
    pub(crate) fn problem(&self) -> String {
        match self {
            Self::Moved(to) => format!("the slot moved to {to}"),
            Self::Ask(to) => format!("the slot is moving to {to}"),
            Self::NoScript => "it forgets its scripts".to_owned(),
            Self::Lost(text)
            | Self::Later(text)
            | Self::Replica(text)
            | Self::NoWrites(text)
            | Self::WrongType(text)
            | Self::Login(text)
            | Self::Privilege(text)
            | Self::Other(text) => text.clone(),
        }
    }

    /// What it is to a caller who can't go on.
    pub(crate) fn into_store_error(self, partition: Partition) -> StoreError {
        match self {
            Self::Replica(text) | Self::NoWrites(text) => StoreError::ReadOnly(text),
            Self::WrongType(problem) => {
                StoreError::Corrupt { key: format!("partition {partition}"), problem }
            }
            Self::Lost(_)
            | Self::Moved(_)
            | Self::Ask(_)
            | Self::NoScript
            | Self::Later(_)
            | Self::Login(_)
            | Self::Privilege(_)
            | Self::Other(_) => StoreError::Unavailable(self.problem()),
        }
    }
}

impl From<redis::RedisError> for Fault {
    fn from(error: redis::RedisError) -> Self {
        let redirect = || {
            let (address, _) = error.redirect_node()?;
            // An empty host is that of the server itself; the caller fills it in.
            let (host, port) = address.rsplit_once(':')?;
            Some(Address { host: host.to_owned(), port: port.parse().ok()? })
        };
        let text = bounded(&error.to_string());
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => match redirect() {
                Some(address) => Self::Moved(address),
                None => Self::Other(text),
            },
            ErrorKind::Server(ServerErrorKind::Ask) => match redirect() {
                Some(address) => Self::Ask(address),
                None => Self::Other(text),
            },
            ErrorKind::Server(ServerErrorKind::NoScript) => Self::NoScript,
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown,
            ) => Self::Later(text),
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Self::Replica(text),
            ErrorKind::Server(ServerErrorKind::NoPerm) => Self::Privilege(text),
            ErrorKind::AuthenticationFailed => Self::Login(text),
            ErrorKind::Io | ErrorKind::Parse => Self::Lost(text),
            _ => Self::by_words(error.code().unwrap_or_default(), text),
        }
    }
}

impl Fault {
    /// Before Redis 7 an error within a script is text within another error.
    fn by_words(code: &str, text: String) -> Self {
        let says = |word: &str| code == word || text.contains(word);
        if says("READONLY") {
            Self::Replica(text)
        } else if says("OOM") || says("MISCONF") || says("NOREPLICAS") {
            Self::NoWrites(text)
        } else if says("WRONGTYPE") {
            Self::WrongType(text)
        } else if says("WRONGPASS") || says("NOAUTH") {
            Self::Login(text)
        } else if says("NOPERM") || DENIALS.iter().any(|denial| text.contains(denial)) {
            Self::Privilege(text)
        } else if says("BUSY") || says("non local key") {
            Self::Later(text)
        } else {
            Self::Other(text)
        }
    }
}

/// How servers of several releases say within a script that the user may not do that.
const DENIALS: [&str; 3] =
    ["can't run this command", "ACL failure in script", "has no permissions to"];

/// A server's words, cut: it may repeat what it was sent.
fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(PROBLEM_CHARS_MAX).collect()
}

const PROBLEM_CHARS_MAX: usize = 200;
