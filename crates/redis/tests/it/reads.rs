//! Reads that need no script: as true as those that do, and one round trip.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloakroom_redis::{RedisSettings, RedisStore};
use cloakroom_store::record::DeniedToken;
use cloakroom_store::{Batch, Key, Record, Review, Store, StoreError, Tick, Version};

use crate::servers::{Process, redis};
use crate::world::{HERE, connect, done, find, index, settings};

async fn world() -> (Process, RedisSettings, Arc<RedisStore>) {
    let server = Process::start(redis(), &[]);
    let settings = settings(&format!("redis://127.0.0.1:{}", server.port));
    let store = Arc::new(connect(&settings).await);
    (server, settings, store)
}

/// Writes all keys in one commit.
async fn write(store: &RedisStore, keys: &[Key], expected: Version) -> Tick {
    let mut batch = Batch::default();
    for key in keys {
        batch.put(key.clone(), expected, Record::Index(Vec::new()), Review::Keep);
    }
    done(store, HERE, batch).await.tick
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn loads_without_a_script_see_one_state() {
    let (_server, _, store) = world().await;
    let keys = [index(1), index(2), index(3)];
    let mut tick = write(&store, &keys, Version::ZERO).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, is_over, keys) = (Arc::clone(&store), Arc::clone(&is_over), keys.clone());
            tokio::spawn(async move {
                let mut last = Tick::ZERO;
                while !is_over.load(Ordering::SeqCst) {
                    let found = store.load(HERE, &keys).await.expect("a load");
                    let versions: Vec<_> = found.iter().flatten().map(|f| f.version).collect();
                    assert_eq!(versions.len(), 3);
                    assert!(versions.iter().all(|v| *v == versions[0]), "torn: {versions:?}");
                    assert!(versions[0] >= last);
                    last = versions[0];
                }
            })
        })
        .collect();
    for _ in 0..300 {
        tick = write(&store, &keys, tick).await;
    }
    is_over.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.expect("a reader");
    }
}

#[tokio::test]
async fn a_verify_is_one_round_trip_and_no_script() {
    let (server, _, store) = world().await;
    let keys = [index(1), Key::Partition, Key::DeniedToken("jti".into())];
    write(&store, &keys[..1], Version::ZERO).await;
    server.cli(&["CONFIG", "RESETSTAT"]);
    for _ in 0..10 {
        let found = store.load(HERE, &keys).await.expect("a load");
        assert_eq!(found.iter().flatten().count(), 1);
    }
    let statistics = server.cli(&["INFO", "commandstats"]);
    assert!(statistics.contains("cmdstat_exec:calls=10,"), "{statistics}");
    assert!(!statistics.contains("cmdstat_evalsha"), "{statistics}");
}

#[tokio::test]
async fn a_denied_token_is_seen_until_its_instant_and_never_overlooked() {
    let (server, settings, store) = world().await;
    let keys = [index(1), Key::DeniedToken("jti".into())];
    let until = store.now().await.expect("an instant").plus(Duration::from_millis(200));
    let mut batch = Batch::default();
    let denied = Record::DeniedToken(DeniedToken { until });
    batch.put_until(keys[1].clone(), Version::ZERO, denied, Review::At(until), Some(until));
    done(&store, HERE, batch).await;
    loop {
        let before = store.now().await.expect("an instant");
        let is_denied = store.load(HERE, &keys).await.expect("a load")[1].is_some();
        let after = store.now().await.expect("an instant");
        assert!(if is_denied { before < until } else { after >= until });
        if !is_denied {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What can't be read must not pass for what isn't there.
    let foreign = format!("{{{}:1}}:denied:jti", settings.namespace);
    server.cli(&["DEL", &foreign]);
    server.cli(&["HSET", &foreign, "a", "b"]);
    for keys in [&keys[..], &keys[1..]] {
        let load = store.load(HERE, keys).await;
        assert!(matches!(load, Err(StoreError::Corrupt { .. })), "{load:?}");
    }
    assert!(find(&store, HERE, &index(1)).await.expect("a load").is_none());
}
