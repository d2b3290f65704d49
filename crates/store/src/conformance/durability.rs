//! What was acknowledged outlives the process, as far as the store says so.

use super::*;
use crate::record::encode;

/// Records, versions, filings, expiries and logs are what they were.
pub async fn what_was_acknowledged_is_there_after_a_restart<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut ticks = Vec::new();
    for (key, record) in samples::one_of_each_kind() {
        let mut batch = Batch::default();
        batch.put(key, Version::ZERO, record, Review::At(Timestamp::EPOCH));
        batch.entries = samples::entries();
        ticks.push(done(&store, batch).await.tick);
    }
    let gone_at = store.now().await.expect("an instant");
    let mut expired = Batch::default();
    let record = Record::Throttle(1);
    expired.put_until(counter(9), Version::ZERO, record, Review::Never, Some(gone_at));
    done(&store, expired).await;
    let (due, feed) = (all_due(&store).await, all_logged(&store, Log::Feed).await);
    let audit = all_logged(&store, Log::Audit).await;

    let store = harness.reopen(store).await;
    for ((key, record), tick) in samples::one_of_each_kind().into_iter().zip(ticks) {
        let found = load(&store, &key).await.expect("a record");
        assert_eq!(found.version, tick);
        assert_eq!(encode(&found.record), encode(&record));
    }
    assert_eq!(count(&store, &counter(9)).await, None);
    assert_eq!(all_due(&store).await, due);
    assert_eq!(all_logged(&store, Log::Feed).await, feed);
    assert_eq!(all_logged(&store, Log::Audit).await, audit);
}

/// No restart lets a version come back, even of what was deleted and trimmed before it.
pub async fn ticks_go_on_after_a_restart<H: Harness>(harness: &H) {
    let mut store = harness.fresh().await;
    let mut last = Tick::ZERO;
    for _ in 0..5 {
        for _ in 0..20 {
            let tick = done(&store, put(counter(1), Version::ZERO, 1)).await.tick;
            assert!(tick > last);
            last = done(&store, delete(counter(1), tick)).await.tick;
            assert!(last > tick);
        }
        store = harness.reopen(store).await;
    }
}
