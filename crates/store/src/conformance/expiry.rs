//! A record is invisible from its instant on, whenever it is removed.

use super::*;

const SPAN: Duration = Duration::from_millis(40);
/// Ever more patience, where the machine is too slow to look in time.
const SPANS: [Duration; 3] = [SPAN, Duration::from_millis(500), Duration::from_secs(5)];
const STEP: Duration = Duration::from_millis(1);

/// A batch that stores a counter until an instant.
fn put_until(key: Key, expected: Version, review: Review, expires_at: Timestamp) -> Batch {
    let mut batch = Batch::default();
    batch.put_until(key, expected, Record::Throttle(1), review, Some(expires_at));
    batch
}

async fn now<S: Store>(store: &S) -> Timestamp {
    store.now().await.expect("an instant")
}

/// Waits until the store's clock shows an instant or more.
async fn wait_for<H: Harness>(harness: &H, store: &H::Store, instant: Timestamp) {
    loop {
        let left = instant.since(now(store).await);
        if left == Duration::ZERO {
            return;
        }
        harness.pass(left).await;
    }
}

/// Whether loads and pages show a key; they must agree.
async fn is_shown<S: Store>(store: &S, key: &Key) -> (bool, bool) {
    let page = store.page(HERE, key.kind(), None, 100).await.expect("a page");
    let is_listed = page.iter().any(|(listed, _)| listed == key);
    (load(store, key).await.is_some(), is_listed)
}

/// Every look at it agrees with the clock read before and after the look.
pub async fn a_record_is_visible_until_its_instant_and_not_from_it_on<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut was_shown = false;
    for (number, span) in (1..).zip(SPANS) {
        was_shown = watch(harness, &store, counter(number), span).await;
        if was_shown {
            break;
        }
    }
    assert!(was_shown, "gone before it could be looked at");
    let already = now(&store).await;
    done(&store, put_until(counter(9), Version::ZERO, Review::Never, already)).await;
    assert_eq!(is_shown(&store, &counter(9)).await, (false, false));
}

/// Looks at a record until it is gone; says whether it was ever seen.
async fn watch<H: Harness>(harness: &H, store: &H::Store, key: Key, span: Duration) -> bool {
    let at = now(store).await.plus(span);
    done(store, put_until(key.clone(), Version::ZERO, Review::Never, at)).await;
    let (mut shown, mut hidden) = (0, 0);
    while hidden < 3 {
        let before = now(store).await;
        let is_loaded = load(store, &key).await.is_some();
        let seen = [is_loaded, is_shown(store, &key).await.1];
        let after = now(store).await;
        for is_seen in seen {
            if is_seen {
                assert!(before < at, "visible at {before:?}, expired at {at:?}");
                shown += 1;
            } else {
                assert!(after >= at, "invisible at {after:?}, expires at {at:?}");
                hidden += 1;
            }
        }
        harness.pass(STEP).await;
    }
    shown > 0
}

/// Its version is none: it can be created anew, and not be changed.
pub async fn what_has_expired_is_absent_to_a_commit<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let at = now(&store).await.plus(SPAN);
    let old = done(&store, put_until(counter(1), Version::ZERO, Review::Never, at)).await.tick;
    wait_for(harness, &store, at).await;
    assert_eq!(conflict(&store, put(counter(1), old, 2)).await, counter(1));
    assert_eq!(conflict(&store, delete(counter(1), old)).await, counter(1));
    let mut read = Batch::default();
    read.expect(counter(1), old);
    assert_eq!(conflict(&store, read).await, counter(1));
    let mut batch = put(counter(2), Version::ZERO, 1);
    batch.expect(counter(1), Version::ZERO);
    done(&store, batch).await;
    let new = done(&store, put(counter(1), Version::ZERO, 3)).await.tick;
    assert!(new > old);
    assert_eq!(count(&store, &counter(1)).await, Some(3));
}

/// The sweeper finds it, and its deletion, expecting nothing, takes the filing away.
pub async fn what_has_expired_is_still_due<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let at = now(&store).await;
    done(&store, put_until(counter(1), Version::ZERO, Review::At(at), at)).await;
    assert_eq!(is_shown(&store, &counter(1)).await, (false, false));
    let due = store.due(HERE, at.plus(STEP), 9).await.expect("what is due");
    assert_eq!(due, [counter(1)]);
    done(&store, delete(counter(1), Version::ZERO)).await;
    assert!(all_due(&store).await.is_empty());
}

/// A record that is made where one has expired is a new one: it keeps no filing.
pub async fn what_has_expired_leaves_no_filing_to_its_successor<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let at = now(&store).await;
    done(&store, put_until(counter(1), Version::ZERO, Review::At(at), at)).await;
    done(&store, put_filed(counter(1), Version::ZERO, 2, Review::Keep)).await;
    assert!(all_due(&store).await.is_empty());
    assert_eq!(count(&store, &counter(1)).await, Some(2));
}

/// The last commit's expiry counts, whether it is later or none at all.
pub async fn a_later_commit_lifts_an_expiry<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    for (number, span) in (1..).zip(SPANS) {
        let at = now(&store).await.plus(span);
        let keys = [counter(number), counter(number + 100)];
        let mut batch = Batch::default();
        for key in &keys {
            let record = Record::Throttle(1);
            batch.put_until(key.clone(), Version::ZERO, record, Review::Never, Some(at));
        }
        let tick = done(&store, batch).await.tick;
        let mut batch = Batch::default();
        for (key, lifted) in keys.iter().zip([None, Some(Timestamp::MAX)]) {
            let record = Record::Throttle(2);
            batch.put_until(key.clone(), tick, record, Review::Never, lifted);
        }
        if let Commit::Conflict(_) = store.commit(HERE, batch).await.expect("a commit") {
            assert!(now(&store).await >= at, "expired too early");
            continue;
        }
        wait_for(harness, &store, at).await;
        for key in &keys {
            assert_eq!(is_shown(&store, key).await, (true, true));
        }
        return;
    }
    panic!("gone before it could be committed again");
}

/// What has expired takes no place in a page, so that a short page is the last.
pub async fn pages_are_full_in_spite_of_what_has_expired<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let gone_at = now(&store).await;
    let mut batch = Batch::default();
    for number in 0..20 {
        let expires_at = (number % 4 != 0).then_some(gone_at);
        let record = Record::Throttle(1);
        batch.put_until(counter(number), Version::ZERO, record, Review::Never, expires_at);
    }
    done(&store, batch).await;
    let kind = counter(0).kind();
    let page = store.page(HERE, kind, None, 3).await.expect("a page");
    assert_eq!(page.len(), 3);
    let rest = store.page(HERE, kind, Some(&page[2].0), 3).await.expect("a page");
    assert_eq!(rest.len(), 2);
}
