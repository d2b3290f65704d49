//! Where the clean-up goes on: below these, nothing is filed and nothing is logged any more.
//!
//! What was removed leaves a marker behind until the tables are put in order, and a range that
//! begins with thousands of markers is read through all of them to its first key. A sweep asks for
//! the earliest filings again after each batch that it removed: from the beginning each time, that
//! would be a cost of the square of what has expired, on the thread of whoever asks.
//!
//! Kept in memory only; after a start the first question looks from the beginning.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::{Log, Tick};

/// The floors of all partitions.
pub(crate) struct Floors {
    partitions: Box<[OfPartition]>,
}

struct OfPartition {
    filings: Mutex<Filings>,
    feed: AtomicU64,
    audit: AtomicU64,
}

struct Filings {
    /// Nothing is filed before this.
    floor: Timestamp,
    /// The earliest instant that was filed since the last look began.
    filed: Timestamp,
    /// How many looks were begun.
    looks: u64,
}

/// A look for what is filed, from a floor on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Nothing was filed before this when it began.
    pub(crate) from: Timestamp,
    number: u64,
}

impl Floors {
    /// Nothing is known yet of so many partitions.
    pub(crate) fn new(partitions: u16) -> Self {
        let unknown = |_| OfPartition {
            filings: Mutex::new(Filings { floor: EARLIEST, filed: Timestamp::MAX, looks: 0 }),
            feed: AtomicU64::new(0),
            audit: AtomicU64::new(0),
        };
        Self { partitions: (0..partitions).map(unknown).collect() }
    }

    /// Begins a look. To be called before the state is taken that is looked at.
    pub(crate) fn look(&self, partition: Partition) -> Look {
        let Some(mut filings) = self.filings(partition) else {
            return Look { from: EARLIEST, number: 0 };
        };
        filings.looks += 1;
        filings.filed = Timestamp::MAX;
        Look { from: filings.floor, number: filings.looks }
    }

    /// Ends a look that found nothing before `first`.
    pub(crate) fn looked(&self, partition: Partition, look: Look, first: Timestamp) {
        let Some(mut filings) = self.filings(partition) else { return };
        // Of two looks at once the first doesn't know any more what was filed meanwhile.
        if filings.looks == look.number {
            filings.floor = first.min(filings.filed);
        }
    }

    /// Notes what was filed: after it is published, before anybody hears of it.
    pub(crate) fn file(&self, partition: Partition, at: Timestamp) {
        let Some(mut filings) = self.filings(partition) else { return };
        filings.filed = filings.filed.min(at);
        filings.floor = filings.floor.min(at);
    }

    /// The first tick of a log that may have entries; ticks only grow, so nothing comes before it.
    pub(crate) fn log(&self, partition: Partition, log: Log) -> Tick {
        self.log_floor(partition, log).map_or(Tick::ZERO, |at| Tick(at.load(Ordering::Relaxed)))
    }

    /// Notes that all entries before this tick are gone.
    pub(crate) fn trimmed(&self, partition: Partition, log: Log, to: Tick) {
        if let Some(floor) = self.log_floor(partition, log) {
            floor.fetch_max(to.0, Ordering::Relaxed);
        }
    }

    fn filings(&self, partition: Partition) -> Option<MutexGuard<'_, Filings>> {
        let of = self.partitions.get(usize::from(partition.0))?;
        Some(of.filings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn log_floor(&self, partition: Partition, log: Log) -> Option<&AtomicU64> {
        let of = self.partitions.get(usize::from(partition.0))?;
        Some(match log {
            Log::Feed => &of.feed,
            Log::Audit => &of.audit,
        })
    }
}

/// No filing is before this.
const EARLIEST: Timestamp = Timestamp::from_millis(i64::MIN);

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Partition = Partition(0);

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn a_look_goes_on_where_the_last_one_found_something() {
        let floors = Floors::new(1);
        let look = floors.look(HERE);
        assert_eq!(look.from, EARLIEST);
        floors.looked(HERE, look, at(50));
        assert_eq!(floors.look(HERE).from, at(50));
    }

    #[test]
    fn what_is_filed_earlier_lowers_the_floor_whenever_it_comes() {
        let floors = Floors::new(1);
        floors.looked(HERE, floors.look(HERE), at(50));
        floors.file(HERE, at(40));
        assert_eq!(floors.look(HERE).from, at(40));
        // During a look, which doesn't see it.
        let look = floors.look(HERE);
        floors.file(HERE, at(45));
        floors.looked(HERE, look, at(60));
        assert_eq!(floors.look(HERE).from, at(45));
        let look = floors.look(HERE);
        floors.file(HERE, at(10));
        floors.looked(HERE, look, at(60));
        assert_eq!(floors.look(HERE).from, at(10));
    }

    #[test]
    fn of_two_looks_at_once_only_the_later_raises_the_floor() {
        let floors = Floors::new(1);
        let first = floors.look(HERE);
        floors.file(HERE, at(5));
        let second = floors.look(HERE);
        floors.looked(HERE, first, at(50));
        assert_eq!(floors.look(HERE).from, EARLIEST);
        floors.looked(HERE, second, at(50));
        assert_eq!(floors.look(HERE).from, EARLIEST, "another look was begun since");
    }

    #[test]
    fn a_logs_floor_only_rises_and_is_its_own() {
        let floors = Floors::new(2);
        floors.trimmed(HERE, Log::Audit, Tick(7));
        floors.trimmed(HERE, Log::Audit, Tick(3));
        assert_eq!(floors.log(HERE, Log::Audit), Tick(7));
        assert_eq!(floors.log(HERE, Log::Feed), Tick::ZERO);
        assert_eq!(floors.log(Partition(1), Log::Audit), Tick::ZERO);
        assert_eq!(floors.log(Partition(2), Log::Audit), Tick::ZERO);
    }
}
