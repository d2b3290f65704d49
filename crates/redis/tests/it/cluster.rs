//! A cluster: masters that fail over, and slots that move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cloakroom_core::types::Partition;
use cloakroom_redis::{RedisSettings, RedisStore};
use cloakroom_store::{Durability, Record, Review, Store, Version};

use crate::servers::{redis, wait_until};
use crate::world::{
    Cluster, HERE, connect, count, count_up, counter, done, ending, index, put, settings,
};

/// The slot of a partition, as the cluster itself has it, and which node serves it.
fn place(cluster: &Cluster, namespace: &str, partition: Partition) -> (String, usize) {
    let key = format!("{{{namespace}:{partition}}}:tick");
    let slot = cluster.nodes[0].cli(&["CLUSTER", "KEYSLOT", &key]);
    let is_owner = |node: &crate::servers::Process| {
        let count = node.cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot]);
        let is_master = node.cli(&["ROLE"]).starts_with("master");
        is_master && count.parse::<u32>().is_ok_and(|count| count > 0)
    };
    let owner = cluster.nodes.iter().position(is_owner).expect("an owner");
    (slot, owner)
}

async fn world() -> (Cluster, RedisSettings, RedisStore) {
    let cluster = Cluster::start(redis());
    let settings =
        RedisSettings { replica_wait: Duration::from_millis(300), ..settings(&cluster.url()) };
    let store = connect(&settings).await;
    (cluster, settings, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_spread_over_the_masters() {
    let (cluster, settings, store) = world().await;
    let mut owners = BTreeSet::new();
    for partition in (0..store.partitions()).map(Partition) {
        done(&store, partition, put(counter(1), Version::ZERO, u64::from(partition.0))).await;
        assert_eq!(count(&store, partition, &counter(1)).await, Some(partition.0.into()));
        owners.insert(place(&cluster, &settings.namespace, partition).1);
    }
    assert!(owners.len() > 1, "{owners:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_more_partitions_than_configured_is_reached_wholly() {
    let (_cluster, first, _) = world().await;
    let settings = RedisSettings { partitions: 2, ..first };
    let store = connect(&settings).await;
    assert_eq!(store.partitions(), 8);
    for partition in (0..8).map(Partition) {
        done(&store, partition, put(counter(1), Version::ZERO, 1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_dies_is_replaced_and_no_replicated_ending_is_lost() {
    let (mut cluster, settings, store) = world().await;
    cluster.wait_for_replicas();
    done(&store, HERE, put(counter(2), Version::ZERO, 1)).await;
    let (_, owner) = place(&cluster, &settings.namespace, HERE);
    let store = Arc::new(store);
    let (is_over, replicated) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let counting =
        tokio::spawn(count_up(Arc::clone(&store), Arc::clone(&is_over), Arc::clone(&replicated)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = replicated.load(Ordering::SeqCst);
    cluster.nodes[owner].kill();
    let at_death = replicated.load(Ordering::SeqCst);
    assert!(before > 10, "{before}");
    let replica = &cluster.nodes[owner + 3];
    wait_until("the replica takes over", || replica.cli(&["ROLE"]).starts_with("master"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    is_over.store(true, Ordering::SeqCst);
    let last = counting.await.expect("a counter");
    let found = count(&store, HERE, &counter(1)).await.expect("a counter");
    assert!(found >= at_death && found > before && found >= last, "{found} {at_death} {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_is_followed_and_no_call_fails() {
    let (cluster, settings, store) = world().await;
    for number in 10..60 {
        let mut batch = put(counter(number), Version::ZERO, 1);
        let record = Record::Index(Vec::new());
        batch.put(index(number), Version::ZERO, record, Review::Never);
        done(&store, HERE, batch).await;
    }
    let store = Arc::new(store);
    let (is_over, replicated) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let reading = {
        let (store, is_over) = (Arc::clone(&store), Arc::clone(&is_over));
        tokio::spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                let keys: Vec<_> = (10..60).map(counter).collect();
                let found = store.load(HERE, &keys).await.expect("a load");
                assert_eq!(found.iter().flatten().count(), 50);
                let lists: Vec<_> = (10..60).map(index).collect();
                let found = store.load(HERE, &lists).await.expect("a load");
                assert_eq!(found.iter().flatten().count(), 50);
                let page = store.page(HERE, keys[0].kind(), None, 100).await.expect("a page");
                assert!(page.len() >= 50, "{}", page.len());
            }
        })
    };
    let counting = tokio::spawn(count_up(Arc::clone(&store), Arc::clone(&is_over), replicated));
    let (slot, mut from) = place(&cluster, &settings.namespace, HERE);
    for _ in 0..4 {
        let to = (from + 1) % 3;
        move_slot(&cluster, &slot, from, to);
        from = to;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    is_over.store(true, Ordering::SeqCst);
    reading.await.expect("a reader");
    let last = counting.await.expect("a counter");
    assert!(last > 20, "{last}");
    assert_eq!(count(&store, HERE, &counter(1)).await, Some(last));
}

/// Moves a slot key by key, as an operator's tools do.
fn move_slot(cluster: &Cluster, slot: &str, from: usize, to: usize) {
    let id = |number: usize| cluster.nodes[number].cli(&["CLUSTER", "MYID"]);
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    let said = target.cli(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &id(from)]);
    assert_eq!(said, "OK");
    assert_eq!(source.cli(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &id(to)]), "OK");
    loop {
        let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", slot, "20"]);
        if keys.is_empty() {
            break;
        }
        let port = target.port.to_string();
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        migrate.extend(keys.lines());
        let said = source.cli(&migrate);
        assert!(said == "OK" || said == "NOKEY", "{said}");
    }
    for number in [to, from, 3 - to - from] {
        let said = cluster.nodes[number].cli(&["CLUSTER", "SETSLOT", slot, "NODE", &id(to)]);
        assert_eq!(said, "OK");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endings_wait_for_the_replica_of_their_own_master() {
    let (cluster, settings, store) = world().await;
    cluster.wait_for_replicas();
    let first = done(&store, HERE, ending(counter(1), Version::ZERO, 1)).await;
    assert_eq!(first.durability, Durability::Replicated);
    let (_, owner) = place(&cluster, &settings.namespace, HERE);
    cluster.nodes[owner + 3].freeze();
    let second = done(&store, HERE, ending(counter(1), first.tick, 2)).await;
    assert_eq!(second.durability, Durability::Local);
    cluster.nodes[owner + 3].thaw();
}
