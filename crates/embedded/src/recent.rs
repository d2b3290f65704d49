//! Which keys changed lately: what the writer needs to judge a commit without reading.
//!
//! A commit arrives checked against a state that readers saw. It conflicts if one of its keys
//! changed after that state, and only the changes since then can tell; so it is enough to remember
//! the last few. A commit that comes from before they begin is checked anew by its caller.
//!
//! Keys are remembered by a hash of 64 bits. Where two share one, a commit conflicts that needn't:
//! its caller tries again, from a later state, and succeeds.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use cloakroom_store::Tick;
use xxhash_rust::xxh3::xxh3_64;

/// A key, as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    /// Hashes a key.
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(xxh3_64(key))
    }

    /// Its place among so many.
    pub(crate) fn place(self, count: usize) -> usize {
        // The remainder is below `count`, so it fits.
        usize::try_from(self.0 % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0)
    }
}

/// The last changes, in two generations of bounded size.
#[derive(Debug)]
pub(crate) struct Recent {
    young: Changes,
    old: Changes,
    /// Every change after this is remembered.
    since: Tick,
    /// The last tick when `young` was begun; `old` holds nothing later.
    turned: Tick,
    size: usize,
}

type Changes = HashMap<KeyHash, Tick, BuildHasherDefault<Hashed>>;

/// The hash of what is a hash.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What is known of a key's changes after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// None.
    Unchanged,
    /// It changed.
    Changed,
    /// That tick is too long ago.
    Unknown,
}

impl Recent {
    /// Remembers what changes after `tick`, at least the last `size` changes.
    pub(crate) fn new(tick: Tick, size: usize) -> Self {
        Self { young: Changes::default(), old: Changes::default(), since: tick, turned: tick, size }
    }

    /// Notes a change.
    pub(crate) fn changed(&mut self, key: KeyHash, tick: Tick) {
        self.young.insert(key, tick);
    }

    /// Forgets the older half when the younger has its size; `last` is the last tick noted.
    pub(crate) fn turn(&mut self, last: Tick) {
        if self.young.len() < self.size {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        self.since = self.turned;
        self.turned = last;
    }

    /// Whether a key changed after `tick`.
    pub(crate) fn since(&self, key: KeyHash, tick: Tick) -> Since {
        if tick < self.since {
            return Since::Unknown;
        }
        let changed = self.young.get(&key).or_else(|| self.old.get(&key));
        if changed.is_some_and(|at| *at > tick) { Since::Changed } else { Since::Unchanged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: u8) -> KeyHash {
        KeyHash::of(&[name])
    }

    #[test]
    fn a_change_is_known_until_two_generations_are_full() {
        let mut recent = Recent::new(Tick(0), 2);
        let mut tick = Tick(0);
        for name in 0..3u8 {
            tick = tick.successor();
            recent.changed(key(name), tick);
            recent.turn(tick);
        }
        assert_eq!(recent.since(key(0), Tick(0)), Since::Changed);
        assert_eq!(recent.since(key(0), Tick(1)), Since::Unchanged);
        assert_eq!(recent.since(key(2), Tick(2)), Since::Changed);
        assert_eq!(recent.since(key(9), Tick(0)), Since::Unchanged);

        recent.changed(key(3), Tick(4));
        recent.turn(Tick(4));
        assert_eq!(recent.since(key(0), Tick(1)), Since::Unknown);
        assert_eq!(recent.since(key(2), Tick(2)), Since::Changed);
        assert_eq!(recent.since(key(1), Tick(4)), Since::Unchanged);
    }
}
