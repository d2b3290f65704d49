//! Following what changed: this node's own commits at once, everybody's by the log.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom_core::event::FeedEntry;
use cloakroom_core::keys::KeyState;
use cloakroom_core::session::Lifecycle;
use cloakroom_core::subject::Bump;
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::{Batch, Entry, Key, Log, Logged, Store, Tick};

use cloakroom_core::limits::{ENDED_SET_KEEP, FEED_MARGIN};
#[cfg(feature = "mutants")]
use cloakroom_core::mutants::{Mutant, active};

use crate::authority::Authority;
use crate::context::{Context, Error};
use crate::ending::Raise;

/// Entries read at a time.
const PAGE: usize = 256;
/// Endings of this long ago are done again when the log went back.
const REAPPLY: Duration = Duration::from_secs(600);
/// Endings of one partition remembered for that, at most.
const ENDINGS_MAX: usize = 10_000;

/// How far each partition's log was followed.
#[derive(Debug)]
pub(crate) struct Followed(Vec<Mutex<Follower>>);

#[derive(Debug, Default)]
struct Follower {
    /// The last entries seen of one commit; read again with what follows, since a log can go back.
    last: Vec<Logged>,
    started: bool,
    /// Cursors of this node's own commits that no reading has met yet.
    served: BTreeSet<Tick>,
    /// Sessions whose records said that they had ended, since the last reading.
    found: BTreeSet<Sid>,
    /// Endings served or followed lately.
    endings: VecDeque<(Timestamp, FeedEntry)>,
    /// Endings to be done again since the log went back, until each of them is.
    lost: VecDeque<FeedEntry>,
    /// A key has changed, and the keys weren't read since.
    keys_changed: bool,
}

/// Whether a key that is now in this state verifies nothing any more.
fn is_revocation(state: &str) -> bool {
    state == KeyState::Revoked.name()
}

impl Followed {
    pub(crate) fn new(partitions: u16) -> Self {
        Self((0..partitions).map(|_| Mutex::default()).collect())
    }
}

impl Follower {
    /// Expects this node's own commit to be met by the next reading. One that is older than what
    /// was read may have been read already, or be lost: its answer came late.
    fn expect(&mut self, cursor: Tick) {
        if cursor > Tick::ZERO && self.served.len() < ENDINGS_MAX {
            self.served.insert(cursor);
        }
    }

    fn remember(&mut self, entry: &FeedEntry, now: Timestamp) {
        let ends = match entry {
            FeedEntry::SessionEnded { .. }
            | FeedEntry::SubjectRaised { .. }
            | FeedEntry::TokenDenied { .. }
            | FeedEntry::AllEnded { .. } => true,
            FeedEntry::KeyChanged { state, .. } => is_revocation(state),
            FeedEntry::SessionSteppedUp { .. }
            | FeedEntry::SessionChanged { .. }
            | FeedEntry::SubjectChanged { .. }
            | FeedEntry::RecordChanged => false,
        };
        if ends {
            if self.endings.len() >= ENDINGS_MAX {
                self.endings.pop_front();
            }
            self.endings.push_back((now, entry.clone()));
        }
    }
}

/// A reading of one partition's log, as it begins.
struct Reading {
    partition: Partition,
    began: Timestamp,
    started: bool,
    /// What was read last, which must still be there.
    last: Vec<Logged>,
    /// This node's own commits that must be met.
    served: BTreeSet<Tick>,
    /// Those of them that are older than where this reading begins.
    overtaken: BTreeSet<Tick>,
    /// Sessions whose records must still say that they have ended.
    found: BTreeSet<Sid>,
    from: Tick,
}

impl<S: Store> Authority<S> {
    /// Applies what this node committed itself, before it is answered.
    pub(crate) fn observe(&self, partition: Partition, cursor: Tick, entries: &[FeedEntry]) {
        let now = self.now();
        #[cfg(feature = "mutants")]
        if active(Mutant::CommitUnobserved) {
            return;
        }
        for entry in entries {
            self.apply(partition, entry, now);
        }
        self.streams.note(partition);
        // An only writer's log can't go back under it.
        if self.settings.verify.max_staleness.is_some()
            && !entries.is_empty()
            && let Some(mut follower) = self.follower(partition)
        {
            entries.iter().for_each(|entry| follower.remember(entry, now));
            follower.expect(cursor);
        }
    }

