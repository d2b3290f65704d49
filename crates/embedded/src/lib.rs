//! A store in one directory of this machine, for one process, without a server.
//!
//! [`Embedded`] keeps the promises of [`Store`] over a log-structured library:
//!
//! - *Durable → visible → answered.* One thread writes. It takes what is waiting as one group,
//!   writes and flushes the journal once, then publishes the new state, then answers. Readers see
//!   published states only, so nothing is answered from what a power loss could take back. A
//!   failed flush ends the process.
//! - *Reads wait for nobody.* They run on the calling task, on one published state: microseconds
//!   from memory, a disk read where a block isn't cached. A thread pool would cost more than most
//!   of them take, and the engine's own cache stands before.
//! - *Memory is bounded* by the options, however much is stored.
//!
//! What lies in the directory is told in `disk`, how keys are spelled in `keys`.

use std::future::{Future, ready};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::{
    Batch, Commit, Committed, Durability, Follow, Found, Key, Kind, Log, Logged, Store, StoreError,
    Tick, Versioned,
};
use fjall::Database;
use tokio::sync::{mpsc, oneshot};

mod disk;
mod envelope;
mod error;
mod floors;
mod journal;
mod keys;
mod known;
mod lock;
mod mark;
mod notes;
mod prepare;
mod recent;
mod seen;
mod state;
mod writer;

pub use error::OpenError;
pub use lock::DirLock;

use disk::Disk;
use notes::Notes;
use prepare::{Preparation, prepare};
use recent::Recent;
use state::State;
use writer::{Answer, Job, Work, Writer};

/// How to open a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many partitions a new store gets; one that exists keeps its own.
    pub partitions: u16,
    /// Most bytes of blocks that are kept in memory for reading.
    pub cache_bytes: u64,
    /// Bytes of new records after which they are moved from the journal into a table. About five
    /// times as much may be in memory while the disk is slow.
    pub write_buffer_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 256,
            cache_bytes: 64 * 1024 * 1024,
            write_buffer_bytes: 32 * 1024 * 1024,
        }
    }
}

/// The embedded store. Dropping it finishes what was begun and frees the directory.
pub struct Embedded {
    /// Gone once closing has begun.
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    visible: Arc<Visible>,
    notes: Arc<Notes>,
    database: Database,
    clock: Clock,
    partitions: u16,
    /// Freed after all the rest is closed, hence last.
    _lock: DirLock,
}

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What readers see.
type Visible = ArcSwap<State>;

impl Embedded {
    /// Opens the store in `dir`, or makes one there.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_with_clock(dir, options, system_time)
    }

    /// Opens it with another clock than the system's.
    pub fn open_with_clock(
        dir: &Path,
        options: Options,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let Disk { database, space, mark, last_tick, partitions, lock } =
            Disk::open(dir, &options)?;
        let clock: Clock = Arc::new(clock);
        let state = State::new(space.clone(), database.snapshot(), last_tick);
        let visible = Arc::new(Visible::from_pointee(state));
        let notes = Arc::new(Notes::new(partitions, SEEN_KEYS));
        let writer = Writer {
            database: database.clone(),
            space,
            mark,
            last_tick,
            recent: Recent::new(last_tick, RECENT_CHANGES),
            visible: Arc::clone(&visible),
            notes: Arc::clone(&notes),
            filed: Vec::new(),
            clock: Arc::clone(&clock),
            last_group: 0,
        };
        let (jobs, waiting) = mpsc::channel(QUEUE_JOBS_MAX);
        let writer = std::thread::Builder::new()
            .name("cloakroom-writer".to_owned())
            .spawn(move || writer.run(waiting))
            .map_err(|error| OpenError::io("start a thread for", dir, error))?;
        let (jobs, writer) = (Some(jobs), Some(writer));
        Ok(Self { jobs, writer, visible, notes, database, clock, partitions, _lock: lock })
    }

    /// When the last commit was, by the clock of then; none if there was none yet.
    ///
    /// A sweeper that finds the clock far ahead of it should doubt the clock and wait.
    pub fn last_commit_at(&self) -> Option<Timestamp> {
        let tick = self.visible.load().tick;
        (tick > Tick::ZERO).then(|| tick.instant())
    }

    /// About how many bytes the store takes on disk, journals included.
    pub fn size_on_disk(&self) -> io::Result<u64> {
        self.database.disk_space().map_err(io::Error::other)
    }

    /// How many commits wait for the writer to take them, and how many may.
    pub fn commits_waiting(&self) -> (usize, usize) {
        let room = self.jobs.as_ref().map_or(QUEUE_JOBS_MAX, mpsc::Sender::capacity);
        (QUEUE_JOBS_MAX.saturating_sub(room), QUEUE_JOBS_MAX)
    }

    /// Finishes what was begun and frees the directory, as dropping does.
    pub fn close(self) {}

    /// Reads from the state that is published now.
    fn read<T>(
        &self,
        partition: Partition,
        read: impl FnOnce(&State, Timestamp) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if partition.0 >= self.partitions {
            return Err(StoreError::NoPartition(partition));
        }
        let state = self.visible.load();
        read(&state, (self.clock)())
    }

    async fn write(&self, partition: Partition, batch: &Batch) -> Result<Commit, StoreError> {
        for attempt in 0..ATTEMPTS_MAX {
            // Where what was seen is too old for the writer, all is looked up.
            let notes = (attempt == 0).then_some(&*self.notes);
            let prepare = |state: &State, now| prepare(state, notes, partition, batch, now);
            let prepared = match self.read(partition, prepare)? {
                Preparation::Ready(prepared) => prepared,
                Preparation::Conflict(key) => return Ok(Commit::Conflict(key)),
            };
            match self.ask(Work::Commit(prepared)).await? {
                Answer::Done(tick) => {
                    return Ok(Commit::Done(Committed { tick, durability: Durability::Durable }));
                }
                Answer::Conflict(number) => return conflict(batch, number),
                Answer::Refused(why) => return Err(StoreError::ReadOnly(why)),
                Answer::Stale => {}
            }
        }
        Err(StoreError::Unavailable("the commit waited too long".to_owned()))
    }

    async fn ask(&self, work: Work) -> Result<Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(closed)?;
        jobs.try_send(Job { work, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                StoreError::Unavailable("too many commits are waiting".to_owned())
            }
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
        answer.await.map_err(|_| StoreError::OutcomeUnknown("the writer ended".to_owned()))
    }
}

