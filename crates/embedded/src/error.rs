//! Why a store can't be opened.

use std::io;
use std::path::{Path, PathBuf};

use cloakroom_store::Tick;

/// Why a store can't be opened. Nothing was changed on disk, but for what says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{} is in use by {}", dir.display(), process(*pid))]
    Locked {
        /// Which directory.
        dir: PathBuf,
        /// The other's process id, where its lock file tells.
        pid: Option<u32>,
    },
    /// A newer release made it, or brought it up to date.
    #[error(
        "the store in {} has format {found}, this release reads up to {known}; use a newer one",
        dir.display()
    )]
    NewerFormat {
        /// Which directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that we know.
        known: u32,
    },
    /// A file can't be used at all.
    #[error("can't {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file doesn't hold what was written to it.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// Which file or folder.
        path: PathBuf,
        /// What is wrong and what it affects.
        problem: String,
    },
    /// Commits that were acknowledged are gone: the disk lost them, or older files were put back.
    #[error(
        "the store in {} lost commits: it was acknowledged up to tick {}, but holds them only \
         up to {}; restore a backup",
        dir.display(), acknowledged.0, found.0
    )]
    Lost {
        /// Which directory.
        dir: PathBuf,
        /// The last tick that was acknowledged.
        acknowledged: Tick,
        /// The last tick that is there.
        found: Tick,
    },
}

impl OpenError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
