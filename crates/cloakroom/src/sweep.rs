//! The clean-up: what has expired goes away by itself, at a cost of what expired, never early.

use cloakroom_core::event::EventKind;
use cloakroom_core::limits::FEED_MARGIN;
#[cfg(feature = "mutants")]
use cloakroom_core::mutants::{Mutant, active};
use cloakroom_core::session::{Ending, Lifecycle, Session};
use cloakroom_core::types::{Partition, Sid, Timestamp};
use cloakroom_store::{Follow, Key, Log, Review, Store};
use futures_util::stream::{self, StreamExt as _};

use crate::authority::Authority;
use crate::context::{Context, Error};
use crate::opening::ended_feed;
use crate::transact::{Decision, Draft, Loaded, Wanted};

/// Records looked at, and log entries trimmed, at a time.
const BATCH: usize = 128;

/// Partitions that are cleaned up at once: commits of different partitions share a flush of the
/// store's disk, and half of the connections are left to requests (`store.pool` is 16).
const AT_ONCE: usize = 8;

/// What a clean-up did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sessions whose expiry was written down.
    pub ended: usize,
    /// Records removed.
    pub removed: usize,
    /// Log entries removed.
    pub trimmed: usize,
}

/// What became of one record that was due.
enum Fate {
    Ended,
    Removed,
    Kept,
}

impl<S: Store> Authority<S> {
    /// Cleans up all partitions, in bounded batches.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let began = self.now();
        let outcome = self.sweep_all().await;
        let counted = outcome.as_ref().copied().map_err(|_| ());
        self.counters.tallies.swept(counted, began, self.now());
        outcome
    }

    async fn sweep_all(&self) -> Result<Swept, Error> {
        let partitions = stream::iter((0..self.store.partitions()).map(Partition));
        let sweeps = partitions.map(|partition| self.sweep_partition(partition));
        let mut sweeps = sweeps.buffer_unordered(AT_ONCE);
        let (mut swept, mut failed) = (Swept::default(), None);
        while let Some(here) = sweeps.next().await {
            // One that fails holds up no other.
            let here = match here {
                Ok(here) => here,
                Err(error) => {
                    failed = failed.or(Some(error));
                    continue;
                }
            };
            swept.ended += here.ended;
            swept.removed += here.removed;
            swept.trimmed += here.trimmed;
        }
        failed.map_or(Ok(swept), Err)
    }

    /// Cleans up one partition.
    pub async fn sweep_partition(&self, partition: Partition) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        // The store's clock: a node whose own runs ahead must not sweep early.
        let now = self.in_time(self.store.now()).await?.min(self.now());
        let mut seen: Option<Vec<Key>> = None;
        loop {
            let due = self.in_time(self.store.due(partition, now, BATCH)).await?;
            // What could neither be removed nor filed anew would come up forever.
            if due.is_empty() || seen.as_ref() == Some(&due) {
                break;
            }
            for key in &due {
                match self.review(partition, key, now).await? {
                    Fate::Ended => swept.ended += 1,
                    Fate::Removed => swept.removed += 1,
                    Fate::Kept => {}
                }
            }
            let full = due.len() == BATCH;
            seen = Some(due);
            if !full {
                break;
            }
        }
        swept.trimmed += self.trim(partition, Log::Audit, self.settings.events_keep, now).await?;
        let feed = self.settings.access_ttl + FEED_MARGIN;
        swept.trimmed += self.trim(partition, Log::Feed, feed, now).await?;
        Ok(swept)
    }

    async fn trim(
        &self,
        partition: Partition,
        log: Log,
        keep: std::time::Duration,
        now: Timestamp,
    ) -> Result<usize, Error> {
        let mut trimmed = 0;
        loop {
            let trim = self.store.trim(partition, log, now.minus(keep), BATCH);
            let removed = self.in_time(trim).await?;
            trimmed += removed;
            if removed < BATCH {
                return Ok(trimmed);
            }
        }
    }

    async fn review(&self, partition: Partition, key: &Key, now: Timestamp) -> Result<Fate, Error> {
        if let Key::Handle(hash) = key {
            let kept = self.review_handle(partition, *hash, now).await?;
            return Ok(if kept { Fate::Kept } else { Fate::Removed });
        }
        let keys = match key {
            Key::Session(sid) => vec![key.clone(), Key::Data(*sid), Key::Partition],
            Key::Data(_)
            | Key::Subject(_)
            | Key::Index(_)
            | Key::User(_)
            | Key::Identifier(_)
            | Key::Handle(_)
            | Key::DeniedToken(_)
            | Key::Throttle(_)
            | Key::Partition
            | Key::SigningKey(_)
            | Key::ApiKey(_)
            | Key::StoreKey
            | Key::Settings => vec![key.clone()],
        };
        let decide = |loaded: &Loaded| match key {
            Key::Session(sid) => self.review_session(*sid, loaded, now),
            _ => Ok(remove(key, loaded)),
        };
        let wanted = Wanted::following(keys, Follow::SubjectAndIndex);
        Ok(self.transact(partition, wanted, decide).await?.0)
    }

    /// A session that lives is filed anew; one whose time is over ends, with its expiry as the
    /// instant; one whose reason was kept long enough goes.
    fn review_session(
        &self,
        sid: Sid,
        loaded: &Loaded,
        now: Timestamp,
    ) -> Result<Decision<Fate>, Error> {
        let key = Key::Session(sid);
        let Some(session) = loaded.session(sid) else { return Ok(remove(&key, loaded)) };
        #[cfg(feature = "mutants")]
        let now = if active(Mutant::SweepEarly) {
            now.plus(std::time::Duration::from_secs(5))
        } else {
            now
        };
        let subject = loaded.subject_of(session)?;
        let mut draft = Draft::of(loaded);
        let fate = match session.standing(subject, loaded.partition()?, now) {
            Ok(()) => {
                draft.put_session(session.clone(), Review::At(session.refused_from()));
                Fate::Kept
            }
            Err(ending) => self.review_ended(&mut draft, session, ending, now),
        };
        Ok(draft.commit(fate))
    }

    fn review_ended(
        &self,
        draft: &mut Draft<'_>,
        session: &Session,
        ending: Ending,
        now: Timestamp,
    ) -> Fate {
        let keep_until = ending.at.plus(self.settings.keep_ended);
        if session.lifecycle == Lifecycle::Live {
            let ctx = Context::system();
            let (kind, subject) = (EventKind::SessionEnded, session.subject.as_ref());
            let mut event = ctx.event(kind, ending.at, Some(session.sid), subject);
            event.reason = Some(ending.reason.as_str().to_owned());
            draft.audit(event);
            draft.feed(ended_feed(session, ending.reason, self.forget_at(now)));
        }
        if ending.successor.is_none() {
            draft.delete_any(Key::Data(session.sid));
        }
        self.leave_index(draft, session);
        if now < keep_until {
            draft.put_session(session.clone().ended(ending), Review::At(keep_until));
            return Fate::Ended;
        }
        if ending.successor.is_some() {
            draft.delete_any(Key::Data(session.sid));
        }
        draft.delete(Key::Session(session.sid));
        Fate::Removed
    }
}

/// Removes a record whose own expiry is past; the store shows it to nobody any more.
fn remove(key: &Key, loaded: &Loaded) -> Decision<Fate> {
    let mut draft = Draft::of(loaded);
    draft.delete(key.clone());
    draft.commit(Fate::Removed)
}
