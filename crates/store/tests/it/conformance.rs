//! Every promise, kept by the reference model.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cloakroom_core::types::Timestamp;
use cloakroom_store::MemoryStore;
use cloakroom_store::conformance::{Harness, Task};

/// Memory, under a clock that is moved by hand.
struct Memory(Arc<AtomicI64>);

impl Memory {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_795_500_000_000)))
    }
}

impl Harness for Memory {
    type Store = MemoryStore;

    async fn fresh(&self) -> MemoryStore {
        let clock = Arc::clone(&self.0);
        MemoryStore::new(4, move || Timestamp::from_millis(clock.load(Ordering::SeqCst)))
    }

    async fn reopen(&self, store: MemoryStore) -> MemoryStore {
        store
    }

    async fn pass(&self, span: Duration) {
        let ms = i64::try_from(span.as_millis()).expect("a short span");
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    async fn together(&self, tasks: Vec<Task>) {
        let running: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        for task in running {
            task.await.expect("a task");
        }
    }
}

cloakroom_store::conformance!(Memory::new());

#[test]
fn no_promise_is_left_out_of_the_suite() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
    let list = fs::read_to_string(folder.join("mod.rs")).expect("the list");
    let listed: BTreeSet<&str> = list.lines().map(str::trim).collect();
    let mut missing = Vec::new();
    for file in fs::read_dir(&folder).expect("the folder") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("a file");
        for line in text.lines() {
            let name = line.strip_prefix("pub async fn ").and_then(|rest| rest.split('<').next());
            missing.extend(name.filter(|name| !listed.contains(name)).map(str::to_owned));
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}
