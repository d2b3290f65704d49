//! How a command ends when it doesn't succeed, and the exit codes of the program.

use std::io;

use serde_json::{Value, json};

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
    /// The authority refused.
    #[error("{text}")]
    Refused {
        /// The exit code that its status means.
        exit: u8,
        /// What it says, in one line.
        text: String,
        /// Its own account, for programs.
        problem: Value,
    },
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
            Self::Refused { exit, .. } => *exit,
            Self::Silent(code) => *code,
        }
    }

    /// Whether there is no such thing.
    pub const fn is_not_found(&self) -> bool {
        self.code() == 4
    }

    /// Whether the key may not do it.
    pub const fn is_not_allowed(&self) -> bool {
        self.code() == 5
    }

    /// The authority's code for it, such as `conflict`.
    pub fn problem_code(&self) -> Option<&str> {
        self.problem()?.get("code")?.as_str()
    }

    /// The authority's own account, where it was the one to refuse.
    const fn problem(&self) -> Option<&Value> {
        match self {
            Self::Refused { problem, .. } => Some(problem),
            Self::Failed(_)
            | Self::Usage(_)
            | Self::Unreachable(_)
            | Self::NotFound(_)
            | Self::NotAllowed(_)
            | Self::Silent(_)
            | Self::Unheard => None,
        }
    }

    /// What it says, where it says something.
    const fn text_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::Unreachable(text)
            | Self::NotFound(text)
            | Self::NotAllowed(text)
            | Self::Refused { text, .. } => Some(text),
            Self::Silent(_) | Self::Unheard => None,
        }
    }

    /// The same with more to say.
    #[must_use]
    pub fn with(mut self, more: &str) -> Self {
        if let Some(text) = self.text_mut() {
            text.push_str(more);
        }
        self
    }

    /// The same, naming what isn't there.
    #[must_use]
    pub fn naming(mut self, what: &str, name: &str) -> Self {
        if self.is_not_found()
            && let Some(text) = self.text_mut()
        {
            *text = format!("there is no {what} {name:?}");
        }
        self
    }

    /// The same for programs.
    pub fn to_json(&self) -> Value {
        let problem = self.problem().cloned().unwrap_or_default();
        let message = self.to_string();
        json!({"error": {"message": message, "exit_code": self.code(), "problem": problem}})
    }

    /// Whether there is something to say.
    pub const fn is_loud(&self) -> bool {
        match self {
            Self::Failed(_)
            | Self::Usage(_)
            | Self::Unreachable(_)
            | Self::NotFound(_)
            | Self::NotAllowed(_)
            | Self::Refused { .. } => true,
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
