//! A master that sentinels name: replicas that acknowledge, and failovers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom_redis::{RedisError, RedisSettings, RedisStore};
use cloakroom_store::conformance::{Harness, Task};
use cloakroom_store::{Commit, Durability, Log, Store, StoreError, Tick, Version};

use crate::servers::{Process, free_port, redis, wait_until};
use crate::world::{
    FLUSHING, HERE, connect, count, count_up, counter, done, ending, find, put, refusal, replicate,
    settings, together,
};

const WAIT: Duration = Duration::from_millis(300);

/// A master that one sentinel names, for the suite of all stores.
struct Named {
    master: Mutex<Process>,
    sentinel: Process,
    used: Mutex<Vec<RedisSettings>>,
}

impl Named {
    fn start() -> Self {
        let master = Process::start(redis(), &FLUSHING);
        master.wait_until_ready();
        let sentinel = sentinel(master.port);
        Self { master: Mutex::new(master), sentinel, used: Mutex::default() }
    }
}

impl Harness for Named {
    type Store = RedisStore;

    async fn fresh(&self) -> RedisStore {
        let url = format!("redis+sentinel://127.0.0.1:{}/main", self.sentinel.port);
        let settings = settings(&url);
        let store = connect(&settings).await;
        self.used.lock().expect("nobody panicked").push(settings);
        store
    }

