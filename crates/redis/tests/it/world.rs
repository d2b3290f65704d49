//! Stores on servers of a test's own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloakroom_core::event::FeedEntry;
use cloakroom_core::session::EndReason;
use cloakroom_core::types::{Partition, Secret, Sid, Subject, Timestamp};
use cloakroom_redis::{RedisError, RedisSettings, RedisStore, TlsFiles};
use cloakroom_store::conformance::{Harness, Task};
use cloakroom_store::{
    Batch, Commit, Committed, Durability, Key, Record, Review, Store, StoreError, Version,
    Versioned,
};

use crate::servers::{Process, cli, free_port, wait_until};

/// Where most tests happen.
pub const HERE: Partition = Partition(1);

/// Settings for a URL, in a namespace that nobody had before.
pub fn settings(url: &str) -> RedisSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    RedisSettings {
        url: Secret::new(url.to_owned()),
        namespace: format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        partitions: 8,
        timeout: Duration::from_secs(2),
        pool: 8,
        tls: TlsFiles::default(),
        replica_wait: Duration::ZERO,
    }
}

/// Connects, however long the servers take to be ready.
pub async fn connect(settings: &RedisSettings) -> RedisStore {
    let began_at = Instant::now();
    loop {
        match RedisStore::connect(settings).await {
            Ok(store) => return store,
            Err(error) if error.is_transient() && began_at.elapsed() < Duration::from_secs(30) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Tries to connect until something else is said than that the server isn't there yet.
pub async fn refusal(settings: &RedisSettings) -> RedisError {
    let began_at = Instant::now();
    loop {
        match RedisStore::connect(settings).await {
            Ok(_) => panic!("it connected"),
            Err(RedisError::Unreachable { .. }) if began_at.elapsed() < Duration::from_secs(10) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return error,
        }
    }
}

/// Options of a server that answers only what is on its disk.
pub const FLUSHING: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// One server, for the suite of all stores.
pub struct Standalone {
    process: std::sync::Mutex<Process>,
    url: String,
    used: std::sync::Mutex<Vec<RedisSettings>>,
}

impl Standalone {
    pub fn start(program: &Path) -> Self {
        let process = Process::start(program, &FLUSHING);
        let url = format!("redis://127.0.0.1:{}", process.port);
        Self { process: std::sync::Mutex::new(process), url, used: std::sync::Mutex::default() }
    }
}

impl Harness for Standalone {
    type Store = RedisStore;

    async fn fresh(&self) -> RedisStore {
        let settings = settings(&self.url);
        let store = connect(&settings).await;
        self.used.lock().expect("nobody panicked").push(settings);
        store
    }

    /// The server is killed and started again as well.
    async fn reopen(&self, store: RedisStore) -> RedisStore {
        drop(store);
        self.process.lock().expect("nobody panicked").restart();
        let settings = self.used.lock().expect("nobody panicked").pop().expect("a store");
        let store = connect(&settings).await;
        self.used.lock().expect("nobody panicked").push(settings);
        store
    }

    async fn pass(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    async fn together(&self, tasks: Vec<Task>) {
        together(tasks).await;
    }
}

/// Runs tasks side by side.
pub async fn together(tasks: Vec<Task>) {
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    for task in tasks {
        task.await.expect("a task");
    }
}

/// Three masters and three replicas.
pub struct Cluster {
    pub nodes: Vec<Process>,
    /// What the nodes know of each other; removed after they ended.
    _files: Vec<tempfile::TempPath>,
}

impl Cluster {
    /// Starts it from configurations that know of each other, so that no one has to be introduced.
    pub fn start(program: &Path) -> Self {
        let ports: Vec<u16> = (0..6).map(|_| free_port()).collect();
        let id = |number: usize| format!("{number:040x}", number = number + 1);
        let ranges = ["0-5460", "5461-10922", "10923-16383"];
        let line = |number: usize, me: usize| {
            let (port, bus) = (ports[number], ports[number] + 10_000);
            let myself = if number == me { "myself," } else { "" };
            let role = match number {
                0..3 => format!("{myself}master - 0 0 {} connected {}", number + 1, ranges[number]),
                _ => format!("{myself}slave {} 0 0 {} connected", id(number - 3), number - 2),
            };
            format!("{} 127.0.0.1:{port}@{bus} {role}\n", id(number))
        };
        let (mut nodes, mut files) = (Vec::new(), Vec::new());
        for (me, port) in ports.iter().enumerate() {
            let mut file: String = (0..6).map(|number| line(number, me)).collect();
            file.push_str("vars currentEpoch 3 lastVoteEpoch 0\n");
            let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
            std::fs::write(&path, file).expect("a file");
            let options = [
                "--cluster-enabled",
                "yes",
                "--cluster-config-file",
                path.to_str().expect("a path"),
                "--cluster-node-timeout",
                "1000",
                "--repl-diskless-sync-delay",
                "0",
            ];
            nodes.push(Process::start_on(program, *port, &options));
            files.push(path);
        }
        for node in &nodes {
            wait_until("the cluster is whole", || {
                node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            });
        }
        Self { nodes, _files: files }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> =
            self.nodes.iter().take(2).map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Waits until each master has its replica.
    pub fn wait_for_replicas(&self) {
        for node in self.nodes.iter().skip(3) {
            wait_until("the replica follows", || {
                node.cli(&["INFO", "replication"]).contains("master_link_status:up")
            });
        }
    }
}

impl Harness for Cluster {
    type Store = RedisStore;

    async fn fresh(&self) -> RedisStore {
        connect(&settings(&self.url())).await
    }

    async fn reopen(&self, store: RedisStore) -> RedisStore {
        store
    }

    async fn pass(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    async fn together(&self, tasks: Vec<Task>) {
        together(tasks).await;
    }
}

/// A counter's key.
pub fn counter(number: u8) -> Key {
    Key::Throttle([number; 32])
}

/// The key of a list of sessions; a record that never expires.
pub fn index(number: u8) -> Key {
    Key::Index(Subject::parse(&format!("subject {number}")).expect("a subject"))
}

/// A batch that stores a counter.
pub fn put(key: Key, expected: Version, count: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(key, expected, Record::Throttle(count), Review::Never);
    batch
}

/// A batch that stores a counter and ends a session.
pub fn ending(key: Key, expected: Version, count: u64) -> Batch {
    let mut batch = put(key, expected, count);
    let sid = Sid::new(Timestamp::from_secs(1), HERE, [7; 8]);
    let until = Timestamp::from_secs(2);
    batch.feed(FeedEntry::SessionEnded { sid, reason: EndReason::SignedOut, until });
    batch
}

/// Commits what must succeed.
pub async fn done(store: &RedisStore, partition: Partition, batch: Batch) -> Committed {
    match store.commit(partition, batch).await.expect("a commit") {
        Commit::Done(committed) => committed,
        Commit::Conflict(key) => panic!("{key} has moved"),
    }
}

/// What is stored under a key.
pub async fn find(
    store: &RedisStore,
    partition: Partition,
    key: &Key,
) -> Result<Option<Versioned>, StoreError> {
    let mut found = store.load(partition, std::slice::from_ref(key)).await?;
    Ok(found.pop().flatten())
}

/// What a counter stands at.
pub async fn count(store: &RedisStore, partition: Partition, key: &Key) -> Option<u64> {
    let found = find(store, partition, key).await.expect("a load")?;
    found.record.into_throttle()
}

/// Makes a replica of a server and waits until it follows.
pub fn replicate(replica: &Process, master: &Process) {
    replica.wait_until_ready();
    cli(replica.port, &["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    wait_until("the replica follows", || {
        replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
    });
}

/// Counts up in one partition until told to stop; says what the last acknowledged count was.
pub async fn count_up(
    store: Arc<RedisStore>,
    is_over: Arc<AtomicBool>,
    replicated: Arc<AtomicU64>,
) -> u64 {
    let (mut version, mut number) = (Version::ZERO, 0);
    while !is_over.load(Ordering::SeqCst) {
        match store.commit(HERE, ending(counter(1), version, number + 1)).await {
            Ok(Commit::Done(committed)) => {
                (version, number) = (committed.tick, number + 1);
                if committed.durability == Durability::Replicated {
                    replicated.store(number, Ordering::SeqCst);
                }
            }
            // Its outcome was unknown, or a failover lost some: go on from what is there.
            Ok(Commit::Conflict(_)) | Err(_) => {
                if let Ok(Some(found)) = find(&store, HERE, &counter(1)).await {
                    version = found.version;
                    number = found.record.into_throttle().expect("a count");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    number
}
