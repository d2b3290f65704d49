//! The store of the simulation: the reference model behind a line that fails as planned.

use std::sync::Arc;

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::{
    Batch, Commit, Follow, Found, Key, Kind, Log, Logged, Store, StoreError, Tick, Versioned,
};

use crate::mutation::{self, Mutation};
use crate::schedule::{Millis, Owner, channel};
use crate::world::World;

/// A node's line to the store.
pub struct SimStore {
    world: Arc<World>,
    node: usize,
}

/// What will become of a call.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// How long it takes to get there.
    before: Millis,
    /// How long the answer takes.
    after: Millis,
    fails_before: bool,
    fails_after: bool,
    /// What a failed commit without effect is called: the store may not know itself.
    says_unknown: bool,
}

impl SimStore {
    /// The line of `node`.
    pub const fn new(world: Arc<World>, node: usize) -> Self {
        Self { world, node }
    }

    fn fate(&self) -> Fate {
        let odds = self.world.odds();
        let fate = self.world.handle.draw(|rng| {
            let stuck = rng.chance(odds.stuck);
            let slow = rng.chance(odds.slow);
            let span = |rng: &mut crate::rng::Rng| match (stuck, slow) {
                (true, _) => rng.below(4_000),
                (false, true) => rng.below(1_500),
                (false, false) => rng.below(4),
            };
            Fate {
                before: span(rng),
                after: span(rng),
                fails_before: rng.chance(odds.fail_before),
                fails_after: rng.chance(odds.fail_after),
                says_unknown: rng.chance(300),
            }
        });
        for (kind, happened) in [
            ("store call slow", fate.before + fate.after > 100),
            ("store call failed before", fate.fails_before),
            ("store call failed after", fate.fails_after),
        ] {
            if happened {
                self.world.fault(kind);
            }
        }
        fate
    }

    /// A call that only reads: it may fail at either end.
    async fn reading<T>(
        &self,
        feed_of: Option<Partition>,
        read: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let fate = self.fate();
        self.world.handle.sleep(fate.before).await;
        if fate.fails_before || self.world.is_cut(self.node, feed_of) {
            return Err(unreachable());
        }
        let answer = read.await?;
        self.world.handle.sleep(fate.after).await;
        if fate.fails_after || self.world.is_cut(self.node, feed_of) {
            return Err(unreachable());
        }
        Ok(answer)
    }
}

fn unreachable() -> StoreError {
    StoreError::Unavailable("the line is dead".to_owned())
}

fn unknown() -> StoreError {
    StoreError::OutcomeUnknown("the line died".to_owned())
}

impl Store for SimStore {
    fn partitions(&self) -> u16 {
        self.world.plan.partitions
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.reading(None, self.world.memory.now()).await
    }

    async fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        let load = self.world.memory.load_following(partition, keys, follow);
        match self.reading(None, load).await {
            Err(StoreError::Unavailable(_)) if self.world.broken(Mutation::FaultReadsAsAbsence) => {
                Ok(Found { asked: vec![None; keys.len()], followed: Vec::new() })
            }
            found => found,
        }
    }

    /// Once sent, a commit takes effect or not, whoever still waits for the answer.
    async fn commit(&self, partition: Partition, batch: Batch) -> Result<Commit, StoreError> {
        let fate = self.fate();
        let (sender, receiver) = channel();
        let (world, node) = (Arc::clone(&self.world), self.node);
        self.world.handle.spawn(Owner::World, async move {
            world.handle.sleep(fate.before).await;
            if fate.fails_before || world.is_cut(node, None) {
                sender.send(Err(if fate.says_unknown { unknown() } else { unreachable() }));
                return;
            }
            let answer = apply(&world, node, partition, batch).await;
            world.handle.sleep(fate.after).await;
            let lost = fate.fails_after || world.is_cut(node, None);
            sender.send(if lost { Err(unknown()) } else { answer });
        });
        receiver.await.unwrap_or_else(|| Err(unknown()))
    }

    async fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.reading(None, self.world.memory.page(partition, kind, after, limit)).await
    }

    async fn due(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        self.reading(None, self.world.memory.due(partition, before, limit)).await
    }

    async fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let read = self.world.memory.log(partition, log, from, limit);
        let page = self.reading(Some(partition), read).await;
        match page {
            Err(_) if self.world.broken(Mutation::HeartbeatWithoutReading) => {
                // As if nothing had followed the last entry.
                let page = self.world.memory.log(partition, log, from, 1).await?;
                Ok(page.into_iter().filter(|logged| logged.cursor == from).collect())
            }
            page => page,
        }
    }

    async fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let read = self.world.memory.log_back(partition, log, before, limit);
        self.reading(Some(partition), read).await
    }

    async fn trim(
        &self,
        partition: Partition,
        log: Log,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.reading(None, self.world.memory.trim(partition, log, before, limit)).await
    }
}

/// Takes effect, and is entered into the book at the same instant.
async fn apply(
    world: &Arc<World>,
    node: usize,
    partition: Partition,
    batch: Batch,
) -> Result<Commit, StoreError> {
    let mut batch = batch;
    let late = mutation::twist(world, partition, &mut batch).await;
    let answer = world.memory.commit(partition, batch.clone()).await?;
    let moment = world.handle.moment();
    match &answer {
        Commit::Done(committed) => {
            world.handle.digest(committed.tick.0);
            let mut book = world.book();
            book.note(moment, None, || format!("node {node} commits to p{partition}"));
            book.committed(moment, partition, &batch, committed.tick);
        }
        Commit::Conflict(key) => {
            world.fault("conflict");
            world.book().note(moment, None, || format!("node {node} conflicts on {key}"));
        }
    }
    world.stop_if_broken();
    if let (Commit::Done(_), Some(late)) = (&answer, late) {
        let committed = world.memory.commit(partition, late.clone()).await?;
        if let Commit::Done(committed) = committed {
            let moment = world.handle.moment();
            world.book().committed(moment, partition, &late, committed.tick);
        }
    }
    Ok(answer)
}
