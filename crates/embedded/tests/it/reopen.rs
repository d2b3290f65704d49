//! What survives closing and opening, and what the clock can't do.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_embedded::{Embedded, Options};
use cloakroom_store::{Batch, Key, Log, Record, Review, Store, StoreError, Tick};

use crate::world::{Writer, block_on, open, options};

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut done = 0;
    for round in 1..=5u64 {
        let store = open(dir.path());
        block_on(async {
            let mut writer = Writer::resume(&store, 3).await;
            assert_eq!(writer.number, done);
            for _ in 0..40 {
                writer.commit(&store, 1000 * usize::try_from(round).expect("small")).await;
            }
            writer.check(&store).await;
            done = writer.number;
        });
        store.close();
    }
    assert_eq!(done, 200);
}

#[test]
fn a_version_read_before_reopening_is_still_expected() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let mut writer = block_on(Writer::resume(&store, 0));
    block_on(writer.commit(&store, 10));
    drop(store);
    let store = open(dir.path());
    block_on(writer.commit(&store, 10));
    block_on(writer.check(&store));
}

#[test]
fn partitions_are_fixed_when_the_store_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(open(dir.path()).partitions(), 8);
    let other = Options { partitions: 64, ..options() };
    let store = Embedded::open(dir.path(), other).expect("the store opens");
    assert_eq!(store.partitions(), 8);
    let unknown = block_on(store.load(Partition(8), &[Key::Partition]));
    assert!(matches!(unknown, Err(StoreError::NoPartition(Partition(8)))));
    let unknown = block_on(store.commit(Partition(u16::MAX), Batch::default()));
    assert!(matches!(unknown, Err(StoreError::NoPartition(_))));
}

#[test]
fn a_clock_set_back_lowers_no_tick() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(AtomicI64::new(1_800_000_000_000));
    let open = || {
        let clock = Arc::clone(&clock);
        let now = move || Timestamp::from_millis(clock.load(Ordering::Relaxed));
        Embedded::open_with_clock(dir.path(), options(), now).expect("the store opens")
    };
    let store = open();
    assert_eq!(store.last_commit_at(), None);
    let mut writer = block_on(Writer::resume(&store, 1));
    let first = block_on(writer.commit(&store, 10));
    assert_eq!(first.instant(), Timestamp::from_millis(1_800_000_000_000));
    clock.fetch_sub(3_600_000, Ordering::Relaxed);
    let second = block_on(writer.commit(&store, 10));
    assert_eq!(second, first.successor());
    drop(store);

    let store = open();
    assert_eq!(store.last_commit_at(), Some(first.instant()));
    let third = block_on(writer.commit(&store, 10));
    assert_eq!(third, second.successor());
    block_on(writer.check(&store));
}

#[test]
fn no_tick_comes_back_when_all_that_bore_it_is_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let later = Timestamp::from_secs(2_000_000_000);
    let opened = Embedded::open_with_clock(dir.path(), options(), move || later);
    let store = opened.expect("the store opens");
    let mut writer = block_on(Writer::resume(&store, 1));
    let last = block_on(writer.commit(&store, 10));
    let end = later.plus(Duration::from_secs(1));
    assert_eq!(block_on(store.trim(Partition(1), Log::Feed, end, 10)).ok(), Some(1));
    drop(store);

    let store = open(dir.path());
    let left = block_on(store.log(Partition(1), Log::Feed, Tick::ZERO, 10)).expect("a log");
    assert_eq!(left, []);
    let next = block_on(writer.commit(&store, 10));
    assert!(next > last);
}

#[test]
fn commits_that_race_in_one_group_lose_no_update() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(dir.path()));
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let add = async |store: &Embedded| loop {
        let found = store.load(Partition(2), &[RACED]).await.expect("a load").remove(0);
        let (was, version) = found.map_or((0, Tick::ZERO), |found| {
            (*found.record.as_throttle().expect("a number"), found.version)
        });
        let mut batch = Batch::default();
        batch.put(RACED, version, Record::Throttle(was + 1), Review::Never);
        let commit = store.commit(Partition(2), batch).await.expect("a commit");
        if matches!(commit, cloakroom_store::Commit::Done(_)) {
            break;
        }
    };
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let store = Arc::clone(&store);
            runtime.spawn(async move {
                for _ in 0..10 {
                    add(&store).await;
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).expect("a task");
    }
    let found = block_on(store.load(Partition(2), &[RACED])).expect("a load").remove(0);
    let sum = found.and_then(|found| found.record.into_throttle());
    assert_eq!(sum, Some(640));
}

const RACED: Key = Key::Throttle([7; 32]);
