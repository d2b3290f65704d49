//! What goes wrong, in one plain sentence, and never with a credential in it.

use std::fmt;
use std::path::{Path, PathBuf};

use cloakroom_store::StoreError;
use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL can't be read. It isn't quoted: it may hold a password.
    #[error(
        "the URL isn't one of PostgreSQL: it has the form postgres://user:password@host/database"
    )]
    Url,
    /// The URL asks for TLS in a way that protects nothing, or in none that there is.
    #[error(
        "sslmode={0} isn't supported, since anybody on the way could turn it off: use \
         disable, verify-ca, or verify-full (which require means too)"
    )]
    SslMode(String),
    /// The schema's name would need quoting.
    #[error(
        "the schema {0:?} has no usable name: it begins with a lower-case letter, goes on with \
         lower-case letters, digits and _, and has at most 48 bytes"
    )]
    Schema(String),
    /// A file for TLS can't be used.
    #[error("can't {action} {}: {problem}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// One half of a client certificate was given.
    #[error("a client certificate needs both its certificate file and its key file")]
    HalfClientCertificate,
    /// There is nobody to vouch for the server.
    #[error(
        "this machine trusts no certificate authority, so the server can't be verified: name its \
         authority's certificate file"
    )]
    NoRoots,
    /// TLS can't be set up: there is none, or the server isn't who it should be.
    #[error("TLS can't be set up: {0}")]
    Tls(String),
    /// Nobody answers, or not now. Trying again may help; nothing else here does.
    #[error("the database can't be reached: {0}")]
    Unreachable(String),
    /// The server doesn't let us in.
    #[error("the server refuses the user or its password: {0}")]
    Refused(String),
    /// There is no such database.
    #[error("the server has no such database: {0}")]
    NoDatabase(String),
    /// The user may not do what is needed.
    #[error("the database user lacks a privilege: {0}")]
    Privilege(String),
    /// The server is too old.
    #[error("the server is PostgreSQL {0}; at least version 13 is needed")]
    TooOld(String),
    /// The database can't hold every text.
    #[error("the database has the encoding {0}; it needs UTF8: create it with ENCODING 'UTF8'")]
    Encoding(String),
    /// Transactions would be isolated in a way that makes commits fail.
    #[error(
        "transactions are {found} by default; run ALTER ROLE \"{user}\" \
         SET default_transaction_isolation = 'read committed'"
    )]
    Isolation {
        /// How they are isolated.
        found: String,
        /// Whose default it is.
        user: String,
    },
    /// An older release made it, and we may not bring it up to date.
    #[error(
        "the schema {schema} has version {found}, this release needs {needed}: run \
         `cloakroom store migrate`, or set store.migrate = true"
    )]
    OldSchema {
        /// Which schema.
        schema: String,
        /// Its version; 0 where there is none.
        found: i32,
        /// The version that we need.
        needed: i32,
    },
    /// A newer release made it, or brought it up to date.
    #[error("the schema {schema} has version {found}, which is too new for this release")]
    NewerSchema {
        /// Which schema.
        schema: String,
        /// Its version.
        found: i32,
    },
    /// It isn't there and can't be made here.
    #[error("the schema {0} needs changes, and the server is read-only: connect to its primary")]
    ReadOnly(String),
    /// Something that is not a store, or no whole one.
    #[error("the schema {schema} can't be used: {problem}")]
    Damaged {
        /// Which schema.
        schema: String,
        /// What is wrong.
        problem: String,
    },
}

impl ConnectError {
    /// Whether trying again may help.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    pub(crate) fn file(action: &'static str, path: &Path, problem: impl fmt::Display) -> Self {
        Self::File { action, path: path.to_owned(), problem: problem.to_string() }
    }

    /// What an error means for one who connects.
    pub(crate) fn of(error: &tokio_postgres::Error, schema: &str) -> Self {
        let told = tell(error);
        let Some(code) = error.code() else {
            // The library says it in words only.
            let is_tls = told.starts_with("error performing TLS handshake");
            return if is_tls { Self::Tls(told) } else { Self::Unreachable(told) };
        };
        if [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION]
            .contains(code)
        {
            return Self::Refused(told);
        }
        if *code == SqlState::INVALID_CATALOG_NAME {
            return Self::NoDatabase(told);
        }
        if *code == SqlState::INSUFFICIENT_PRIVILEGE {
            return Self::Privilege(told);
        }
        if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
            return Self::ReadOnly(schema.to_owned());
        }
        if is_passing(code) {
            return Self::Unreachable(told);
        }
        Self::Damaged { schema: schema.to_owned(), problem: told }
    }
}

