//! How a command ends when it doesn't succeed, and the exit codes of the program.

use std::io;

/// Why a command stops. The text is for people; it holds no credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was tried and didn't work: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Wrong usage or configuration: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The authority or its store can't be reached: exit code 3.
    #[error("{0}")]
    Unreachable(String),
    /// There is no such thing: exit code 4.
    #[error("{0}")]
    NotFound(String),
    /// The key is missing, wrong, or lacks a scope: exit code 5.
    #[error("{0}")]
    NotAllowed(String),
    /// Everything was said already: exit code as given.
    #[error("")]
    Silent(u8),
    /// Whoever reads our output has gone: nobody is left to tell.
    #[error("")]
    Unheard,
}

impl Failure {
    /// The exit code of the process.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Unheard => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::NotFound(_) => 4,
            Self::NotAllowed(_) => 5,
            Self::Silent(code) => *code,
        }
    }

    /// Whether there is something to say.
    pub const fn is_loud(&self) -> bool {
        match self {
            Self::Failed(_)
            | Self::Usage(_)
            | Self::Unreachable(_)
            | Self::NotFound(_)
            | Self::NotAllowed(_) => true,
            Self::Silent(_) | Self::Unheard => false,
        }
    }
}

impl From<io::Error> for Failure {
    /// An error of writing our output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Unheard
        } else {
            Self::Failed(error.to_string())
        }
    }
}
