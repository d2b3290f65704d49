//! What a node remembers of the store, and what it must never forget too early.
//!
//! A filled entry is always one that was current when its read began and that nothing changed
//! since: each partition counts what it saw change, and a fill whose count has moved is dropped.

use std::any::Any;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use cloakroom_core::event::FeedEntry;
use cloakroom_core::keys::Kid;
use cloakroom_core::limits::ENDED_SET_KEEP;
#[cfg(feature = "mutants")]
use cloakroom_core::mutants::{Mutant, active};
use cloakroom_core::rate::{Admission, Quota};
use cloakroom_core::session::{EndReason, Ending, Session};
use cloakroom_core::subject::{Bump, PartitionState, SubjectState};
use cloakroom_core::types::{Partition, Secret, Sid, Subject, Timestamp};
use cloakroom_store::Key;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};

use crate::data::DataView;
use crate::verify::{Verified, Via};

/// What a node counts for one session; none of it is stored.
#[derive(Debug, Default)]
pub struct Meters {
    verify: AtomicU64,
    session: AtomicU64,
    seen_at: AtomicI64,
    queued: std::sync::atomic::AtomicBool,
    assertion: Mutex<Option<Assertion>>,
    /// What a caller made of the session as its cookie proved it, and as its tokens did.
    made: [ArcSwapOption<Made>; 2],
    data: ArcSwapOption<KeptData>,
}

/// A session's data as it was read after this very record had been.
#[derive(Debug)]
struct KeptData {
    session: Arc<Session>,
    view: Arc<DataView>,
}

/// What was made of a session and its subject: good as long as these very records are the ones in
/// hand.
#[derive(Debug)]
struct Made {
    session: Arc<Session>,
    subject: Option<Arc<SubjectState>>,
    value: Arc<dyn Any + Send + Sync>,
}

/// Whether a session and its subject are these very records.
fn are_same(session: &Arc<Session>, subject: Option<&Arc<SubjectState>>, of: &Verified) -> bool {
    let same_subject = match (subject, &of.subject) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    same_subject && Arc::ptr_eq(session, &of.session)
}

/// A session's assertion for the upstreams of a gateway: a signed token.
#[derive(Debug)]
pub struct GatewayAssertion {
    token: Secret<String>,
    shown: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl GatewayAssertion {
    pub(crate) const fn new(token: Secret<String>) -> Self {
        Self { token, shown: OnceLock::new() }
    }

    /// The token's text.
    pub fn expose(&self) -> &String {
        self.token.expose()
    }

    /// What a caller makes of the assertion and the session that it speaks of: made once, and
    /// kept for as long as the assertion is handed out. `None`: a `T` isn't what was kept.
    pub fn shown<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        self.shown.get_or_init(|| Box::new(make())).downcast_ref()
    }
}

/// A gateway's assertion, and what it was made of.
#[derive(Clone, Debug)]
pub(crate) struct Assertion {
    pub(crate) token: Arc<GatewayAssertion>,
    pub(crate) fresh_until: Timestamp,
    pub(crate) session: Arc<Session>,
    pub(crate) subject: Option<Arc<SubjectState>>,
    pub(crate) kid: Option<Kid>,
}

impl Assertion {
    /// Whether it still says what the session is: the very records it was made of, or records
    /// with the same claims, and the key that signs now.
    pub(crate) fn made_of(&self, verified: &Verified, kid: Option<&Kid>) -> bool {
        if self.kid.as_ref() != kid {
            return false;
        }
        let same_subject = match (&self.subject, &verified.subject) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.claims == b.claims,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let (a, b) = (&self.session, &verified.session);
        same_subject
            && (Arc::ptr_eq(a, b)
                || (a.claims == b.claims
                    && a.auth_time == b.auth_time
                    && a.acr == b.acr
                    && a.amr == b.amr
                    && a.subject_epoch == b.subject_epoch
                    && a.refused_from() <= b.refused_from()))
    }
}

impl Meters {
    /// Counts a verification against `limit.verify`.
    pub fn admit_verify(&self, quota: &Quota, now: Timestamp) -> Admission {
        admit(&self.verify, quota, now)
    }

    /// Counts a request against `limit.session`.
    pub fn admit_session(&self, quota: &Quota, now: Timestamp) -> Admission {
        admit(&self.session, quota, now)
    }

