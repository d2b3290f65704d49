//! The promises of every store.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cloakroom_core::types::Timestamp;
use cloakroom_embedded::Embedded;
use cloakroom_store::conformance::{Harness, Task};
use tempfile::TempDir;

use crate::world::options;

cloakroom_store::conformance!(OneDirectory::default());

/// Stores in directories of their own; their clock is the system's, set ahead by what has passed.
#[derive(Default)]
struct OneDirectory {
    ahead_ms: Arc<AtomicI64>,
    /// That of the last store; the ones before are kept until the test ends.
    dirs: Mutex<Vec<TempDir>>,
}

impl OneDirectory {
    fn open(&self, dir: &Path) -> Embedded {
        let ahead_ms = Arc::clone(&self.ahead_ms);
        let clock = move || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let ahead_ms = u64::try_from(ahead_ms.load(Ordering::Relaxed)).expect("it only grows");
            let ahead = Duration::from_millis(ahead_ms);
            Timestamp::EPOCH.plus(since.expect("after the epoch") + ahead)
        };
        Embedded::open_with_clock(dir, options(), clock).expect("the store opens")
    }
}

impl Harness for OneDirectory {
    type Store = Embedded;

    async fn fresh(&self) -> Embedded {
        let dir = tempfile::tempdir().expect("a directory");
        let store = self.open(dir.path());
        self.dirs.lock().expect("no test panicked").push(dir);
        store
    }

    async fn reopen(&self, store: Embedded) -> Embedded {
        store.close();
        let dirs = self.dirs.lock().expect("no test panicked");
        self.open(dirs.last().expect("a store was made").path())
    }

    async fn pass(&self, span: Duration) {
        let ms = i64::try_from(span.as_millis()).expect("a short span");
        self.ahead_ms.fetch_add(ms + 1, Ordering::Relaxed);
    }

    async fn together(&self, tasks: Vec<Task>) {
        let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        for task in tasks {
            task.await.expect("a task");
        }
    }
}
