//! Reads that need no script: as true as those that do, and one round trip.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloakroom_core::session::Session;
use cloakroom_core::subject::SubjectState;
use cloakroom_core::types::{Sid, Subject, Timestamp};
use cloakroom_redis::{RedisSettings, RedisStore};
use cloakroom_store::conformance::samples;
use cloakroom_store::record::DeniedToken;
use cloakroom_store::{Batch, Follow, Key, Record, Review, Store, StoreError, Tick, Version};

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

fn session(sid: Sid, subject: Option<&str>) -> Record {
    let subject = subject.map(|name| Subject::parse(name).expect("a subject"));
    Record::Session(Box::new(Session { sid, subject, ..samples::ended_session() }))
}

/// A session with its subject's record, as another node would have written them.
async fn write_session(store: &RedisStore, sid: Sid, subject: &str) -> [Key; 2] {
    let keys = [Key::Session(sid), Key::Subject(Subject::parse(subject).expect("a subject"))];
    let mut batch = Batch::default();
    batch.put(keys[0].clone(), Version::ZERO, session(sid, Some(subject)), Review::Never);
    let state = SubjectState::new(Subject::parse(subject).expect("a subject"));
    batch.put(keys[1].clone(), Version::ZERO, Record::Subject(state), Review::Never);
    done(store, HERE, batch).await;
    keys
}

fn sid(number: u8) -> Sid {
    Sid::new(Timestamp::from_secs(1), HERE, [number; 8])
}

/// Makes the server know the script, by a session that the store hasn't seen.
async fn teach(store: &RedisStore) {
    let key = [Key::Session(sid(0))];
    store.load_following(HERE, &key, Follow::Subject).await.expect("a load");
}

async fn followed(store: &RedisStore, key: &Key, follow: Follow) -> Vec<(Key, bool)> {
    let found = store.load_following(HERE, std::slice::from_ref(key), follow).await;
    let found = found.expect("a load");
    assert!(found.asked[0].is_some(), "the session is there");
    found.followed.into_iter().map(|(key, found)| (key, found.is_some())).collect()
}

/// How often something was called since last time.
fn calls(server: &Process, names: &[&str]) -> Vec<u64> {
    let statistics = server.cli(&["INFO", "commandstats"]);
    server.cli(&["CONFIG", "RESETSTAT"]);
    let count = |name: &&str| {
        let line = statistics.lines().find_map(|line| line.strip_prefix(&format!("{name}:calls=")));
        let digits = line.and_then(|rest| rest.split(',').next());
        digits.map_or(0, |digits| digits.parse().expect("a count"))
    };
    names.iter().map(count).collect()
}

const SCRIPT_OR_PLAIN: [&str; 3] = ["cmdstat_evalsha", "cmdstat_mget", "cmdstat_exec"];

#[tokio::test]
async fn a_session_takes_a_script_once_and_then_one_plain_read() {
    let (server, settings, writer) = world().await;
    let [key, subject] = write_session(&writer, sid(1), "ada").await;
    let reader = connect(&settings).await;
    teach(&reader).await;
    calls(&server, &SCRIPT_OR_PLAIN);
    for expected in [[1, 0, 0], [0, 1, 0], [0, 1, 0]] {
        let found = followed(&reader, &key, Follow::Subject).await;
        assert_eq!(found, [(subject.clone(), true)]);
        assert_eq!(calls(&server, &SCRIPT_OR_PLAIN), expected);
    }
    // Whoever wrote it knows from the first.
    followed(&writer, &key, Follow::Subject).await;
    assert_eq!(calls(&server, &SCRIPT_OR_PLAIN), [0, 1, 0]);
}

#[tokio::test]
async fn a_wrong_guess_is_found_out() {
    let (server, settings, store) = world().await;
    let [key, _] = write_session(&store, sid(1), "ada").await;
    let [_, of_bob] = write_session(&store, sid(2), "bob").await;
    followed(&store, &key, Follow::Subject).await;
    // No node does this: somebody else has put another's session under its name.
    let versioned = store.load(HERE, std::slice::from_ref(&key)).await.expect("a load");
    let version = versioned[0].as_ref().expect("a session").version;
    let mut batch = Batch::default();
    batch.put(key.clone(), version, session(sid(1), Some("bob")), Review::Never);
    done(&store, HERE, batch).await;
    teach(&connect(&settings).await).await;
    calls(&server, &SCRIPT_OR_PLAIN);
    for expected in [[1, 1, 0], [0, 1, 0]] {
        assert_eq!(followed(&store, &key, Follow::Subject).await, [(of_bob.clone(), true)]);
        assert_eq!(calls(&server, &SCRIPT_OR_PLAIN), expected);
    }
}

#[tokio::test]
async fn what_a_guess_misses_is_said_to_be_missing() {
    let (server, settings, store) = world().await;
    let [key, subject] = write_session(&store, sid(1), "ada").await;
    let index = Key::Index(Subject::parse("ada").expect("a subject"));
    for _ in 0..2 {
        let found = followed(&store, &key, Follow::SubjectAndIndex).await;
        assert_eq!(found, [(subject.clone(), true), (index.clone(), false)]);
    }
    // A value that can't be read must not pass for one that isn't there.
    let foreign = format!("{{{}:1}}:subject:ada", settings.namespace);
    server.cli(&["DEL", &foreign]);
    server.cli(&["HSET", &foreign, "a", "b"]);
    let load = store.load_following(HERE, &[key], Follow::Subject).await;
    assert!(matches!(load, Err(StoreError::Corrupt { .. })), "{load:?}");
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