    /// Whether a request would be admitted against `limit.session`; counts nothing.
    pub fn expect_session(&self, quota: &Quota, now: Timestamp) -> Admission {
        quota.admit(self.session.load(Ordering::Relaxed), now)
    }

    /// The last use that this node saw.
    pub(crate) fn seen_at(&self) -> Timestamp {
        Timestamp::from_millis(self.seen_at.load(Ordering::Relaxed))
    }

    /// Notes a use; true when it is the first since the last [`Meters::take_queued`].
    pub(crate) fn note_use(&self, now: Timestamp) -> bool {
        self.seen_at.fetch_max(now.as_millis(), Ordering::Relaxed);
        !self.queued.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn take_queued(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Lets go of the noted use: it came too late to count.
    pub(crate) fn forget_use(&self) {
        self.seen_at.store(0, Ordering::Relaxed);
    }

    pub(crate) fn assertion(&self) -> MutexGuard<'_, Option<Assertion>> {
        self.assertion.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a caller makes of the records in `verified`: made once, and kept until they change.
    pub(crate) fn made<T: Send + Sync + 'static>(
        &self,
        verified: &Verified,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let slot = match verified.via {
            Via::Cookie => &self.made[0],
            Via::Access(_) | Via::Refresh => &self.made[1],
        };
        if let Some(made) = &*slot.load()
            && are_same(&made.session, made.subject.as_ref(), verified)
            && let Ok(value) = Arc::clone(&made.value).downcast()
        {
            return value;
        }
        let value = Arc::new(make());
        let (session, subject) = (Arc::clone(&verified.session), verified.subject.clone());
        slot.store(Some(Arc::new(Made { session, subject, value: value.clone() })));
        value
    }

    /// The data that was kept with this very record.
    pub(crate) fn data(&self, session: &Arc<Session>) -> Option<Arc<DataView>> {
        let kept = self.data.load();
        let kept = kept.as_ref().filter(|kept| Arc::ptr_eq(&kept.session, session));
        kept.map(|kept| Arc::clone(&kept.view))
    }

    /// Keeps data that was read after `session` had been taken from the cache. Each change of the
    /// data drops that record from the cache, and none that was read before it comes back: as long
    /// as the record is there, the data is what it was.
    pub(crate) fn keep_data(&self, session: Arc<Session>, view: Arc<DataView>) {
        self.data.store(Some(Arc::new(KeptData { session, view })));
    }

    /// Lets go of what was kept with the session: it has changed, or is over.
    fn forget_kept(&self) {
        self.made.iter().for_each(|slot| slot.store(None));
        self.data.store(None);
    }
}

/// Counts one request in a shared GCRA state.
fn admit(state: &AtomicU64, quota: &Quota, now: Timestamp) -> Admission {
    let mut seen = state.load(Ordering::Relaxed);
    loop {
        let admission = quota.admit(seen, now);
        let Admission::Admitted { state: next, .. } = admission else { return admission };
        match state.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return admission,
            Err(other) => seen = other,
        }
    }
}

/// A bounded cache that counts what it had to let go for want of room.
#[derive(Debug)]
pub(crate) struct Kept<K, V> {
    kept: quick_cache::sync::Cache<K, V, UnitWeighter, DefaultHashBuilder, Evictions>,
    evictions: Evictions,
}

/// How many a cache let go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evictions(Arc<AtomicU64>);

impl<K, V> Lifecycle<K, V> for Evictions {
    type RequestState = ();

    fn begin_request(&self) {}

    fn on_evict(&self, (): &mut (), _: K, _: V) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl<K: Clone + Eq + std::hash::Hash, V: Clone> Kept<K, V> {
    /// Room for so many.
    pub(crate) fn new(capacity: usize) -> Self {
        let weight = u64::try_from(capacity).unwrap_or(u64::MAX);
        let (hasher, evictions) = (DefaultHashBuilder::default(), Evictions::default());
        let of_it = evictions.clone();
        let kept = quick_cache::sync::Cache::with(capacity, weight, UnitWeighter, hasher, of_it);
        Self { kept, evictions }
    }

    /// What it holds; `lookups`: hits and misses, where somebody counts them.
    pub(crate) fn figures(&self, name: &'static str, lookups: Option<(u64, u64)>) -> CacheFigures {
        let evictions = self.evictions.0.load(Ordering::Relaxed);
        let (entries, capacity) = (self.kept.len(), self.kept.capacity());
        CacheFigures { name, entries, capacity, lookups, evictions }
    }
}

impl<K, V> std::ops::Deref for Kept<K, V> {
    type Target = quick_cache::sync::Cache<K, V, UnitWeighter, DefaultHashBuilder, Evictions>;

