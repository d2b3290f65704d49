//! Several nodes on one store.

use std::time::Duration;

use cloakroom_core::event::FeedEntry;
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::{Batch, Commit, Entry, Log, Store, Tick, Version};

use crate::server::shared;
use crate::world::{HERE, connect, count, counter, done, put};

const NODES: usize = 2;
const WRITERS: usize = 4;
const INCREMENTS: u64 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_over_two_pools_lose_no_update_and_log_each_once() {
    let settings = shared().await.settings();
    let mut writing = Vec::new();
    for _ in 0..NODES {
        let store = std::sync::Arc::new(connect(&settings).await);
        for _ in 0..WRITERS {
            let store = std::sync::Arc::clone(&store);
            writing.push(tokio::spawn(async move {
                for _ in 0..INCREMENTS {
                    loop {
                        let found = count(&store, &counter(1)).await.expect("a load");
                        let (number, version) = found.unwrap_or((0, Version::ZERO));
                        let batch = put(counter(1), version, number + 1);
                        match store.commit(HERE, batch).await.expect("a commit") {
                            Commit::Done(_) => break,
                            Commit::Conflict(_) => {}
                        }
                    }
                }
            }));
        }
    }
    for writer in writing {
        writer.await.expect("a writer");
    }
    let store = connect(&settings).await;
    let total = INCREMENTS * (NODES * WRITERS) as u64;
    let (number, version) = count(&store, &counter(1)).await.expect("a load").expect("a record");
    assert_eq!(number, total);
    let logged = store.log(HERE, Log::Feed, Tick::ZERO, usize::MAX).await.expect("a log");
    assert_eq!(logged.len() as u64, total);
    assert!(logged.is_sorted_by(|one, next| one.cursor < next.cursor));
    assert!(logged.iter().all(|one| one.entry == Entry::Feed(FeedEntry::RecordChanged)));
    assert_eq!(logged.last().map(|last| last.cursor), Some(version));
}

/// A batch that others should know of at once.
fn ending() -> Batch {
    let mut batch = Batch::default();
    batch.feed(FeedEntry::AllEnded { at: Timestamp::from_secs(1) });
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ending_wakes_those_who_follow() {
    let settings = shared().await.settings();
    let (one, other) = (connect(&settings).await, connect(&settings).await);
    let patience = Duration::from_secs(20);
    // Whoever begins to listen is told that anything may have changed.
    let first = tokio::time::timeout(patience, one.changed()).await.expect("it listens");
    assert!(first.is_empty());
    done(&other, ending()).await;
    let woken = tokio::time::timeout(patience, one.changed()).await.expect("it wakes");
    assert_eq!(woken, [HERE]);
    let commit = other.commit(Partition(5), ending()).await.expect("a commit");
    assert!(matches!(commit, Commit::Done(_)));
    let woken = tokio::time::timeout(patience, one.changed()).await.expect("it wakes");
    assert_eq!(woken, [Partition(5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_was_cut_off_listens_again() {
    let server = shared().await;
    let settings = server.settings();
    let (one, other) = (connect(&settings).await, connect(&settings).await);
    let patience = Duration::from_secs(20);
    assert!(tokio::time::timeout(patience, one.changed()).await.expect("it listens").is_empty());
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE query = 'LISTEN {}_changed'",
        settings.schema
    );
    let cut: i64 = server.client().await.query_one(&sql, &[]).await.expect("a row").get(0);
    assert_eq!(cut, 1);
    assert!(tokio::time::timeout(patience, one.changed()).await.expect("it is back").is_empty());
    done(&other, ending()).await;
    let woken = tokio::time::timeout(patience, one.changed()).await.expect("it wakes");
    assert_eq!(woken, [HERE]);
}
