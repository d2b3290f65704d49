//! The scripts, each sent by its digest and loaded where a server doesn't know it.

use std::sync::LazyLock;

use redis::{Cmd, Script};

/// A script and its digest.
pub(crate) struct Source {
    text: &'static str,
    digest: String,
}

impl Source {
    fn new(text: &'static str) -> Self {
        Self { text, digest: Script::new(text).get_hash().to_owned() }
    }

    /// What it says.
    pub(crate) const fn text(&self) -> &'static str {
        self.text
    }
}

/// Applies a batch, or nothing of it.
pub(crate) static COMMIT: LazyLock<Source> =
    LazyLock::new(|| Source::new(include_str!("scripts/commit.lua")));
/// Loads records.
pub(crate) static LOAD: LazyLock<Source> =
    LazyLock::new(|| Source::new(include_str!("scripts/load.lua")));
/// Loads records, and those that they name.
pub(crate) static FOLLOW: LazyLock<Source> =
    LazyLock::new(|| Source::new(include_str!("scripts/follow.lua")));
/// Reads a log.
pub(crate) static LOG: LazyLock<Source> =
    LazyLock::new(|| Source::new(include_str!("scripts/log.lua")));
/// Shortens a log.
pub(crate) static TRIM: LazyLock<Source> =
    LazyLock::new(|| Source::new(include_str!("scripts/trim.lua")));
/// Fixes the layout and tries the privileges.
pub(crate) static PREPARE: LazyLock<Source> =
    LazyLock::new(|| Source::new(include_str!("scripts/prepare.lua")));

/// A command to send, and the script that it names.
pub(crate) struct Call {
    /// What is sent.
    pub(crate) cmd: Cmd,
    /// What to load where the server doesn't know it.
    pub(crate) script: Option<&'static LazyLock<Source>>,
}

impl Call {
    /// Runs a script over these keys; its arguments are still to come.
    pub(crate) fn script(script: &'static LazyLock<Source>, keys: &[Vec<u8>]) -> Self {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(script.digest.as_str()).arg(keys.len());
        for key in keys {
            cmd.arg(key.as_slice());
        }
        Self { cmd, script: Some(script) }
    }

    /// A plain command.
    pub(crate) fn plain(cmd: Cmd) -> Self {
        Self { cmd, script: None }
    }

    /// Adds an argument.
    pub(crate) fn arg(&mut self, argument: impl redis::ToRedisArgs) -> &mut Self {
        self.cmd.arg(argument);
        self
    }
}
