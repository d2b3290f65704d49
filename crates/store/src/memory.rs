//! The reference model: what every store must behave like, in maps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloakroom_core::types::{Partition, Timestamp};

use crate::{
    Batch, Change, Commit, Committed, Durability, Entry, Follow, Found, Key, Kind, Log, Logged,
    Record, Review, Store, StoreError, Tick, Version, Versioned, Write,
};

/// A store in memory. Clones are one store.
#[derive(Clone)]
pub struct MemoryStore {
    partitions: Arc<[Mutex<Shard>]>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// All partitions as they once were.
#[derive(Clone, Debug)]
pub struct Snapshot(Vec<Shard>);

/// One partition.
#[derive(Clone, Debug, Default)]
struct Shard {
    last: Tick,
    records: BTreeMap<Key, Held>,
    /// Invariant: exactly the `review_at` of the records.
    due: BTreeSet<(Timestamp, Key)>,
    logs: BTreeMap<(Log, Tick, u16), Entry>,
}

/// A record and what the store knows of it.
#[derive(Clone, Debug)]
struct Held {
    version: Version,
    record: Record,
    review_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

impl MemoryStore {
    /// An empty store, whose clock is `clock`.
    pub fn new(partitions: u16, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let partitions = (0..partitions).map(|_| Mutex::default()).collect();
        Self { partitions, clock: Arc::new(clock) }
    }

    /// What is in it, to go back to.
    pub fn snapshot(&self) -> Snapshot {
        // All locks before the first copy, so that what is copied existed at one instant.
        let locked: Vec<_> = self.partitions.iter().map(lock).collect();
        Snapshot(locked.iter().map(|shard| (**shard).clone()).collect())
    }

    /// Goes back to what it was, logs and all, as a store does that fails over to a replica.
    /// Only the clock goes on.
    pub fn restore(&self, snapshot: Snapshot) {
        let locked: Vec<_> = self.partitions.iter().map(lock).collect();
        for (mut shard, was) in locked.into_iter().zip(snapshot.0) {
            *shard = was;
        }
    }

    /// Lets one partition alone go back.
    pub fn restore_partition(&self, partition: Partition, snapshot: &Snapshot) {
        let at = usize::from(partition.0);
        if let (Some(shard), Some(was)) = (self.partitions.get(at), snapshot.0.get(at)) {
            *lock(shard) = was.clone();
        }
    }

    fn shard(&self, partition: Partition) -> Result<MutexGuard<'_, Shard>, StoreError> {
        let shard = self.partitions.get(usize::from(partition.0));
        shard.map(lock).ok_or(StoreError::NoPartition(partition))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("partitions", &self.partitions.len()).finish()
    }
}

impl Store for MemoryStore {
    fn partitions(&self) -> u16 {
        u16::try_from(self.partitions.len()).unwrap_or(u16::MAX)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok((self.clock)())
    }

    async fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        let (shard, now) = (self.shard(partition)?, (self.clock)());
        let load = |key: &Key| shard.visible(key, now).map(Held::versioned);
        let asked: Vec<_> = keys.iter().map(load).collect();
        let followed = follow.keys(keys, &asked).into_iter().map(|key| {
            let found = load(&key);
            (key, found)
        });
        let followed = followed.collect();
        Ok(Found { asked, followed })
    }

    async fn commit(&self, partition: Partition, batch: Batch) -> Result<Commit, StoreError> {
        let (mut shard, now) = (self.shard(partition)?, (self.clock)());
        if let Some(key) = shard.conflict(&batch, now) {
            return Ok(Commit::Conflict(key));
        }
        let tick = shard.last.next(now);
        shard.apply(batch, tick, now);
        Ok(Commit::Done(Committed { tick, durability: Durability::Local }))
    }

