//! Opening the configured store: at once where it is ours, with patience where it is a server.

use std::fmt;
use std::time::Duration;

use cloakroom::SystemClock;
use cloakroom_core::types::{Secret, Timestamp};
use cloakroom_embedded::{DirLock, Embedded};
use cloakroom_postgres::{ConnectError, PostgresSettings, PostgresStore};
use cloakroom_redis::{RedisError, RedisSettings, RedisStore};
use cloakroom_store::memory::MemoryStore;
use tokio::time::Instant;

use super::StartError;
use crate::any_store::AnyStore;
use crate::config::{Config, StoreUrl};
use crate::node_files;

/// The embedded store's folder in the data directory.
const STORE_DIR: &str = "store";

/// Opens the store that the configuration names, and keeps the data directory for this process.
///
/// An embedded store keeps its directory by itself.
pub(super) async fn open(config: &Config) -> Result<(AnyStore, Option<DirLock>), StartError> {
    match &config.store.url {
        StoreUrl::Memory => {
            let store = MemoryStore::new(config.store.partitions, system_time);
            Ok((AnyStore::Memory(store), None))
        }
        StoreUrl::File(_) => Ok((AnyStore::Embedded(embedded(config).await?), None)),
        StoreUrl::Redis { topology: _, url } => {
            let lock = keep_data_dir(config)?;
            let settings = redis_settings(config, url);
            let connect = async || RedisStore::connect(&settings).await;
            let store = patiently(connect, RedisError::is_transient).await?;
            Ok((AnyStore::Redis(store), Some(lock)))
        }
        StoreUrl::Postgres(url) => {
            let lock = keep_data_dir(config)?;
            let settings = postgres_settings(config, url);
            let connect = async || PostgresStore::connect(&settings).await;
            let store = patiently(connect, ConnectError::is_temporary).await?;
            Ok((AnyStore::Postgres(store), Some(lock)))
        }
    }
}

fn keep_data_dir(config: &Config) -> Result<DirLock, StartError> {
    node_files::make_dir(&config.data_dir)?;
    Ok(DirLock::acquire(&config.data_dir)?)
}

async fn embedded(config: &Config) -> Result<Embedded, StartError> {
    node_files::make_dir(&config.data_dir)?;
    let dir = config.data_dir.join(STORE_DIR);
    let options = cloakroom_embedded::Options {
        partitions: config.store.partitions,
        ..cloakroom_embedded::Options::default()
    };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&dir, options)).await;
    match opened {
        Ok(opened) => Ok(opened?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn redis_settings(config: &Config, url: &Secret<String>) -> RedisSettings {
    let store = &config.store;
    RedisSettings {
        url: url.clone(),
        namespace: store.namespace.as_str().to_owned(),
        partitions: store.partitions,
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

fn postgres_settings(config: &Config, url: &Secret<String>) -> PostgresSettings {
    let store = &config.store;
    PostgresSettings {
        url: url.clone(),
        schema: store.namespace.as_str().to_owned(),
        partitions: store.partitions,
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

/// Tries again while it may help: after a power failure a node is often up before its store.
async fn patiently<T, E: fmt::Display>(
    connect: impl AsyncFn() -> Result<T, E>,
    may_pass: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let gives_up_at = Instant::now() + PATIENCE;
    let mut wait = WAIT_MIN;
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
        wait = (wait * 2).min(WAIT_MAX);
    }
}

fn system_time() -> Timestamp {
    cloakroom::Clock::now(&SystemClock)
}

/// How long a node waits for its store before it gives up: whoever started it should know then.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first wait between two attempts; each next one is twice as long.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// The longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(5);

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
        let outcome = patiently(connect, |_| may_pass).await;
        (tried.get(), outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_for_a_while() {
        assert_eq!(attempts(4, true).await, (5, Ok(())));
        let began_at = Instant::now();
        let (tried, outcome) = attempts(1000, true).await;
        assert!((10..30).contains(&tried), "{tried}");
        assert!(outcome.is_err() && began_at.elapsed() <= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_wrong_is_said_at_once() {
        assert_eq!(attempts(1, false).await, (1, Err("away".to_owned())));
    }
}
