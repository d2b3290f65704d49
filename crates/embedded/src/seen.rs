//! What loads saw lately, so that a commit needn't look up again what was just read for it.
//!
//! A commit expects the versions that its caller got from a load a moment before. What that load
//! saw, and in which state, is kept by key in slots of a fixed number, which later keys take over.
//! Whether the key changed after that state is for the writer to say, as it is of a look-up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cloakroom_store::Tick;

use crate::envelope::Envelope;
use crate::recent::KeyHash;

/// What was seen of some keys.
pub(crate) struct Seen {
    slots: Box<[Mutex<Option<Sight>>]>,
}

/// What was stored under a key in one state.
struct Sight {
    /// The key as spelled: two may share a hash, and whoever chooses a subject could make them.
    key: Box<[u8]>,
    envelope: Option<Envelope>,
    state: Tick,
}

impl Seen {
    /// Remembers at most about so many keys.
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots: (0..slots.max(1)).map(|_| Mutex::default()).collect() }
    }

    /// Notes what is stored under a key in the state whose last commit is `state`.
    pub(crate) fn note(&self, key: Vec<u8>, envelope: Option<Envelope>, state: Tick) {
        if let Some(mut slot) = self.slot(KeyHash::of(&key)) {
            // Of two states the later one is less likely to be too old for the writer.
            let is_newer = slot.as_ref().is_none_or(|seen| seen.state <= state);
            if is_newer || slot.as_ref().is_some_and(|seen| *seen.key != *key) {
                *slot = Some(Sight { key: key.into(), envelope, state });
            }
        }
    }

    /// What was seen under a key, and in which state; none where that isn't known.
    pub(crate) fn of(&self, hash: KeyHash, key: &[u8]) -> Option<(Option<Envelope>, Tick)> {
        let slot = self.slot(hash)?;
        slot.as_ref().filter(|seen| *seen.key == *key).map(|seen| (seen.envelope, seen.state))
    }

    fn slot(&self, hash: KeyHash) -> Option<MutexGuard<'_, Option<Sight>>> {
        let slot = self.slots.get(hash.place(self.slots.len()))?;
        // A panic elsewhere leaves no half of a sight.
        Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use cloakroom_core::types::Timestamp;

    use super::*;

    fn envelope(version: u64) -> Option<Envelope> {
        Some(Envelope {
            version: Tick(version),
            review_at: Some(Timestamp::EPOCH),
            expires_at: None,
        })
    }

    fn of(seen: &Seen, key: &[u8]) -> Option<(Option<Envelope>, Tick)> {
        seen.of(KeyHash::of(key), key)
    }

    #[test]
    fn what_was_seen_last_is_known_and_no_older_state_hides_it() {
        let seen = Seen::new(64);
        assert_eq!(of(&seen, b"a"), None);
        seen.note(b"a".to_vec(), None, Tick(1));
        assert_eq!(of(&seen, b"a"), Some((None, Tick(1))));
        seen.note(b"a".to_vec(), envelope(2), Tick(3));
        seen.note(b"a".to_vec(), None, Tick(1));
        assert_eq!(of(&seen, b"a"), Some((envelope(2), Tick(3))));
    }

    #[test]
    fn keys_that_share_a_slot_are_told_apart() {
        let seen = Seen::new(1);
        seen.note(b"a".to_vec(), envelope(7), Tick(9));
        assert_eq!(of(&seen, b"b"), None);
        seen.note(b"b".to_vec(), None, Tick(1));
        assert_eq!(of(&seen, b"b"), Some((None, Tick(1))));
        assert_eq!(of(&seen, b"a"), None);
    }
}
