//! Where a value comes from, and what is wrong with it.

use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The configuration file as a whole.
    WholeFile(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// A file in systemd's directory of credentials.
    Credential(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::WholeFile(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Credential(path) => write!(f, "credential {}", path.display()),
        }
    }
}

/// One thing that is wrong, or deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub source: Source,
    /// The key that it is about; empty when it is about the file itself.
    pub key: String,
    /// What is wrong and how to mend it; continues "the key …".
    pub text: String,
}

impl Problem {
    /// A problem with a key.
    pub(super) fn new(source: Source, key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { source, key: key.into(), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Default => {}
            Source::File { .. }
            | Source::WholeFile(_)
            | Source::Environment(_)
            | Source::Flag(_)
            | Source::Credential(_) => write!(f, "{}: ", self.source)?,
        }
        if self.key.is_empty() {
            f.write_str(&self.text)
        } else {
            write!(f, "`{}` {}", self.key, self.text)
        }
    }
}

impl Problem {
    /// The same as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "key": self.key,
            "text": self.text,
            "source": super::report::source_json(&self.source),
        })
    }
}

/// Why there is no configuration: everything that is wrong with it, in the order of the lines.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);
