//! The one shape of every operation: load, decide, commit if nothing changed meanwhile, else load
//! again, until the deadline.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use cloakroom_core::event::{Event, FeedEntry};
#[cfg(feature = "mutants")]
use cloakroom_core::mutants::{Mutant, active};
use cloakroom_core::session::{Object, Session};
use cloakroom_core::subject::{PartitionState, SubjectState, User};
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
#[cfg(feature = "mutants")]
use cloakroom_store::Found;
use cloakroom_store::{
    Batch, Commit, Committed, Entry, Follow, Key, Record, Review, Store, StoreError, Version,
    Versioned,
};

use crate::authority::Authority;
use crate::clock::draw;
use crate::context::{Error, Unavailable};

/// The first pause after a conflict; it doubles, with jitter, up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_millis(1);
const BACKOFF_MAX: Duration = Duration::from_millis(64);
/// A commit that nobody waits for any more has taken effect by then, or never will.
const DOUBT: Duration = Duration::from_secs(30);

/// Records of one partition as they were loaded, and when.
pub(crate) struct Loaded {
    records: BTreeMap<Key, Option<Versioned>>,
    /// The instant that the decision is made at.
    pub(crate) now: Timestamp,
    /// Whether an earlier commit of this operation may have taken effect.
    pub(crate) in_doubt: bool,
}

/// What an operation decides on: records by key, and what these name.
pub(crate) struct Wanted {
    keys: Vec<Key>,
    follow: Follow,
}

impl Wanted {
    /// These, and in the same trip what the found ones name.
    pub(crate) const fn following(keys: Vec<Key>, follow: Follow) -> Self {
        Self { keys, follow }
    }
}

impl From<Vec<Key>> for Wanted {
    fn from(keys: Vec<Key>) -> Self {
        Self { keys, follow: Follow::Nothing }
    }
}

/// What one commit came to.
enum Attempt {
    Done(Committed),
    Conflict,
    InDoubt,
}

/// What a decision comes to.
pub(crate) enum Decision<T> {
    /// Nothing is to be stored.
    Done(T),
    /// Store this; then the answer holds.
    Commit(Batch, T),
    /// More records are needed to decide.
    Load(Vec<Key>),
}

/// A change in the making: what is written of a record, or relies on it, expects the version that
/// was loaded.
pub(crate) struct Draft<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) batch: Batch,
}

impl<'a> Draft<'a> {
    /// Of nothing yet, decided on what was loaded.
    pub(crate) fn of(loaded: &'a Loaded) -> Self {
        Self { loaded, batch: Batch::default() }
    }

    /// Expects a record to stay as it was loaded.
    pub(crate) fn expect(&mut self, key: Key) {
        let version = self.loaded.version(&key);
        self.batch.expect(key, version);
    }

    /// Expects the epochs of a session as they were loaded: a sign-out everywhere that was
    /// acknowledged meanwhile wins over a write.
    pub(crate) fn expect_epochs(&mut self, session: &Session) {
        self.expect(Key::Partition);
        if let Some(subject) = &session.subject {
            self.expect(Key::Subject(subject.clone()));
        }
    }

    /// Stores a record that never expires by itself.
    pub(crate) fn put(&mut self, key: Key, record: Record, review: Review) {
        self.put_until(key, record, review, None);
    }

    /// Stores a record that is invisible from `expires_at` on.
    pub(crate) fn put_until(
        &mut self,
        key: Key,
        record: Record,
        review: Review,
        expires_at: Option<Timestamp>,
    ) {
        let version = self.loaded.version(&key);
        self.batch.put_until(key, version, record, review, expires_at);
    }

    /// Stores a session.
    pub(crate) fn put_session(&mut self, session: Session, review: Review) {
        self.put(Key::Session(session.sid), Record::Session(Box::new(session)), review);
    }

    /// Removes a record.
    pub(crate) fn delete(&mut self, key: Key) {
        let version = self.loaded.version(&key);
        self.batch.delete(key, version);
    }

