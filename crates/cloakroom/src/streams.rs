//! What is told as it happens: one reader of the logs, many listeners, each within bounds.
//!
//! An entry is told only while every partition was read to its end shortly before: so a cursor,
//! which is one instant for all partitions, never runs far ahead of a partition that can't be
//! read, and whoever resumes a little before it misses nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cloakroom_core::event::{Event, FeedEntry};
use cloakroom_core::limits::FEED_MARGIN;
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::{Entry, Log, Logged, Store, Tick};
use tokio::sync::{Notify, watch};

use crate::authority::Authority;
use crate::context::Error;
use crate::place::{Place, StoreId};

/// What is kept for listeners that read slowly; one that falls further behind is cut.
const RING_MAX: usize = 8192;
/// Handed to a listener at a time.
const BATCH_MAX: usize = 256;
/// Entries of one partition read at a time.
const PAGE: usize = 256;
/// The same while a listener catches up: all partitions' together are in memory.
const CATCH_UP_PAGE: usize = 16;
/// An entry is told at most this long after the last time that every partition was read.
const AHEAD_MAX: Duration = Duration::from_secs(5);
/// Who resumes begins this long before its cursor: nodes' clocks differ, and partitions are read
/// one after another.
const RESUME_LAG: Duration = Duration::from_secs(10);
/// A cursor further ahead of the clock than this is nobody's.
const FUTURE_MAX: Duration = Duration::from_secs(5);

// What one partition is ahead of another when it is told, and the clocks' difference, together.
const _: () = assert!(AHEAD_MAX.as_secs() + FUTURE_MAX.as_secs() <= RESUME_LAG.as_secs());

/// Something to tell.
#[derive(Debug)]
pub enum Signal {
    /// An entry of the feed.
    Feed(FeedEntry),
    /// An audit event.
    Event(Box<Event>),
    /// Every partition was read to its end since the last one.
    Heartbeat {
        /// When that reading began.
        at: Timestamp,
    },
    /// What was told so far doesn't lead here: start anew.
    Reset,
}

/// Something told, shared by all who listen.
#[derive(Debug)]
pub struct Told {
    /// What.
    pub signal: Signal,
    /// Where to go on after it; none for [`Signal::Reset`].
    pub cursor: Option<String>,
    place: Option<Place>,
    text: OnceLock<Arc<str>>,
}

impl Told {
    fn new(signal: Signal, place: Option<Place>, store: StoreId) -> Arc<Self> {
        let cursor = place.map(|place| place.cursor(store));
        Arc::new(Self { signal, cursor, place, text: OnceLock::new() })
    }

    fn reset() -> Arc<Self> {
        Self::new(Signal::Reset, None, StoreId::default())
    }

    /// The id of an audit event.
    pub fn id(&self) -> Option<String> {
        self.place.map(|place| format!("evt_{}", place.id()))
    }

    /// Its written form: written once, however many listen.
    pub fn text(&self, write: impl FnOnce(&Self) -> String) -> Arc<str> {
        Arc::clone(self.text.get_or_init(|| write(self).into()))
    }
}

/// The two streams of a node.
#[derive(Debug)]
pub(crate) struct Streams {
    feed: Tail,
    audit: Tail,
    /// Partitions that this node committed to since they were read.
    dirty: Vec<AtomicBool>,
    woken: Notify,
    store: StoreId,
    /// Listeners that fell behind and were told so.
    cut: AtomicU64,
}

/// Who listens, and what is kept for them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StreamFigures {
    /// Listeners to revocations.
    pub revocations: usize,
    /// Listeners to events.
    pub events: usize,
    /// Listeners that were cut since they fell behind.
    pub cut: u64,
    /// Of revocations and of events: read, and held back until every partition was read.
    pub held: [usize; 2],
    /// How many may be held back.
    pub held_max: usize,
}

/// The end of one log over all partitions.
#[derive(Debug)]
struct Tail {
    state: Mutex<TailState>,
    /// How much was told ever.
    told: watch::Sender<u64>,
}

#[derive(Debug)]
struct TailState {
    listeners: usize,
    ring: VecDeque<Arc<Told>>,
    /// The number of what is told next.
    next: u64,
    /// Read, and too far ahead of the last complete reading to be told.
    held: VecDeque<(Tick, Arc<Told>)>,
    /// When the last complete reading began.
    read_at: Timestamp,
    /// From where each partition is read on.
    positions: Vec<Tick>,
    /// Counts how often reading began anew.
    generation: u64,
}

