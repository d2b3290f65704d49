//! Opening the configured store: at once where it is ours, with patience where it is a server.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use cloakroom::SystemClock;
use cloakroom_core::types::{Secret, Timestamp};
use cloakroom_embedded::{DirLock, Embedded};
use cloakroom_postgres::{ConnectError, PostgresSettings, PostgresStore};
use cloakroom_redis::{RedisError, RedisSettings, RedisStore};
use cloakroom_store::StoreError;
use cloakroom_store::memory::MemoryStore;
use tokio::time::Instant;

use super::AnyStore;
use crate::config::{Config, StoreUrl};
use crate::node_files;
use crate::serve::StartError;

/// The embedded store's folder in the data directory.
pub(crate) const STORE_DIR: &str = "store";

/// Opens the store that the configuration names, and keeps the data directory for this process.
///
/// An embedded store keeps its directory by itself.
pub(crate) async fn open(config: &Config) -> Result<(AnyStore, Option<DirLock>), StartError> {
    let url = &config.store.url;
    let lock = if url.is_embedded() {
        None
    } else {
        node_files::make_dir(&config.data_dir)?;
        Some(DirLock::acquire(&config.data_dir)?)
    };
    Ok((open_at(url, config, config.store.partitions, Purpose::Serve).await?, lock))
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// By a node: it is made where there is none, and waited for where it is away.
    Serve,
    /// By a command that fills it: it is made where there is none.
    Fill,
    /// By a command that looks: one that isn't there isn't made, nor brought up to date.
    Look,
}

impl Purpose {
    /// Whoever typed a command wants to know at once.
    const fn patience(self) -> Patience {
        match self {
            Self::Serve => AT_START,
            Self::Fill | Self::Look => Patience { span: Duration::ZERO, ..AT_START },
        }
    }
}

/// Opens the store at a URL, with all else as configured; a new one gets so many partitions.
pub(crate) async fn open_at(
    url: &StoreUrl,
    config: &Config,
    partitions: u16,
    purpose: Purpose,
) -> Result<AnyStore, StartError> {
    let patience = purpose.patience();
    match url {
        StoreUrl::Memory => Ok(AnyStore::Memory(MemoryStore::new(partitions, system_time))),
        StoreUrl::File(dir) => Ok(AnyStore::Embedded(embedded(dir, partitions).await?)),
        StoreUrl::Redis { topology: _, url } => {
            let settings = redis_settings(config, url, partitions);
            let connect = async || match purpose {
                Purpose::Serve | Purpose::Fill => RedisStore::connect(&settings).await,
                Purpose::Look => RedisStore::find(&settings).await,
            };
            Ok(AnyStore::Redis(patience.with(connect, RedisError::is_transient).await?))
        }
        StoreUrl::Postgres(url) => {
            let mut settings = postgres_settings(config, url, partitions);
            settings.migrate &= purpose != Purpose::Look;
            let connect = async || PostgresStore::connect(&settings).await;
            Ok(AnyStore::Postgres(patience.with(connect, ConnectError::is_temporary).await?))
        }
    }
}

/// Asks a store that was just opened: it may be in the middle of a failover.
pub(crate) async fn patiently<T>(
    ask: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    AT_START.with(ask, |error| matches!(error, StoreError::Unavailable(_))).await
}

async fn embedded(data: &Path, partitions: u16) -> Result<Embedded, StartError> {
    node_files::make_dir(data)?;
    let dir = data.join(STORE_DIR);
    let options =
        cloakroom_embedded::Options { partitions, ..cloakroom_embedded::Options::default() };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&dir, options)).await;
    match opened {
        Ok(opened) => Ok(opened?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn redis_settings(config: &Config, url: &Secret<String>, partitions: u16) -> RedisSettings {
    let store = &config.store;
    RedisSettings {
        url: url.clone(),
        namespace: store.namespace.as_str().to_owned(),
        partitions,
        timeout: store.timeout,
        pool: store.pool,
        tls: cloakroom_redis::TlsFiles {
            ca: store.tls_ca_file.clone(),
            cert: store.tls_cert_file.clone(),
            key: store.tls_key_file.clone(),
        },
        replica_wait: store.replica_wait,
    }
}

/// How a store in PostgreSQL is reached.
pub(crate) fn postgres_settings(
    config: &Config,
    url: &Secret<String>,
    partitions: u16,
) -> PostgresSettings {
    let store = &config.store;
    PostgresSettings {
        url: url.clone(),
        schema: store.namespace.as_str().to_owned(),
        partitions,
        timeout: store.timeout,
        pool: store.pool,
        tls: cloakroom_postgres::TlsFiles {
            ca_file: store.tls_ca_file.clone(),
            cert_file: store.tls_cert_file.clone(),
            key_file: store.tls_key_file.clone(),
        },
        migrate: store.migrate,
    }
}

/// How long a node waits for its store, and how often it tries.
#[derive(Clone, Copy)]
struct Patience {
    /// The longest in all.
    span: Duration,
    /// The first wait between two attempts; each next one is twice as long.
    first: Duration,
    /// The longest wait between two attempts.
    longest: Duration,
}

impl Patience {
    /// Tries again while it may help: after a power failure a node is often up before its store.
    async fn with<T, E: fmt::Display>(
        self,
        connect: impl AsyncFn() -> Result<T, E>,
        may_pass: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let gives_up_at = Instant::now() + self.span;
        let mut wait = self.first;
        loop {
            let error = match connect().await {
                Ok(store) => return Ok(store),
                Err(error) => error,
            };
            if !may_pass(&error) || Instant::now() + wait > gives_up_at {
                return Err(error);
            }
            tracing::warn!("{error}; trying again in {} ms", wait.as_millis());
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(self.longest);
        }
    }
}

fn system_time() -> Timestamp {
    cloakroom::Clock::now(&SystemClock)
}

/// Whoever started a node should know after a minute that it has no store.
const AT_START: Patience = Patience {
    span: Duration::from_secs(60),
    first: Duration::from_millis(250),
    longest: Duration::from_secs(5),
};

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn attempts(failures: u32, may_pass: bool) -> (u32, Result<(), String>) {
        let tried = Cell::new(0);
        let connect = async || {
            tried.set(tried.get() + 1);
            if tried.get() > failures { Ok(()) } else { Err("away".to_owned()) }
        };
        let patience = Patience {
            span: Duration::from_millis(200),
            first: Duration::from_millis(1),
            longest: Duration::from_millis(20),
        };
        let outcome = patience.with(connect, |_| may_pass).await;
        (tried.get(), outcome)
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_for_a_while() {
        assert_eq!(attempts(4, true).await, (5, Ok(())));
        let (tried, outcome) = attempts(1000, true).await;
        assert!((3..20).contains(&tried), "{tried}");
        assert!(outcome.is_err());
    }

    #[tokio::test]
    async fn what_stays_wrong_is_said_at_once() {
        assert_eq!(attempts(1, false).await, (1, Err("away".to_owned())));
    }
}
