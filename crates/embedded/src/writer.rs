//! The one writer: groups commits, makes each group durable, then visible, then answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::Tick;
use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode};
use tokio::sync::{mpsc, oneshot};

use crate::envelope::Envelope;
use crate::keys;
use crate::mark::Mark;
use crate::notes::Notes;
use crate::prepare::Prepared;
use crate::recent::{Recent, Since};
use crate::state::State;
use crate::{Clock, Visible};

/// Something to write and where to answer.
pub(crate) struct Job {
    /// What.
    pub(crate) work: Work,
    /// Whoever waits; may have gone away.
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// What the writer does.
pub(crate) enum Work {
    /// A commit.
    Commit(Prepared),
    /// Removal of log entries, which nothing else touches.
    Remove(Vec<Vec<u8>>),
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is durable and visible.
    Done(Tick),
    /// Nothing happened: the check of this number failed.
    Conflict(usize),
    /// Nothing happened: it was prepared too long ago.
    Stale,
    /// Nothing happened: nothing is written any more.
    Refused(String),
}

/// The thread's state.
pub(crate) struct Writer {
    pub(crate) database: Database,
    pub(crate) space: Keyspace,
    pub(crate) mark: Mark,
    pub(crate) last_tick: Tick,
    pub(crate) recent: Recent,
    pub(crate) visible: Arc<Visible>,
    pub(crate) notes: Arc<Notes>,
    /// Where the group under way files records.
    pub(crate) filed: Vec<(Partition, Timestamp)>,
    pub(crate) clock: Clock,
    /// How many jobs the last group had.
    pub(crate) last_group: usize,
}

impl Writer {
    /// Serves until every sender is gone.
    pub(crate) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let group = self.gather(first, &mut jobs);
            self.last_group = group.len();
            self.write(group);
        }
        // Best effort: without it the mark is only a little behind after a power loss.
        if let Err(error) = self.mark.sync() {
            tracing::warn!(%error, "the mark of acknowledged commits can't be flushed");
        }
    }

    /// The jobs that are waiting, and those about to come.
    ///
    /// Those who were answered just now come back a moment later. Going ahead with the first of
    /// them would make the others wait for a flush that carries one commit.
    fn gather(&self, first: Job, jobs: &mut mpsc::Receiver<Job>) -> Vec<Job> {
        let mut bytes = first.work.size_bytes();
        let mut group = vec![first];
        let patience = (self.last_group > 1).then(|| Instant::now() + GATHER);
        while group.len() < GROUP_JOBS_MAX && bytes < GROUP_BYTES_MAX {
            match jobs.try_recv() {
                Ok(job) => {
                    bytes += job.work.size_bytes();
                    group.push(job);
                }
                Err(mpsc::error::TryRecvError::Disconnected) => break,
                Err(mpsc::error::TryRecvError::Empty) => {
                    let enough = group.len() >= self.last_group;
                    if enough || patience.is_none_or(|until| Instant::now() >= until) {
                        break;
                    }
                    std::thread::yield_now();
                }
            }
        }
        group
    }

    fn write(&mut self, group: Vec<Job>) {
        let now = (self.clock)();
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        let mut answers = Vec::with_capacity(group.len());
        let mut writes = false;
        for Job { work, reply } in group {
            let answer = match work {
                Work::Commit(prepared) => self.decide(prepared, now, &mut batch),
                Work::Remove(names) => {
                    for name in &names {
                        batch.remove(&self.space, name.as_slice());
                    }
                    self.draw(now)
                }
            };
            writes |= matches!(answer, Answer::Done(_));
            answers.push((reply, answer));
        }
        let refused = writes.then(|| self.make_durable(batch)).flatten();
        for (reply, answer) in answers {
            let answer = refused.clone().map_or(answer, Answer::Refused);
            // Nobody there any more: the commit stands all the same.
            let _ = reply.send(answer);
        }
    }

    /// Judges a commit after all that came before it, of this group too, and adds it to the batch.
    fn decide(
        &mut self,
        mut prepared: Prepared,
        now: Timestamp,
        batch: &mut OwnedWriteBatch,
    ) -> Answer {
        for (number, check) in prepared.checks.iter().enumerate() {
            match self.recent.since(check.hash, check.seen) {
                Since::Unchanged if check.expires_at.is_none_or(|at| now < at) => {}
                Since::Unchanged | Since::Changed => return Answer::Conflict(number),
                Since::Unknown => return Answer::Stale,
            }
        }
        let answer = self.draw(now);
        let tick = self.last_tick;
        for (mut name, value) in std::mem::take(&mut prepared.entries) {
            if let Some(place) = name.get_mut(keys::LOG_TICK) {
                place.copy_from_slice(&tick.0.to_be_bytes());
            }
            batch.insert(&self.space, name, value);
        }
        for (name, is_filed) in &prepared.filings {
            if *is_filed {
                batch.insert(&self.space, name.as_slice(), &[][..]);
                self.filed.extend(keys::due_place(name));
            } else {
                batch.remove(&self.space, name.as_slice());
            }
        }
        let read_only = prepared.checks.len() - prepared.values.len();
        let written = prepared.checks.drain(read_only..);
        for (check, value) in written.zip(prepared.values) {
            if let Some((partition, sid)) = keys::known_name(&check.key) {
                self.notes.known.write(partition, sid, tick);
            }
            match value {
                Some(mut value) => {
                    Envelope::set_version(&mut value, tick);
                    batch.insert(&self.space, check.key.as_slice(), value);
                }
                None => batch.remove(&self.space, check.key.as_slice()),
            }
            self.recent.changed(check.hash, tick);
        }
        answer
    }

    /// Draws the next tick. It is one clock for all partitions, so one number tells how far the
    /// store has come.
    fn draw(&mut self, now: Timestamp) -> Answer {
        self.last_tick = self.last_tick.next(now);
        Answer::Done(self.last_tick)
    }

    /// Makes a group durable, then visible. Says why, if nothing was written.
    fn make_durable(&mut self, mut batch: OwnedWriteBatch) -> Option<String> {
        batch.insert(&self.space, keys::LAST_TICK, self.last_tick.0.to_be_bytes());
        match batch.commit() {
            Ok(()) => {}
            // An earlier failure of a background thread (a full disk, a damaged table). The library
            // looks for it before it writes, so nothing happened, and what is durable stays so.
            Err(fjall::Error::Poisoned) => {
                self.filed.clear();
                tracing::error!("the store takes no more writes; see the error before; restart");
                return Some("a background write failed; see the log".to_owned());
            }
            Err(error) => fault(&error),
        }
        let snapshot = self.database.snapshot();
        let state = State::new(self.space.clone(), snapshot, self.last_tick);
        self.visible.store(Arc::new(state));
        for (partition, at) in self.filed.drain(..) {
            self.notes.floors.file(partition, at);
        }
        self.recent.turn(self.last_tick);
        if let Err(error) = self.mark.set(self.last_tick) {
            // It only stays behind: what it says is still true.
            tracing::warn!(%error, "the mark of acknowledged commits can't be written");
        }
        None
    }
}

impl Work {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Commit(prepared) => prepared.size_bytes(),
            Self::Remove(names) => names.iter().map(Vec::len).sum(),
        }
    }
}

/// Ends the process: after a failed write or flush nobody knows what is on the disk, the kernel
/// forgets which pages it couldn't write, and a retry would report success. The next start reads
/// what is really there.
fn fault(error: &fjall::Error) -> ! {
    tracing::error!(%error, "the journal can't be written or flushed; the process ends here");
    std::process::abort()
}

/// Bounds of a group: what is waiting behind it waits for one flush.
const GROUP_JOBS_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long to wait for those who were in the last group: a small part of what a flush takes.
const GATHER: Duration = Duration::from_micros(50);