    /// Removes a record where there is one.
    pub(crate) fn delete_any(&mut self, key: Key) {
        if self.loaded.version(&key) != Version::ZERO {
            self.delete(key);
        }
    }

    /// Takes back what was to be written of a record: something else is.
    pub(crate) fn take_back(&mut self, key: &Key) {
        self.batch.writes.retain(|write| write.key != *key);
    }

    /// Whether it writes no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.writes.is_empty()
    }

    /// How many records it writes.
    pub(crate) fn writes(&self) -> usize {
        self.batch.writes.len()
    }

    /// Logs for followers.
    pub(crate) fn feed(&mut self, entry: FeedEntry) {
        self.batch.feed(entry);
    }

    /// Logs for the audit.
    pub(crate) fn audit(&mut self, event: Event) {
        self.batch.audit(event);
    }

    /// The decision to store it; then the answer holds.
    pub(crate) fn commit<T>(self, answer: T) -> Decision<T> {
        Decision::Commit(self.batch, answer)
    }
}

impl Loaded {
    fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key).and_then(Option::as_ref).map(|found| &found.record)
    }

    /// What a commit has just written, as a load would show it.
    pub(crate) fn of_commit(
        written: impl IntoIterator<Item = (Key, Record)>,
        committed: Committed,
        now: Timestamp,
    ) -> Self {
        let version = committed.tick;
        let found = |(key, record)| (key, Some(Versioned { version, record }));
        Self { records: written.into_iter().map(found).collect(), now, in_doubt: false }
    }

    /// Whether `key` was asked for.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.records.contains_key(key)
    }

    /// The version of a record; zero where there is none.
    pub(crate) fn version(&self, key: &Key) -> Version {
        self.records.get(key).and_then(Option::as_ref).map_or(Version::ZERO, |r| r.version)
    }

    pub(crate) fn session(&self, sid: Sid) -> Option<&Session> {
        match self.record(&Key::Session(sid)) {
            Some(Record::Session(session)) => Some(session),
            _ => None,
        }
    }

    pub(crate) fn data(&self, sid: Sid) -> Option<&Object> {
        match self.record(&Key::Data(sid)) {
            Some(Record::Data(data)) => Some(data),
            _ => None,
        }
    }

    pub(crate) fn subject(&self, subject: &Subject) -> Option<&SubjectState> {
        match self.record(&Key::Subject(subject.clone())) {
            Some(Record::Subject(state)) => Some(state),
            _ => None,
        }
    }

    pub(crate) fn user(&self, id: &Subject) -> Option<&User> {
        match self.record(&Key::User(id.clone())) {
            Some(Record::User(user)) => Some(user),
            _ => None,
        }
    }

    /// The sids listed for a subject; empty where there is no index.
    pub(crate) fn index(&self, subject: &Subject) -> &[Sid] {
        match self.record(&Key::Index(subject.clone())) {
            Some(Record::Index(sids)) => sids,
            _ => &[],
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Record> {
        self.record(key)
    }

    /// The partition's record, which always exists: its lack is a fault, never epoch 0.
    pub(crate) fn partition(&self) -> Result<&PartitionState, Error> {
        match self.record(&Key::Partition) {
            Some(Record::Partition(state)) => Ok(state),
            _ => Err(Unavailable::Missing("the partition's record".into()).into()),
        }
    }

    /// The record of a subject that a session names, which always exists.
    pub(crate) fn subject_of(&self, session: &Session) -> Result<Option<&SubjectState>, Error> {
        let Some(subject) = &session.subject else { return Ok(None) };
        match self.subject(subject) {
            Some(state) => Ok(Some(state)),
            None => Err(Unavailable::Missing("the subject's record".into()).into()),
        }
    }
}

/// A commit on its way. It takes effect or not, whoever still waits for it: unless its outcome
/// becomes known, what it may have changed is doubted.
struct InFlight<'a, S: Store> {
    authority: &'a Authority<S>,
    partition: Partition,
    touched: Vec<Key>,
    is_known: bool,
}