    /// The master is killed and started again as well: it has no replica to take its place.
    async fn reopen(&self, store: RedisStore) -> RedisStore {
        drop(store);
        self.master.lock().expect("nobody panicked").restart();
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

mod conformance {
    use super::Named;

    cloakroom_store::conformance!(Named::start());
}

/// A master, its replicas and three sentinels.
struct World {
    servers: Vec<Process>,
    sentinels: Vec<Process>,
}

impl World {
    fn start(replicas: usize) -> Self {
        let options = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let start = |_| Process::start(redis(), &options);
        let servers: Vec<_> = (0..=replicas).map(start).collect();
        let (master, followers) = servers.split_first().expect("a master");
        master.wait_until_ready();
        for replica in followers {
            replicate(replica, master);
        }
        let sentinels = (0..3).map(|_| sentinel(master.port)).collect();
        let world = Self { servers, sentinels };
        for sentinel in &world.sentinels {
            wait_until("the sentinel knows all", || {
                let said = sentinel.cli(&["SENTINEL", "MASTER", "main"]);
                let fields: Vec<_> = said.lines().collect();
                let is = |name: &str, value: usize| {
                    fields.chunks(2).any(|pair| pair == [name, value.to_string().as_str()])
                };
                is("num-slaves", replicas) && is("num-other-sentinels", 2)
            });
        }
        world
    }

    fn settings(&self) -> RedisSettings {
        let hosts: Vec<_> =
            self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        let url = format!("redis+sentinel://{}/main", hosts.join(","));
        RedisSettings { replica_wait: WAIT, ..settings(&url) }
    }
}

fn sentinel(master: u16) -> Process {
    let (port, dir) = (free_port(), tempfile::tempdir().expect("a directory"));
    let path = dir.path().display();
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {path}\n\
         sentinel monitor main 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 3000\n"
    );
    std::fs::write(dir.path().join("sentinel.conf"), text).expect("a file");
    let process = Process::sentinel(redis(), port, dir);
    process.wait_until_ready();
    process
}

/// Waits until the store takes writes again.
async fn recovered(store: &RedisStore) {
    for number in 0..200 {
        let found = find(store, HERE, &counter(200)).await;
        if let Ok(found) = found {
            let version = found.map_or(Version::ZERO, |found| found.version);
            let commit = store.commit(HERE, put(counter(200), version, number)).await;
            if matches!(commit, Ok(Commit::Done(_))) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no writes after a failover");
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_no_ending_that_was_answered_replicated_is_lost_by_a_failover() {
    let mut world = World::start(2);
    let store = Arc::new(connect(&world.settings()).await);
    let (is_over, replicated) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let counting =
        tokio::spawn(count_up(Arc::clone(&store), Arc::clone(&is_over), Arc::clone(&replicated)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = replicated.load(Ordering::SeqCst);
    world.servers[0].kill();
    let at_death = replicated.load(Ordering::SeqCst);
    recovered(&store).await;
    is_over.store(true, Ordering::SeqCst);
    counting.await.expect("a counter");
    let found = count(&store, HERE, &counter(1)).await.expect("a counter");
    assert!(before > 10 && found >= at_death, "{found} of {at_death}, {before} before");
    let logged = store.log(HERE, Log::Feed, Tick::ZERO, 100_000).await.expect("a log");
    assert_eq!(logged.len() as u64, found, "one entry a commit");
    // The old master comes back as a replica, and the store goes on.
    world.servers[0].restart();
    let version = find(&store, HERE, &counter(1)).await.expect("a load").expect("one").version;
    done(&store, HERE, ending(counter(1), version, found + 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ending_that_a_replica_does_not_have_is_local_and_a_failover_may_lose_it() {
    let mut world = World::start(1);
    let store = connect(&world.settings()).await;
    let first = done(&store, HERE, ending(counter(1), Version::ZERO, 1)).await;
    assert_eq!(first.durability, Durability::Replicated);
    // The replica is shut out, and reads nothing more of what its master says.
    world.servers[0].cli(&["CONFIG", "SET", "requirepass", "other"]);
    let kill = ["-a", "other", "CLIENT", "KILL", "TYPE", "replica"];
    assert_eq!(world.servers[0].cli(&kill), "1");
    let lost = done(&store, HERE, ending(counter(1), first.tick, 2)).await;
    assert_eq!(lost.durability, Durability::Local);
    world.servers[0].kill();
    recovered(&store).await;
    // What a follower sees: its last entry is gone.
    assert_eq!(count(&store, HERE, &counter(1)).await, Some(1));
    let logged = store.log(HERE, Log::Feed, Tick::ZERO, 9).await.expect("a log");
    assert_eq!(logged.last().map(|last| last.cursor), Some(first.tick));
    let again = done(&store, HERE, ending(counter(1), first.tick, 3)).await;
    assert_ne!(again.tick, lost.tick);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_gone_is_still_waited_for() {
    let mut world = World::start(2);
    let store = connect(&world.settings()).await;
    let first = done(&store, HERE, ending(counter(1), Version::ZERO, 1)).await;
    assert_eq!(first.durability, Durability::Replicated);
    world.servers[2].kill();
    wait_until("the master notices", || {
        world.servers[0].cli(&["INFO", "replication"]).contains("connected_slaves:1")
    });
    let second = done(&store, HERE, ending(counter(1), first.tick, 2)).await;
    assert_eq!(second.durability, Durability::Local);
    // What isn't an ending waits for nobody.
    let third = done(&store, HERE, put(counter(2), Version::ZERO, 1)).await;
    assert_eq!(third.durability, Durability::Local);
}

#[tokio::test(flavor = "multi_thread")]
async fn endings_that_wait_hold_up_nothing_else() {
    let world = World::start(1);
    let store = Arc::new(connect(&world.settings()).await);
    done(&store, HERE, ending(counter(1), Version::ZERO, 1)).await;
    world.servers[1].freeze();
    let began_at = std::time::Instant::now();
    let endings = (10..16).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            done(&store, HERE, ending(counter(number), Version::ZERO, 1)).await.durability
        })
    });
    let endings: Vec<_> = endings.collect();
    for _ in 0..50 {
        find(&store, HERE, &counter(1)).await.expect("a load");
    }
    assert!(began_at.elapsed() < WAIT, "{:?}", began_at.elapsed());
    for ending in endings {
        assert_eq!(ending.await.expect("an ending"), Durability::Local);
    }
    assert!(began_at.elapsed() < 3 * WAIT, "{:?}", began_at.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_hangs_is_replaced_and_not_listened_to_when_it_is_back() {
    let world = World::start(1);
    let store = connect(&world.settings()).await;
    let first = done(&store, HERE, ending(counter(1), Version::ZERO, 1)).await;
    assert_eq!(first.durability, Durability::Replicated);
    world.servers[0].freeze();
    recovered(&store).await;
    let second = done(&store, HERE, put(counter(1), first.tick, 2)).await;
    world.servers[0].thaw();
    for _ in 0..40 {
        assert_eq!(count(&store, HERE, &counter(1)).await, Some(2));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    done(&store, HERE, put(counter(1), second.tick, 3)).await;
}

#[tokio::test]
async fn a_master_that_no_sentinel_knows_is_said_so() {
    let world = World::start(0);
    let hosts = format!("127.0.0.1:{}", world.sentinels[0].port);
    let refusal = refusal(&settings(&format!("redis+sentinel://{hosts}/other"))).await;
    assert!(matches!(&refusal, RedisError::NoMaster(name) if name == "other"), "{refusal:?}");
    // One sentinel that answers is enough, wherever it stands in the list.
    let url = format!("redis+sentinel://127.0.0.1:{},{hosts}/main", free_port());
    let store = connect(&settings(&url)).await;
    done(&store, HERE, put(counter(1), Version::ZERO, 1)).await;
    drop(world);
    let load = find(&store, HERE, &counter(1)).await;
    assert!(matches!(load, Err(StoreError::Unavailable(_))), "{load:?}");
}