impl Streams {
    pub(crate) fn new(partitions: u16, store: StoreId) -> Self {
        Self {
            feed: Tail::new(partitions),
            audit: Tail::new(partitions),
            dirty: (0..partitions).map(|_| AtomicBool::new(false)).collect(),
            woken: Notify::new(),
            store,
            cut: AtomicU64::new(0),
        }
    }

    pub(crate) fn figures(&self) -> StreamFigures {
        let of = |tail: &Tail| {
            let state = tail.lock();
            (state.listeners, state.held.len())
        };
        let (feed, audit) = (of(&self.feed), of(&self.audit));
        StreamFigures {
            revocations: feed.0,
            events: audit.0,
            cut: self.cut.load(Ordering::Relaxed),
            held: [feed.1, audit.1],
            held_max: RING_MAX,
        }
    }

    fn tail(&self, log: Log) -> &Tail {
        match log {
            Log::Feed => &self.feed,
            Log::Audit => &self.audit,
        }
    }

    /// Notes a commit of this node's own.
    pub(crate) fn note(&self, partition: Partition) {
        if self.feed.generation().is_none() && self.audit.generation().is_none() {
            return;
        }
        if let Some(dirty) = self.dirty.get(usize::from(partition.0)) {
            dirty.store(true, Ordering::Release);
            self.woken.notify_one();
        }
    }

    /// Tells what was read of a partition's log, in its order.
    pub(crate) fn tell(&self, log: Log, partition: Partition, news: &[Logged]) {
        let tail = self.tail(log);
        if tail.generation().is_none() {
            return;
        }
        let told = news.iter().filter_map(|logged| self.told_of(partition, logged));
        tail.push_all(told.collect());
    }

    fn told_of(&self, partition: Partition, logged: &Logged) -> Option<(Tick, Arc<Told>)> {
        let Logged { cursor: tick, index, entry } = logged;
        let signal = match entry {
            Entry::Feed(entry) if concerns_all(partition, entry) => Signal::Feed(entry.clone()),
            Entry::Feed(_) => return None,
            Entry::Audit(event) => Signal::Event(event.clone()),
        };
        let place = Place { tick: *tick, partition, index: *index };
        Some((*tick, Told::new(signal, Some(place), self.store)))
    }

    /// Notes that every partition was read to its end by a reading that began at `at`.
    pub(crate) fn complete(&self, log: Log, at: Timestamp) {
        let heartbeat = Told::new(Signal::Heartbeat { at }, Some(Place::at(at)), self.store);
        self.tail(log).complete(at, heartbeat);
    }

    /// The feed went back: whoever listens starts anew.
    pub(crate) fn went_back(&self) {
        self.feed.push(Told::reset());
    }

    /// Who listens to revocations and to events, right now.
    pub(crate) fn listeners(&self) -> (usize, usize) {
        (self.feed.lock().listeners, self.audit.lock().listeners)
    }
}

/// Whether listeners must hear of an entry. "Everything ended" is said by partition 0, which goes
/// last: before that it isn't true.
fn concerns_all(partition: Partition, entry: &FeedEntry) -> bool {
    match entry {
        FeedEntry::AllEnded { .. } => partition == Partition::ZERO,
        FeedEntry::RecordChanged => false,
        FeedEntry::SessionEnded { .. }
        | FeedEntry::SessionSteppedUp { .. }
        | FeedEntry::SubjectRaised { .. }
        | FeedEntry::TokenDenied { .. }
        | FeedEntry::KeyChanged { .. }
        | FeedEntry::SessionChanged { .. }
        | FeedEntry::SubjectChanged { .. } => true,
    }
}

