//! A store in a PostgreSQL that the operator already runs.
//!
//! [`PostgresStore`] keeps the promises of [`Store`] over one schema of one database, shared by any
//! number of nodes:
//!
//! - *A commit is one call of one function*, hence one transaction and one round trip. It locks the
//!   row of its partition first, so commits of a partition come one after the other, and their
//!   ticks and log entries in the order in which they become visible.
//! - *A load is one statement*, so it sees one state. It waits for no writer.
//! - *Time is the server's*, read after the lock was had.
//! - *What is unknown is said*: a commit that was sent and not answered may have taken effect.
//!
//! Behind a pooler that deals transactions out to server processes, which is found out at the
//! start, nothing is kept in a connection from one call to the next; only wake-ups
//! ([`Store::changed`]) need a connection of their own.
//! The tables are for people too: `sql/` comments each column.

use std::fmt;
use std::time::{Duration, SystemTime};

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::owners::{Owners, confirmed};
use cloakroom_store::record::{decode, decode_entry};
use cloakroom_store::{
    Batch, Commit, Committed, Durability, Follow, Found, Key, Kind, Log, Logged, Store, StoreError,
    Tick, Versioned,
};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

mod batch;
mod columns;
mod error;
mod link;
mod names;
mod open;
mod rows;
mod schema;
mod settings;
mod statements;
mod time;
mod tls;
mod wake;

pub use error::ConnectError;
pub use schema::{Migrated, SCHEMA_VERSION};
pub use settings::{PostgresSettings, TlsFiles, is_schema_name};

use batch::{Arguments, conflicting};
use link::Link;
use names::{kind_name, name};
use statements::{Statement, Statements};
use time::{bigint, system_time, tick, timestamp};
use wake::Wake;

/// A store in a schema of a PostgreSQL database.
pub struct PostgresStore {
    link: Link,
    statements: Statements,
    schema: String,
    partitions: u16,
    wake: Wake,
    owners: Owners,
}

impl PostgresStore {
    /// Opens the store that the settings name; makes it, or brings it up to date, where they
    /// allow that.
    pub async fn connect(settings: &PostgresSettings) -> Result<Self, ConnectError> {
        open::connect(settings).await
    }

    /// Makes the store that the settings name, or brings it up to date, whatever they allow.
    pub async fn migrate(settings: &PostgresSettings) -> Result<Migrated, ConnectError> {
        open::migrate(settings).await
    }

    /// The schema that holds it.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// What the server promises of every commit.
    pub async fn promise(&self) -> Result<Durability, StoreError> {
        let rows = self.link.read(&self.statements.promise, &[]).await?;
        let row = rows.first().ok_or_else(rows::missing)?;
        let is_durable: bool = rows::column(row, 0)?;
        Ok(if is_durable { Durability::Durable } else { Durability::Local })
    }