    fn follower(&self, partition: Partition) -> Option<MutexGuard<'_, Follower>> {
        let slot = self.followed.0.get(usize::from(partition.0))?;
        Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn apply(&self, partition: Partition, entry: &FeedEntry, now: Timestamp) {
        self.cache.apply(partition, entry, now);
        match entry {
            FeedEntry::KeyChanged { .. } => self.access_tokens.clear(),
            FeedEntry::SessionEnded { .. }
            | FeedEntry::SessionSteppedUp { .. }
            | FeedEntry::SubjectRaised { .. }
            | FeedEntry::TokenDenied { .. }
            | FeedEntry::AllEnded { .. }
            | FeedEntry::SessionChanged { .. }
            | FeedEntry::SubjectChanged { .. }
            | FeedEntry::RecordChanged => {}
        }
    }

    /// Reads every partition's log to its end once. To be called twice a second where the store
    /// has other writers; only then may the cache decide.
    pub async fn follow(&self) -> Result<(), Error> {
        let began = self.now();
        let all: Vec<Partition> = (0..self.store.partitions()).map(Partition).collect();
        self.follow_these(&all).await?;
        // One whose log went back wasn't read to its end.
        if all.iter().all(|partition| self.cache.fresh_at(*partition) >= began) {
            self.streams.complete(Log::Feed, began);
        }
        Ok(())
    }

    /// Reads on where other nodes say that they ended something; where they don't say where,
    /// everywhere.
    pub async fn follow_changed(&self, partitions: &[Partition]) -> Result<(), Error> {
        // What is in the feed is in the audit log as well.
        partitions.iter().for_each(|partition| self.streams.note(*partition));
        match partitions {
            [] => self.follow().await,
            some => self.follow_these(some).await,
        }
    }

    /// Reads one partition's log to its end, from within an operation that reading may start.
    pub(crate) fn follow_boxed(
        &self,
        partition: Partition,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(self.follow_partition(partition))
    }

    /// Reads one partition's log to its end.
    pub async fn follow_partition(&self, partition: Partition) -> Result<(), Error> {
        self.follow_these(&[partition]).await
    }

