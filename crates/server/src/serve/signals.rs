//! The signals that a node follows.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The watched signals. To be made before anything says that the node runs: whoever reads that
/// may send one at once, and an unwatched one ends the process as it is.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// To go (SIGTERM, SIGINT).
    Stop,
    /// To read what can be read again (SIGHUP); a closed terminal sends it too.
    Hangup,
}

impl Signals {
    /// Watches from now on.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Hangup,
        }
    }
}
