//! A store on Redis or Valkey: one server, a master that sentinels name, or a cluster.
//!
//! [`RedisStore`] keeps the promises of [`Store`]:
//!
//! - *All of a batch, or nothing.* A commit is one script, which checks every key's type and every
//!   expected version before its first write; nothing else runs meanwhile.
//! - *One clock.* What has expired is judged by the server's clock, within the script that reads.
//! - *One slot.* All keys of a partition share the text in their braces, so they lie on one server
//!   of a cluster, and a commit never spans two.
//! - *An unknown outcome is said to be one.* A call is repeated only where the server refused it;
//!   a commit whose answer was lost is never sent again.
//!
//! How keys and values are spelled is told in `keys` and `form`, what operators have to know in
//! `docs/operate/redis.md`.

use std::sync::Arc;

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::owners::Owners;
use cloakroom_store::{
    Batch, Commit, Durability, Follow, Found, Key, Kind, Log, Logged, Store, StoreError, Tick,
    Versioned,
};

use futures_util::future::join_all;
use tokio::time::Instant;

mod batch;
mod connect;
mod error;
mod facts;
mod fault;
mod follow;
mod form;
mod keys;
mod link;
mod node;
mod read;
mod routes;
mod script;
mod server;
mod settings;
mod slot;
mod value;
mod wake;

pub use error::RedisError;
pub use settings::{RedisSettings, TlsFiles};

use connect::Purpose;
use keys::Keys;
use link::Expects;
use script::{Call, LOAD, LOG, TRIM};
use server::{Answer, Effect, Server};
use wake::Wake;

/// A store on Redis. Clones are not needed: it is shared behind a reference.
pub struct RedisStore {
    server: Server,
    namespace: String,
    replica_wait: std::time::Duration,
    wake: Wake,
    owners: Owners,
}

impl RedisStore {
    /// Connects to the store, or makes one.
    pub async fn connect(settings: &RedisSettings) -> Result<Self, RedisError> {
        Ok(Self::over(connect::connect(settings, Purpose::Use).await?, settings))
    }

    /// Connects to a store that is there already, and writes nothing for that.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`], and [`RedisError::NoStore`].
    pub async fn find(settings: &RedisSettings) -> Result<Self, RedisError> {
        Ok(Self::over(connect::connect(settings, Purpose::Look).await?, settings))
    }

    fn over(server: Server, settings: &RedisSettings) -> Self {
        Self {
            wake: Wake::new(Arc::clone(&server.routes), &settings.namespace),
            server,
            namespace: settings.namespace.clone(),
            replica_wait: settings.replica_wait,
            owners: Owners::new(),
        }
    }

    /// What the servers promise of a commit that waits for no replica: the least of them all.
    pub async fn promise(&self) -> Durability {
        let mut least = Durability::Durable;
        for node in self.server.routes.masters() {
            let Ok(link) = node.shared().await else { return Durability::Local };
            least = least.min(server::inspected(&link).durability());
        }
        least
    }

    /// What is promised about a commit that no replica has acknowledged: the least of all masters.
    pub async fn durability(&self) -> Result<Durability, StoreError> {
        let mut least = Durability::Durable;
        for node in self.server.routes.masters() {
            let link = node.shared().await;
            let link = link.map_err(|fault| fault.into_store_error(Partition::ZERO))?;
            least = least.min(server::inspected(&link).durability());
        }
        Ok(least)
    }

    fn keys(&self, partition: Partition) -> Result<Keys, StoreError> {
        if partition.0 >= self.server.partitions {
            return Err(StoreError::NoPartition(partition));
        }
        Ok(Keys::of(&self.namespace, partition))
    }

    async fn read(&self, partition: Partition, call: &Call) -> Result<redis::Value, StoreError> {
        self.server.call(partition, call, Effect::None).await.map(|answer| answer.value)
    }

