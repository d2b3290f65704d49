//! Pages visit each record of a kind once, in a fixed order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// All keys of a kind, read in pages.
async fn visit<S: Store>(store: &S, kind: Kind, limit: usize) -> Vec<Key> {
    let mut visited: Vec<Key> = Vec::new();
    loop {
        let page = store.page(HERE, kind, visited.last(), limit).await.expect("a page");
        assert!(page.len() <= limit, "{} of {limit}", page.len());
        let is_last = page.len() < limit;
        visited.extend(page.into_iter().map(|(key, _)| key));
        if is_last {
            return visited;
        }
    }
}

/// Counters whose keys are spread over all that keys can be.
fn spread(number: u8) -> Key {
    let mut name = [number.wrapping_mul(37); 32];
    name[31] = number;
    Key::Throttle(name)
}

async fn fill<S: Store>(store: &S, numbers: impl Iterator<Item = u8>) {
    let mut batch = Batch::default();
    for number in numbers {
        let record = Record::Throttle(number.into());
        batch.put(spread(number), Version::ZERO, record, Review::Never);
    }
    done(store, batch).await;
}

/// Whatever the limit is, all of them, once, and always in the same order.
pub async fn pages_visit_each_record_once<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    assert!(visit(&store, Kind::Throttle, 3).await.is_empty());
    fill(&store, 0..50).await;
    let in_order = visit(&store, Kind::Throttle, 1000).await;
    let all: BTreeSet<_> = in_order.iter().cloned().collect();
    assert_eq!(in_order.len(), 50);
    assert_eq!(all, (0..50).map(spread).collect());
    for limit in [1, 7, 25, 50] {
        assert_eq!(visit(&store, Kind::Throttle, limit).await, in_order);
    }
    let page = store.page(HERE, Kind::Throttle, None, 50).await.expect("a page");
    for (key, found) in page {
        let Key::Throttle(name) = key else { panic!("{key} is no counter") };
        assert_eq!(count_of(&found), u64::from(name[31]));
        assert_eq!(found.version, version(&store, &Key::Throttle(name)).await);
    }
    let elsewhere = store.page(ELSEWHERE, Kind::Throttle, None, 9).await.expect("a page");
    assert!(elsewhere.is_empty());
}

/// Kinds whose keys look alike don't show up in each other's pages.
pub async fn pages_are_of_one_kind<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let records = samples::one_of_each_kind();
    let mut batch = Batch::default();
    for (key, record) in records.iter().cloned().chain(samples::other_forms()) {
        batch.put(key, Version::ZERO, record, Review::Never);
    }
    done(&store, batch).await;
    let mut found = 0;
    for kind in Kind::ALL {
        let visited = visit(&store, kind, 1).await;
        assert!(visited.iter().all(|key| key.kind() == kind), "{visited:?}");
        assert!(!visited.is_empty(), "no {kind:?}");
        found += visited.len();
    }
    assert_eq!(found, records.len() + samples::other_forms().len());
}

/// The key need not exist any more, nor ever have existed.
pub async fn a_page_goes_on_after_a_key_that_is_gone<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    fill(&store, 0..10).await;
    let in_order = visit(&store, Kind::Throttle, 100).await;
    let gone = &in_order[4];
    let expected = version(&store, gone).await;
    done(&store, delete(gone.clone(), expected)).await;
    let page = store.page(HERE, Kind::Throttle, Some(gone), 100).await.expect("a page");
    let keys: Vec<_> = page.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, in_order[5..]);
    let last = in_order.last();
    assert!(store.page(HERE, Kind::Throttle, last, 9).await.expect("a page").is_empty());
}

/// Others come and go around them; these are met, each once, by every reader.
pub async fn paging_meets_each_record_that_stays_while_others_come_and_go<H: Harness>(harness: &H) {
    let store = Arc::new(harness.fresh().await);
    fill(&*store, (0..60).filter(|number| number % 2 == 0)).await;
    let is_read = Arc::new(AtomicBool::new(false));
    let (writing, reading) = (Arc::clone(&store), Arc::clone(&store));
    let (stop, finished) = (Arc::clone(&is_read), is_read);
    let writer: Task = Box::pin(async move {
        for number in (0..60).filter(|number| number % 2 == 1).cycle() {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let expected = version(&*writing, &spread(number)).await;
            let batch = match expected {
                Version::ZERO => put(spread(number), Version::ZERO, 0),
                _ => delete(spread(number), expected),
            };
            done(&*writing, batch).await;
            give_way().await;
        }
    });
    let reader: Task = Box::pin(async move {
        for limit in [1, 2, 5, 11] {
            let visited = visit(&*reading, Kind::Throttle, limit).await;
            let unique: BTreeSet<_> = visited.iter().cloned().collect();
            assert_eq!(unique.len(), visited.len(), "one was met twice");
            for number in (0..60).filter(|number| number % 2 == 0) {
                assert!(unique.contains(&spread(number)), "{number} was missed");
            }
        }
        finished.store(true, Ordering::SeqCst);
    });
    harness.together(vec![writer, reader]).await;
}
