//! One thread, many tasks, and a clock that jumps to the next timer when nobody can go on.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::rng::{Rng, mix};

/// Milliseconds since the start of the world.
pub type Millis = u64;
/// A task's number, in the order of birth.
pub type TaskId = u64;

/// Whose a task is: it dies with its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The world outside: clients, networks, the store itself.
    World,
    /// A node, in one of its lives.
    Node(usize),
}

/// An instant of the simulation: virtual time, and a count that tells apart what happened within
/// one millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Counts everything that was noted.
    pub step: u64,
    /// Virtual time.
    pub at: Millis,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    owner: Owner,
    work: Work,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    id: TaskId,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready).push(self.id);
        }
    }
}

struct State {
    now: Millis,
    step: u64,
    digest: u64,
    rng: Rng,
    timers: BTreeMap<(Millis, u64), Waker>,
    timers_made: u64,
    tasks_made: TaskId,
    born: Vec<(TaskId, Owner, Work)>,
    doomed: BTreeSet<TaskId>,
    doomed_nodes: BTreeSet<usize>,
    stopped: bool,
}

/// What tasks reach the schedule by. Clones are one schedule.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<State>>);

impl Handle {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Virtual time.
    pub fn now(&self) -> Millis {
        self.state().now
    }

    /// This instant, told apart from every other.
    pub fn moment(&self) -> Moment {
        let mut state = self.state();
        state.step += 1;
        Moment { step: state.step, at: state.now }
    }

    /// Draws from the seed.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.state().rng)
    }

    /// Mixes a number into the digest of the history.
    pub fn digest(&self, number: u64) {
        let mut state = self.state();
        state.digest = mix(state.digest ^ number);
    }

    /// Starts a task.
    pub fn spawn(&self, owner: Owner, work: impl Future<Output = ()> + Send + 'static) -> TaskId {
        let mut state = self.state();
        state.tasks_made += 1;
        let id = state.tasks_made;
        state.born.push((id, owner, Box::pin(work)));
        id
    }

    /// Drops a task where it stands.
    pub fn cancel(&self, id: TaskId) {
        self.state().doomed.insert(id);
    }

    /// Drops all tasks of a node where they stand.
    pub fn kill(&self, node: usize) {
        self.state().doomed_nodes.insert(node);
    }

    /// Ends the run after this step.
    pub fn stop(&self) {
        self.state().stopped = true;
    }

    /// Completes `span` milliseconds later. Even 0 lets others go first.
    pub fn sleep(&self, span: Millis) -> Sleep {
        Sleep { handle: self.clone(), at: self.now().saturating_add(span), timer: None }
    }

    /// Awaits `work`, but not beyond `span` milliseconds.
    pub async fn within<F: Future>(&self, span: Millis, work: F) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        let mut alarm = std::pin::pin!(self.sleep(span));
        std::future::poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            alarm.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}

