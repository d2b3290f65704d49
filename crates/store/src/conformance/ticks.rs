//! Ticks of a partition only grow, and are the versions of what they wrote.

use super::samples::audit;
use super::*;

/// Faster than the clock, from commit to commit of any sort; and they tell the time.
pub async fn ticks_only_grow<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let began_at = store.now().await.expect("an instant");
    let (mut last, mut expected) = (Tick::ZERO, Version::ZERO);
    for number in 0..100 {
        let batch = match number % 3 {
            0 => Batch { entries: vec![audit("only")], ..Batch::default() },
            _ => put(counter(1), expected, number),
        };
        let is_write = !batch.writes.is_empty();
        let tick = done(&store, batch).await.tick;
        assert!(tick > last, "{tick:?} after {last:?}");
        assert!(tick >= Tick::at(began_at), "{tick:?} is before {began_at:?}");
        last = tick;
        if is_write {
            expected = tick;
        }
    }
    let ended_at = store.now().await.expect("an instant");
    assert!(last.instant() <= ended_at.plus(Duration::from_secs(1)));
}

/// The same for all that a commit wrote, wherever it is read.
pub async fn a_version_is_the_tick_of_its_commit<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut batch = put(counter(1), Version::ZERO, 1);
    batch.put(counter(2), Version::ZERO, Record::Throttle(2), Review::Keep);
    batch.entries = samples::entries();
    let tick = done(&store, batch).await.tick;
    for number in [1, 2] {
        assert_eq!(version(&store, &counter(number)).await, tick);
    }
    let page = store.page(HERE, Kind::Throttle, None, 9).await.expect("a page");
    assert!(page.iter().all(|(_, found)| found.version == tick));
    for log in [Log::Feed, Log::Audit] {
        let logged = all_logged(&store, log).await;
        assert!(logged.iter().all(|logged| logged.cursor == tick));
    }
    let next = done(&store, put(counter(1), tick, 3)).await.tick;
    assert_eq!(version(&store, &counter(1)).await, next);
    assert_eq!(version(&store, &counter(2)).await, tick);
}

/// A record that was deleted and made again, alike, is another one.
pub async fn no_version_ever_comes_back<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut seen = Vec::new();
    for _ in 0..10 {
        let tick = done(&store, put(counter(1), Version::ZERO, 1)).await.tick;
        assert!(!seen.contains(&tick));
        for old in &seen {
            assert_eq!(conflict(&store, put(counter(1), *old, 2)).await, counter(1));
            assert_eq!(conflict(&store, delete(counter(1), *old)).await, counter(1));
        }
        assert_eq!(count(&store, &counter(1)).await, Some(1));
        done(&store, delete(counter(1), tick)).await;
        seen.push(tick);
    }
}
