//! What only the reference model can do: go back, and have its clock turned back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::{Batch, Commit, Key, Log, MemoryStore, Record, Review, Store, Tick, Version};

const HERE: Partition = Partition(0);
const OTHER: Partition = Partition(1);
const KEY: Key = Key::Throttle([1; 32]);

fn store() -> (MemoryStore, Arc<AtomicI64>) {
    let clock = Arc::new(AtomicI64::new(1_000_000));
    let read = Arc::clone(&clock);
    let now = move || Timestamp::from_millis(read.load(Ordering::SeqCst));
    (MemoryStore::new(2, now), clock)
}

async fn put(store: &MemoryStore, partition: Partition, expected: Version, count: u64) -> Tick {
    let mut batch = Batch::default();
    batch.put(KEY, expected, Record::Throttle(count), Review::At(Timestamp::EPOCH));
    batch.feed(cloakroom_core::event::FeedEntry::RecordChanged);
    match store.commit(partition, batch).await.expect("a commit") {
        Commit::Done(committed) => committed.tick,
        Commit::Conflict(key) => panic!("{key} has moved"),
    }
}

async fn count(store: &MemoryStore, partition: Partition) -> Option<u64> {
    let found = store.load(partition, &[KEY]).await.expect("a load");
    found[0].as_ref().and_then(|found| found.record.as_throttle().copied())
}

#[tokio::test]
async fn a_clock_that_steps_back_lowers_no_tick() {
    let (store, clock) = store();
    let before = put(&store, HERE, Version::ZERO, 1).await;
    clock.store(5, Ordering::SeqCst);
    let after = put(&store, HERE, before, 2).await;
    assert!(after > before);
    assert_eq!(after.instant(), before.instant());
    clock.store(2_000_000, Ordering::SeqCst);
    let later = put(&store, HERE, after, 3).await;
    assert_eq!(later, Tick::at(Timestamp::from_millis(2_000_000)));
}

#[tokio::test]
async fn a_restored_store_is_what_it_was_logs_and_filings_included() {
    let (store, clock) = store();
    let first = put(&store, HERE, Version::ZERO, 1).await;
    let then = store.snapshot();
    put(&store, HERE, first, 2).await;
    put(&store, OTHER, Version::ZERO, 7).await;
    clock.fetch_add(1000, Ordering::SeqCst);
    store.restore(then);
    assert_eq!(count(&store, HERE).await, Some(1));
    assert_eq!(count(&store, OTHER).await, None);
    let feed = store.log(HERE, Log::Feed, Tick::ZERO, 9).await.expect("a log");
    assert_eq!(feed.iter().map(|logged| logged.cursor).collect::<Vec<_>>(), [first]);
    assert!(store.due(OTHER, Timestamp::MAX, 9).await.expect("what is due").is_empty());
    let now = store.now().await.expect("an instant");
    assert_eq!(put(&store, HERE, first, 3).await.instant(), now);
}

#[tokio::test]
async fn one_partition_goes_back_alone() {
    let (store, _) = store();
    let then = store.snapshot();
    put(&store, HERE, Version::ZERO, 1).await;
    put(&store, OTHER, Version::ZERO, 1).await;
    store.restore_partition(HERE, &then);
    assert_eq!(count(&store, HERE).await, None);
    assert_eq!(count(&store, OTHER).await, Some(1));
}