impl<S: Store> Drop for InFlight<'_, S> {
    fn drop(&mut self) {
        if !self.is_known {
            self.authority.doubt(self.partition, &self.touched);
        }
    }
}

impl<S: Store> Authority<S> {
    /// Takes note that these records may change without this node being told.
    fn doubt(&self, partition: Partition, keys: &[Key]) {
        if self.settings.verify.max_staleness.is_some() {
            // The log will tell.
            self.cache.forget(partition, keys);
            return;
        }
        self.cache.doubt(partition, keys, self.now().plus(DOUBT));
        // Whether a token is denied is read only of those that aren't known yet.
        if keys.iter().any(|key| matches!(key, Key::DeniedToken(_))) {
            self.access_tokens.clear();
        }
    }

    /// Loads, decides, commits; again while the commit meets other versions or its outcome is
    /// unknown. `decide` must come to the same answer where its own commit took effect.
    pub(crate) async fn transact<T: Send>(
        &self,
        partition: Partition,
        wanted: impl Into<Wanted> + Send,
        decide: impl FnMut(&Loaded) -> Result<Decision<T>, Error> + Send,
    ) -> Result<(T, Option<Committed>), Error> {
        self.transact_from(None, partition, wanted, decide).await
    }

    /// The same, deciding first on what was loaded for another purpose just before. Where that is
    /// stale, its versions conflict and it is loaded anew.
    pub(crate) async fn transact_from<T: Send>(
        &self,
        mut first: Option<Loaded>,
        partition: Partition,
        wanted: impl Into<Wanted> + Send,
        mut decide: impl FnMut(&Loaded) -> Result<Decision<T>, Error> + Send,
    ) -> Result<(T, Option<Committed>), Error> {
        let Wanted { keys, follow } = wanted.into();
        let deadline = self.now().plus(self.settings.store_timeout);
        let mut backoff = BACKOFF_FIRST;
        let mut in_doubt = false;
        loop {
            let mut loaded = match first.take() {
                Some(first) => Loaded { now: self.now(), ..first },
                None => self.load_until(partition, &keys, follow, deadline).await?,
            };
            let (batch, answer) = loop {
                loaded.in_doubt = in_doubt;
                match decide(&loaded)? {
                    Decision::Done(answer) => {
                        if in_doubt {
                            // What was found may be our own doing, which this node must know of
                            // before it says so: the log tells.
                            self.follow_boxed(partition).await?;
                        }
                        return Ok((answer, None));
                    }
                    Decision::Commit(batch, answer) => break (batch, answer),
                    Decision::Load(more) => {
                        // All of it, so that it is one state: records of two instants may
                        // contradict each other, and "it is over already" would be wrong.
                        let mut keys: Vec<Key> = loaded.records.into_keys().collect();
                        keys.extend(more);
                        loaded = self.load_until(partition, &keys, follow, deadline).await?;
                    }
                }
            };
            match self.attempt(partition, batch, deadline).await? {
                Attempt::Done(committed) => return Ok((answer, Some(committed))),
                Attempt::Conflict => {}
                Attempt::InDoubt => in_doubt = true,
            }
            self.pause(&mut backoff, deadline).await?;
        }
    }

    /// Loads records of one partition within the deadline of one operation.
    pub(crate) async fn load(&self, partition: Partition, keys: &[Key]) -> Result<Loaded, Error> {
        self.load_following(partition, keys, Follow::Nothing).await
    }

    /// The same, and what the found ones name, in one trip and of one state.
    pub(crate) async fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Loaded, Error> {
        let deadline = self.now().plus(self.settings.store_timeout);
        self.load_until(partition, keys, follow, deadline).await
    }