impl Tail {
    fn new(partitions: u16) -> Self {
        let state = TailState {
            listeners: 0,
            ring: VecDeque::new(),
            next: 0,
            held: VecDeque::new(),
            read_at: Timestamp::EPOCH,
            positions: vec![Tick::ZERO; usize::from(partitions)],
            generation: 0,
        };
        Self { state: Mutex::new(state), told: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, TailState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which reading goes on; none while nobody listens.
    fn generation(&self) -> Option<u64> {
        let state = self.lock();
        (state.listeners > 0).then_some(state.generation)
    }

    /// Counts a listener; says what it will be told first. The first one lets reading begin.
    fn enter(&self, now: Timestamp) -> u64 {
        let mut state = self.lock();
        if state.listeners == 0 {
            state.generation += 1;
            state.ring.clear();
            state.held.clear();
            state.read_at = now;
            let from = Tick::at(now.minus(RESUME_LAG));
            state.positions.fill(from);
        }
        state.listeners += 1;
        state.next
    }

    fn leave(&self) {
        let mut state = self.lock();
        state.listeners = state.listeners.saturating_sub(1);
        if state.listeners == 0 {
            state.ring.clear();
            state.held.clear();
        }
    }

    fn push(&self, told: Arc<Told>) {
        let mut state = self.lock();
        state.push(told);
        self.told.send_replace(state.next);
    }

    fn push_all(&self, news: Vec<(Tick, Arc<Told>)>) {
        if news.is_empty() {
            return;
        }
        let mut state = self.lock();
        for (tick, told) in news {
            if state.may_tell(tick) { state.push(told) } else { state.held.push_back((tick, told)) }
        }
        if state.held.len() > RING_MAX {
            state.held.clear();
            state.push(Told::reset());
        }
        self.told.send_replace(state.next);
    }

    fn complete(&self, at: Timestamp, heartbeat: Arc<Told>) {
        let mut state = self.lock();
        if state.listeners == 0 {
            return;
        }
        state.read_at = state.read_at.max(at);
        for (tick, told) in std::mem::take(&mut state.held) {
            // A partition's ticks only grow, so its order stays.
            if state.may_tell(tick) { state.push(told) } else { state.held.push_back((tick, told)) }
        }
        state.push(heartbeat);
        self.told.send_replace(state.next);
    }

    fn position(&self, partition: Partition) -> Tick {
        self.lock().positions.get(usize::from(partition.0)).copied().unwrap_or_default()
    }

    fn advance(&self, partition: Partition, to: Tick, generation: u64) {
        let mut state = self.lock();
        if state.generation != generation {
            return;
        }
        if let Some(position) = state.positions.get_mut(usize::from(partition.0)) {
            *position = to;
        }
    }
}

impl TailState {
    fn may_tell(&self, tick: Tick) -> bool {
        tick.instant() <= self.read_at.plus(AHEAD_MAX)
    }

    fn push(&mut self, told: Arc<Told>) {
        if self.ring.len() >= RING_MAX {
            self.ring.pop_front();
        }
        self.ring.push_back(told);
        self.next += 1;
    }

    /// From number `from` on; `None`: that is forgotten already.
    fn since(&self, from: u64) -> Option<Vec<Arc<Told>>> {
        let behind = usize::try_from(self.next.saturating_sub(from)).unwrap_or(usize::MAX);
        let first = self.ring.len().checked_sub(behind)?;
        Some(self.ring.iter().skip(first).take(BATCH_MAX).cloned().collect())
    }
}

/// Listens to a stream from a cursor on.
#[derive(Debug)]
pub struct Subscription {
    streams: Arc<Streams>,
    log: Log,
    /// The number of what it is told next.
    next: u64,
    told: watch::Receiver<u64>,
    stage: Stage,
    /// How far each partition was read while catching up; what is told up to there is known.
    known: BTreeMap<Partition, Tick>,
}

#[derive(Debug)]
enum Stage {
    /// To be told to start anew.
    Lost,
    /// Reads what was logged before it came.
    CatchingUp(CatchUp),
    Listening,
    /// It fell behind and was told so.
    Cut,
}

/// Kept with the subscription, so that nobody who gives up on waiting loses what was read.
#[derive(Debug, Default)]
struct CatchUp {
    backlogs: Vec<Backlog>,
    caught: Vec<Arc<Told>>,
}

/// What is left to be read of a partition while catching up.
#[derive(Debug)]
struct Backlog {
    partition: Partition,
    /// From where to read on; `None`: it was read to its end.
    from: Option<Tick>,
    read: VecDeque<Logged>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.streams.tail(self.log).leave();
    }
}

impl<S: Store> Authority<S> {
    /// Listens to what verifiers must know, from a cursor on; without one, from now on.
    ///
    /// A cursor that leads nowhere gives [`Signal::Reset`] first.
    pub async fn listen_to_revocations(&self, after: Option<&[u8]>) -> Result<Subscription, Error> {
        let keep = self.settings.access_ttl + FEED_MARGIN;
        self.listen(Log::Feed, after, keep).await
    }