    fn deref(&self) -> &Self::Target {
        &self.kept
    }
}

/// One of a node's caches.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CacheFigures {
    /// What is kept in it.
    pub name: &'static str,
    /// How many it holds.
    pub entries: usize,
    /// How many it may hold.
    pub capacity: u64,
    /// Hits and misses; none where nobody counts them.
    pub lookups: Option<(u64, u64)>,
    /// How many it let go for want of room.
    pub evictions: u64,
}

/// A session as cached, with the node's own counters.
#[derive(Clone, Debug)]
pub(crate) struct CachedSession {
    pub(crate) session: Arc<Session>,
    pub(crate) meters: Arc<Meters>,
}

/// What was seen to end lately: a slower read must not bring it back.
#[derive(Debug, Default)]
struct Recent {
    sessions: HashMap<Sid, (Ending, Timestamp)>,
    subjects: HashMap<Subject, (Bump, Option<Sid>, Timestamp)>,
    denied: HashMap<String, Timestamp>,
    swept_at: Timestamp,
}

#[derive(Debug)]
struct Slot {
    /// Counts what was seen to change here.
    changes: AtomicU64,
    recent: RwLock<Recent>,
    state: ArcSwapOption<PartitionState>,
    /// When all of it was last seen to be ended. A record from before was lost by a store that
    /// went back, or read too slowly.
    all_ended_at: AtomicI64,
    /// Until when a commit of unknown outcome may yet take effect, and nobody will tell.
    doubt_until: AtomicI64,
    /// When this partition's log was last read to its end: the instant that reading began.
    fresh_at: AtomicI64,
}

/// The node's memory.
#[derive(Debug)]
pub(crate) struct Cache {
    sessions: Kept<Sid, CachedSession>,
    meters: Kept<Sid, Arc<Meters>>,
    subjects: Kept<Subject, Arc<SubjectState>>,
    slots: Vec<Slot>,
}

/// Taken before a read; a fill by it counts only if nothing changed since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    partition: Partition,
    changes: u64,
    settled: bool,
}

impl Cache {
    pub(crate) fn new(partitions: u16, capacity: usize) -> Self {
        let slot = || Slot {
            changes: AtomicU64::new(0),
            recent: RwLock::default(),
            state: ArcSwapOption::empty(),
            all_ended_at: AtomicI64::new(0),
            doubt_until: AtomicI64::new(0),
            fresh_at: AtomicI64::new(0),
        };
        Self {
            sessions: Kept::new(capacity),
            meters: Kept::new(capacity),
            subjects: Kept::new(capacity),
            slots: (0..partitions).map(|_| slot()).collect(),
        }
    }

    /// What it holds. `lookups`: of sessions, hits and misses.
    pub(crate) fn figures(&self, lookups: Option<(u64, u64)>) -> [CacheFigures; 3] {
        [
            self.sessions.figures("sessions", lookups),
            self.subjects.figures("subjects", None),
            self.meters.figures("meters", None),
        ]
    }

    fn slot(&self, partition: Partition) -> Option<&Slot> {
        self.slots.get(usize::from(partition.0))
    }

    pub(crate) fn session(&self, sid: Sid) -> Option<CachedSession> {
        self.sessions.get(&sid)
    }

    pub(crate) fn subject(&self, subject: &Subject) -> Option<Arc<SubjectState>> {
        self.subjects.get(subject)
    }

    pub(crate) fn partition(&self, partition: Partition) -> Option<Arc<PartitionState>> {
        self.slot(partition).and_then(|slot| slot.state.load_full())
    }

    /// This node's counters of a session.
    pub(crate) fn meters(&self, sid: Sid) -> Arc<Meters> {
        match self.meters.get_or_insert_with(&sid, || Ok::<_, Infallible>(Arc::default())) {
            Ok(meters) => meters,
            Err(never) => match never {},
        }
    }

    /// When the partition's log was last read to its end.
    pub(crate) fn fresh_at(&self, partition: Partition) -> Timestamp {
        let millis = self.slot(partition).map_or(0, |slot| slot.fresh_at.load(Ordering::Acquire));
        Timestamp::from_millis(millis)
    }

