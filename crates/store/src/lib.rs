//! What the engine asks of a store, and nothing about sessions.
//!
//! A store keeps versioned records in partitions, commits a batch to one partition *if the
//! versions it expects have not moved*, and keeps two logs a partition, in commit order. It knows
//! no policy: rotation, reuse and step-up exist once, in the core.

use std::future::Future;

use cloakroom_core::event::{Event, FeedEntry};
use cloakroom_core::types::{Partition, Timestamp};

pub mod conformance;
pub mod faulty;
pub mod follow;
pub mod key;
pub mod memory;
pub mod owners;
pub mod record;
pub mod wake;

pub use follow::{Follow, Found};
pub use key::{Key, Kind};
pub use memory::MemoryStore;
pub use record::Record;

/// A partition's clock: milliseconds since the epoch in the upper 48 bits, a count below.
///
/// Each commit of a partition draws a greater one than any before it. It is the version of every
/// record that the commit writes and the cursor of its log entries, so no version ever comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The version of what doesn't exist, and the cursor before every entry.
    pub const ZERO: Self = Self(0);

    /// The least tick of an instant.
    pub fn at(instant: Timestamp) -> Self {
        Self(u64::try_from(instant.as_millis()).unwrap_or(0) << 16)
    }

    /// The instant it was drawn at, or a little after: a burst borrows from the next millisecond.
    pub fn instant(self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.0 >> 16).unwrap_or(i64::MAX))
    }

    /// The next tick of a partition whose last is this, at `now`.
    pub fn next(self, now: Timestamp) -> Self {
        Self(Self::at(now).0.max(self.0.saturating_add(1)))
    }

    /// The tick right after this.
    pub const fn successor(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A record's version; [`Tick::ZERO`] where there is none.
pub type Version = Tick;

/// A record as loaded.
#[derive(Clone, Debug)]
pub struct Versioned {
    /// The tick of the commit that wrote it.
    pub version: Version,
    /// The record.
    pub record: Record,
}

/// When the sweeper should look at a record: a lower bound of the instant it may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// Where it is filed already (nowhere, for a new record).
    Keep,
    /// At this instant.
    At(Timestamp),
    /// Never.
    Never,
}

/// One change of a batch.
#[derive(Clone, Debug)]
pub enum Change {
    /// Stores the record.
    Put {
        /// What.
        record: Box<Record>,
        /// When to look at it again.
        review: Review,
        /// From this instant on the record is invisible, whenever it is physically removed.
        expires_at: Option<Timestamp>,
    },
    /// Removes the record and its filing. Where the record has expired its version is
    /// [`Tick::ZERO`], and this removes what is left of it.
    Delete,
}

/// A change and the version it was decided on.
#[derive(Clone, Debug)]
pub struct Write {
    /// Of which record.
    pub key: Key,
    /// The version that was read; [`Tick::ZERO`]: there must be none.
    pub expected: Version,
    /// What to do.
    pub change: Change,
}

/// An entry of a log: which log it belongs to is its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// For followers; without content.
    Feed(FeedEntry),
    /// For the audit.
    Audit(Box<Event>),
}

/// The two logs of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Log {
    /// What followers must know; kept for the life of an access token and a margin.
    Feed,
    /// Audit events; kept as configured.
    Audit,
}

impl Entry {
    /// The log it belongs to.
    pub const fn log(&self) -> Log {
        match self {
            Self::Feed(_) => Log::Feed,
            Self::Audit(_) => Log::Audit,
        }
    }
}

/// A change to one partition: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Versions that must not have moved, of records that are only read.
    pub reads: Vec<(Key, Version)>,
    /// What changes. No key stands twice in `reads` and `writes` together.
    pub writes: Vec<Write>,
    /// What is logged with it, in this order.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// Expects a record to be as it was read.
    pub fn expect(&mut self, key: Key, version: Version) -> &mut Self {
        self.reads.push((key, version));
        self
    }

    /// Stores a record that never expires by itself.
    pub fn put(
        &mut self,
        key: Key,
        expected: Version,
        record: Record,
        review: Review,
    ) -> &mut Self {
        self.put_until(key, expected, record, review, None)
    }

    /// Stores a record that is invisible from `expires_at` on.
    pub fn put_until(
        &mut self,
        key: Key,
        expected: Version,
        record: Record,
        review: Review,
        expires_at: Option<Timestamp>,
    ) -> &mut Self {
        let change = Change::Put { record: Box::new(record), review, expires_at };
        self.writes.push(Write { key, expected, change });
        self
    }

    /// Removes a record.
    pub fn delete(&mut self, key: Key, expected: Version) -> &mut Self {
        self.writes.push(Write { key, expected, change: Change::Delete });
        self
    }

    /// Whether it ends something: those who follow should know at once, and losing it would let
    /// someone in again.
    pub fn is_ending(&self) -> bool {
        let ends = |entry: &Entry| match entry {
            Entry::Audit(_) => false,
            Entry::Feed(feed) => match feed {
                FeedEntry::SessionEnded { .. }
                | FeedEntry::SessionSteppedUp { .. }
                | FeedEntry::SubjectRaised { .. }
                | FeedEntry::TokenDenied { .. }
                | FeedEntry::KeyChanged { .. }
                | FeedEntry::AllEnded { .. } => true,
                FeedEntry::SessionChanged { .. }
                | FeedEntry::SubjectChanged { .. }
                | FeedEntry::RecordChanged => false,
            },
        };
        self.entries.iter().any(ends)
    }

    /// Logs for followers.
    pub fn feed(&mut self, entry: FeedEntry) -> &mut Self {
        self.entries.push(Entry::Feed(entry));
        self
    }

    /// Logs for the audit.
    pub fn audit(&mut self, event: Event) -> &mut Self {
        self.entries.push(Entry::Audit(Box::new(event)));
        self
    }
}