    /// Listens to the audit log, from a cursor on; without one, from now on.
    pub async fn listen_to_events(&self, after: Option<&[u8]>) -> Result<Subscription, Error> {
        self.listen(Log::Audit, after, self.settings.events_keep).await
    }

    async fn listen(
        &self,
        log: Log,
        after: Option<&[u8]>,
        keep: Duration,
    ) -> Result<Subscription, Error> {
        let streams = Arc::clone(&self.streams);
        // Counted before anything is read: what is logged from now on is told.
        let tail = streams.tail(log);
        let next = tail.enter(self.now());
        let told = tail.told.subscribe();
        let (stage, known) = (Stage::Listening, BTreeMap::new());
        let mut subscription =
            Subscription { streams: Arc::clone(&streams), log, next, told, stage, known };
        let Some(after) = after else { return Ok(subscription) };
        let after = str::from_utf8(after).unwrap_or_default();
        subscription.stage = match self.leads_somewhere(log, after, keep).await? {
            None => Stage::Lost,
            Some(place) => {
                let from = Some(Tick::at(place.tick.instant().minus(RESUME_LAG)));
                let backlog = |number| {
                    let partition = Partition(number);
                    Backlog { partition, from, read: VecDeque::new() }
                };
                let backlogs = (0..self.store.partitions()).map(backlog).collect();
                Stage::CatchingUp(CatchUp { backlogs, caught: Vec::new() })
            }
        };
        Ok(subscription)
    }

    /// The place of a cursor from which the log can be followed without a gap.
    async fn leads_somewhere(
        &self,
        log: Log,
        after: &str,
        keep: Duration,
    ) -> Result<Option<Place>, Error> {
        let Some(place) = Place::parse(after, self.streams.store) else { return Ok(None) };
        let (now, at) = (self.now(), place.tick.instant());
        if at > now.plus(FUTURE_MAX) || at.minus(RESUME_LAG) < now.minus(keep) {
            return Ok(None);
        }
        if !place.is_entry() {
            return Ok(Some(place));
        }
        if place.partition.0 >= self.store.partitions() {
            return Ok(None);
        }
        // An entry that was told and is gone: the log went back.
        let page = self.read_log(log, place.partition, place.tick, 1).await?;
        let is_there =
            page.iter().any(|found| found.cursor == place.tick && found.index == place.index);
        Ok(is_there.then_some(place))
    }

    /// What a subscription is told next; waits for it. `None`: it fell behind, and is over.
    pub async fn told(&self, listener: &mut Subscription) -> Result<Option<Vec<Arc<Told>>>, Error> {
        loop {
            match &mut listener.stage {
                Stage::Cut => return Ok(None),
                Stage::Lost => {
                    listener.stage = Stage::Listening;
                    return Ok(Some(vec![Told::reset()]));
                }
                Stage::CatchingUp(stage) => {
                    self.catch_up(listener.log, stage, &mut listener.known).await?;
                    let caught = std::mem::take(&mut stage.caught);
                    if caught.is_empty() {
                        listener.stage = Stage::Listening;
                    } else {
                        return Ok(Some(caught));
                    }
                }
                Stage::Listening => {
                    if let Some(told) = listener.listened() {
                        return Ok(Some(told));
                    }
                    // The sender lives as long as the subscription's own streams.
                    let _ = listener.told.changed().await;
                }
            }
        }
    }

    /// Collects the next entries of all partitions, merged by time. None: there are no more.
    async fn catch_up(
        &self,
        log: Log,
        stage: &mut CatchUp,
        known: &mut BTreeMap<Partition, Tick>,
    ) -> Result<(), Error> {
        while stage.caught.len() < BATCH_MAX {
            for backlog in &mut stage.backlogs {
                self.refill(log, backlog).await?;
            }
            let place = |backlog: &Backlog| backlog.read.front().map(|first| first.cursor);
            let earliest = stage
                .backlogs
                .iter_mut()
                .filter(|backlog| !backlog.read.is_empty())
                .min_by_key(|backlog| place(backlog));
            let Some(backlog) = earliest else { break };
            let Some(logged) = backlog.read.pop_front() else { break };
            known.insert(backlog.partition, logged.cursor);
            let told = self.streams.told_of(backlog.partition, &logged);
            stage.caught.extend(told.map(|(_, told)| told));
        }
        Ok(())
    }

