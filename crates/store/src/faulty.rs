//! A store whose calls fail, wait and get lost as a plan says: for tests and the simulation.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::types::{Partition, Timestamp};

use crate::{
    Batch, Commit, Follow, Found, Key, Kind, Log, Logged, Store, StoreError, Tick, Versioned,
};

/// A call of a store.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// What time it is.
    Now,
    /// Records by key.
    Load(Partition, &'a [Key]),
    /// A commit.
    Commit(Partition, &'a Batch),
    /// A page of records.
    Page(Partition, Kind),
    /// What is due.
    Due(Partition),
    /// A log, in either direction.
    Log(Partition, Log),
    /// The trimming of a log.
    Trim(Partition, Log),
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// What the store makes of it.
    #[default]
    Pass,
    /// It doesn't reach the store, and the caller is told.
    Unavailable,
    /// It doesn't reach the store. Of a commit the caller is told that the outcome is unknown.
    RequestLost,
    /// It takes effect. Of a commit the caller is told that the outcome is unknown.
    AnswerLost,
    /// A commit whose outcome is unknown, and which reaches the store when [`Faulty::land`] is
    /// called. Of another call the answer is lost.
    Late,
    /// A commit with an expectation meets a conflict that isn't there. Another call passes.
    Conflict,
    /// The store takes no commit and no trimming. Another call passes.
    ReadOnly,
}

/// What is done to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// What becomes of it.
    pub outcome: Outcome,
    /// How long it takes to reach the store.
    pub there: Duration,
    /// How long the answer takes back.
    pub back: Duration,
}

impl Fault {
    /// None: the call passes at once.
    pub const NONE: Self = Self::of(Outcome::Pass);

    /// An outcome, without delay.
    pub const fn of(outcome: Outcome) -> Self {
        Self { outcome, there: Duration::ZERO, back: Duration::ZERO }
    }
}

/// Decides about each call, in the order in which they are made.
pub trait FaultPlan: Send + Sync + 'static {
    /// What is done to this call.
    fn next(&self, call: Call<'_>) -> Fault;
}

impl<F: Fn(Call<'_>) -> Fault + Send + Sync + 'static> FaultPlan for F {
    fn next(&self, call: Call<'_>) -> Fault {
        self(call)
    }
}

/// A wait, as the caller's runtime has it.
pub type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A store whose calls fail by a plan.
pub struct Faulty<S, P> {
    store: S,
    plan: P,
    pause: Box<dyn Fn(Duration) -> Wait + Send + Sync>,
    late: Mutex<Vec<(Partition, Batch)>>,
}

impl<S: Store, P: FaultPlan> Faulty<S, P> {
    /// Wraps a store. `pause` waits; it is asked for no wait of zero.
    pub fn new(
        store: S,
        plan: P,
        pause: impl Fn(Duration) -> Wait + Send + Sync + 'static,
    ) -> Self {
        Self { store, plan, pause: Box::new(pause), late: Mutex::default() }
    }

    /// The store itself, which doesn't fail.
    pub const fn inner(&self) -> &S {
        &self.store
    }

    /// The plan.
    pub const fn plan(&self) -> &P {
        &self.plan
    }

    /// Lets the late commits reach the store, in their order; says how many they were.
    pub async fn land(&self) -> Result<usize, StoreError> {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        let landed = late.len();
        for (partition, batch) in late {
            self.store.commit(partition, batch).await?;
        }
        Ok(landed)
    }

    /// Makes a call that changes nothing that a repetition wouldn't.
    async fn ask<T: Send>(
        &self,
        fault: Fault,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.wait(fault.there).await;
        let answer = match fault.outcome {
            Outcome::Pass | Outcome::Conflict | Outcome::ReadOnly => call.await,
            Outcome::Unavailable | Outcome::RequestLost => Err(unavailable()),
            Outcome::AnswerLost | Outcome::Late => call.await.and(Err(unavailable())),
        };
        self.wait(fault.back).await;
        answer
    }

    async fn commit_with(
        &self,
        outcome: Outcome,
        partition: Partition,
        batch: Batch,
    ) -> Result<Commit, StoreError> {
        match outcome {
            Outcome::Pass => self.store.commit(partition, batch).await,
            Outcome::Unavailable => Err(unavailable()),
            Outcome::RequestLost => Err(unknown()),
            Outcome::AnswerLost => {
                self.store.commit(partition, batch).await?;
                Err(unknown())
            }
            Outcome::Late => {
                let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
                late.push((partition, batch));
                Err(unknown())
            }
            Outcome::Conflict => match expected(&batch) {
                Some(key) => Ok(Commit::Conflict(key)),
                None => self.store.commit(partition, batch).await,
            },
            Outcome::ReadOnly => Err(read_only()),
        }
    }

    async fn wait(&self, span: Duration) {
        if span > Duration::ZERO {
            (self.pause)(span).await;
        }
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Faulty<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("store", &self.store).finish_non_exhaustive()
    }
}

impl<S: Store, P: FaultPlan> Store for Faulty<S, P> {
    fn partitions(&self) -> u16 {
        self.store.partitions()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let fault = self.plan.next(Call::Now);
        self.ask(fault, self.store.now()).await
    }

    async fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        let fault = self.plan.next(Call::Load(partition, keys));
        self.ask(fault, self.store.load_following(partition, keys, follow)).await
    }

    async fn commit(&self, partition: Partition, batch: Batch) -> Result<Commit, StoreError> {
        let fault = self.plan.next(Call::Commit(partition, &batch));
        self.wait(fault.there).await;
        let answer = self.commit_with(fault.outcome, partition, batch).await;
        self.wait(fault.back).await;
        answer
    }

    async fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let fault = self.plan.next(Call::Page(partition, kind));
        self.ask(fault, self.store.page(partition, kind, after, limit)).await
    }

    async fn due(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let fault = self.plan.next(Call::Due(partition));
        self.ask(fault, self.store.due(partition, before, limit)).await
    }

    async fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let fault = self.plan.next(Call::Log(partition, log));
        self.ask(fault, self.store.log(partition, log, from, limit)).await
    }

    async fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let fault = self.plan.next(Call::Log(partition, log));
        self.ask(fault, self.store.log_back(partition, log, before, limit)).await
    }

    async fn trim(
        &self,
        partition: Partition,
        log: Log,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let fault = self.plan.next(Call::Trim(partition, log));
        if fault.outcome == Outcome::ReadOnly {
            return self.ask(fault, async { Err(read_only()) }).await;
        }
        self.ask(fault, self.store.trim(partition, log, before, limit)).await
    }

    async fn changed(&self) -> Vec<Partition> {
        self.store.changed().await
    }
}