    async fn load_until(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
        deadline: Timestamp,
    ) -> Result<Loaded, Error> {
        let load = self.store.load_following(partition, keys, follow);
        #[cfg(feature = "mutants")]
        let load = self.load_mutant(partition, keys, follow, load);
        let found = self.within(deadline, load).await??;
        let asked = keys.iter().cloned().zip(found.asked);
        let records = asked.chain(found.followed).collect();
        Ok(Loaded { records, now: self.now(), in_doubt: false })
    }

    /// Two loads of two instants, where that mutant is in force.
    #[cfg(feature = "mutants")]
    async fn load_mutant(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
        at_once: impl Future<Output = Result<Found, StoreError>> + Send,
    ) -> Result<Found, StoreError> {
        if !active(Mutant::TwoInstants) {
            return at_once.await;
        }
        let asked = self.store.load(partition, keys).await?;
        let named = follow.keys(keys, &asked);
        let found = self.store.load(partition, &named).await?;
        Ok(Found { asked, followed: named.into_iter().zip(found).collect() })
    }

    /// Commits once. `None`: another version was met, or the outcome is unknown; load again.
    pub(crate) async fn try_commit(
        &self,
        partition: Partition,
        batch: Batch,
        deadline: Timestamp,
    ) -> Result<Option<Committed>, Error> {
        Ok(match self.attempt(partition, batch, deadline).await? {
            Attempt::Done(committed) => Some(committed),
            Attempt::Conflict | Attempt::InDoubt => None,
        })
    }

    async fn attempt(
        &self,
        partition: Partition,
        batch: Batch,
        deadline: Timestamp,
    ) -> Result<Attempt, Error> {
        let touched: Vec<Key> = batch.writes.iter().map(|write| write.key.clone()).collect();
        let feed: Vec<_> = batch
            .entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Feed(feed) => Some(feed.clone()),
                Entry::Audit(_) => None,
            })
            .collect();
        let events: Vec<_> = batch
            .entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Audit(event) => Some((event.kind, event.count)),
                Entry::Feed(_) => None,
            })
            .collect();
        let mut flight = InFlight { authority: self, partition, touched, is_known: false };
        let outcome = self.within(deadline, self.store.commit(partition, batch)).await;
        match outcome {
            Ok(Ok(Commit::Done(committed))) => {
                flight.is_known = true;
                self.observe(partition, committed.tick, &feed);
                events.iter().for_each(|(kind, count)| self.counters.add_event(*kind, *count));
                self.counters.tallies.committed(&feed);
                Ok(Attempt::Done(committed))
            }
            Ok(Ok(Commit::Conflict(_))) => {
                flight.is_known = true;
                self.counters.tallies.conflict();
                Ok(Attempt::Conflict)
            }
            Ok(Err(StoreError::OutcomeUnknown(_))) => {
                self.counters.tallies.in_doubt();
                Ok(Attempt::InDoubt)
            }
            Ok(Err(error)) => Err(error.into()),
            // Given up on: it may still take effect.
            Err(error) => Err(error),
        }
    }

    async fn pause(&self, backoff: &mut Duration, deadline: Timestamp) -> Result<(), Error> {
        let [jitter] = draw::<1>(&*self.entropy);
        let span = *backoff * u32::from(jitter) / 255;
        if self.now().plus(span) >= deadline {
            return Err(Unavailable::Deadline.into());
        }
        self.clock.sleep(span).await;
        *backoff = (*backoff * 2).min(BACKOFF_MAX);
        Ok(())
    }

    /// Awaits one call of the store for as long as a call may take.
    pub(crate) async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, Error> {
        let deadline = self.now().plus(self.settings.store_timeout);
        Ok(self.within(deadline, call).await??)
    }

    /// Awaits `work` until `deadline`.
    pub(crate) async fn within<F: Future + Send>(
        &self,
        deadline: Timestamp,
        work: F,
    ) -> Result<F::Output, Error> {
        let mut work = pin!(work);
        // A store in this process mostly answers at once: no timer is made for that.
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
            return Ok(done);
        }
        let left = deadline.since(self.now());
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.clock.sleep(left) => Err(Unavailable::Deadline.into()),
        }
    }
}
