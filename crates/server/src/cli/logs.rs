//! The log lines of this process, and how to change their level while it runs.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use super::client::Place;
use crate::config::{Loaded, Log, LogFormat, LogLevel, Surroundings};

/// The variable that goes before `log.level`.
const RUST_LOG: &str = "RUST_LOG";

/// Sets another filter; whether it could.
type SetFilter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// The lines that this process writes.
pub(super) struct Logs {
    /// Absent where somebody else writes them.
    set: Option<SetFilter>,
    level: LogLevel,
}

/// Writes a node's lines to standard error as the configuration has it.
pub(super) fn of_node(log: &Log) -> Logs {
    begin(log.level, log.format)
}

/// Writes the lines of a command that opens a store, amid what it says to a person.
pub(super) fn of_command(log: &Log) {
    let _ = begin(log.level, LogFormat::Text);
}

fn begin(level: LogLevel, format: LogFormat) -> Logs {
    let lines = tracing_subscriber::fmt().with_env_filter(filter(level)).with_writer(io::stderr);
    // Of a line that can't be written it would tell on standard error, which is what failed: that
    // panics, in the thread that had something to say. The line is lost instead (M5).
    let lines = lines.log_internal_errors(false);
    // Only a second call in one process fails; the first one's lines are as good.
    let (set, began): (SetFilter, bool) = match format {
        LogFormat::Text => {
            let lines = lines.with_target(false).with_ansi(has_colours());
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            let set = Box::new(move |filter: EnvFilter| handle.reload(filter).is_ok());
            (set, lines.try_init().is_ok())
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            let set = Box::new(move |filter: EnvFilter| handle.reload(filter).is_ok());
            (set, lines.try_init().is_ok())
        }
    };
    Logs { set: began.then_some(set), level }
}

impl Logs {
    /// Takes the level anew from a changed configuration; a wrong one changes nothing.
    pub(super) fn read_again(&mut self, place: &Place) {
        let loaded = Loaded::read(&place.flags(), &Surroundings::of_process());
        let config = match loaded.outcome {
            Ok(config) => config,
            Err(problems) => {
                for problem in problems.0 {
                    tracing::error!("{problem}");
                }
                tracing::error!(level = self.level.as_str(), "the former log.level stays in use");
                return;
            }
        };
        let level = config.log.level;
        if std::env::var_os(RUST_LOG).is_some_and(|value| !value.is_empty()) {
            tracing::info!("configuration read again; {RUST_LOG} is set and goes before log.level");
        } else if self.set.as_ref().is_some_and(|set| set(filter(level))) {
            self.level = level;
            // The new level may be above this line's own.
            tracing::info!(level = level.as_str(), "configuration read again: log.level");
        }
    }
}

/// Lines from this level on; `RUST_LOG` goes before it.
fn filter(level: LogLevel) -> EnvFilter {
    // The store's library tells of its files at every start, which says nothing to an operator.
    let default = format!("{},fjall=warn,lsm_tree=warn", level.as_str());
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default))
}

fn has_colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}