    async fn read(
        &self,
        partition: Partition,
        statement: &Statement,
        arguments: &[link::Argument<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        self.check(partition)?;
        self.link.read(statement, arguments).await
    }

    /// Records by name, from one state.
    async fn load_named(
        &self,
        partition: Partition,
        keys: &[Key],
    ) -> Result<Vec<Option<Versioned>>, StoreError> {
        let number = i32::from(partition.0);
        let kinds: Vec<&str> = keys.iter().map(|key| kind_name(key.kind())).collect();
        let names: Vec<String> = keys.iter().map(name).collect();
        let arguments: [link::Argument<'_>; 3] =
            [(&number, Type::INT4), (&kinds, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)];
        let rows = self.read(partition, &self.statements.load, &arguments).await?;
        rows::placed(&rows, keys)
    }

    /// The same, and those that the found ones name.
    async fn follow(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        let number = i32::from(partition.0);
        let kinds: Vec<&str> = keys.iter().map(|key| kind_name(key.kind())).collect();
        let names: Vec<String> = keys.iter().map(name).collect();
        let (subjects, at_least) = match follow {
            Follow::Nothing => (&SUBJECT[..0], None),
            Follow::Subject => (&SUBJECT[..1], None),
            Follow::SubjectAndIndex => (&SUBJECT[..], None),
            Follow::Sessions { at_least } => (&SUBJECT[..0], Some(bounded(at_least))),
        };
        let arguments: [link::Argument<'_>; 5] = [
            (&number, Type::INT4),
            (&kinds, Type::TEXT_ARRAY),
            (&names, Type::TEXT_ARRAY),
            (&subjects, Type::TEXT_ARRAY),
            (&at_least, Type::INT8),
        ];
        let rows = self.read(partition, &self.statements.following, &arguments).await?;
        rows::found(&rows, keys, follow)
    }

    fn check(&self, partition: Partition) -> Result<(), StoreError> {
        if partition.0 < self.partitions {
            return Ok(());
        }
        Err(StoreError::NoPartition(partition))
    }

    async fn read_log(
        &self,
        partition: Partition,
        statement: &Statement,
        cursor: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let (number, cursor, limit) = (i32::from(partition.0), bigint(cursor), bounded(limit));
        let arguments: [link::Argument<'_>; 3] =
            [(&number, Type::INT4), (&cursor, Type::INT8), (&limit, Type::INT8)];
        let rows = self.read(partition, statement, &arguments).await?;
        rows.iter().map(rows::logged).collect()
    }
}

impl Store for PostgresStore {
    fn partitions(&self) -> u16 {
        self.partitions
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let rows = self.link.read(&self.statements.now, &[]).await?;
        let row = rows.first().ok_or_else(rows::missing)?;
        Ok(timestamp(rows::column::<SystemTime>(row, 0)?))
    }

    async fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        if follow == Follow::Nothing {
            let asked = self.load_named(partition, keys).await?;
            return Ok(Found { asked, followed: Vec::new() });
        }
        if let Some(names) = self.owners.guess(keys, follow) {
            // Mostly a good guess, and reading by name costs the server half of following.
            let asked = self.load_named(partition, &[keys, &names].concat()).await?;
            if let Some(found) = confirmed(keys, names, follow, asked) {
                return Ok(found);
            }
        }
        let found = self.follow(partition, keys, follow).await?;
        self.owners.learn(keys, &found.asked);
        Ok(found)
    }

    async fn commit(&self, partition: Partition, batch: Batch) -> Result<Commit, StoreError> {
        self.check(partition)?;
        let mut arguments = Arguments::of(partition, &batch)?;
        self.owners.learn_written(&batch);
        let write = self.link.begin().await?;
        arguments.wait_at_most(write.lock_wait_ms());
        let rows = write.run(&self.statements.commit, &arguments.list()).await?;
        let row = rows.first().ok_or(StoreError::NoPartition(partition))?;
        if let Some(place) = rows::column::<Option<i64>>(row, 1)? {
            let key = conflicting(&batch, place).ok_or_else(rows::missing)?;
            return Ok(Commit::Conflict(key));
        }
        let drawn: Option<i64> = rows::column(row, 0)?;
        let is_durable: Option<bool> = rows::column(row, 2)?;
        if batch.is_ending() {
            self.wake.announce(partition);
        }
        let durability = match is_durable {
            Some(true) => Durability::Durable,
            Some(false) | None => Durability::Local,
        };
        let tick = tick(drawn.ok_or_else(rows::missing)?);
        Ok(Commit::Done(Committed { tick, durability }))
    }

    async fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let number = i32::from(partition.0);
        let (kind_column, limit) = (kind_name(kind), bounded(limit));
        // No name is empty, so all come after this.
        let after = after.map_or_else(String::new, name);
        let arguments: [link::Argument<'_>; 4] = [
            (&number, Type::INT4),
            (&kind_column, Type::TEXT),
            (&after, Type::TEXT),
            (&limit, Type::INT8),
        ];
        let rows = self.read(partition, &self.statements.page, &arguments).await?;
        rows.iter().map(|row| rows::named(row, kind)).collect()
    }

    async fn due(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let number = i32::from(partition.0);
        let (before, limit) = (system_time(before), bounded(limit));
        let arguments: [link::Argument<'_>; 3] =
            [(&number, Type::INT4), (&before, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
        let rows = self.read(partition, &self.statements.due, &arguments).await?;
        rows.iter().map(rows::key).collect()
    }

    async fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        self.read_log(partition, &self.statements.of(log).forth, from, limit).await
    }

    async fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        self.read_log(partition, &self.statements.of(log).back, before, limit).await
    }

    async fn trim(
        &self,
        partition: Partition,
        log: Log,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.check(partition)?;
        let number = i32::from(partition.0);
        let (before, limit) = (bigint(Tick::at(before)), bounded(limit));
        let arguments: [link::Argument<'_>; 3] =
            [(&number, Type::INT4), (&before, Type::INT8), (&limit, Type::INT8)];
        let write = self.link.begin().await?;
        let rows = write.run(&self.statements.of(log).trim, &arguments).await?;
        let row = rows.first().ok_or_else(rows::missing)?;
        Ok(usize::try_from(rows::column::<i64>(row, 0)?).unwrap_or(0))
    }

    async fn logs(
        &self,
        log: Log,
        from: &[(Partition, Tick)],
        limit: usize,
    ) -> Vec<Result<Vec<Logged>, StoreError>> {
        let numbers: Vec<i32> = from.iter().map(|(partition, _)| partition.0.into()).collect();
        let cursors: Vec<i64> = from.iter().map(|(_, from)| bigint(*from)).collect();
        let limit = bounded(limit);
        let arguments: [link::Argument<'_>; 3] =
            [(&numbers, Type::INT4_ARRAY), (&cursors, Type::INT8_ARRAY), (&limit, Type::INT8)];
        let rows = self.link.read(&self.statements.of(log).several, &arguments).await;
        let pages = rows.and_then(|rows| rows::pages(&rows, from.len()));
        match pages {
            Ok(pages) => {
                let each = from.iter().zip(pages);
                each.map(|((partition, _), page)| self.check(*partition).map(|()| page)).collect()
            }
            Err(error) => from.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn changed(&self) -> Vec<Partition> {
        self.wake.changed().await
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("schema", &self.schema)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.link.close();
    }
}

/// A limit as the server takes it.
fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The kinds of what belongs to a subject, as they are followed to.
const SUBJECT: [&str; 2] = [kind_name(Kind::Subject), kind_name(Kind::Index)];

/// The least that a call may last: below it, no server would ever be reached.
const TIMEOUT_MIN: Duration = Duration::from_millis(50);