impl Store for Embedded {
    fn partitions(&self) -> u16 {
        self.partitions
    }

    fn now(&self) -> impl Future<Output = Result<Timestamp, StoreError>> + Send {
        ready(Ok((self.clock)()))
    }

    async fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        self.read(partition, |state, now| {
            let load = |key: &Key| state.load(partition, key, now, &self.notes);
            let asked: Vec<_> = keys.iter().map(load).collect::<Result<_, _>>()?;
            let names = follow.keys(keys, &asked).into_iter();
            let followed: Result<_, _> = names.map(|key| Ok((key.clone(), load(&key)?))).collect();
            Ok(Found { asked, followed: followed? })
        })
    }

    async fn commit(&self, partition: Partition, batch: Batch) -> Result<Commit, StoreError> {
        self.write(partition, &batch).await
    }

    async fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.read(partition, |state, now| state.page(partition, kind, after, limit, now))
    }

    async fn due(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let floors = &self.notes.floors;
        let look = floors.look(partition);
        let due = |state: &State, _| state.due(partition, look, before, limit);
        let (due, first) = self.read(partition, due)?;
        floors.looked(partition, look, first);
        Ok(due)
    }

    async fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        self.read(partition, |state, _| state.log(partition, log, from, limit))
    }

    async fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        self.read(partition, |state, _| state.log_back(partition, log, before, limit))
    }

    async fn trim(
        &self,
        partition: Partition,
        log: Log,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let from = self.notes.floors.log(partition, log);
        let find = |state: &State, _| state.log_before(partition, log, from, before, limit);
        let names = self.read(partition, find)?;
        let last = names.last().and_then(|name| keys::log_place(name));
        let count = names.len();
        if count == 0 {
            return Ok(0);
        }
        match self.ask(Work::Remove(names)).await? {
            Answer::Done(_) => {
                if let Some((tick, _)) = last {
                    self.notes.floors.trimmed(partition, log, tick);
                }
                Ok(count)
            }
            Answer::Refused(why) => Err(StoreError::ReadOnly(why)),
            Answer::Conflict(_) | Answer::Stale => Ok(0),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.jobs = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer panicked; what it acknowledged is durable");
        }
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

/// The system's clock.
fn system_time() -> Timestamp {
    // Before the epoch only on a machine whose clock was never set.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.plus(since)
}

/// Which key the failed check was for; in the order in which a batch is checked.
fn conflict(batch: &Batch, number: usize) -> Result<Commit, StoreError> {
    let reads = batch.reads.iter().map(|(key, _)| key);
    let writes = batch.writes.iter().map(|write| &write.key);
    reads.chain(writes).nth(number).map(|key| Commit::Conflict(key.clone())).ok_or_else(|| {
        StoreError::OutcomeUnknown("the writer named a check that isn't there".to_owned())
    })
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

/// How many commits may wait; more are refused at once.
const QUEUE_JOBS_MAX: usize = 4096;

/// How many changes are remembered at least: more than can wait, so hardly a commit is stale.
const RECENT_CHANGES: usize = 64 * 1024;

/// How many keys loads remember: several for each commit that can wait, of which a few meet in one
/// slot. About two megabytes.
const SEEN_KEYS: usize = 4 * QUEUE_JOBS_MAX;

/// How often a commit is prepared anew before it is given up.
const ATTEMPTS_MAX: usize = 8;

// A commit of several records each must still be known when the last that waited is served.
const _: () = assert!(RECENT_CHANGES >= 8 * QUEUE_JOBS_MAX);
