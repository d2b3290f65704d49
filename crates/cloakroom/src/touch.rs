//! "Last seen", written seldom, in batches, in the background, and never onto an ended session.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "mutants")]
use cloakroom_core::mutants::{Mutant, active};
use cloakroom_core::session::{Lifecycle, Session};
use cloakroom_core::types::{Partition, Sid};
use cloakroom_store::{Key, Review, Store};

use crate::authority::Authority;
use crate::cache::Meters;
use crate::context::Error;
use crate::transact::{Decision, Draft, Loaded};

/// Uses that wait to be written down, at most; beyond, the next use asks again.
const WAITING_MAX: usize = 100_000;
/// Sessions touched by one commit.
const BATCH: usize = 64;
/// With less slack than this a use isn't left to wait.
const SLACK_MIN: Duration = Duration::from_secs(1);

/// Uses that wait to be written down.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    waiting: Mutex<Vec<(Sid, Arc<Meters>)>>,
    queued: AtomicU64,
    written: AtomicU64,
    void: AtomicU64,
    turned_away: AtomicU64,
}

/// Uses of sessions on their way into the store.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TouchFigures {
    /// How many wait to be written.
    pub waiting: usize,
    /// How many may.
    pub waiting_max: usize,
    /// Uses noted to be written.
    pub queued: u64,
    /// Uses written.
    pub written: u64,
    /// Uses that met an ended session and were dropped.
    pub void: u64,
    /// Uses that found no room to wait; the next use of the session asks again.
    pub turned_away: u64,
}

impl Touches {
    fn push(&self, sid: Sid, meters: &Arc<Meters>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.push((sid, Arc::clone(meters)));
        } else {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            meters.take_queued();
        }
    }

    fn take(&self) -> Vec<(Sid, Arc<Meters>)> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn figures(&self) -> TouchFigures {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TouchFigures {
            waiting,
            waiting_max: WAITING_MAX,
            queued: read(&self.queued),
            written: read(&self.written),
            void: read(&self.void),
            turned_away: read(&self.turned_away),
        }
    }
}

/// Uses that were taken to be written down; those that weren't wait again.
struct Unwritten<'a> {
    touches: &'a Touches,
    uses: Vec<(Sid, Arc<Meters>)>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        #[cfg(feature = "mutants")]
        if active(Mutant::UsesForgotten) {
            return;
        }
        // Else nobody would ask again: a session in use would count as idle.
        for (sid, meters) in &self.uses {
            self.touches.push(*sid, meters);
        }
    }
}

impl<S: Store> Authority<S> {
    /// Notes a use of a live session, if the last one written is older than the slack.
    pub(crate) async fn note_use(&self, session: &Session, meters: &Arc<Meters>) {
        let now = self.now();
        if !session.wants_touch(meters.seen_at(), now) {
            return;
        }
        if meters.note_use(now) {
            self.touches.queued.fetch_add(1, Ordering::Relaxed);
            self.touches.push(session.sid, meters);
        }
        if session.touch_slack() < SLACK_MIN {
            // So short an idle timeout would be over before the next flush. A failure costs
            // nothing that the next use doesn't mend. Apart from the rest: each verification would
            // carry the room for it along.
            let _ = Box::pin(self.flush_touches()).await;
        }
    }

    /// Notes uses that other verifiers saw.
    pub async fn touch(&self, sids: &[Sid]) -> Result<(), Error> {
        for sid in sids {
            let Some(known) = self.known(*sid).await? else { continue };
            let state = known.partition;
            if known.session.standing(known.subject.as_deref(), &state, self.now()).is_ok() {
                self.note_use(&known.session, &known.meters).await;
            }
        }
        Ok(())
    }

    /// Writes down the uses noted so far. To be called at least once a second; what couldn't be
    /// written waits for the next call.
    pub async fn flush_touches(&self) -> Result<(), Error> {
        let mut partitions: BTreeMap<Partition, BTreeMap<Sid, Arc<Meters>>> = BTreeMap::new();
        for (sid, meters) in self.touches.take() {
            partitions.entry(sid.partition()).or_default().insert(sid, meters);
        }
        let unwritten = |uses: BTreeMap<Sid, Arc<Meters>>| Unwritten {
            touches: &self.touches,
            uses: uses.into_iter().collect(),
        };
        // All of them before the first wait: whoever waits for this may go away.
        let partitions: Vec<(Partition, Unwritten<'_>)> =
            partitions.into_iter().map(|(partition, uses)| (partition, unwritten(uses))).collect();
        let mut outcome = Ok(());
        for (partition, mut unwritten) in partitions {
            while !unwritten.uses.is_empty() {
                let size = unwritten.uses.len().min(BATCH);
                match self.write_touches(partition, &unwritten.uses[..size]).await {
                    Ok(()) => drop(unwritten.uses.drain(..size)),
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
        }
        outcome
    }

    async fn write_touches(
        &self,
        partition: Partition,
        touched: &[(Sid, Arc<Meters>)],
    ) -> Result<(), Error> {
        let keys: Vec<Key> = touched.iter().map(|(sid, _)| Key::Session(*sid)).collect();
        let decide = |loaded: &Loaded| {
            let mut draft = Draft::of(loaded);
            for (sid, meters) in touched {
                // Before the instant is read: a use after this asks again.
                meters.take_queued();
                let seen_at = meters.seen_at();
                let Some(session) = loaded.session(*sid) else { continue };
                if session.lifecycle != Lifecycle::Live || loaded.now >= session.refused_from() {
                    // A touch that meets an ended session, or one that others refuse already,
                    // is dropped, and so is what this node remembers of the use.
                    meters.forget_use();
                    self.touches.void.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                if session.last_seen_at >= seen_at {
                    continue;
                }
                let mut session = session.clone();
                session.last_seen_at = seen_at;
                draft.put_session(session, Review::Keep);
            }
            if draft.is_empty() {
                return Ok(Decision::Done(0));
            }
            let written = u64::try_from(draft.writes()).unwrap_or(u64::MAX);
            Ok(draft.commit(written))
        };
        let (written, _) = self.transact(partition, keys, decide).await?;
        self.touches.written.fetch_add(written, Ordering::Relaxed);
        Ok(())
    }
}
