//! What a store keeps in memory of what it has read and written, so as not to look it up.

use crate::floors::Floors;
use crate::known::Known;
use crate::seen::Seen;

/// All of it; none of it is needed, and each part says itself when it doesn't know.
pub(crate) struct Notes {
    /// What loads saw lately.
    pub(crate) seen: Seen,
    /// Partitions' records, and which sessions are new.
    pub(crate) known: Known,
    /// Where the clean-up goes on.
    pub(crate) floors: Floors,
}

impl Notes {
    /// For so many partitions and about so many keys.
    pub(crate) fn new(partitions: u16, keys: usize) -> Self {
        Self {
            seen: Seen::new(keys),
            known: Known::new(partitions),
            floors: Floors::new(partitions),
        }
    }
}
