//! What is due is what is filed before an instant, earliest first.

use super::*;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + ms)
}

/// The instant itself is not before it, the limit is kept, and all of one instant are listed.
pub async fn due_is_what_is_filed_before_an_instant_earliest_first<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    for (number, ms) in [(1, 30), (2, 10), (3, 20), (4, 20)] {
        done(&store, put_filed(counter(number), Version::ZERO, 0, Review::At(at(ms)))).await;
    }
    done(&store, put(counter(5), Version::ZERO, 0)).await;
    let due = async |ms, limit| store.due(HERE, at(ms), limit).await.expect("what is due");
    assert!(due(10, 9).await.is_empty());
    assert_eq!(due(11, 9).await, [counter(2)]);
    assert_eq!(due(20, 9).await, [counter(2)]);
    let mut until_21 = due(21, 9).await;
    assert_eq!(until_21.remove(0), counter(2));
    until_21.sort();
    assert_eq!(until_21, [counter(3), counter(4)]);
    assert_eq!(due(31, 9).await.len(), 4);
    assert_eq!(due(31, 9).await.last(), Some(&counter(1)));
    assert_eq!(due(31, 1).await, [counter(2)]);
    assert_eq!(due(31, 3).await.len(), 3);
    let elsewhere = store.due(ELSEWHERE, at(31), 9).await.expect("what is due");
    assert!(elsewhere.is_empty());
}

/// A touch leaves the filing alone; a new record that keeps it has none.
pub async fn a_kept_review_stays_where_it_was<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let first = put_filed(counter(1), Version::ZERO, 0, Review::At(at(5)));
    let tick = done(&store, first).await.tick;
    let tick = done(&store, put_filed(counter(1), tick, 1, Review::Keep)).await.tick;
    assert_eq!(store.due(HERE, at(6), 9).await.expect("what is due"), [counter(1)]);
    assert!(store.due(HERE, at(5), 9).await.expect("what is due").is_empty());
    done(&store, put_filed(counter(1), tick, 2, Review::Keep)).await;
    done(&store, put_filed(counter(2), Version::ZERO, 0, Review::Keep)).await;
    assert_eq!(all_due(&store).await, [counter(1)]);
}

/// Wherever it is moved, earlier or later, it is filed once.
pub async fn a_moved_review_is_filed_once<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut tick = Version::ZERO;
    for ms in [50, 90, 10, 10] {
        tick = done(&store, put_filed(counter(1), tick, 0, Review::At(at(ms)))).await.tick;
        assert_eq!(all_due(&store).await, [counter(1)]);
        assert!(store.due(HERE, at(ms), 9).await.expect("what is due").is_empty());
        assert_eq!(store.due(HERE, at(ms + 1), 9).await.expect("what is due"), [counter(1)]);
    }
}

/// Neither leaves a filing behind; a record made anew doesn't inherit one.
pub async fn what_is_never_reviewed_or_deleted_is_filed_nowhere<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let filed = |expected| put_filed(counter(1), expected, 0, Review::At(at(1)));
    let tick = done(&store, filed(Version::ZERO)).await.tick;
    let tick = done(&store, put_filed(counter(1), tick, 0, Review::Never)).await.tick;
    assert!(all_due(&store).await.is_empty());
    let tick = done(&store, put_filed(counter(1), tick, 0, Review::Keep)).await.tick;
    assert!(all_due(&store).await.is_empty());
    let tick = done(&store, filed(tick)).await.tick;
    done(&store, delete(counter(1), tick)).await;
    assert!(all_due(&store).await.is_empty());
    done(&store, put_filed(counter(1), Version::ZERO, 0, Review::Keep)).await;
    assert!(all_due(&store).await.is_empty());
}

/// A batch that conflicts leaves every filing where it was.
pub async fn a_conflict_moves_no_filing<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let tick = done(&store, put_filed(counter(1), Version::ZERO, 0, Review::At(at(5)))).await.tick;
    let mut batch = put_filed(counter(1), tick, 1, Review::At(at(99)));
    batch.delete(counter(2), tick);
    conflict(&store, batch).await;
    assert_eq!(store.due(HERE, at(6), 9).await.expect("what is due"), [counter(1)]);
    let mut batch = put_filed(counter(3), Version::ZERO, 1, Review::At(at(1)));
    batch.delete(counter(1), Tick(tick.0 - 1));
    conflict(&store, batch).await;
    assert_eq!(all_due(&store).await, [counter(1)]);
}
