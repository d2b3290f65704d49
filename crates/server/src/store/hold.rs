//! Holding a store's writes while it is copied: every node on it refuses them and goes on reading.
//!
//! Whoever copies leases the hold in the store itself, so that nodes need no way to each other, and
//! a copier that dies lets go of it by itself. The lease is a record that expires, filed among the
//! denied tokens under a name that no token has: invisible at its end, and swept like them.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::record::DeniedToken;
use cloakroom_store::{
    Batch, Commit, Follow, Found, Key, Kind, Log, Logged, Record, Review, Store, StoreError, Tick,
    Version, Versioned,
};

/// How long a lease lasts that isn't renewed.
pub(crate) const LEASE: Duration = Duration::from_secs(20);
/// How often it is renewed.
pub(crate) const RENEW: Duration = Duration::from_secs(4);
/// How often nodes look for one.
pub(crate) const LOOK: Duration = Duration::from_millis(500);

/// The name of the lease.
pub(crate) fn key() -> Key {
    Key::DeniedToken("0.store-copy".into())
}

/// Takes the lease, or renews it: from now on for [`LEASE`].
pub(crate) async fn take<S: Store>(store: &S) -> Result<(), StoreError> {
    loop {
        let until = store.now().await?.plus(LEASE);
        let mut batch = Batch::default();
        let record = Record::DeniedToken(DeniedToken { until });
        batch.put_until(key(), version(store).await?, record, Review::At(until), Some(until));
        // Of two copiers at once both hold it.
        if let Commit::Done(_) = store.commit(Partition::ZERO, batch).await? {
            return Ok(());
        }
    }
}

/// Gives the lease back.
pub(crate) async fn release<S: Store>(store: &S) -> Result<(), StoreError> {
    loop {
        let version = version(store).await?;
        if version == Version::ZERO {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.delete(key(), version);
        if let Commit::Done(_) = store.commit(Partition::ZERO, batch).await? {
            return Ok(());
        }
    }
}

async fn version<S: Store>(store: &S) -> Result<Version, StoreError> {
    let found = store.load(Partition::ZERO, &[key()]).await?;
    Ok(found.into_iter().flatten().next().map_or(Version::ZERO, |found| found.version))
}

/// A store whose writes a node refuses while somebody holds them.
pub struct Holdable<S> {
    store: S,
    is_held: AtomicBool,
}

impl<S: Store> Holdable<S> {
    /// This store, not held as far as is known.
    pub fn new(store: S) -> Self {
        Self { store, is_held: AtomicBool::new(false) }
    }

    /// Looks whether somebody holds the writes.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let held = version(&self.store).await? != Version::ZERO;
        if held != self.is_held.swap(held, Ordering::SeqCst) {
            if held {
                tracing::warn!("the store is being copied: no writes until that is done");
            } else {
                tracing::info!("the copy of the store is over: writes are taken again");
            }
        }
        Ok(())
    }

    /// Whether this node refuses writes.
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::SeqCst)
    }

    fn writable(&self) -> Result<(), StoreError> {
        if self.is_held() {
            return Err(StoreError::ReadOnly("it is being copied".to_owned()));
        }
        Ok(())
    }
}

impl<S> Deref for Holdable<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.store
    }
}

impl<S: Store> Store for Holdable<S> {
    fn partitions(&self) -> u16 {
        self.store.partitions()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.now().await
    }

    async fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        self.store.load_following(partition, keys, follow).await
    }

    async fn load(
        &self,
        partition: Partition,
        keys: &[Key],
    ) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.store.load(partition, keys).await
    }

    async fn commit(&self, partition: Partition, batch: Batch) -> Result<Commit, StoreError> {
        self.writable()?;
        self.store.commit(partition, batch).await
    }

    async fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.store.page(partition, kind, after, limit).await
    }

    async fn due(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        self.store.due(partition, before, limit).await
    }

    async fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        self.store.log(partition, log, from, limit).await
    }

    async fn logs(
        &self,
        log: Log,
        from: &[(Partition, Tick)],
        limit: usize,
    ) -> Vec<Result<Vec<Logged>, StoreError>> {
        self.store.logs(log, from, limit).await
    }

    async fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        self.store.log_back(partition, log, before, limit).await
    }

    async fn trim(
        &self,
        partition: Partition,
        log: Log,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.writable()?;
        self.store.trim(partition, log, before, limit).await
    }

    async fn changed(&self) -> Vec<Partition> {
        self.store.changed().await
    }
}

#[cfg(test)]
mod tests {
    use cloakroom_store::MemoryStore;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_secs(1_800_000_000)
    }

    #[tokio::test]
    async fn while_somebody_holds_it_a_store_is_read_and_not_written() {
        let store = Holdable::new(MemoryStore::new(2, now));
        let put = || {
            let mut batch = Batch::default();
            batch.put(Key::Throttle([7; 32]), Version::ZERO, Record::Throttle(1), Review::Never);
            batch
        };
        take(&*store).await.expect("taken");
        take(&*store).await.expect("renewed");
        store.look().await.expect("read");
        let refused = store.commit(Partition(1), put()).await;
        assert!(matches!(refused, Err(StoreError::ReadOnly(_))), "{refused:?}");
        let trimmed = store.trim(Partition(1), Log::Feed, now(), 9).await;
        assert!(matches!(trimmed, Err(StoreError::ReadOnly(_))), "{trimmed:?}");
        store.load(Partition(1), &[Key::Partition]).await.expect("read");
        release(&*store).await.expect("released");
        release(&*store).await.expect("nothing to release");
        store.look().await.expect("read");
        store.commit(Partition(1), put()).await.expect("committed");
    }
}
