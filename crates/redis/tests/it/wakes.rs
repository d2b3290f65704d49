//! Wake-ups: an ending by one node is told to the others, and losing one costs nothing else.

use std::time::Duration;

use cloakroom_core::event::FeedEntry;
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_redis::RedisStore;
use cloakroom_store::{Batch, Commit, Log, Store, Tick};
use tokio::time::timeout;

use crate::servers::{Process, redis};
use crate::world::{Cluster, HERE, connect, settings};

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for what would come to have come.
const MOMENT: Duration = Duration::from_millis(200);

/// A batch that others should know of at once.
fn ending() -> Batch {
    let mut batch = Batch::default();
    batch.feed(FeedEntry::AllEnded { at: Timestamp::from_secs(1) });
    batch
}

async fn end(store: &RedisStore, partition: Partition) {
    let commit = store.commit(partition, ending()).await.expect("a commit");
    assert!(matches!(commit, Commit::Done(_)), "{commit:?}");
}

async fn woken(store: &RedisStore) -> Vec<Partition> {
    timeout(PATIENCE, store.changed()).await.expect("it wakes")
}

/// What one store commits wakes another, wherever it lies.
async fn endings_wake(url: &str) {
    let both = settings(url);
    let (one, other) = (connect(&both).await, connect(&both).await);
    // Whoever begins to listen is told that anything may have changed.
    assert!(woken(&one).await.is_empty());
    for number in 0..4 {
        end(&other, Partition(number)).await;
        assert_eq!(woken(&one).await, [Partition(number)]);
    }
    // What ends nothing wakes nobody.
    let mut batch = Batch::default();
    batch.feed(FeedEntry::RecordChanged);
    other.commit(HERE, batch).await.expect("a commit");
    assert!(timeout(MOMENT, one.changed()).await.is_err());
    // Nor does another store on the same server.
    end(&connect(&settings(url)).await, HERE).await;
    assert!(timeout(MOMENT, one.changed()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ending_wakes_those_who_follow() {
    let server = Process::start(redis(), &[]);
    endings_wake(&format!("redis://127.0.0.1:{}", server.port)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ending_wakes_those_who_follow_whichever_server_of_a_cluster_has_it() {
    let cluster = Cluster::start(redis());
    endings_wake(&cluster.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_was_cut_off_listens_again() {
    let server = Process::start(redis(), &[]);
    let settings = settings(&format!("redis://127.0.0.1:{}", server.port));
    let (one, other) = (connect(&settings).await, connect(&settings).await);
    assert!(woken(&one).await.is_empty());
    assert_eq!(server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]), "1");
    assert!(woken(&one).await.is_empty(), "it is back");
    end(&other, HERE).await;
    assert_eq!(woken(&one).await, [HERE]);
}

/// Nobody's commit depends on who may publish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_the_channel_commits_all_the_same() {
    let server = Process::start(redis(), &[]);
    server.wait_until_ready();
    let rule = ["ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "resetchannels"];
    assert_eq!(server.cli(&rule), "OK");
    let store = connect(&settings(&format!("redis://app:secret@127.0.0.1:{}", server.port))).await;
    assert!(timeout(Duration::from_millis(700), store.changed()).await.is_err());
    end(&store, HERE).await;
    let log = store.log(HERE, Log::Feed, Tick::ZERO, 9).await.expect("a log");
    assert_eq!(log.len(), 1);
}