    /// Loads records within a deadline.
    async fn load_by(
        &self,
        deadline: Instant,
        partition: Partition,
        keys: &[Key],
    ) -> Result<Vec<Option<Versioned>>, StoreError> {
        let named = self.keys(partition)?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        if keys.iter().all(|key| is_rarely_mortal(key.kind()))
            && let Some(found) = self.load_plainly(deadline, partition, keys, Expects::Gaps).await?
        {
            return Ok(found);
        }
        let named: Vec<_> = keys.iter().map(|key| named.record(key)).collect();
        let call = Call::script(&LOAD, &named);
        let answer = self.server.call_by(deadline, partition, &call, Effect::None).await?;
        read::records(&answer.value, partition, keys)
    }

    /// Loads records without a script; none where only one can tell what is there.
    async fn load_plainly(
        &self,
        deadline: Instant,
        partition: Partition,
        keys: &[Key],
        expects: Expects,
    ) -> Result<Option<Vec<Option<Versioned>>>, StoreError> {
        let named = self.keys(partition)?;
        let named: Vec<_> = keys.iter().map(|key| named.record(key)).collect();
        let values = self.server.peek(deadline, partition, &named, expects).await?;
        match values.filter(|values| read::is_plain(values)) {
            Some(values) => read::plain(&values, keys).map(Some),
            None => Ok(None),
        }
    }

    /// Waits until every replica has what was written on the connection of this answer.
    async fn replicated(&self, answer: &Answer<'_>) -> Durability {
        let info = answer.replication.as_ref().and_then(value::text).unwrap_or_default();
        let connected = facts::replicas(info);
        let needed = answer.node.replicas_needed(connected);
        if connected == 0 {
            answer.node.give_back(answer.link.clone());
            return if needed == 0 { answer.link.facts().durability() } else { Durability::Local };
        }
        let wait_ms = u64::try_from(self.replica_wait.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut cmd = redis::cmd("WAIT");
        cmd.arg(connected).arg(wait_ms);
        let limit = self.replica_wait + connect::WAIT_MARGIN;
        match tokio::time::timeout(limit, answer.link.ask(&cmd)).await {
            Ok(Ok(count)) => {
                answer.node.give_back(answer.link.clone());
                let count = value::number(&count).unwrap_or(0);
                let is_everywhere = count >= i64::from(needed);
                if is_everywhere { Durability::Replicated } else { Durability::Local }
            }
            Ok(Err(_)) | Err(_) => {
                answer.link.give_up();
                Durability::Local
            }
        }
    }

    async fn log_page(
        &self,
        partition: Partition,
        log: Log,
        bounds: (&str, String),
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let mut call = Call::script(&LOG, &[self.keys(partition)?.log(log)]);
        call.arg(bounds.0).arg(bounds.1).arg(count(limit));
        read::entries(&self.read(partition, &call).await?, partition)
    }
}

impl Store for RedisStore {
    fn partitions(&self) -> u16 {
        self.server.partitions
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let call = Call::plain(redis::cmd("TIME"));
        let reply = self.read(Partition::ZERO, &call).await?;
        let part = |number| value::items(&reply).get(number).and_then(value::number);
        let ms = part(0).zip(part(1)).map(|(seconds, micros)| seconds * 1000 + micros / 1000);
        let unexpected = || StoreError::Unavailable("the store's clock can't be read".to_owned());
        ms.map(Timestamp::from_millis).ok_or_else(unexpected)
    }

    async fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        if follow != Follow::Nothing {
            return self.load_and_follow(partition, keys, follow).await;
        }
        let deadline = Instant::now() + self.server.timeout;
        let asked = self.load_by(deadline, partition, keys).await?;
        Ok(Found { asked, followed: Vec::new() })
    }

    async fn commit(&self, partition: Partition, batch: Batch) -> Result<Commit, StoreError> {
        let call = batch::call(&self.keys(partition)?, partition, self.wake.channel(), &batch);
        self.owners.learn_written(&batch);
        let is_waiting = !self.replica_wait.is_zero() && batch.is_ending();
        let effect = if is_waiting { Effect::UnknownAlone } else { Effect::Unknown };
        let answer = self.server.call(partition, &call, effect).await?;
        let durability = if !is_waiting {
            server::inspected(&answer.link).durability()
        } else if batch::is_done(&answer.value) {
            self.replicated(&answer).await
        } else {
            answer.node.give_back(answer.link.clone());
            Durability::Local
        };
        batch::outcome(&answer.value, partition, &batch, durability)
    }

