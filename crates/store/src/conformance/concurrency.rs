//! Concurrent commits behave as if one came after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::samples::audit;
use super::*;

const WRITERS: u8 = 8;
const INCREMENTS: u64 = 25;
const ROUNDS: u8 = 40;

/// No update is lost, and each commit has its entry, once, in the order in which they counted.
pub async fn concurrent_increments_are_all_counted<H: Harness>(harness: &H) {
    let store = Arc::new(harness.fresh().await);
    let writers = (0..WRITERS).map(|_| {
        let store = Arc::clone(&store);
        Box::pin(async move {
            for _ in 0..INCREMENTS {
                increment(&*store).await;
            }
        }) as Task
    });
    harness.together(writers.collect()).await;
    let total = u64::from(WRITERS) * INCREMENTS;
    assert_eq!(count(&*store, &counter(1)).await, Some(total));
    let logged = all_logged(&*store, Log::Audit).await;
    let reasons: Vec<_> = logged.iter().map(|logged| logged.entry.clone()).collect();
    let expected: Vec<_> = (1..=total).map(|count| audit(&count.to_string())).collect();
    assert_eq!(reasons, expected);
    let last = logged.last().map(|logged| logged.cursor);
    assert_eq!(last, Some(version(&*store, &counter(1)).await));
}

/// Adds one and logs what it came to, however often it takes.
async fn increment<S: Store>(store: &S) {
    loop {
        let found = load(store, &counter(1)).await;
        let next = found.as_ref().map_or(0, count_of) + 1;
        let mut batch = put(counter(1), found.map_or(Version::ZERO, |f| f.version), next);
        batch.entries = vec![audit(&next.to_string())];
        match store.commit(HERE, batch).await.expect("a commit") {
            Commit::Done(_) => return,
            Commit::Conflict(key) => assert_eq!(key, counter(1)),
        }
    }
}

/// Of many who create one record exactly one does, and the record is that one's.
pub async fn one_of_many_creations_wins<H: Harness>(harness: &H) {
    let store = Arc::new(harness.fresh().await);
    for round in 0..ROUNDS {
        let winners = Arc::new(AtomicUsize::new(0));
        let creators = (0..WRITERS).map(|writer| {
            let (store, winners) = (Arc::clone(&store), Arc::clone(&winners));
            Box::pin(async move {
                let batch = put(counter(round), Version::ZERO, u64::from(writer));
                if let Commit::Done(_) = store.commit(HERE, batch).await.expect("a commit") {
                    winners.fetch_add(1, Ordering::SeqCst);
                    let found = count(&*store, &counter(round)).await;
                    assert_eq!(found, Some(u64::from(writer)));
                }
            }) as Task
        });
        harness.together(creators.collect()).await;
        assert_eq!(winners.load(Ordering::SeqCst), 1);
    }
}

/// Each expects that the other's record is absent and puts its own: no write skew.
pub async fn two_that_exclude_each_other_never_both_happen<H: Harness>(harness: &H) {
    let store = Arc::new(harness.fresh().await);
    for round in 0..ROUNDS {
        let (one, other) = (counter(round), counter(round + 128));
        let tasks = [(one.clone(), other.clone()), (other, one)].map(|(mine, theirs)| {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let mut batch = put(mine, Version::ZERO, 1);
                batch.expect(theirs, Version::ZERO);
                store.commit(HERE, batch).await.expect("a commit");
            }) as Task
        });
        harness.together(tasks.into()).await;
        let keys = [counter(round), counter(round + 128)];
        let found = store.load(HERE, &keys).await.expect("a load");
        assert_eq!(found.iter().flatten().count(), 1, "one of the two");
    }
}

/// An update and a deletion of one version: exactly one of them happens.
pub async fn an_update_never_survives_the_deletion_it_missed<H: Harness>(harness: &H) {
    let store = Arc::new(harness.fresh().await);
    for round in 0..ROUNDS {
        let key = counter(round);
        let read = done(&*store, put(key.clone(), Version::ZERO, 1)).await.tick;
        let done = Arc::new(AtomicUsize::new(0));
        let batches = [put(key.clone(), read, 2), delete(key.clone(), read)];
        let tasks = batches.map(|batch| {
            let (store, done) = (Arc::clone(&store), Arc::clone(&done));
            Box::pin(async move {
                if let Commit::Done(_) = store.commit(HERE, batch).await.expect("a commit") {
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }) as Task
        });
        harness.together(tasks.into()).await;
        assert_eq!(done.load(Ordering::SeqCst), 1);
        assert!([None, Some(2)].contains(&count(&*store, &key).await));
    }
}
