//! What is known of a partition without a look-up: its own record, and which session ids are new.
//!
//! Nearly every call asks for the partition's record, which hardly ever changes, and every opening
//! asks for a session that can't be there: ids begin with the instant at which they are made, so
//! an id beyond all that were ever stored names nothing. Looking through the write buffer and the
//! tables for what isn't there costs the most of all.
//!
//! The writer notes what it changes before it publishes the state that shows it. Whoever reads a
//! state and then asks here is told of every change in that state, perhaps of later ones too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use cloakroom_core::types::{Partition, Sid, Timestamp};
use cloakroom_store::{StoreError, Tick, Versioned};

use crate::envelope::Envelope;

/// What is known of all partitions.
pub(crate) struct Known {
    partitions: Box<[OfPartition]>,
}

#[derive(Default)]
struct OfPartition {
    /// The last commit that wrote the partition's record since the store was opened.
    changed: AtomicU64,
    record: ArcSwapOption<Seen>,
    newest: Mutex<Newest>,
}

/// The partition's record as a state had it.
struct Seen {
    /// The last commit of that state.
    state: Tick,
    envelope: Envelope,
    record: Versioned,
}

/// The greatest ids of sessions.
#[derive(Default)]
struct Newest {
    /// Of those that a state had; `None`: nobody looked yet.
    stored: Option<Option<Sid>>,
    /// Of those that were written since the store was opened.
    written: Option<Sid>,
}

impl Known {
    /// Nothing is known yet of so many partitions.
    pub(crate) fn new(partitions: u16) -> Self {
        Self { partitions: (0..partitions).map(|_| OfPartition::default()).collect() }
    }

    /// Notes, before it is published, that the commit of this tick stores a session, or, without
    /// one, the partition's record.
    pub(crate) fn write(&self, partition: Partition, sid: Option<Sid>, tick: Tick) {
        let Some(of) = self.of(partition) else { return };
        match sid {
            None => of.changed.store(tick.0, Ordering::Release),
            Some(sid) => {
                let mut newest = of.newest.lock().unwrap_or_else(PoisonError::into_inner);
                newest.written = newest.written.max(Some(sid));
            }
        }
    }

    /// Keeps the partition's record as a state has it.
    pub(crate) fn keep(
        &self,
        partition: Partition,
        state: Tick,
        envelope: Envelope,
        record: &Versioned,
    ) {
        let Some(of) = self.of(partition) else { return };
        let record = Seen { state, envelope, record: record.clone() };
        of.record.store(Some(Arc::new(record)));
    }

    /// The partition's record in a state, and what is stored around it; none where it has to be
    /// looked up.
    pub(crate) fn record(
        &self,
        partition: Partition,
        state: Tick,
        now: Timestamp,
    ) -> Option<(Envelope, Versioned)> {
        let of = self.of(partition)?;
        let seen = of.record.load();
        let seen = seen.as_deref()?;
        // After the record was read: whoever kept it had been told of all before it.
        let changed = Tick(of.changed.load(Ordering::Acquire));
        let unchanged = changed <= seen.state.min(state) && !seen.envelope.is_expired(now);
        unchanged.then(|| (seen.envelope, seen.record.clone()))
    }

    /// Whether a session's id is beyond all that a state has, which `stored` finds the greatest of.
    ///
    /// To be asked after the state was taken.
    pub(crate) fn is_new(
        &self,
        partition: Partition,
        sid: Sid,
        stored: impl FnOnce() -> Result<Option<Sid>, StoreError>,
    ) -> Result<bool, StoreError> {
        let Some(of) = self.of(partition) else { return Ok(false) };
        let known = {
            let newest = of.newest.lock().unwrap_or_else(PoisonError::into_inner);
            if newest.written >= Some(sid) {
                return Ok(false);
            }
            newest.stored
        };
        let greatest = match known {
            Some(greatest) => greatest,
            None => {
                // Any state will do: what is written after it is noted as written.
                let found = stored()?;
                of.newest.lock().unwrap_or_else(PoisonError::into_inner).stored = Some(found);
                found
            }
        };
        Ok(greatest < Some(sid))
    }

    fn of(&self, partition: Partition) -> Option<&OfPartition> {
        self.partitions.get(usize::from(partition.0))
    }
}

#[cfg(test)]
mod tests {
    use cloakroom_core::subject::PartitionState;
    use cloakroom_store::Record;

    use super::*;

    const HERE: Partition = Partition(1);

    fn sid(ms: i64) -> Sid {
        Sid::new(Timestamp::from_millis(ms), HERE, [7; 8])
    }

    fn nobody_looks() -> Result<Option<Sid>, StoreError> {
        Err(StoreError::Unavailable("it was looked up".to_owned()))
    }

    fn keep(known: &Known, state: u64, expires_at: Option<Timestamp>) {
        let version = Tick(1);
        let record = Record::Partition(PartitionState::default());
        let envelope = Envelope { version, review_at: None, expires_at };
        known.keep(HERE, Tick(state), envelope, &Versioned { version, record });
    }

    #[test]
    fn an_id_is_new_only_beyond_all_that_were_stored_or_written() {
        let known = Known::new(2);
        let is_new = |ms, stored: Option<i64>| {
            known.is_new(HERE, sid(ms), || Ok(stored.map(sid))).expect("an answer")
        };
        assert!(!is_new(5, Some(6)));
        assert!(!is_new(6, None), "what was found once holds");
        assert!(is_new(7, None));
        known.write(HERE, Some(sid(9)), Tick(1));
        known.write(HERE, Some(sid(8)), Tick(2));
        known.write(Partition(0), Some(sid(20)), Tick(3));
        assert!(!is_new(8, None) && !is_new(9, None));
        assert!(is_new(10, None));
    }

    #[test]
    fn a_failed_look_is_an_error_and_made_again() {
        let known = Known::new(2);
        assert!(known.is_new(HERE, sid(1), nobody_looks).is_err());
        assert!(known.is_new(HERE, sid(1), || Ok(None)).expect("an answer"));
        assert!(!known.is_new(Partition(9), sid(1), nobody_looks).expect("an answer"));
    }

    #[test]
    fn a_partitions_record_is_known_in_states_that_it_has_not_changed_before() {
        let known = Known::new(2);
        let is_known = |state| known.record(HERE, Tick(state), Timestamp::EPOCH).is_some();
        assert!(!is_known(5));
        keep(&known, 5, None);
        assert!(is_known(4) && is_known(5) && is_known(6));
        known.write(HERE, None, Tick(7));
        assert!(!is_known(6) && !is_known(8), "it was seen before it changed");
        keep(&known, 8, None);
        assert!(!is_known(6), "that state is from before the change");
        assert!(is_known(7) && is_known(9));
        // A slow reader keeps what it saw long ago.
        keep(&known, 6, None);
        assert!(!is_known(9));
    }

    #[test]
    fn a_partitions_record_that_has_expired_is_looked_up() {
        let known = Known::new(2);
        keep(&known, 5, Some(Timestamp::from_millis(3)));
        let at = |ms| known.record(HERE, Tick(5), Timestamp::from_millis(ms)).is_some();
        assert!(at(2) && !at(3));
    }
}