/// A wait in virtual time.
pub struct Sleep {
    handle: Handle,
    at: Millis,
    timer: Option<(Millis, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let handle = self.handle.clone();
        let mut state = handle.state();
        match self.timer {
            Some(timer) if state.timers.contains_key(&timer) => Poll::Pending,
            // The timer has rung.
            Some(_) => Poll::Ready(()),
            None => {
                state.timers_made += 1;
                let timer = (self.at.max(state.now), state.timers_made);
                state.timers.insert(timer, context.waker().clone());
                self.timer = Some(timer);
                Poll::Pending
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.handle.state().timers.remove(&timer);
        }
    }
}

/// Runs the tasks.
pub struct Schedule {
    handle: Handle,
    tasks: BTreeMap<TaskId, Task>,
    ready: Arc<Mutex<Vec<TaskId>>>,
}

impl Schedule {
    /// A schedule whose every choice comes from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            now: 0,
            step: 0,
            digest: seed,
            rng: Rng::new(seed),
            timers: BTreeMap::new(),
            timers_made: 0,
            tasks_made: 0,
            born: Vec::new(),
            doomed: BTreeSet::new(),
            doomed_nodes: BTreeSet::new(),
            stopped: false,
        };
        let handle = Handle(Arc::new(Mutex::new(state)));
        Self { handle, tasks: BTreeMap::new(), ready: Arc::default() }
    }

    /// A handle to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What the history came to, in one number.
    pub fn digest(&self) -> u64 {
        self.handle.state().digest
    }

    /// Runs until virtual time reaches `end`, everybody is done, or somebody stops it.
    pub fn run_until(&mut self, end: Millis) {
        loop {
            self.admit();
            self.bury();
            if self.handle.state().stopped {
                return;
            }
            let next = self.pick();
            match next {
                Some(id) => self.poll(id),
                None if self.ring(end) => {}
                None => return,
            }
        }
    }

    /// Drops all tasks.
    pub fn end(&mut self) {
        self.tasks.clear();
        let (born, timers) = {
            let mut state = self.handle.state();
            (std::mem::take(&mut state.born), std::mem::take(&mut state.timers))
        };
        drop((born, timers));
    }

    fn admit(&mut self) {
        let born = std::mem::take(&mut self.handle.state().born);
        for (id, owner, work) in born {
            let ready = Arc::clone(&self.ready);
            let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(true), ready });
            self.tasks.insert(id, Task { owner, work, waker });
            lock(&self.ready).push(id);
        }
    }

    fn bury(&mut self) {
        let (doomed, nodes) = {
            let mut state = self.handle.state();
            let doomed = std::mem::take(&mut state.doomed);
            (doomed, std::mem::take(&mut state.doomed_nodes))
        };
        let mut dead: Vec<Task> = doomed.iter().filter_map(|id| self.tasks.remove(id)).collect();
        if !nodes.is_empty() {
            let owned = |task: &Task| matches!(task.owner, Owner::Node(n) if nodes.contains(&n));
            let of_nodes: Vec<TaskId> =
                self.tasks.iter().filter(|(_, task)| owned(task)).map(|(id, _)| *id).collect();
            dead.extend(of_nodes.iter().filter_map(|id| self.tasks.remove(id)));
        }
        // Dropped only here, where no lock is held.
        drop(dead);
    }

    fn pick(&self) -> Option<TaskId> {
        let mut ready = lock(&self.ready);
        let index = match ready.len() {
            0 => return None,
            1 => 0,
            len => self.handle.draw(|rng| rng.index(len)),
        };
        Some(ready.swap_remove(index))
    }

    fn poll(&mut self, id: TaskId) {
        let Some(mut task) = self.tasks.remove(&id) else { return };
        task.waker.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task.waker));
        {
            let mut state = self.handle.state();
            state.step += 1;
            state.digest = mix(state.digest ^ id ^ (state.now << 20));
        }
        if task.work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.insert(id, task);
        }
    }

    /// Jumps to the next timer before `end`, and rings all that are due then: who goes first is
    /// drawn.
    fn ring(&self, end: Millis) -> bool {
        let woken: Vec<Waker> = {
            let mut state = self.handle.state();
            let Some((at, _)) = state.timers.keys().next().copied() else { return false };
            if at > end {
                return false;
            }
            state.now = state.now.max(at);
            let later = state.timers.split_off(&(at + 1, 0));
            std::mem::replace(&mut state.timers, later).into_values().collect()
        };
        woken.into_iter().for_each(Waker::wake);
        true
    }
}

/// An answer on its way from one task to another.
pub struct Sender<T>(Arc<Mutex<Slot<T>>>);
/// Where it arrives; none: whoever owed it is gone.
pub struct Receiver<T>(Arc<Mutex<Slot<T>>>);

struct Slot<T> {
    value: Option<T>,
    closed: bool,
    waker: Option<Waker>,
}

/// A way for one answer.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Mutex::new(Slot { value: None, closed: false, waker: None }));
    (Sender(Arc::clone(&slot)), Receiver(slot))
}

impl<T> Sender<T> {
    /// Sends the answer.
    pub fn send(self, value: T) {
        lock(&self.0).value = Some(value);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut slot = lock(&self.0);
            slot.closed = true;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = lock(&self.0);
        if !slot.closed {
            slot.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(slot.value.take())
    }
}

/// A lock whose holder can't have left a half-done change: one thread runs everything.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(seed: u64) -> (Vec<u64>, u64) {
        let mut schedule = Schedule::new(seed);
        let handle = schedule.handle();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for name in 0..8 {
            let (seen, inner) = (Arc::clone(&seen), handle.clone());
            handle.spawn(Owner::World, async move {
                inner.sleep(5).await;
                lock(&seen).push(name);
            });
        }
        schedule.run_until(10);
        let order = lock(&seen).clone();
        (order, schedule.digest())
    }

    #[test]
    fn one_seed_gives_one_order() {
        assert_eq!(order_of(1), order_of(1));
        assert_eq!(order_of(1).0.len(), 8);
    }

    #[test]
    fn the_clock_jumps_to_the_next_timer() {
        let mut schedule = Schedule::new(1);
        let handle = schedule.handle();
        let inner = handle.clone();
        handle.spawn(Owner::World, async move { inner.sleep(1_000_000).await });
        schedule.run_until(u64::MAX);
        assert_eq!(handle.now(), 1_000_000);
    }

    #[test]
    fn a_killed_nodes_answer_never_comes() {
        let mut schedule = Schedule::new(1);
        let handle = schedule.handle();
        let (sender, receiver) = channel::<u8>();
        let inner = handle.clone();
        handle.spawn(Owner::Node(0), async move {
            inner.sleep(50).await;
            sender.send(1);
        });
        let answer = Arc::new(Mutex::new(Some(9)));
        let (kept, inner) = (Arc::clone(&answer), handle.clone());
        handle.spawn(Owner::World, async move {
            inner.sleep(10).await;
            inner.kill(0);
            *lock(&kept) = receiver.await;
        });
        schedule.run_until(100);
        assert_eq!(*lock(&answer), None);
    }
}