    /// Notes that the partition's log was read to its end by a reading that began at `at`.
    pub(crate) fn refreshed(&self, partition: Partition, at: Timestamp) {
        if let Some(slot) = self.slot(partition) {
            slot.fresh_at.fetch_max(at.as_millis(), Ordering::AcqRel);
        }
    }

    /// To be taken before a read at `now` whose result is to be cached.
    pub(crate) fn mark(&self, partition: Partition, now: Timestamp) -> Mark {
        let changes = self.slot(partition).map_or(0, |slot| slot.changes.load(Ordering::Acquire));
        Mark { partition, changes, settled: self.is_settled(partition, now) }
    }

    /// Whether nothing is under way in a partition that would change it unnoticed.
    pub(crate) fn is_settled(&self, partition: Partition, now: Timestamp) -> bool {
        let until = self.slot(partition).map_or(0, |slot| slot.doubt_until.load(Ordering::Acquire));
        until <= now.as_millis()
    }

    /// Keeps nothing that is read of a partition until then, and drops what a commit may change
    /// whose outcome nobody will hear of.
    pub(crate) fn doubt(&self, partition: Partition, keys: &[Key], until: Timestamp) {
        if let Some(slot) = self.slot(partition) {
            slot.doubt_until.fetch_max(until.as_millis(), Ordering::AcqRel);
        }
        self.forget(partition, keys);
    }

    /// Remembers what was read since `mark`, unless something changed meanwhile.
    pub(crate) fn fill(
        &self,
        mark: Mark,
        session: Option<&CachedSession>,
        subject: Option<&Arc<SubjectState>>,
        partition: &Arc<PartitionState>,
    ) {
        let Some(slot) = self.slot(mark.partition) else { return };
        // Held while filling: whoever notes a change waits, then evicts what was filled.
        let _recent = slot.recent.read().unwrap_or_else(PoisonError::into_inner);
        let overtaken = slot.changes.load(Ordering::Acquire) != mark.changes;
        #[cfg(feature = "mutants")]
        let overtaken = overtaken && !active(Mutant::FillAfterEnding);
        if overtaken || !mark.settled {
            return;
        }
        if let Some(cached) = session {
            self.sessions.insert(cached.session.sid, cached.clone());
        }
        if let Some(subject) = subject {
            self.subjects.insert(subject.subject.clone(), Arc::clone(subject));
        }
        slot.state.store(Some(Arc::clone(partition)));
    }

    /// Drops what a commit of unknown outcome may have changed.
    pub(crate) fn forget(&self, partition: Partition, keys: &[Key]) {
        self.note(partition, |_| {});
        for key in keys {
            match key {
                Key::Session(sid) | Key::Data(sid) => self.evict(*sid),
                Key::Subject(subject) => drop(self.subjects.remove(subject)),
                Key::Partition => self.forget_partition(partition),
                Key::Index(_)
                | Key::User(_)
                | Key::Identifier(_)
                | Key::DeniedToken(_)
                | Key::Handle(_)
                | Key::Throttle(_)
                | Key::SigningKey(_)
                | Key::ApiKey(_)
                | Key::StoreKey
                | Key::Settings => {}
            }
        }
    }

    /// Drops what is cached of a session that has changed, or that the store doesn't have (any
    /// more).
    pub(crate) fn evict(&self, sid: Sid) {
        if let Some((_, cached)) = self.sessions.remove(&sid) {
            cached.meters.forget_kept();
        }
    }

    /// Drops everything that is cached of a partition, and all that is cached at all of sessions:
    /// the log went back.
    pub(crate) fn forget_all(&self, partition: Partition) {
        self.note(partition, |_| {});
        self.forget_partition(partition);
        self.sessions.clear();
        self.subjects.clear();
    }

    fn forget_partition(&self, partition: Partition) {
        if let Some(slot) = self.slot(partition) {
            slot.state.store(None);
        }
    }

    fn note(&self, partition: Partition, change: impl FnOnce(&mut Recent)) {
        let Some(slot) = self.slot(partition) else { return };
        let mut recent = slot.recent.write().unwrap_or_else(PoisonError::into_inner);
        slot.changes.fetch_add(1, Ordering::AcqRel);
        change(&mut recent);
    }

