//! How an answer without an end tells its connection that it is still read.

use std::fmt;
use std::sync::Arc;

/// A connection that nobody asks anything of is closed in time; an answer that goes on keeps it
/// open by a beat for each piece that is taken, so that a client which stopped reading is let go.
#[derive(Clone)]
pub struct Pulse(Arc<dyn Fn() + Send + Sync>);

impl Pulse {
    /// A pulse that is felt by `beat`.
    pub fn new(beat: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(beat))
    }

    /// Says that the client still reads.
    pub fn beat(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pulse")
    }
}