    async fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let (shard, now) = (self.shard(partition)?, (self.clock)());
        // Keys are ordered by kind first.
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = (shard.records.range((first, Bound::Unbounded)))
            .skip_while(|(key, _)| key.kind() < kind)
            .take_while(|(key, _)| key.kind() == kind)
            .filter(|(_, held)| held.is_visible(now));
        Ok(found.take(limit).map(|(key, held)| (key.clone(), held.versioned())).collect())
    }

    async fn due(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let shard = self.shard(partition)?;
        let due = shard.due.iter().take_while(|(at, _)| *at < before);
        Ok(due.take(limit).map(|(_, key)| key.clone()).collect())
    }

    async fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let shard = self.shard(partition)?;
        let entries = shard.logs.range((log, from, 0)..=(log, Tick(u64::MAX), u16::MAX));
        Ok(whole_commits(entries, limit))
    }

    async fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let shard = self.shard(partition)?;
        let entries = shard.logs.range((log, Tick::ZERO, 0)..(log, before, 0));
        Ok(whole_commits(entries.rev(), limit))
    }

    async fn trim(
        &self,
        partition: Partition,
        log: Log,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let mut shard = self.shard(partition)?;
        let old = shard.logs.range((log, Tick::ZERO, 0)..(log, Tick::at(before), 0));
        let old: Vec<_> = old.take(limit).map(|(place, _)| *place).collect();
        for place in &old {
            shard.logs.remove(place);
        }
        Ok(old.len())
    }
}

impl Shard {
    fn visible(&self, key: &Key, now: Timestamp) -> Option<&Held> {
        self.records.get(key).filter(|held| held.is_visible(now))
    }

    /// The first key whose version isn't the expected one.
    fn conflict(&self, batch: &Batch, now: Timestamp) -> Option<Key> {
        let reads = batch.reads.iter().map(|(key, expected)| (key, *expected));
        let writes = batch.writes.iter().map(|write| (&write.key, write.expected));
        let moved = |key: &Key, expected: Version| {
            self.visible(key, now).map_or(Version::ZERO, |held| held.version) != expected
        };
        let mut expectations = reads.chain(writes);
        expectations.find(|(key, expected)| moved(key, *expected)).map(|(key, _)| key.clone())
    }

    fn apply(&mut self, batch: Batch, tick: Tick, now: Timestamp) {
        self.last = tick;
        for write in batch.writes {
            self.write(write, tick, now);
        }
        let (mut feed, mut audit) = (0..=u16::MAX, 0..=u16::MAX);
        for entry in batch.entries {
            let log = entry.log();
            let index = match log {
                Log::Feed => feed.next(),
                Log::Audit => audit.next(),
            };
            if let Some(index) = index {
                self.logs.insert((log, tick, index), entry);
            }
        }
    }

    fn write(&mut self, write: Write, tick: Tick, now: Timestamp) {
        let Write { key, expected: _, change } = write;
        let was = self.records.remove(&key);
        if let Some(at) = was.as_ref().and_then(|held| held.review_at) {
            self.due.remove(&(at, key.clone()));
        }
        let Change::Put { record, review, expires_at } = change else { return };
        let review_at = match review {
            // What has expired is a new record's predecessor no more than what never was.
            Review::Keep => was.filter(|held| held.is_visible(now)).and_then(|held| held.review_at),
            Review::At(at) => Some(at),
            Review::Never => None,
        };
        if let Some(at) = review_at {
            self.due.insert((at, key.clone()));
        }
        self.records.insert(key, Held { version: tick, record: *record, review_at, expires_at });
    }
}

impl Held {
    fn is_visible(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }

    fn versioned(&self) -> Versioned {
        Versioned { version: self.version, record: self.record.clone() }
    }
}

/// Entries up to the limit, and on to the end of a commit.
fn whole_commits<'a>(
    entries: impl Iterator<Item = (&'a (Log, Tick, u16), &'a Entry)>,
    limit: usize,
) -> Vec<Logged> {
    let mut page: Vec<Logged> = Vec::new();
    for ((_, cursor, index), entry) in entries {
        let is_full = page.len() >= limit;
        if is_full && page.last().is_none_or(|last| last.cursor != *cursor) {
            break;
        }
        page.push(Logged { cursor: *cursor, index: *index, entry: entry.clone() });
    }
    page
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A panic elsewhere leaves no half of a commit: applying one can't panic.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