    /// Reads the logs of partitions to their ends, all at once. One that can't be read keeps no
    /// other from it.
    async fn follow_these(&self, partitions: &[Partition]) -> Result<(), Error> {
        let mut outcome = Ok(());
        let mut readings = Vec::with_capacity(partitions.len());
        for partition in partitions {
            match self.reapply_lost(*partition).await {
                Ok(()) => readings.extend(self.reading(*partition)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        let from: Vec<_> =
            readings.iter().map(|reading| (reading.partition, reading.from)).collect();
        let pages = self.store.logs(Log::Feed, &from, PAGE);
        let deadline = self.now().plus(self.settings.store_timeout);
        let pages = self.within(deadline, pages).await?;
        for (reading, page) in readings.into_iter().zip(pages) {
            let read = match page {
                Ok(page) => self.read_on(reading, page).await,
                Err(error) => Err(error.into()),
            };
            outcome = outcome.and(read);
        }
        outcome
    }

    /// From where a partition's log is to be read now.
    fn reading(&self, partition: Partition) -> Option<Reading> {
        let began = self.now();
        // An entry as old as this may have been trimmed since, which is no sign of anything.
        let kept_from = began.minus(self.settings.access_ttl + FEED_MARGIN / 2);
        let recent = |cursor: Tick| cursor.instant() > kept_from;
        let mut follower = self.follower(partition)?;
        let last: Vec<Logged> =
            follower.last.iter().filter(|logged| recent(logged.cursor)).cloned().collect();
        let mut served: BTreeSet<Tick> =
            follower.served.iter().copied().filter(|cursor| recent(*cursor)).collect();
        let from = match last.first() {
            Some(logged) => logged.cursor,
            None if follower.started => Tick::at(kept_from),
            // What was cached before the first reading is dropped by it, so only what comes later
            // matters, and what a slow read may still undo.
            None => Tick::at(began.minus(ENDED_SET_KEEP)),
        };
        follower.served.clone_from(&served);
        let ahead = served.split_off(&from);
        let (served, overtaken) = (ahead, served);
        let (started, found) = (follower.started, follower.found.clone());
        Some(Reading { partition, began, started, last, served, overtaken, found, from })
    }

    /// Applies the first page of a reading, and reads on where there is more.
    async fn read_on(&self, reading: Reading, first: Vec<Logged>) -> Result<(), Error> {
        let Reading { partition, began, started, last, mut served, overtaken, found, .. } = reading;
        let mut page = first;
        let mut news = match page.strip_prefix(last.as_slice()) {
            Some(rest) => rest,
            None => return self.went_back(partition).await,
        };
        loop {
            for logged in &page {
                served.remove(&logged.cursor);
            }
            self.apply_page(partition, &page, news);
            self.streams.tell(Log::Feed, partition, news);
            let Some(end) = page.last().map(|logged| logged.cursor) else { break };
            if page.len() < PAGE {
                break;
            }
            let read = self.store.log(partition, Log::Feed, end.successor(), PAGE);
            page = self.in_time(read).await?;
            news = page.as_slice();
        }
        for cursor in overtaken {
            if !self.is_logged(partition, cursor).await? {
                served.insert(cursor);
            }
        }
        #[cfg(feature = "mutants")]
        if active(Mutant::OwnLossUnnoticed) {
            served.clear();
        }
        if !served.is_empty() || self.is_any_revived(partition, found).await? {
            // This node's own commit is gone, or an ending that it told somebody of, though what
            // it had read before is still there.
            return self.went_back(partition).await;
        }
        self.read_to_end(partition, started, began).await
    }

    /// Whether this node's own commit is in the log that was read past it.
    async fn is_logged(&self, partition: Partition, cursor: Tick) -> Result<bool, Error> {
        #[cfg(feature = "mutants")]
        if active(Mutant::LateAnswerUnexpected) {
            return Ok(true);
        }
        let read = self.store.log(partition, Log::Feed, cursor, 1);
        let page = self.in_time(read).await?;
        let is_there = page.first().is_some_and(|logged| logged.cursor == cursor);
        if is_there && let Some(mut follower) = self.follower(partition) {
            follower.served.remove(&cursor);
        }
        Ok(is_there)
    }

    /// Expects the record of a session to say for good that it has ended, as it did when read.
    pub(crate) fn expect_ended(&self, sid: Sid) {
        if self.settings.verify.max_staleness.is_some()
            && let Some(mut follower) = self.follower(sid.partition())
            && follower.found.len() < ENDINGS_MAX
        {
            follower.found.insert(sid);
        }
    }

    async fn is_any_revived(
        &self,
        partition: Partition,
        found: BTreeSet<Sid>,
    ) -> Result<bool, Error> {
        if found.is_empty() {
            return Ok(false);
        }
        let keys: Vec<Key> = found.iter().copied().map(Key::Session).collect();
        let loaded = self.load(partition, &keys).await?;
        let lives = |sid: &Sid| loaded.session(*sid).map(|s| s.lifecycle) == Some(Lifecycle::Live);
        if found.iter().any(lives) {
            return Ok(true);
        }
        if let Some(mut follower) = self.follower(partition) {
            follower.found.retain(|sid| !found.contains(sid));
        }
        Ok(false)
    }

    async fn read_to_end(
        &self,
        partition: Partition,
        started: bool,
        began: Timestamp,
    ) -> Result<(), Error> {
        let Some(keys_changed) = self.follower(partition).map(|follower| follower.keys_changed)
        else {
            return Ok(());
        };
        if keys_changed || (!started && partition == Partition::ZERO) {
            self.load_ring().await?;
        }
        if !started {
            self.cache.forget_all(partition);
        }
        if let Some(mut follower) = self.follower(partition) {
            follower.started = true;
            follower.keys_changed = false;
        }
        self.cache.refreshed(partition, began);
        Ok(())
    }

    /// Applies the entries of a page that are new, in their order.
    fn apply_page(&self, partition: Partition, page: &[Logged], news: &[Logged]) {
        let now = self.now();
        for logged in news {
            let Entry::Feed(entry) = &logged.entry else { continue };
            self.apply(partition, entry, now);
            self.counters.tallies.feed_applied(logged.cursor.instant(), now);
            if let Some(mut follower) = self.follower(partition) {
                follower.keys_changed |= matches!(entry, FeedEntry::KeyChanged { .. });
                follower.remember(entry, now);
            }
        }
        let Some(mut follower) = self.follower(partition) else { return };
        for logged in page {
            follower.served.remove(&logged.cursor);
        }
        if let Some(end) = news.last().map(|logged| logged.cursor) {
            follower.last = news.iter().filter(|logged| logged.cursor == end).cloned().collect();
        }
    }

    /// The log lacks what this node has seen of it: the store went back. What is cached of it is
    /// dropped, and the endings that this node served or followed lately are done again.
    async fn went_back(&self, partition: Partition) -> Result<(), Error> {
        self.streams.went_back();
        self.counters.tallies.feed_went_back();
        self.cache.forget_all(partition);
        self.access_tokens.clear();
        let now = self.now();
        if let Some(mut follower) = self.follower(partition) {
            follower.last.clear();
            follower.served.clear();
            follower.found.clear();
            // The next reading begins anew; until then the cache doesn't decide here.
            follower.started = false;
            follower.endings.retain(|(at, _)| now.since(*at) < REAPPLY);
            #[cfg(feature = "mutants")]
            if active(Mutant::EndingsNotReapplied) {
                follower.endings.clear();
            }
            // The latest first: what a store lost is what it was told last.
            follower.lost = follower.endings.iter().rev().map(|(_, entry)| entry.clone()).collect();
        }
        self.reapply_lost(partition).await
    }

    /// Does the endings again that a store which went back has lost. What fails is tried again by
    /// the next reading.
    async fn reapply_lost(&self, partition: Partition) -> Result<(), Error> {
        loop {
            let next = self.follower(partition).and_then(|follower| follower.lost.front().cloned());
            let Some(entry) = next else { return Ok(()) };
            match self.reapply(partition, &entry).await {
                Ok(()) | Err(Error::Refused(_)) => {}
                Err(fault) => return Err(fault),
            }
            if let Some(mut follower) = self.follower(partition) {
                follower.lost.pop_front();
            }
        }
    }

    async fn reapply(&self, partition: Partition, entry: &FeedEntry) -> Result<(), Error> {
        let ctx = Context::system();
        match entry {
            FeedEntry::SessionEnded { sid, reason, .. } => {
                let ended = self.end_with(*sid, (*reason).into(), None, &ctx).await?;
                if ended.is_none() {
                    self.announce_if_gone(partition, *sid, entry).await?;
                }
            }
            FeedEntry::SubjectRaised { subject, epoch, except, reason, at } => {
                let lost = Bump { epoch: *epoch, at: *at, reason: *reason };
                self.raise_again(subject, *except, lost, &ctx).await?;
            }
            FeedEntry::TokenDenied { jti, until } => {
                self.deny_until(jti, *until, &ctx).await?;
            }
            FeedEntry::AllEnded { at } => self.end_partition_again(partition, *at, &ctx).await?,
            FeedEntry::KeyChanged { kid, state } if is_revocation(state) => {
                self.revoke_key(kid, &ctx).await?;
            }
            FeedEntry::SessionSteppedUp { .. }
            | FeedEntry::KeyChanged { .. }
            | FeedEntry::SessionChanged { .. }
            | FeedEntry::SubjectChanged { .. }
            | FeedEntry::RecordChanged => {}
        }
        Ok(())
    }

    /// Tells the other nodes of an ending whose session the store has lost as a whole: they may
    /// still have it in their caches.
    async fn announce_if_gone(
        &self,
        partition: Partition,
        sid: Sid,
        entry: &FeedEntry,
    ) -> Result<(), Error> {
        if self.load(partition, &[Key::Session(sid)]).await?.session(sid).is_some() {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.feed(entry.clone());
        let deadline = self.now().plus(self.settings.store_timeout);
        self.try_commit(partition, batch, deadline).await?;
        Ok(())
    }

    async fn raise_again(
        &self,
        subject: &Subject,
        keep: Option<Sid>,
        lost: Bump,
        ctx: &Context,
    ) -> Result<(), Error> {
        let plan = Raise { subject, reason: lost.reason, keep, lost: Some(lost) };
        // Where the spared session is gone with the log, nobody is spared.
        match self.raise_as(&plan, ctx, |_| {}).await {
            Err(Error::Refused(_)) => {
                self.raise_as(&Raise { keep: None, ..plan }, ctx, |_| {}).await?;
            }
            other => {
                other?;
            }
        }
        Ok(())
    }

    async fn end_partition_again(
        &self,
        partition: Partition,
        at: Timestamp,
        ctx: &Context,
    ) -> Result<(), Error> {
        let loaded = self.load(partition, &[Key::Partition]).await?;
        // The entry's instant is the record's, so a record that is older has lost it.
        if loaded.partition()?.bumped_at < at {
            self.end_partition(partition, ctx).await?;
        }
        Ok(())
    }
}
