//! What was answered is visible to every later call, and always one state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::samples::audit;
use super::*;

/// To a load, a page, the filings and the log, at once.
pub async fn a_commit_is_visible_to_every_later_call<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut expected = Version::ZERO;
    for number in 1..=50 {
        let mut batch = put_filed(counter(1), expected, number, Review::At(Timestamp::EPOCH));
        batch.entries = vec![audit(&number.to_string())];
        expected = done(&store, batch).await.tick;
        assert_eq!(count(&store, &counter(1)).await, Some(number));
        let page = store.page(HERE, Kind::Throttle, None, 9).await.expect("a page");
        assert_eq!(page.iter().map(|(_, found)| count_of(found)).collect::<Vec<_>>(), [number]);
        let logged = store.log(HERE, Log::Audit, expected, 9).await.expect("a log");
        assert_eq!(logged.len(), 1);
        let back = store.log_back(HERE, Log::Audit, Tick(u64::MAX), 1).await.expect("a log");
        assert_eq!(back, logged);
        assert_eq!(all_due(&store).await, [counter(1)]);
    }
    done(&store, delete(counter(1), expected)).await;
    assert_eq!(count(&store, &counter(1)).await, None);
}

/// Those that aren't there leave a gap, and asking twice answers twice.
pub async fn records_are_loaded_in_the_order_of_their_keys<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    for number in [1, 2, 3] {
        done(&store, put(counter(number), Version::ZERO, number.into())).await;
    }
    let keys = [3, 9, 1, 3, 2].map(counter);
    let found = store.load(HERE, &keys).await.expect("a load");
    let counts: Vec<_> = found.iter().map(|found| found.as_ref().map(count_of)).collect();
    assert_eq!(counts, [Some(3), None, Some(1), Some(3), Some(2)]);
    assert!(store.load(HERE, &[]).await.expect("a load").is_empty());
}

const COMMITS: u64 = 150;

/// Records that are always written together are never seen apart.
pub async fn loads_of_one_call_see_one_state<H: Harness>(harness: &H) {
    let store = Arc::new(harness.fresh().await);
    let keys = [counter(1), counter(2), counter(200)];
    write_all(&*store, &keys, 0).await;
    let is_written = Arc::new(AtomicBool::new(false));
    let mut tasks: Vec<Task> = Vec::new();
    let (writing, written, all) = (Arc::clone(&store), Arc::clone(&is_written), keys.clone());
    tasks.push(Box::pin(async move {
        for number in 1..=COMMITS {
            write_all(&*writing, &all, number).await;
        }
        written.store(true, Ordering::SeqCst);
    }));
    for _ in 0..3 {
        let (store, is_written, keys) = (Arc::clone(&store), Arc::clone(&is_written), keys.clone());
        tasks.push(Box::pin(async move {
            let mut last = 0;
            while !is_written.load(Ordering::SeqCst) {
                let found = store.load(HERE, &keys).await.expect("a load");
                let found: Vec<_> = found.iter().flatten().collect();
                assert_eq!(found.len(), keys.len());
                let count = count_of(found[0]);
                assert!(found.iter().all(|f| count_of(f) == count), "torn: {found:?}");
                assert!(found.iter().all(|f| f.version == found[0].version), "torn: {found:?}");
                assert!(count >= last, "{count} after {last}");
                last = count;
                give_way().await;
            }
        }));
    }
    harness.together(tasks).await;
}

/// Writes one number to all keys in one commit; nobody else writes them.
async fn write_all<S: Store>(store: &S, keys: &[Key], number: u64) {
    let mut batch = Batch::default();
    for key in keys {
        let expected = version(store, key).await;
        batch.put(key.clone(), expected, Record::Throttle(number), Review::Keep);
    }
    done(store, batch).await;
}

/// One key is another record in each; nothing of one shows in another.
pub async fn partitions_are_apart<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    assert!(store.partitions() >= 4, "the suite needs four partitions");
    let mut batch = put_filed(counter(1), Version::ZERO, 1, Review::At(Timestamp::EPOCH));
    batch.entries = samples::entries();
    done(&store, batch).await;
    let others = (0..store.partitions()).map(Partition).filter(|other| *other != HERE);
    for other in others.take(8) {
        let found = store.load(other, &[counter(1)]).await.expect("a load");
        assert!(found[0].is_none());
        assert!(store.page(other, Kind::Throttle, None, 9).await.expect("a page").is_empty());
        assert!(store.due(other, Timestamp::MAX, 9).await.expect("what is due").is_empty());
        for log in [Log::Feed, Log::Audit] {
            assert!(store.log(other, log, Tick::ZERO, 9).await.expect("a log").is_empty());
            let back = store.log_back(other, log, Tick(u64::MAX), 9).await;
            assert!(back.expect("a log").is_empty());
        }
        let batch = put(counter(1), Version::ZERO, u64::from(other.0) + 100);
        let commit = store.commit(other, batch).await.expect("a commit");
        assert!(matches!(commit, Commit::Done(_)));
    }
    assert_eq!(count(&store, &counter(1)).await, Some(1));
}

/// An error and not a panic, nor an empty answer; a made-up id may name one.
pub async fn a_partition_that_does_not_exist_is_an_error<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    for number in [store.partitions(), u16::MAX] {
        let nowhere = Partition(number);
        let (kind, log) = (Kind::Throttle, Log::Feed);
        assert!(store.load(nowhere, &[counter(1)]).await.is_err());
        assert!(store.commit(nowhere, put(counter(1), Version::ZERO, 1)).await.is_err());
        let entries = Batch { entries: vec![audit("nowhere")], ..Batch::default() };
        assert!(store.commit(nowhere, entries).await.is_err());
        assert!(store.page(nowhere, kind, None, 9).await.is_err());
        assert!(store.due(nowhere, Timestamp::MAX, 9).await.is_err());
        assert!(store.log(nowhere, log, Tick::ZERO, 9).await.is_err());
        assert!(store.log_back(nowhere, log, Tick(u64::MAX), 9).await.is_err());
        assert!(store.trim(nowhere, log, Timestamp::MAX, 9).await.is_err());
    }
}
