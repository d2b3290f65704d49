//! The world of one seed: nodes over one store, a network between them and the clients, and what
//! befalls all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cloakroom::{Authority, Clock, Entropy, Error, StoreSecret};
use cloakroom_core::session::Delivery;
use cloakroom_core::store_key::MasterKey;
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::memory::MemoryStore;

use crate::book::{Book, Track};
use crate::changes::Ending;
use crate::clients;
use crate::mutation::Mutation;
use crate::plan::{Crash, Failover, Odds, PATIENCE, Plan, STORMY, millis};
use crate::schedule::{Handle, Millis, Owner, channel, lock};
use crate::store::SimStore;

/// The instant at which the world begins.
pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// How long before a failover something is still ended.
const LAST_WORDS: Millis = 100;

/// A node.
pub type Node = Authority<SimStore>;

/// Credentials as somebody holds them.
#[derive(Clone)]
pub struct Held {
    /// Of which session.
    pub sid: Sid,
    /// How they travel.
    pub delivery: Delivery,
    /// The cookie's value, or the refresh token.
    pub token: Arc<str>,
    /// The access token, and when it is over.
    pub access: Option<(Arc<str>, Millis)>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.delivery.as_str(), self.sid)
    }
}

#[derive(Default)]
struct Seat {
    node: Option<Arc<Node>>,
    life: u32,
}

/// The world.
pub struct World {
    /// Tasks and time.
    pub handle: Handle,
    /// What was decided beforehand.
    pub plan: Plan,
    /// The store itself.
    pub memory: MemoryStore,
    /// The rule that is broken on purpose.
    pub mutation: Option<Mutation>,
    book: Mutex<Book>,
    seats: Mutex<Vec<Seat>>,
    held: Mutex<BTreeMap<Sid, Held>>,
}

/// A node's clock, ahead of the store's or behind it.
struct SkewedClock {
    handle: Handle,
    skew: i64,
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        let at = START.plus(millis(self.handle.now())).as_millis();
        Timestamp::from_millis(at.saturating_add(self.skew))
    }

    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Box::pin(self.handle.sleep(span))
    }
}

/// Entropy from the seed.
struct SeededEntropy(Handle);

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.draw(|rng| rng.fill(bytes));
    }
}

impl World {
    /// The world of a plan.
    pub fn new(
        handle: Handle,
        plan: Plan,
        mutation: Option<Mutation>,
        with_history: bool,
    ) -> Arc<Self> {
        let clock = handle.clone();
        let memory = MemoryStore::new(plan.partitions, move || START.plus(millis(clock.now())));
        let seats = (0..plan.nodes).map(|_| Seat::default()).collect();
        let book = Book::new(plan.partitions, with_history);
        Arc::new(Self {
            handle,
            memory,
            mutation,
            book: Mutex::new(book),
            seats: Mutex::new(seats),
            held: Mutex::default(),
            plan,
        })
    }

    /// The reference model.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    /// Counts an injected fault.
    pub fn fault(&self, kind: &'static str) {
        self.book().tally.fault(kind);
    }