    async fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let list = self.keys(partition)?.list(kind);
        let mut after = after.cloned();
        let mut page = Vec::new();
        while page.len() < limit {
            let wanted = (limit - page.len()).clamp(NAMES_MIN, NAMES_MAX);
            let mut cmd = redis::cmd("ZRANGEBYLEX");
            cmd.arg(&list).arg(after.as_ref().map_or_else(|| "-".to_owned(), excluding)).arg("+");
            cmd.arg("LIMIT").arg(0).arg(wanted);
            let names = self.read(partition, &Call::plain(cmd)).await?;
            let names = read::names(&names, partition, kind)?;
            // By key, and not by a script that finds them itself: while a slot moves, the server
            // knows of a key that has gone ahead only where it was told of it before.
            let found = self.load(partition, &names).await?;
            let is_last = names.len() < wanted;
            after = names.last().cloned();
            page.extend(names.into_iter().zip(found).filter_map(|(key, f)| Some((key, f?))));
            if is_last {
                break;
            }
        }
        page.truncate(limit);
        Ok(page)
    }

    async fn due(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let mut cmd = redis::cmd("ZRANGEBYSCORE");
        cmd.arg(self.keys(partition)?.due()).arg("-inf").arg(format!("({}", form::score(before)));
        cmd.arg("LIMIT").arg(0).arg(count(limit));
        read::filings(&self.read(partition, &Call::plain(cmd)).await?, partition)
    }

    async fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        self.keys(partition)?;
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.log_page(partition, log, ("forward", form::stream_id(from)), limit).await
    }

    async fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        self.keys(partition)?;
        // Nothing comes before the first id of all, and Redis refuses to look.
        if limit == 0 || before == Tick::ZERO {
            return Ok(Vec::new());
        }
        self.log_page(partition, log, ("back", format!("({}", form::stream_id(before))), limit)
            .await
    }

    async fn trim(
        &self,
        partition: Partition,
        log: Log,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let keys = self.keys(partition)?;
        let before = Tick::at(before);
        if limit == 0 || before == Tick::ZERO {
            return Ok(0);
        }
        let mut call = Call::script(&TRIM, &[keys.log(log)]);
        call.arg(form::stream_id(before)).arg(count(limit));
        let reply = self.server.call(partition, &call, Effect::Unknown).await?.value;
        Ok(value::number(&reply).and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
    }

    /// All at once: they go one after the other on the connections to each master.
    async fn logs(
        &self,
        log: Log,
        from: &[(Partition, Tick)],
        limit: usize,
    ) -> Vec<Result<Vec<Logged>, StoreError>> {
        join_all(from.iter().map(|(place, from)| self.log(*place, log, *from, limit))).await
    }

    async fn changed(&self) -> Vec<Partition> {
        self.wake.changed().await
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore")
            .field("namespace", &self.namespace)
            .field("partitions", &self.server.partitions)
            .finish_non_exhaustive()
    }
}

/// Whether records of a kind are mostly read while they have no expiry, so that no clock is needed.
const fn is_rarely_mortal(kind: Kind) -> bool {
    match kind {
        // Counters always expire, and keys of backends often.
        Kind::Throttle | Kind::ApiKey => false,
        // A denied token expires, but mostly there is none.
        Kind::DeniedToken
        | Kind::Session
        | Kind::Data
        | Kind::Subject
        | Kind::Index
        | Kind::User
        | Kind::Identifier
        | Kind::Handle
        | Kind::Partition
        | Kind::SigningKey
        | Kind::StoreKey
        | Kind::Settings => true,
    }
}

/// A bound of names: after this one.
fn excluding(key: &Key) -> String {
    format!("({}", keys::name(key))
}

/// A limit as Redis takes it.
fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// How many records of a page are loaded at once: enough that expired ones don't cost a round trip
/// each, and not so many that others wait.
const NAMES_MIN: usize = 16;
const NAMES_MAX: usize = 512;
