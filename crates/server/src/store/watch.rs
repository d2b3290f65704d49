//! What a node knows of its store from outside: its clock, and what it promises.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloakroom::{Clock, SystemClock};
use cloakroom_core::types::Timestamp;
use cloakroom_store::{Durability, Store, StoreError};

use super::AnyStore;

/// A node whose clock is further than this from the store's isn't ready.
pub const DRIFT_MAX: Duration = Duration::from_secs(2);

/// From here on answers have the store's `Date`, which counts in seconds.
const DRIFT_TOLD: Duration = Duration::from_secs(1);
/// The end of the year 9999, the last that an HTTP date can name (RFC 9110 section 5.6.7).
const DATE_MAX_MS: i64 = 253_402_300_799_000;

/// What was last seen of the store.
#[derive(Debug, Default)]
pub struct StoreWatch {
    /// The store's clock less the system's, in milliseconds.
    ahead_ms: AtomicI64,
    is_replicated: AtomicBool,
    is_durable: AtomicBool,
}

impl StoreWatch {
    /// Looks at the store's clock and asks what it promises.
    ///
    /// A clock that runs in this process is the system's: there is nothing to measure.
    pub async fn look(&self, store: &AnyStore) -> Result<(), StoreError> {
        if store.is_shared() {
            let asked_at = SystemClock.now();
            let theirs = store.now().await?;
            let answered_at = SystemClock.now();
            self.note(asked_at, theirs, answered_at);
        }
        let promise = store.promise().await?;
        self.is_replicated.store(promise >= Durability::Replicated, Ordering::Relaxed);
        self.is_durable.store(promise >= Durability::Durable, Ordering::Relaxed);
        Ok(())
    }

    /// The store read its clock between two looks at ours, we can't tell when: within that span
    /// the former offset is as good as any.
    fn note(&self, asked_at: Timestamp, theirs: Timestamp, answered_at: Timestamp) {
        let least = theirs.as_millis() - answered_at.as_millis();
        let most = theirs.as_millis() - asked_at.as_millis();
        let former = self.ahead_ms.load(Ordering::Relaxed);
        self.ahead_ms.store(former.clamp(least.min(most), most), Ordering::Relaxed);
    }

    /// How far the store's clock is ahead of the system's, in milliseconds; behind: negative.
    pub fn ahead_ms(&self) -> i64 {
        self.ahead_ms.load(Ordering::Relaxed)
    }

    /// How far the two clocks are apart.
    pub fn drift(&self) -> Duration {
        Duration::from_millis(self.ahead_ms().unsigned_abs())
    }

    /// The store's time, where the system's is so far from it that a client would be misled.
    pub fn date(&self) -> Option<SystemTime> {
        (self.drift() >= DRIFT_TOLD).then(|| {
            let now = SystemClock.now().as_millis().saturating_add(self.ahead_ms());
            UNIX_EPOCH + Duration::from_millis(now.clamp(0, DATE_MAX_MS).unsigned_abs())
        })
    }

    /// What every acknowledged commit survives.
    pub fn promise(&self) -> Durability {
        if self.is_durable.load(Ordering::Relaxed) {
            Durability::Durable
        } else if self.is_replicated.load(Ordering::Relaxed) {
            Durability::Replicated
        } else {
            Durability::Local
        }
    }
}

/// The store's clock, as last measured: all nodes of one store agree on it.
#[derive(Clone, Debug)]
pub struct StoreClock(pub Arc<StoreWatch>);

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        let ours = SystemClock.now().as_millis();
        Timestamp::from_millis(ours.saturating_add(self.0.ahead_ms()))
    }

    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        SystemClock.sleep(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn a_clock_that_may_be_right_is_not_corrected() {
        let watch = StoreWatch::default();
        watch.note(at(0), at(20), at(40));
        assert_eq!(watch.drift(), Duration::ZERO);
    }

    #[test]
    fn b7_drift_is_measured_by_no_more_than_is_certain() {
        let watch = StoreWatch::default();
        watch.note(at(0), at(3010), at(20));
        assert_eq!(watch.ahead_ms(), 2990);
        watch.note(at(0), at(3005), at(10));
        assert_eq!(watch.ahead_ms(), 2995);
        watch.note(at(0), at(-5000), at(10));
        assert_eq!(watch.ahead_ms(), -5000);
        assert!(watch.drift() > DRIFT_MAX);
    }

    #[test]
    fn b7_a_date_is_the_stores_where_the_two_are_seconds_apart() {
        let watch = StoreWatch::default();
        assert_eq!(watch.date(), None);
        watch.note(at(0), at(600_000), at(10));
        let ahead = watch.date().and_then(|date| date.duration_since(SystemTime::now()).ok());
        let ahead = ahead.expect("later than our own clock");
        assert!(ahead > Duration::from_secs(590) && ahead <= Duration::from_secs(600));
    }

    #[test]
    fn our_clock_set_back_between_two_looks_is_no_fault() {
        let watch = StoreWatch::default();
        watch.note(at(1000), at(1000), at(0));
        assert!(watch.drift() <= Duration::from_secs(1));
    }
}
