//! The stores that this program can be run on: a closed list, chosen by `store.url`.

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_embedded::Embedded;
use cloakroom_postgres::PostgresStore;
use cloakroom_redis::RedisStore;
use cloakroom_store::memory::MemoryStore;
use cloakroom_store::{
    Batch, Commit, Durability, Follow, Found, Key, Kind, Log, Logged, Store, StoreError, Tick,
    Versioned,
};

/// One of the stores.
#[allow(clippy::large_enum_variant, reason = "a process has one of them")]
pub enum AnyStore {
    /// Gone with the process.
    Memory(MemoryStore),
    /// One directory, one process.
    Embedded(Embedded),
    /// Redis or Valkey.
    Redis(RedisStore),
    /// PostgreSQL.
    Postgres(PostgresStore),
}

impl AnyStore {
    /// Whether other processes write to it too, so that this one must follow its log.
    pub const fn is_shared(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Embedded(_) => false,
            Self::Redis(_) | Self::Postgres(_) => true,
        }
    }

    /// What people call it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Embedded(_) => "embedded",
            Self::Redis(_) => "redis",
            Self::Postgres(_) => "postgres",
        }
    }

    /// When something was last committed; `None`: never, or there is no telling.
    pub fn last_commit_at(&self) -> Option<Timestamp> {
        match self {
            Self::Memory(_) | Self::Redis(_) | Self::Postgres(_) => None,
            Self::Embedded(store) => store.last_commit_at(),
        }
    }

    /// How many commits wait to be written, and how many may; none where they wait elsewhere.
    pub fn commits_waiting(&self) -> Option<(usize, usize)> {
        match self {
            Self::Memory(_) | Self::Redis(_) | Self::Postgres(_) => None,
            Self::Embedded(store) => Some(store.commits_waiting()),
        }
    }

    /// What every acknowledged commit survives here; a single one may survive more.
    pub async fn promise(&self) -> Result<Durability, StoreError> {
        match self {
            Self::Memory(_) => Ok(Durability::Local),
            Self::Embedded(_) => Ok(Durability::Durable),
            Self::Redis(store) => Ok(store.promise().await),
            Self::Postgres(store) => store.promise().await,
        }
    }
}

/// Awaits the same call of whichever store it is.
///
/// A future holds room for the largest of its parts and is moved as a whole: what waits for a
/// network is boxed, so that the embedded store's callers don't carry it around.
macro_rules! each {
    ($any:expr, $store:ident => $call:expr) => {
        match $any {
            AnyStore::Memory($store) => $call.await,
            AnyStore::Embedded($store) => $call.await,
            AnyStore::Redis($store) => Box::pin($call).await,
            AnyStore::Postgres($store) => Box::pin($call).await,
        }
    };
}

impl Store for AnyStore {
    fn partitions(&self) -> u16 {
        match self {
            Self::Memory(store) => store.partitions(),
            Self::Embedded(store) => store.partitions(),
            Self::Redis(store) => store.partitions(),
            Self::Postgres(store) => store.partitions(),
        }
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        each!(self, store => store.now())
    }

    async fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        each!(self, store => store.load_following(partition, keys, follow))
    }

    async fn commit(&self, partition: Partition, batch: Batch) -> Result<Commit, StoreError> {
        each!(self, store => store.commit(partition, batch))
    }

    async fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        each!(self, store => store.page(partition, kind, after, limit))
    }

    async fn due(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        each!(self, store => store.due(partition, before, limit))
    }

    async fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        each!(self, store => store.log(partition, log, from, limit))
    }

    async fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        each!(self, store => store.log_back(partition, log, before, limit))
    }

    async fn trim(
        &self,
        partition: Partition,
        log: Log,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        each!(self, store => store.trim(partition, log, before, limit))
    }

    async fn logs(
        &self,
        log: Log,
        from: &[(Partition, Tick)],
        limit: usize,
    ) -> Vec<Result<Vec<Logged>, StoreError>> {
        each!(self, store => store.logs(log, from, limit))
    }

    async fn changed(&self) -> Vec<Partition> {
        each!(self, store => store.changed())
    }
}