/// What a commit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// All of it is durable and visible.
    Done(Committed),
    /// Nothing of it happened: this key has another version than expected.
    Conflict(Key),
}

/// A commit that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its tick: the version of what it wrote and the cursor of what it logged.
    pub tick: Tick,
    /// What the store promises about it.
    pub durability: Durability,
}

/// What an acknowledged commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The loss of this process alone.
    Local,
    /// The loss of the server that took it.
    Replicated,
    /// Power loss.
    Durable,
}

/// A logged entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The tick of its commit; entries of one commit share it.
    pub cursor: Tick,
    /// Its place among the entries of its commit in this log.
    pub index: u16,
    /// What was logged.
    pub entry: Entry,
}

/// What a store can't do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached, or not in time. A commit had no effect.
    #[error("the store can't be reached: {0}")]
    Unavailable(String),
    /// A commit that may or may not have taken effect.
    #[error("the store didn't say whether the commit took effect: {0}")]
    OutcomeUnknown(String),
    /// It takes no writes: read-only, or full.
    #[error("the store takes no writes: {0}")]
    ReadOnly(String),
    /// It has no such partition: a made-up id names one.
    #[error("there is no partition {0}")]
    NoPartition(Partition),
    /// What is stored can't be read.
    #[error("the record {key} can't be read: {problem}")]
    Corrupt {
        /// Which record.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A store of versioned records in partitions.
///
/// Each sentence here is a test of the conformance suite.
///
/// - A commit applies all of its batch, or none of it where an expected version has moved.
/// - A commit that was answered `Done` is visible to every later load of any node, and no load
///   shows a commit that could still be lost.
/// - Loads of one call see one state of the partition, what they follow included.
/// - A load follows what the records that it found name, and says of each name what is there.
/// - A record is invisible from its `expires_at` on, whenever it is removed: to a commit as well,
///   which expects [`Tick::ZERO`] of it.
/// - Ticks of a partition only grow; entries are read in the order of their commits.
/// - A partition that doesn't exist is an error, whatever is asked of it.
/// - A batch of entries alone expects no version and never conflicts.
pub trait Store: Send + Sync + 'static {
    /// How many partitions there are; fixed when the store was made.
    fn partitions(&self) -> u16;

    /// The store's clock.
    fn now(&self) -> impl Future<Output = Result<Timestamp, StoreError>> + Send;

    /// Loads records of one partition by key, and what `follow` says of those that are found: all
    /// of it from one state, and in one trip where the store is across a network.
    fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> impl Future<Output = Result<Found, StoreError>> + Send;

    /// Loads records of one partition by key, in the order of `keys`, from one state of it.
    fn load(
        &self,
        partition: Partition,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<Option<Versioned>>, StoreError>> + Send {
        async move { Ok(self.load_following(partition, keys, Follow::Nothing).await?.asked) }
    }

    /// Applies all of `batch`, or none of it: nothing where an expected version has moved on.
    fn commit(
        &self,
        partition: Partition,
        batch: Batch,
    ) -> impl Future<Output = Result<Commit, StoreError>> + Send;

    /// At most `limit` records of one kind after `after`, in a fixed order of their keys. Fewer
    /// mean that there are no more.
    fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Key, Versioned)>, StoreError>> + Send;

    /// At most `limit` keys that are filed for review before `before`, earliest first.
    fn due(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Key>, StoreError>> + Send;

    /// At most `limit` entries of a log, from the cursor `from` (inclusive) on. Entries of one
    /// commit come in one page, even over the limit.
    fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Logged>, StoreError>> + Send;

    /// The same of several partitions, in their order, in as few trips as the store can. Each is
    /// read by itself, of its own state, and may fail where others don't.
    fn logs(
        &self,
        log: Log,
        from: &[(Partition, Tick)],
        limit: usize,
    ) -> impl Future<Output = Vec<Result<Vec<Logged>, StoreError>>> + Send {
        async move {
            let mut pages = Vec::with_capacity(from.len());
            for (partition, from) in from {
                pages.push(self.log(*partition, log, *from, limit).await);
            }
            pages
        }
    }

    /// At most `limit` entries of a log before the cursor `before` (exclusive), latest first.
    /// Entries of one commit come in one page, even over the limit.
    fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Logged>, StoreError>> + Send;

    /// Removes at most `limit` entries of a log that are older than `before`; says how many.
    fn trim(
        &self,
        partition: Partition,
        log: Log,
        before: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Waits until some node says that it ended something; says in which partitions, and none
    /// means any of them.
    ///
    /// This is a wake-up and no promise: it may come late, for nothing, or never, so that whoever
    /// follows the logs reads on by itself as well. A store that nobody else writes to has none.
    fn changed(&self) -> impl Future<Output = Vec<Partition>> + Send {
        std::future::pending()
    }
}
