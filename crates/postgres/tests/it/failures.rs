//! Servers that stop, hang, refuse and die: what a call says then, and what it did.

use std::time::{Duration, Instant};

use cloakroom_core::types::Secret;
use cloakroom_postgres::{PostgresSettings, PostgresStore};
use cloakroom_store::{Batch, Durability, Store, StoreError, Version};
use tokio_postgres::Client;

use crate::server::{PASSWORD, Server, shared, signal_to};
use crate::world::{HERE, connect, count, counter, done, put};

/// Short enough to wait for.
const PATIENCE: Duration = Duration::from_millis(800);

fn hasty(settings: PostgresSettings) -> PostgresSettings {
    PostgresSettings { timeout: PATIENCE, ..settings }
}

/// Locks a partition, for as long as the client lives.
async fn lock_partition(client: &Client, schema: &str) {
    let lock = format!(
        "BEGIN; UPDATE {schema}.partitions SET last_tick = last_tick WHERE partition = {}",
        HERE.0
    );
    client.batch_execute(&lock).await.expect("a lock");
}

/// The process that waits for a lock in a commit.
async fn waiting_backend(client: &Client) -> u32 {
    let sql = "SELECT pid FROM pg_stat_activity \
               WHERE wait_event_type = 'Lock' AND query LIKE '%commit_batch%'";
    loop {
        let row = client.query_opt(sql, &[]).await.expect("rows");
        if let Some(pid) = row.map(|row| row.get::<_, i32>(0)) {
            return u32::try_from(pid).expect("a pid");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until commits are taken again; says how long it took.
async fn recover(store: &PostgresStore) -> Duration {
    let began = Instant::now();
    while store.now().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "it doesn't come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_backend_is_killed_has_an_unknown_outcome() {
    let server = Server::start(&[]).await;
    let settings = server.settings();
    let store = std::sync::Arc::new(connect(&settings).await);
    let acknowledged = done(&store, put(counter(1), Version::ZERO, 1)).await.tick;
    let (locker, watcher) = (server.client().await, server.client().await);
    lock_partition(&locker, &settings.schema).await;
    let committing = tokio::spawn({
        let store = std::sync::Arc::clone(&store);
        async move { store.commit(HERE, put(counter(2), Version::ZERO, 2)).await }
    });
    signal_to("KILL", waiting_backend(&watcher).await);
    let outcome = committing.await.expect("a task");
    assert!(matches!(outcome, Err(StoreError::OutcomeUnknown(_))), "{outcome:?}");
    recover(&store).await;
    // What was acknowledged outlived the crash of the whole server; what wasn't never happened.
    let found = count(&store, &counter(1)).await.expect("a load");
    assert_eq!(found, Some((1, acknowledged)));
    assert_eq!(count(&store, &counter(2)).await.expect("a load"), None);
    let later = done(&store, put(counter(2), Version::ZERO, 2)).await.tick;
    assert!(later > acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_given_up_in_time_and_used_again_when_it_goes_on() {
    let server = Server::start(&[]).await;
    let store = connect(&hasty(server.settings())).await;
    // Nothing to announce: a wake-up would take the one connection that there is.
    let silent = |number| Batch { entries: Vec::new(), ..put(counter(number), Version::ZERO, 1) };
    done(&store, silent(1)).await;
    server.freeze();
    let began = Instant::now();
    let commit = store.commit(HERE, silent(2)).await;
    assert!(matches!(commit, Err(StoreError::OutcomeUnknown(_))), "{commit:?}");
    assert!(began.elapsed() < PATIENCE * 2, "{:?}", began.elapsed());
    let began = Instant::now();
    let load = count(&store, &counter(1)).await;
    assert!(matches!(load, Err(StoreError::Unavailable(_))), "{load:?}");
    // It can't be sent any more, so it had no effect.
    let commit = store.commit(HERE, silent(3)).await;
    assert!(matches!(commit, Err(StoreError::Unavailable(_))), "{commit:?}");
    assert!(began.elapsed() < PATIENCE * 4, "{:?}", began.elapsed());
    server.thaw();
    assert!(recover(&store).await < Duration::from_secs(2));
    let found = count(&store, &counter(1)).await.expect("a load");
    assert_eq!(found.map(|found| found.0), Some(1));
    assert_eq!(count(&store, &counter(3)).await.expect("a load"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_used_again_by_itself() {
    let server = Server::start(&[]).await;
    let settings = server.settings();
    let store = connect(&settings).await;
    done(&store, put(counter(1), Version::ZERO, 1)).await;
    // All connections are cut, idle ones too; a read finds that out and takes a new one.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE pid <> pg_backend_pid() AND application_name = 'cloakroom'";
    server.client().await.query(cut, &[]).await.expect("rows");
    let found = count(&store, &counter(1)).await.expect("a load");
    assert_eq!(found.map(|found| found.0), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waited_too_long_for_its_partition_had_no_effect() {
    let server = shared().await;
    let settings = hasty(server.settings());
    let store = connect(&settings).await;
    let locker = server.client().await;
    lock_partition(&locker, &settings.schema).await;
    let began = Instant::now();
    let commit = store.commit(HERE, put(counter(1), Version::ZERO, 1)).await;
    assert!(matches!(commit, Err(StoreError::Unavailable(_))), "{commit:?}");
    assert!(began.elapsed() < PATIENCE * 2, "{:?}", began.elapsed());
    // Loads wait for no writer, and other partitions for none of this one.
    assert_eq!(count(&store, &counter(1)).await.expect("a load"), None);
    let elsewhere =
        store.commit(cloakroom_core::types::Partition(2), put(counter(1), Version::ZERO, 1));
    elsewhere.await.expect("a commit");
    locker.batch_execute("ROLLBACK").await.expect("an end");
    done(&store, put(counter(1), Version::ZERO, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_is_unavailable_and_nothing_worse() {
    let server = shared().await;
    let settings = PostgresSettings { pool: 1, ..hasty(server.settings()) };
    let store = std::sync::Arc::new(connect(&settings).await);
    done(&store, put(counter(1), Version::ZERO, 1)).await;
    let locker = server.client().await;
    lock_partition(&locker, &settings.schema).await;
    let calls: Vec<_> = (0..8)
        .map(|number| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                store.commit(HERE, put(counter(100 + number), Version::ZERO, 1)).await
            })
        })
        .collect();
    for call in calls {
        let outcome = call.await.expect("a task");
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    }
    locker.batch_execute("ROLLBACK").await.expect("an end");
    done(&store, put(counter(2), Version::ZERO, 1)).await;
}

#[tokio::test]
async fn a_read_only_server_takes_no_writes_and_answers_reads() {
    let server = shared().await;
    let settings = server.settings();
    let store = connect(&settings).await;
    done(&store, put(counter(1), Version::ZERO, 1)).await;
    let make = format!(
        "CREATE ROLE reader SUPERUSER LOGIN PASSWORD '{PASSWORD}'; \
         ALTER ROLE reader SET default_transaction_read_only = on"
    );
    server.client().await.batch_execute(&make).await.expect("a role");
    let url = Secret::new(server.url_of("reader", "postgres"));
    let reader = connect(&PostgresSettings { url, ..settings }).await;
    let found = count(&reader, &counter(1)).await.expect("a load");
    assert_eq!(found.map(|found| found.0), Some(1));
    let commit = reader.commit(HERE, put(counter(2), Version::ZERO, 1)).await;
    assert!(matches!(commit, Err(StoreError::ReadOnly(_))), "{commit:?}");
    let before = cloakroom_core::types::Timestamp::MAX;
    let trim = reader.trim(HERE, cloakroom_store::Log::Feed, before, 9).await;
    assert!(matches!(trim, Err(StoreError::ReadOnly(_))), "{trim:?}");
    let url = Secret::new(server.url_of("reader", "postgres"));
    let told =
        crate::world::refusal(&PostgresSettings { url, ..server.settings_of("unmade") }).await;
    assert!(told.contains("read-only"), "{told}");
}

#[tokio::test]
async fn durability_is_what_the_server_is_set_to() {
    let server = shared().await;
    let settings = server.settings();
    let store = connect(&settings).await;
    let durable = done(&store, put(counter(1), Version::ZERO, 1)).await;
    assert_eq!(durable.durability, Durability::Durable);
    let make = format!(
        "CREATE ROLE careless SUPERUSER LOGIN PASSWORD '{PASSWORD}'; \
         ALTER ROLE careless SET synchronous_commit = off"
    );
    server.client().await.batch_execute(&make).await.expect("a role");
    let url = Secret::new(server.url_of("careless", "postgres"));
    let careless = connect(&PostgresSettings { url, ..settings }).await;
    let local = done(&careless, put(counter(2), Version::ZERO, 1)).await;
    assert_eq!(local.durability, Durability::Local);
}
