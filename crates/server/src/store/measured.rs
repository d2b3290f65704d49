//! A store whose calls are counted.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cloakroom::Histogram;
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::{
    Batch, Commit, Follow, Found, Key, Kind, Log, Logged, Store, StoreError, Tick, Versioned,
};

use crate::metrics::{Family, Value};
use crate::telemetry;

/// What is asked of a store.
const OPERATIONS: [&str; 10] =
    ["now", "load", "load_following", "commit", "page", "due", "log", "logs", "log_back", "trim"];
/// How a call can fail; the last one: whoever asked gave up before an answer.
const FAULTS: [&str; 6] =
    ["unavailable", "outcome_unknown", "read_only", "no_partition", "corrupt", "abandoned"];
/// The names of the spans of these calls.
const NAMES: [&str; 10] = [
    "store.now",
    "store.load",
    "store.load_following",
    "store.commit",
    "store.page",
    "store.due",
    "store.log",
    "store.logs",
    "store.log_back",
    "store.trim",
];
const ABANDONED: usize = FAULTS.len() - 1;

#[derive(Clone, Copy)]
enum Operation {
    Now,
    Load,
    LoadFollowing,
    Commit,
    Page,
    Due,
    Log,
    Logs,
    LogBack,
    Trim,
}

#[derive(Debug, Default)]
struct Call {
    spans: Histogram,
    faults: [AtomicU64; FAULTS.len()],
}

/// What was asked of a store.
#[derive(Debug, Default)]
pub struct StoreCalls([Call; OPERATIONS.len()]);

/// A store, and what was asked of it through this.
pub struct Measured<S> {
    store: S,
    calls: StoreCalls,
}

impl<S> Measured<S> {
    /// Counts what is asked of `store` from now on.
    pub fn new(store: S) -> Self {
        Self { store, calls: StoreCalls::default() }
    }

    /// What was counted.
    pub(crate) fn calls(&self) -> &StoreCalls {
        &self.calls
    }
}

impl<S> Deref for Measured<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.store
    }
}

/// A call under way. Dropped before its end, it counts as abandoned.
struct Running<'a> {
    call: Option<&'a Call>,
    began: Instant,
    _part: telemetry::Part,
}

impl StoreCalls {
    fn begin(&self, operation: Operation) -> Running<'_> {
        Running {
            call: self.0.get(operation as usize),
            began: Instant::now(),
            _part: telemetry::part(NAMES[operation as usize]),
        }
    }

    async fn time<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut running = self.begin(operation);
        let done = work.await;
        running.end(done.as_ref().err());
        done
    }
}

impl Running<'_> {
    fn end(&mut self, fault: Option<&StoreError>) {
        let Some(call) = self.call.take() else { return };
        call.spans.observe(self.began.elapsed());
        if let Some(count) = fault.and_then(|fault| call.faults.get(place_of(fault))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.spans.observe(self.began.elapsed());
            call.faults[ABANDONED].fetch_add(1, Ordering::Relaxed);
        }
    }
}

const fn place_of(fault: &StoreError) -> usize {
    match fault {
        StoreError::Unavailable(_) => 0,
        StoreError::OutcomeUnknown(_) => 1,
        StoreError::ReadOnly(_) => 2,
        StoreError::NoPartition(_) => 3,
        StoreError::Corrupt { .. } => 4,
    }
}

/// The metrics of a store's calls.
pub(crate) fn families(calls: &StoreCalls) -> Vec<Family> {
    let mut spans = Family::spans(
        "cloakroom_store_call_duration",
        "How long calls to the store took, failed and abandoned ones included",
        &["operation"],
    );
    let mut errors = Family::counter(
        "cloakroom_store_errors",
        "Calls to the store that failed; abandoned: nobody waited for the answer any more",
        &["operation", "kind"],
    );
    for (operation, call) in OPERATIONS.iter().zip(&calls.0) {
        spans = spans.with(&[operation], Value::Spans(call.spans.read()));
        for (fault, count) in FAULTS.iter().zip(&call.faults) {
            errors = errors.count(&[operation, fault], count.load(Ordering::Relaxed));
        }
    }
    vec![spans, errors]
}

impl<S: Store> Store for Measured<S> {
    fn partitions(&self) -> u16 {
        self.store.partitions()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.calls.time(Operation::Now, self.store.now()).await
    }

    async fn load_following(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        let work = self.store.load_following(partition, keys, follow);
        self.calls.time(Operation::LoadFollowing, work).await
    }

    async fn load(
        &self,
        partition: Partition,
        keys: &[Key],
    ) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.calls.time(Operation::Load, self.store.load(partition, keys)).await
    }

    async fn commit(&self, partition: Partition, batch: Batch) -> Result<Commit, StoreError> {
        self.calls.time(Operation::Commit, self.store.commit(partition, batch)).await
    }

    async fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.calls.time(Operation::Page, self.store.page(partition, kind, after, limit)).await
    }

    async fn due(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        self.calls.time(Operation::Due, self.store.due(partition, before, limit)).await
    }

    async fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        self.calls.time(Operation::Log, self.store.log(partition, log, from, limit)).await
    }

    async fn logs(
        &self,
        log: Log,
        from: &[(Partition, Tick)],
        limit: usize,
    ) -> Vec<Result<Vec<Logged>, StoreError>> {
        let mut running = self.calls.begin(Operation::Logs);
        let pages = self.store.logs(log, from, limit).await;
        running.end(pages.iter().find_map(|page| page.as_ref().err()));
        pages
    }

    /// Not counted: it lasts until something happens elsewhere.
    async fn changed(&self) -> Vec<Partition> {
        self.store.changed().await
    }

    async fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let work = self.store.log_back(partition, log, before, limit);
        self.calls.time(Operation::LogBack, work).await
    }

    async fn trim(
        &self,
        partition: Partition,
        log: Log,
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.calls.time(Operation::Trim, self.store.trim(partition, log, before, limit)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(calls: &StoreCalls) -> Vec<(usize, u64)> {
        let call = &calls.0[Operation::Now as usize];
        let counts = call.faults.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
        counts.filter(|(_, count)| *count > 0).collect()
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_any_more_is_counted() {
        let calls = StoreCalls::default();
        let never = std::future::pending::<Result<(), StoreError>>();
        let waited = std::time::Duration::from_millis(1);
        let gave_up = tokio::time::timeout(waited, calls.time(Operation::Now, never)).await;
        assert!(gave_up.is_err());
        assert_eq!(faults(&calls), [(ABANDONED, 1)]);
    }

    #[tokio::test]
    async fn each_fault_is_counted_as_what_it_is() {
        let calls = StoreCalls::default();
        let failed = async { Err::<(), _>(StoreError::ReadOnly("full".into())) };
        assert!(calls.time(Operation::Now, failed).await.is_err());
        assert!(calls.time(Operation::Now, async { Ok(()) }).await.is_ok());
        assert_eq!(faults(&calls), [(2, 1)]);
        assert_eq!(calls.0[Operation::Now as usize].spans.read().count(), 2);
    }
}
