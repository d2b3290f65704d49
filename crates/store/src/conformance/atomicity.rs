//! A commit applies all of its batch, or none of it where an expected version has moved.

use super::*;

use super::samples::audit;

/// Puts, deletions, filings and entries of one batch happen together.
pub async fn a_commit_applies_all_of_its_batch<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let first = done(&store, put(counter(1), Version::ZERO, 1)).await;
    done(&store, put(counter(2), Version::ZERO, 2)).await;
    let second = version(&store, &counter(2)).await;
    let mut batch = Batch::default();
    batch
        .put(counter(1), first.tick, Record::Throttle(10), Review::At(Timestamp::EPOCH))
        .delete(counter(2), second)
        .put(counter(3), Version::ZERO, Record::Throttle(30), Review::Never);
    batch.entries = vec![audit("a"), samples::entries().remove(0), audit("b")];
    let committed = done(&store, batch).await;
    assert_eq!(count(&store, &counter(1)).await, Some(10));
    assert_eq!(count(&store, &counter(2)).await, None);
    assert_eq!(count(&store, &counter(3)).await, Some(30));
    assert_eq!(all_due(&store).await, [counter(1)]);
    assert_eq!(all_logged(&store, Log::Audit).await.len(), 2);
    assert_eq!(all_logged(&store, Log::Feed).await.len(), 1);
    assert!(committed.tick > second);
}

/// One stale expectation, wherever it stands in the batch, stops all of it.
pub async fn a_commit_applies_nothing_where_a_version_has_moved<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut versions = Vec::new();
    for number in 0..3 {
        versions.push(done(&store, put(counter(number), Version::ZERO, 1)).await.tick);
    }
    for stale in 0..3 {
        let mut batch = Batch::default();
        for (number, version) in (0..3).zip(&versions) {
            let expected = if number == stale { Tick(version.0 - 1) } else { *version };
            let change = Record::Throttle(2);
            batch.put(counter(number), expected, change, Review::At(Timestamp::EPOCH));
        }
        batch.put(counter(9), Version::ZERO, Record::Throttle(9), Review::Never);
        batch.entries = samples::entries();
        assert_eq!(conflict(&store, batch).await, counter(stale));
        for (number, before) in (0..3).zip(&versions) {
            assert_eq!(version(&store, &counter(number)).await, *before);
            assert_eq!(count(&store, &counter(number)).await, Some(1));
        }
        assert_eq!(count(&store, &counter(9)).await, None);
        assert!(all_due(&store).await.is_empty());
        assert!(all_logged(&store, Log::Audit).await.is_empty());
        assert!(all_logged(&store, Log::Feed).await.is_empty());
    }
}

/// Of several that moved, one is named; of those that did not, none.
pub async fn a_conflict_names_a_key_that_moved<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let first = done(&store, put(counter(1), Version::ZERO, 1)).await.tick;
    let mut batch = put(counter(1), first, 2);
    batch.delete(counter(2), first);
    batch.expect(counter(3), first);
    let named = conflict(&store, batch).await;
    assert!([counter(2), counter(3)].contains(&named), "{named}");
}

/// Whoever expects nothing doesn't overwrite, and doesn't delete.
pub async fn what_is_there_is_not_absent<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    done(&store, put(counter(1), Version::ZERO, 1)).await;
    assert_eq!(conflict(&store, put(counter(1), Version::ZERO, 2)).await, counter(1));
    assert_eq!(conflict(&store, delete(counter(1), Version::ZERO)).await, counter(1));
    assert_eq!(count(&store, &counter(1)).await, Some(1));
}

/// Whoever expects a version doesn't create, whether there never was a record or no more.
pub async fn what_is_not_there_has_no_version<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let tick = done(&store, put(counter(1), Version::ZERO, 1)).await.tick;
    assert_eq!(conflict(&store, put(counter(2), tick, 2)).await, counter(2));
    assert_eq!(conflict(&store, delete(counter(2), tick)).await, counter(2));
    let gone = done(&store, delete(counter(1), tick)).await.tick;
    for expected in [tick, gone] {
        assert_eq!(conflict(&store, put(counter(1), expected, 2)).await, counter(1));
        assert_eq!(conflict(&store, delete(counter(1), expected)).await, counter(1));
    }
    assert_eq!(count(&store, &counter(1)).await, None);
}

/// A record that was only read must not have moved, and isn't changed.
pub async fn a_read_is_checked_like_a_write<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let before = done(&store, put(counter(1), Version::ZERO, 1)).await.tick;
    let mut batch = put(counter(2), Version::ZERO, 2);
    batch.expect(counter(1), before);
    let second = done(&store, batch).await.tick;
    assert_eq!(version(&store, &counter(1)).await, before);
    let moved = done(&store, put(counter(1), before, 3)).await.tick;
    let mut late = put(counter(2), second, 4);
    late.expect(counter(1), before);
    assert_eq!(conflict(&store, late).await, counter(1));
    assert_eq!(count(&store, &counter(2)).await, Some(2));
    let mut again = put(counter(2), second, 5);
    again.expect(counter(1), moved);
    done(&store, again).await;
    let mut alone = Batch::default();
    alone.expect(counter(1), before);
    assert_eq!(conflict(&store, alone).await, counter(1));
}

/// That a record was absent can be expected too.
pub async fn a_read_of_nothing_holds_while_there_is_nothing<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut batch = put(counter(2), Version::ZERO, 1);
    batch.expect(counter(1), Version::ZERO);
    let second = done(&store, batch).await.tick;
    done(&store, put(counter(1), Version::ZERO, 1)).await;
    let mut batch = put(counter(2), second, 2);
    batch.expect(counter(1), Version::ZERO);
    assert_eq!(conflict(&store, batch).await, counter(1));
}

/// Log entries need no record, in an empty partition or a full one.
pub async fn a_batch_of_entries_alone_never_conflicts<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    for round in 1..=3 {
        let batch = Batch { entries: samples::entries(), ..Batch::default() };
        done(&store, batch).await;
        let (feed, audit) = (Log::Feed, Log::Audit);
        let logged = all_logged(&store, feed).await.len() + all_logged(&store, audit).await.len();
        assert_eq!(logged, round * samples::entries().len());
        let expected = version(&store, &counter(1)).await;
        done(&store, put(counter(1), expected, 1)).await;
    }
}

/// The deletion of nothing succeeds for whoever expects nothing.
pub async fn what_is_not_there_can_be_deleted<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut batch = delete(counter(1), Version::ZERO);
    batch.entries = vec![audit("deleted")];
    done(&store, batch).await;
    assert_eq!(count(&store, &counter(1)).await, None);
    assert_eq!(all_logged(&store, Log::Audit).await.len(), 1);
}