    /// Applies an entry of a partition's feed.
    pub(crate) fn apply(&self, partition: Partition, entry: &FeedEntry, now: Timestamp) {
        self.note(partition, |recent| recent.note(entry, now));
        match entry {
            FeedEntry::SessionEnded { sid, .. }
            | FeedEntry::SessionSteppedUp { sid, .. }
            | FeedEntry::SessionChanged { sid } => self.evict(*sid),
            FeedEntry::SubjectRaised { subject, except, .. } => {
                drop(self.subjects.remove(subject));
                if let Some(sid) = except {
                    self.evict(*sid);
                }
            }
            FeedEntry::SubjectChanged { subject } => drop(self.subjects.remove(subject)),
            FeedEntry::AllEnded { at } => {
                if let Some(slot) = self.slot(partition) {
                    slot.all_ended_at.fetch_max(at.as_millis(), Ordering::AcqRel);
                }
                self.forget_partition(partition);
            }
            FeedEntry::TokenDenied { .. }
            | FeedEntry::KeyChanged { .. }
            | FeedEntry::RecordChanged => {}
        }
    }

    /// When all of a partition was last seen to be ended.
    pub(crate) fn all_ended_at(&self, partition: Partition) -> Timestamp {
        #[cfg(feature = "mutants")]
        if active(Mutant::FloorForgotten) {
            return Timestamp::default();
        }
        let slot = self.slot(partition);
        let millis = slot.map_or(0, |slot| slot.all_ended_at.load(Ordering::Acquire));
        Timestamp::from_millis(millis)
    }

    /// Whether this session was seen to be over, whatever was read of it and of its partition.
    pub(crate) fn ended_lately(
        &self,
        session: &Session,
        subject: Option<&SubjectState>,
        state: &PartitionState,
    ) -> Option<Ending> {
        #[cfg(feature = "mutants")]
        if active(Mutant::FillAfterEnding) {
            return None;
        }
        let slot = self.slot(session.sid.partition())?;
        let floor = self.all_ended_at(session.sid.partition());
        if state.bumped_at < floor {
            let reason = EndReason::EndedByOperator;
            return Some(Ending { at: floor, reason, successor: None });
        }
        let recent = slot.recent.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((ending, _)) = recent.sessions.get(&session.sid) {
            return Some(*ending);
        }
        let (bump, except, _) = recent.subjects.get(session.subject.as_ref()?)?;
        // An epoch tells only where the record knows this raise: a store that went back may have
        // given the number to another one.
        let is_counted = subject.is_some_and(|subject| subject.was_raised_at(bump.at));
        let is_later =
            session.subject_epoch >= bump.epoch && (is_counted || session.created_at > bump.at);
        let spared = *except == Some(session.sid) || is_later;
        let ending = Ending { at: bump.at, reason: bump.reason, successor: None };
        (!spared).then_some(ending)
    }

    /// Whether this token was denied lately.
    pub(crate) fn denied_lately(&self, partition: Partition, jti: &str) -> bool {
        let Some(slot) = self.slot(partition) else { return false };
        let recent = slot.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent.denied.contains_key(jti)
    }
}

impl Recent {
    fn note(&mut self, entry: &FeedEntry, now: Timestamp) {
        self.prune(now);
        match entry {
            FeedEntry::SessionEnded { sid, reason, .. } => {
                let ending = Ending { at: now, reason: *reason, successor: None };
                self.sessions.entry(*sid).or_insert((ending, now)).1 = now;
            }
            FeedEntry::SubjectRaised { subject, epoch, except, reason, at } => {
                let bump = Bump { epoch: *epoch, at: *at, reason: *reason };
                let known = self.subjects.get(subject);
                if known.is_none_or(|(old, ..)| old.epoch < *epoch) {
                    self.subjects.insert(subject.clone(), (bump, *except, now));
                }
            }
            FeedEntry::TokenDenied { jti, until } => {
                self.denied.insert(jti.clone(), *until);
            }
            FeedEntry::SessionSteppedUp { .. }
            | FeedEntry::KeyChanged { .. }
            | FeedEntry::AllEnded { .. }
            | FeedEntry::SessionChanged { .. }
            | FeedEntry::SubjectChanged { .. }
            | FeedEntry::RecordChanged => {}
        }
    }

    /// Lets go of what no read can be slow enough to undo.
    fn prune(&mut self, now: Timestamp) {
        if now.since(self.swept_at) < ENDED_SET_KEEP / 4 {
            return;
        }
        self.swept_at = now;
        let old = now.minus(ENDED_SET_KEEP);
        self.sessions.retain(|_, (_, noted)| *noted > old);
        self.subjects.retain(|_, (.., noted)| *noted > old);
        self.denied.retain(|_, until| *until > now);
    }
}
