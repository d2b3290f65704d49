//! The feed: were those who follow told of what ended lately?
//!
//! Nodes and verifiers forget by it what they keep. An entry that is missing lets a session live on
//! there for as long as its last access token, so it is told once more.

use std::collections::BTreeSet;
use std::time::Duration;

use cloakroom_core::event::FeedEntry;
use cloakroom_core::limits::{FEED_MARGIN, TOKEN_LEEWAY};
use cloakroom_core::session::{Ending, Lifecycle, Session};
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::{Batch, Entry, Key, Kind, Log, Store, StoreError, Tick, Versioned};

use super::{Check, Fault, PAGE};

/// What a feed tells of the time in which nothing of it is removed.
pub(super) struct Told {
    ended: BTreeSet<Sid>,
    raised: BTreeSet<(Subject, u64)>,
    denied: BTreeSet<String>,
    all_ended: BTreeSet<Timestamp>,
    /// From when on all of it is known.
    since: Timestamp,
}

/// Clocks of nodes and of the store differ by less.
const CLOCKS_DIFFER: Duration = Duration::from_secs(10);

/// Entries read at a time.
const ENTRIES: usize = 512;

impl<S: Store> Check<'_, S> {
    /// Reads a partition's feed.
    pub(super) async fn told(&self, partition: Partition) -> Result<Told, StoreError> {
        // Whatever the life of access tokens, entries are kept for longer than this.
        let kept_since = self.now.minus(FEED_MARGIN);
        let mut told = Told {
            ended: BTreeSet::new(),
            raised: BTreeSet::new(),
            denied: BTreeSet::new(),
            all_ended: BTreeSet::new(),
            since: kept_since.plus(CLOCKS_DIFFER),
        };
        let mut from = Tick::at(kept_since);
        loop {
            let page = self.store.log(partition, Log::Feed, from, ENTRIES).await?;
            for found in &page {
                if let Entry::Feed(entry) = &found.entry {
                    told.note(entry);
                }
            }
            match page.last() {
                Some(last) if page.len() >= ENTRIES => from = last.cursor.successor(),
                Some(_) | None => return Ok(told),
            }
        }
    }

    /// Whether the feed tells of a session's ending.
    pub(super) async fn told_of_session(
        &mut self,
        partition: Partition,
        session: &Session,
        told: &Told,
    ) -> Result<(), StoreError> {
        let Lifecycle::Ended(Ending { at, reason, .. }) = session.lifecycle else { return Ok(()) };
        let sid = session.sid;
        if !told.should_know(at, self.now) || told.ended.contains(&sid) {
            return Ok(());
        }
        let until = self.forgotten_at();
        let entry = FeedEntry::SessionEnded { sid, reason, until };
        let is_told = |told: &Told| told.ended.contains(&sid);
        self.tell_again(partition, sid.to_string(), entry, is_told).await
    }

    /// Whether the feed tells of who was signed out everywhere, of tokens that were denied, and of
    /// the end of everything.
    pub(super) async fn told_of_others(
        &mut self,
        partition: Partition,
        told: &Told,
    ) -> Result<(), StoreError> {
        let state = self.load_one(partition, &Key::Partition).await?;
        let state = state.as_ref().and_then(|found| found.record.as_partition());
        if let Some(at) = state.map(|state| state.bumped_at)
            && told.should_know(at, self.now)
            && !told.all_ended.contains(&at)
        {
            let is_told = |told: &Told| told.all_ended.contains(&at);
            let entry = FeedEntry::AllEnded { at };
            self.tell_again(partition, partition.to_string(), entry, is_told).await?;
        }
        for kind in [Kind::Subject, Kind::DeniedToken] {
            let mut after = None;
            loop {
                let page = self.store.page(partition, kind, after.as_ref(), PAGE).await?;
                self.looked.records += page.len() as u64;
                for (key, found) in &page {
                    self.told_of_record(partition, key, found, told).await?;
                }
                if page.len() < PAGE {
                    break;
                }
                after = page.last().map(|(key, _)| key.clone());
            }
        }
        Ok(())
    }

    async fn told_of_record(
        &mut self,
        partition: Partition,
        key: &Key,
        found: &Versioned,
        told: &Told,
    ) -> Result<(), StoreError> {
        if let Some(state) = found.record.as_subject() {
            let lately = state.bumps.last().filter(|bump| told.should_know(bump.at, self.now));
            let Some(bump) = lately.filter(|bump| bump.epoch == state.epoch) else { return Ok(()) };
            let raise = (state.subject.clone(), state.epoch);
            if told.raised.contains(&raise) {
                return Ok(());
            }
            let (subject, epoch) = raise.clone();
            // A session that was taken along has the new epoch, and is not over by this.
            let (except, reason, at) = (None, bump.reason, bump.at);
            let entry = FeedEntry::SubjectRaised { subject, epoch, except, reason, at };
            let with = state.subject.as_str().to_owned();
            let is_told = |told: &Told| told.raised.contains(&raise);
            return self.tell_again(partition, with, entry, is_told).await;
        }
        let (Key::DeniedToken(jti), Some(denied)) = (key, found.record.as_denied_token()) else {
            return Ok(());
        };
        let is_lately = told.should_know(found.version.instant(), self.now);
        if !is_lately || told.denied.contains(&**jti) {
            return Ok(());
        }
        let entry = FeedEntry::TokenDenied { jti: jti.to_string(), until: denied.until };
        let is_told = |told: &Told| told.denied.contains(&**jti);
        self.tell_again(partition, jti.to_string(), entry, is_told).await
    }

    /// Notes that an entry is missing, unless it came while others were looked at.
    async fn tell_again(
        &mut self,
        partition: Partition,
        with: String,
        entry: FeedEntry,
        is_told: impl Fn(&Told) -> bool + Send,
    ) -> Result<(), StoreError> {
        if is_told(&self.told(partition).await?) {
            return Ok(());
        }
        let mut repair = Batch::default();
        repair.feed(entry);
        self.note(partition, Fault::EndingWithoutFeedEntry, with, Some(repair)).await
    }

    /// When no access token of now is valid any more.
    fn forgotten_at(&self) -> Timestamp {
        self.now.plus(self.access_ttl).plus(TOKEN_LEEWAY * 2)
    }
}

impl Told {
    fn note(&mut self, entry: &FeedEntry) {
        match entry {
            FeedEntry::SessionEnded { sid, .. } => {
                self.ended.insert(*sid);
            }
            FeedEntry::SubjectRaised { subject, epoch, .. } => {
                self.raised.insert((subject.clone(), *epoch));
            }
            FeedEntry::TokenDenied { jti, .. } => {
                self.denied.insert(jti.clone());
            }
            FeedEntry::AllEnded { at } => {
                self.all_ended.insert(*at);
            }
            FeedEntry::SessionSteppedUp { .. }
            | FeedEntry::KeyChanged { .. }
            | FeedEntry::SessionChanged { .. }
            | FeedEntry::SubjectChanged { .. }
            | FeedEntry::RecordChanged => {}
        }
    }

    /// Whether what happened then must be in it: late enough to be kept, and before this check.
    fn should_know(&self, at: Timestamp, now: Timestamp) -> bool {
        at >= self.since && at < now
    }
}