    async fn refill(&self, log: Log, backlog: &mut Backlog) -> Result<(), Error> {
        let (true, Some(from)) = (backlog.read.is_empty(), backlog.from) else { return Ok(()) };
        let page = self.read_log(log, backlog.partition, from, CATCH_UP_PAGE).await?;
        backlog.from = match page.last() {
            Some(last) if page.len() >= CATCH_UP_PAGE => Some(last.cursor.successor()),
            Some(_) | None => None,
        };
        backlog.read = page.into();
        Ok(())
    }

    /// Reads every partition's logs to their ends for those who listen, if anybody does. To be
    /// called twice a second.
    pub async fn pump_streams(&self) -> Result<(), Error> {
        if !self.is_feed_followed() {
            self.pump(Log::Feed).await?;
        }
        self.pump(Log::Audit).await
    }

    /// Completes when this node committed something that somebody may listen to.
    pub async fn stream_news(&self) {
        self.streams.woken.notified().await;
    }

    /// Reads on where this node committed something.
    pub async fn pump_news(&self) -> Result<(), Error> {
        let partitions = self.streams.dirty.iter().zip(0..self.store.partitions());
        for (dirty, number) in partitions {
            if !dirty.swap(false, Ordering::AcqRel) {
                continue;
            }
            for log in [Log::Feed, Log::Audit] {
                let Some(generation) = self.streams.tail(log).generation() else { continue };
                if log == Log::Audit || !self.is_feed_followed() {
                    self.pump_partition(log, Partition(number), generation).await?;
                }
            }
        }
        Ok(())
    }

    /// Who listens to revocations and to events, right now.
    pub fn stream_listeners(&self) -> (usize, usize) {
        self.streams.listeners()
    }

    /// Whether the feed is read already, since others write to the store.
    fn is_feed_followed(&self) -> bool {
        self.settings.verify.max_staleness.is_some()
    }

    async fn pump(&self, log: Log) -> Result<(), Error> {
        let Some(generation) = self.streams.tail(log).generation() else { return Ok(()) };
        let began = self.now();
        for number in 0..self.store.partitions() {
            self.pump_partition(log, Partition(number), generation).await?;
        }
        self.streams.complete(log, began);
        Ok(())
    }

    async fn pump_partition(
        &self,
        log: Log,
        partition: Partition,
        generation: u64,
    ) -> Result<(), Error> {
        let tail = self.streams.tail(log);
        loop {
            let from = tail.position(partition);
            let page = self.read_log(log, partition, from, PAGE).await?;
            let Some(last) = page.last().map(|last| last.cursor) else { return Ok(()) };
            self.streams.tell(log, partition, &page);
            tail.advance(partition, last.successor(), generation);
            if page.len() < PAGE || tail.generation() != Some(generation) {
                return Ok(());
            }
        }
    }

    pub(crate) async fn read_log(
        &self,
        log: Log,
        partition: Partition,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, Error> {
        self.in_time(self.store.log(partition, log, from, limit)).await
    }
}

impl Subscription {
    /// What was told since; `None`: nothing yet.
    fn listened(&mut self) -> Option<Vec<Arc<Told>>> {
        let streams = Arc::clone(&self.streams);
        // Before looking: what is told after this wakes the wait.
        self.told.mark_unchanged();
        let since = streams.tail(self.log).lock().since(self.next);
        let Some(told) = since else {
            self.stage = Stage::Cut;
            streams.cut.fetch_add(1, Ordering::Relaxed);
            return Some(vec![Told::reset()]);
        };
        if told.is_empty() {
            return None;
        }
        self.next += u64::try_from(told.len()).unwrap_or(u64::MAX);
        let is_news = |told: &Arc<Told>| match told.place.filter(|place| place.is_entry()) {
            Some(place) => self.known.get(&place.partition).is_none_or(|seen| place.tick > *seen),
            None => true,
        };
        Some(told.into_iter().filter(is_news).collect())
    }
}