/// What a failed call did at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it reads, or it was never sent.
    None,
    /// Perhaps all that it was to do.
    Perhaps,
}

/// What an error means for a call that had this effect at most.
pub(crate) fn store_error(error: &tokio_postgres::Error, effect: Effect) -> StoreError {
    let told = tell(error);
    let Some(code) = error.code() else { return unanswered(told, effect) };
    if takes_no_writes(code) {
        return StoreError::ReadOnly(told);
    }
    // A server that is told to stop ends its connections also right after a commit.
    if effect == Effect::Perhaps && code.code().starts_with("57P") {
        return StoreError::OutcomeUnknown(told);
    }
    // Any other answer of the server's means that the transaction was rolled back.
    StoreError::Unavailable(told)
}

/// No answer came.
pub(crate) fn unanswered(told: String, effect: Effect) -> StoreError {
    match effect {
        Effect::None => StoreError::Unavailable(told),
        Effect::Perhaps => StoreError::OutcomeUnknown(told),
    }
}

/// No connection could be had, so nothing was sent.
pub(crate) fn no_connection(error: &PoolError) -> StoreError {
    let told = match error {
        PoolError::Backend(error) => tell(error),
        PoolError::Timeout(TimeoutType::Wait) => "all connections are busy".to_owned(),
        PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
            "it doesn't answer in time".to_owned()
        }
        PoolError::Closed => "the store is closed".to_owned(),
        PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            "no connection can be made".to_owned()
        }
    };
    StoreError::Unavailable(told)
}

/// Whether the connection is over, as when the server restarts, or of no more use.
pub(crate) fn is_cut_off(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || error.code().is_some_and(|code| code.code().starts_with("57P"))
        || is_forgotten(error)
}

/// Whether the server doesn't know a named statement any more, or can't run it as it was planned.
pub(crate) fn is_forgotten(error: &tokio_postgres::Error) -> bool {
    let forgotten = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::FEATURE_NOT_SUPPORTED];
    error.code().is_some_and(|code| forgotten.contains(code))
}

/// The error in words. Of what the server says only the first line, and no detail: a detail may
/// quote a row.
pub(crate) fn tell(error: &tokio_postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        return format!("{} ({})", answer.message(), answer.code().code());
    }
    if error.is_closed() {
        return "the connection was closed".to_owned();
    }
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(because) = cause {
        let because_told = because.to_string();
        // Some errors already say what caused them.
        if !told.contains(&because_told) {
            told = format!("{told}: {because_told}");
        }
        cause = because.source();
    }
    told
}

/// Read-only transactions, full disks, and what a cluster without its majority says.
fn takes_no_writes(code: &SqlState) -> bool {
    [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::DISK_FULL].contains(code)
}

/// Connection lost, resources short, operator at work, other transactions in the way.
fn is_passing(code: &SqlState) -> bool {
    ["08", "53", "57", "55P03", "40"].iter().any(|class| code.code().starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for code in ["08006", "53300", "57P03", "40001", "55P03"] {
            assert!(is_passing(&SqlState::from_code(code)), "{code}");
        }
        for code in ["42P01", "28P01", "3D000", "55000"] {
            assert!(!is_passing(&SqlState::from_code(code)), "{code}");
        }
    }

    #[test]
    fn a_full_disk_takes_no_writes() {
        assert!(takes_no_writes(&SqlState::from_code("53100")));
        assert!(takes_no_writes(&SqlState::from_code("25006")));
        assert!(!takes_no_writes(&SqlState::from_code("53200")));
    }
}