    /// Whether this rule is broken on purpose.
    pub fn broken(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Stops the run where an invariant was broken.
    pub fn stop_if_broken(&self) {
        if self.book().violation.is_some() {
            self.handle.stop();
        }
    }

    /// The likelihood of small faults now.
    pub fn odds(&self) -> Odds {
        if self.is_stormy() { self.plan.odds } else { Odds::default() }
    }

    /// Whether faults still happen.
    pub fn is_stormy(&self) -> bool {
        self.handle.now() < STORMY
    }

    /// Whether a node's line to the store is cut, or to one partition's log.
    pub fn is_cut(&self, node: usize, feed_of: Option<Partition>) -> bool {
        let now = self.handle.now();
        self.plan.cuts.iter().any(|cut| {
            (cut.from..cut.to).contains(&now)
                && cut.node.is_none_or(|cut| cut == node)
                && cut.feed_of.is_none_or(|cut| feed_of == Some(Partition(cut)))
        })
    }

    /// A node, while it is up.
    pub fn node(&self, node: usize) -> Option<Arc<Node>> {
        lock(&self.seats).get(node).and_then(|seat| seat.node.clone())
    }

    /// Which of its lives a node lives.
    pub fn life(&self, node: usize) -> u32 {
        lock(&self.seats).get(node).map_or(0, |seat| seat.life)
    }

    /// Any node.
    pub fn any_node(&self) -> usize {
        self.handle.draw(|rng| rng.index(self.plan.nodes))
    }

    /// Waits for a while.
    pub async fn pause(&self, low: Millis, high: Millis) {
        let span = self.handle.draw(|rng| rng.between(low, high));
        self.handle.sleep(span).await;
    }

    /// Remembers what is held of a session.
    pub fn hold(&self, held: &Held) {
        lock(&self.held).insert(held.sid, held.clone());
    }

    /// What is held of a session.
    pub fn held(&self, sid: Sid) -> Option<Held> {
        lock(&self.held).get(&sid).cloned()
    }

    /// Any credentials of a session that lives, as far as is known; of one subject's, if wanted.
    pub fn any_held(&self, of: Option<&Subject>) -> Option<Held> {
        self.any_held_where(|_, track| of.is_none() || track.subject.as_ref() == of)
    }

    /// Any credentials of a session that lives in a partition.
    fn any_held_in(&self, partition: Partition) -> Option<Held> {
        self.any_held_where(|held, _| held.sid.partition() == partition)
    }

    fn any_held_where(&self, wanted: impl Fn(&Held, &Track) -> bool) -> Option<Held> {
        let book = self.book();
        let held = lock(&self.held);
        let live: Vec<&Held> = held
            .values()
            .filter(|held| {
                let track = book.tracks.get(&held.sid);
                track.is_some_and(|track| track.ended.is_none() && wanted(held, track))
            })
            .collect();
        let index = self.handle.draw(|rng| rng.index(live.len()));
        live.get(index).map(|held| (*held).clone())
    }

    /// Asks a node over the network. None: no answer came, whatever happened.
    pub async fn ask<T, F, W>(self: &Arc<Self>, node: usize, work: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Node>) -> W + Send + 'static,
        W: Future<Output = T> + Send,
    {
        let trip = self.draw_trip();
        if trip.lost_request {
            self.fault("request lost");
            self.handle.sleep(PATIENCE).await;
            return None;
        }
        let (sender, receiver) = channel();
        let world = Arc::clone(self);
        let there = trip.there;
        let task = self.handle.spawn(Owner::Node(node), async move {
            world.handle.sleep(there).await;
            if let Some(node) = world.node(node) {
                sender.send(work(node).await);
            }
        });
        let answer = async {
            let answer = receiver.await?;
            self.handle.sleep(trip.back).await;
            Some(answer)
        };
        let patience = trip.gone_after.unwrap_or(PATIENCE);
        match self.handle.within(patience, answer).await {
            Some(Some(_)) if trip.lost_answer => {
                self.fault("answer lost");
                self.pause(0, PATIENCE / 2).await;
                None
            }
            Some(Some(answer)) => Some(answer),
            // Nobody listens there: known at once.
            Some(None) => {
                self.pause(10, 200).await;
                None
            }
            None => {
                let is_gone = trip.gone_after.is_some();
                self.fault(if is_gone { "client went away" } else { "client gave up" });
                if is_gone {
                    self.handle.cancel(task);
                } else if trip.dropped {
                    self.fault("request dropped");
                    self.handle.cancel(task);
                }
                None
            }
        }
    }

    fn draw_trip(&self) -> Trip {
        let odds = self.odds();
        let trip = self.handle.draw(|rng| {
            let (slow_there, slow_back) =
                (rng.chance(odds.slow_network), rng.chance(odds.slow_network));
            let there = if slow_there { rng.below(3_500) } else { rng.below(30) };
            Trip {
                there,
                back: if slow_back { rng.below(3_500) } else { rng.below(30) },
                lost_request: rng.chance(odds.lost_request),
                lost_answer: rng.chance(odds.lost_answer),
                dropped: rng.chance(odds.dropped),
                // An answer takes some ten milliseconds.
                gone_after: rng.chance(odds.gone).then(|| there + rng.below(25)),
            }
        });
        if trip.there + trip.back > 100 {
            self.fault("network slow");
        }
        trip
    }

    /// Starts a node, again and again until the store lets it, and its background work.
    pub fn boot(self: &Arc<Self>, node: usize) {
        let world = Arc::clone(self);
        self.handle.spawn(Owner::Node(node), async move {
            loop {
                match world.open(node).await {
                    Some(authority) => {
                        let authority = Arc::new(authority);
                        if let Some(seat) = lock(&world.seats).get_mut(node) {
                            seat.node = Some(Arc::clone(&authority));
                        }
                        world.work_in_background(node, &authority);
                        return;
                    }
                    None => world.handle.sleep(300).await,
                }
            }
        });
    }

    async fn open(self: &Arc<Self>, node: usize) -> Option<Node> {
        let settings = self.plan.settings()?;
        let store = SimStore::new(Arc::clone(self), node);
        let secret = StoreSecret { master: MasterKey::from_bytes([7; 32]), previous: None };
        let skew = self.plan.skews.get(node).copied().unwrap_or(0);
        let clock = SkewedClock { handle: self.handle.clone(), skew };
        let entropy = SeededEntropy(self.handle.clone());
        Authority::open(store, settings, secret, Arc::new(clock), Arc::new(entropy)).await.ok()
    }

    fn work_in_background(self: &Arc<Self>, node: usize, authority: &Arc<Node>) {
        let jobs: [(Millis, Job); 4] =
            [(500, Job::Follow), (900, Job::Flush), (4_000, Job::Sweep), (25_000, Job::Tend)];
        for (every, job) in jobs {
            let (world, authority) = (Arc::clone(self), Arc::clone(authority));
            self.handle.spawn(Owner::Node(node), async move {
                world.pause(0, every).await;
                loop {
                    // A failure is made up for by the next round.
                    let _ = job.run(&authority).await;
                    world.handle.sleep(every).await;
                }
            });
        }
    }

    /// A node's sudden end, and its next life.
    pub async fn crash(self: Arc<Self>, crash: Crash) {
        self.handle.sleep(crash.at).await;
        let gone = {
            let mut seats = lock(&self.seats);
            let Some(seat) = seats.get_mut(crash.node) else { return };
            seat.life += 1;
            seat.node.take()
        };
        drop(gone);
        self.handle.kill(crash.node);
        self.fault("crash");
        let moment = self.handle.moment();
        self.book().note(moment, None, || format!("CRASH of node {}", crash.node));
        self.handle.sleep(crash.away).await;
        self.boot(crash.node);
    }

    /// The store goes back; `declared` says whether that may be.
    pub async fn fail_over(self: Arc<Self>, failover: Failover, declared: bool) {
        self.handle.sleep(failover.at - failover.back).await;
        let since = self.handle.moment();
        let snapshot = self.memory.snapshot();
        let partitions: Vec<Partition> = (0..self.plan.partitions).map(Partition).collect();
        let drawn = self.handle.draw(|rng| rng.index(partitions.len()));
        let Some(partition) = partitions.get(drawn).copied() else { return };
        let was = self.book().snapshot(partition);
        // An ending that is answered and lost before any other node has followed it.
        let last_words = failover.back.min(LAST_WORDS);
        self.handle.sleep(failover.back - last_words).await;
        if declared && let Some(held) = self.any_held_in(partition) {
            let ends_all = self.handle.draw(|rng| rng.chance(300));
            let one = Ending::Session(held.sid);
            let (world, ending) =
                (Arc::clone(&self), if ends_all { Ending::Everything } else { one });
            self.handle.spawn(Owner::World, async move { clients::end(&world, ending).await });
        }
        self.handle.sleep(last_words).await;
        self.memory.restore_partition(partition, &snapshot);
        let moment = self.handle.moment();
        if !declared {
            self.book().note(moment, None, || format!("p{partition} lost what wasn't durable"));
            return;
        }
        self.fault("failover");
        if let Some(was) = was {
            self.book().roll_back(moment, since, partition, &was);
        }
    }

    /// Lets go of the nodes, which hold the world.
    pub fn end(&self) {
        let seats: Vec<Option<Arc<Node>>> =
            lock(&self.seats).iter_mut().map(|seat| seat.node.take()).collect();
        drop(seats);
    }
}

#[derive(Clone, Copy)]
struct Trip {
    there: Millis,
    back: Millis,
    lost_request: bool,
    lost_answer: bool,
    dropped: bool,
    gone_after: Option<Millis>,
}

/// What a node does by itself.
#[derive(Clone, Copy)]
enum Job {
    Follow,
    Flush,
    Sweep,
    Tend,
}

impl Job {
    async fn run(self, authority: &Node) -> Result<(), Error> {
        match self {
            Self::Follow => authority.follow().await,
            Self::Flush => {
                authority.flush_touches().await?;
                authority.flush_reports().await
            }
            Self::Sweep => authority.sweep().await.map(drop),
            Self::Tend => authority.tend_keys().await,
        }
    }
}