/// A key that a batch expects something of.
fn expected(batch: &Batch) -> Option<Key> {
    let reads = batch.reads.iter().map(|(key, _)| key);
    reads.chain(batch.writes.iter().map(|write| &write.key)).next().cloned()
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("the plan says so".to_owned())
}

fn unknown() -> StoreError {
    StoreError::OutcomeUnknown("the plan says so".to_owned())
}

fn read_only() -> StoreError {
    StoreError::ReadOnly("the plan says so".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{MemoryStore, Record, Review, Version};

    const HERE: Partition = Partition(0);
    const KEY: Key = Key::Throttle([1; 32]);

    /// Commits a first record under an outcome, and looks whether it is there.
    async fn first_commit(outcome: Outcome) -> (Result<Commit, StoreError>, bool) {
        let store = MemoryStore::new(1, || Timestamp::from_secs(1));
        let plan = move |call: Call<'_>| match call {
            Call::Commit(..) => Fault::of(outcome),
            Call::Now
            | Call::Load(..)
            | Call::Page(..)
            | Call::Due(..)
            | Call::Log(..)
            | Call::Trim(..) => Fault::NONE,
        };
        let faulty = Faulty::new(store, plan, |_| Box::pin(async {}));
        let answer = faulty.commit(HERE, batch()).await;
        let found = faulty.load(HERE, &[KEY]).await.expect("loads");
        (answer, found[0].is_some())
    }

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.put(KEY, Version::ZERO, Record::Throttle(1), Review::Never);
        batch
    }

    #[tokio::test]
    async fn each_outcome_tells_what_it_says_and_does_what_it_does() {
        let (answer, there) = first_commit(Outcome::Pass).await;
        assert!(matches!(answer, Ok(Commit::Done(_))) && there);
        let (answer, there) = first_commit(Outcome::Unavailable).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))) && !there);
        let (answer, there) = first_commit(Outcome::RequestLost).await;
        assert!(matches!(answer, Err(StoreError::OutcomeUnknown(_))) && !there);
        let (answer, there) = first_commit(Outcome::AnswerLost).await;
        assert!(matches!(answer, Err(StoreError::OutcomeUnknown(_))) && there);
        let (answer, there) = first_commit(Outcome::Conflict).await;
        assert!(matches!(answer, Ok(Commit::Conflict(KEY))) && !there);
        let (answer, there) = first_commit(Outcome::ReadOnly).await;
        assert!(matches!(answer, Err(StoreError::ReadOnly(_))) && !there);
    }

    #[tokio::test]
    async fn a_late_commit_takes_effect_when_it_lands() {
        let store = MemoryStore::new(1, || Timestamp::from_secs(1));
        let plan = |_: Call<'_>| Fault::of(Outcome::Late);
        let faulty = Faulty::new(store, plan, |_| Box::pin(async {}));
        let answer = faulty.commit(HERE, batch()).await;
        assert!(matches!(answer, Err(StoreError::OutcomeUnknown(_))));
        let before = faulty.inner().load(HERE, &[KEY]).await.expect("loads");
        assert!(before[0].is_none());
        assert_eq!(faulty.land().await.expect("lands"), 1);
        let after = faulty.inner().load(HERE, &[KEY]).await.expect("loads");
        assert!(after[0].is_some());
    }

    #[tokio::test]
    async fn a_read_fails_or_waits() {
        let waited = Arc::new(Mutex::new(Vec::new()));
        let store = MemoryStore::new(1, || Timestamp::from_secs(1));
        let plan = |call: Call<'_>| match call {
            Call::Now => Fault::of(Outcome::AnswerLost),
            Call::Load(..)
            | Call::Commit(..)
            | Call::Page(..)
            | Call::Due(..)
            | Call::Log(..)
            | Call::Trim(..) => Fault {
                outcome: Outcome::Pass,
                there: Duration::from_millis(1),
                back: Duration::from_millis(2),
            },
        };
        let seen = Arc::clone(&waited);
        let faulty = Faulty::new(store, plan, move |span| {
            seen.lock().expect("not poisoned").push(span.as_millis());
            Box::pin(async {})
        });
        assert!(matches!(faulty.now().await, Err(StoreError::Unavailable(_))));
        assert!(faulty.due(HERE, Timestamp::MAX, 9).await.expect("asks").is_empty());
        assert_eq!(*waited.lock().expect("not poisoned"), [1, 2]);
    }
}
