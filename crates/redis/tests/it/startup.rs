//! What is said at the start when a server can't be used, and what is found of a store.

use std::time::{Duration, Instant};

use cloakroom_core::types::{Partition, Secret, Timestamp};
use cloakroom_redis::{RedisError, RedisSettings, RedisStore};
use cloakroom_store::{Durability, Kind, Log, Record, Review, Store, StoreError, Tick, Version};

use crate::servers::{Process, free_port, redis};
use crate::world::{FLUSHING, HERE, connect, count, counter, done, ending, put, refusal, settings};

fn server(options: &[&str]) -> (Process, RedisSettings) {
    let process = Process::start(redis(), options);
    let settings = settings(&format!("redis://127.0.0.1:{}", process.port));
    (process, settings)
}

fn with_url(settings: RedisSettings, url: &str) -> RedisSettings {
    RedisSettings { url: Secret::new(url.to_owned()), ..settings }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_be_unreachable_at_once() {
    let settings = settings(&format!("redis://:hunter2@127.0.0.1:{}", free_port()));
    let began_at = Instant::now();
    let refusal = RedisStore::connect(&settings).await.expect_err("nobody is there");
    assert!(matches!(refusal, RedisError::Unreachable { .. }) && refusal.is_transient());
    assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
    assert!(began_at.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn g8_a_server_that_evicts_is_refused() {
    let (_server, settings) = server(&["--maxmemory-policy", "allkeys-lru"]);
    let refusal = refusal(&settings).await;
    assert!(matches!(&refusal, RedisError::Evicts { policy, .. } if policy == "allkeys-lru"));
    assert!(!refusal.is_transient());
}

#[tokio::test]
async fn a_wrong_password_is_one_plain_sentence() {
    let (server, settings) = server(&["--requirepass", "right"]);
    let url = format!("127.0.0.1:{}", server.port);
    for login in ["", ":wrong@", "nobody:right@"] {
        let settings = with_url(self::settings(""), &format!("redis://{login}{url}"));
        let refusal = refusal(&settings).await;
        assert!(matches!(refusal, RedisError::WrongLogin(_)), "{login}: {refusal:?}");
        assert!(!refusal.to_string().contains("right") && !refusal.to_string().contains("wrong"));
    }
    connect(&with_url(settings, &format!("redis://:right@{url}"))).await;
}

#[tokio::test]
async fn a_missing_privilege_shows_at_the_start_and_not_within_a_commit() {
    let (server, settings) = server(&[]);
    server.wait_until_ready();
    let url = |user: &str| format!("redis://{user}:pw@127.0.0.1:{}", server.port);
    // As `docs/operate/redis.md` has it.
    let needed = "-@all +hello +auth +select +ping +info +time +evalsha +script|load +wait +get \
                  +mget +mset +exists +multi +exec +getrange +set +del +type \
                  +zadd +zrem +zrangebylex +zrangebyscore +xadd +xrange +xrevrange \
                  +xtrim +xinfo|stream";
    let lacks = [
        ("poor", "-xadd"),
        ("poorer", "-zrem"),
        ("poorest", "-evalsha"),
        ("slow", "-mget"),
        ("slower", "-mset"),
        ("slowest", "-exists"),
    ];
    for (user, less) in lacks {
        let rules = format!("ACL SETUSER {user} on >pw ~{{* {needed} {less}");
        server.cli(&rules.split_whitespace().collect::<Vec<_>>());
        let refusal = refusal(&with_url(self::settings(""), &url(user))).await;
        assert!(matches!(refusal, RedisError::MissingPrivilege(_)), "{user}: {refusal:?}");
    }
    let rules = format!("ACL SETUSER fit on >pw ~{{{}:* {needed}", settings.namespace);
    assert_eq!(server.cli(&rules.split_whitespace().collect::<Vec<_>>()), "OK");
    let store = connect(&with_url(settings, &url("fit"))).await;
    let mut batch = ending(counter(1), Version::ZERO, 1);
    batch.put(counter(2), Version::ZERO, Record::Throttle(1), Review::At(Timestamp::EPOCH));
    let committed = done(&store, HERE, batch).await;
    assert_eq!(store.page(HERE, Kind::Throttle, None, 9).await.expect("a page").len(), 2);
    assert_eq!(store.due(HERE, Timestamp::MAX, 9).await.expect("what is due"), [counter(2)]);
    assert_eq!(store.log(HERE, Log::Feed, Tick::ZERO, 9).await.expect("a log").len(), 1);
    assert_eq!(store.trim(HERE, Log::Feed, Timestamp::MAX, 9).await.expect("trims"), 1);
    // Who may not read the configuration is promised nothing about it.
    assert_eq!(committed.durability, Durability::Local);
}

#[tokio::test]
async fn a_replica_is_refused() {
    let (server, settings) = server(&[]);
    server.wait_until_ready();
    server.cli(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    assert!(matches!(refusal(&settings).await, RedisError::Replica(_)));
}

#[tokio::test]
async fn a_cluster_and_a_single_server_are_told_apart() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("a path");
    let (_server, alone) = server(&["--cluster-enabled", "yes", "--cluster-config-file", path]);
    assert!(matches!(refusal(&alone).await, RedisError::PartOfCluster(_)));
    let (server, settings) = server(&[]);
    let url = format!("redis+cluster://127.0.0.1:{}", server.port);
    let refusal = refusal(&with_url(settings, &url)).await;
    assert!(matches!(refusal, RedisError::NoCluster(_)), "{refusal:?}");
}

#[tokio::test]
async fn what_waiting_cannot_mend_is_said_at_once() {
    let (server, settings) = server(&[]);
    server.wait_until_ready();
    let url = format!("redis://127.0.0.1:{}/99", server.port);
    let no_database = refusal(&with_url(self::settings(""), &url)).await;
    assert!(matches!(no_database, RedisError::NoDatabase(_)), "{no_database:?}");
    let url = format!("redis+sentinel://127.0.0.1:{}/main", server.port);
    let no_sentinel = refusal(&with_url(settings, &url)).await;
    assert!(matches!(no_sentinel, RedisError::NoSentinel(_)), "{no_sentinel:?}");
    assert!(!no_database.is_transient() && !no_sentinel.is_transient());
}

#[tokio::test]
async fn looking_for_a_store_makes_none() {
    let (server, settings) = server(&[]);
    server.wait_until_ready();
    let missing = RedisStore::find(&settings).await.map(|_| ()).expect_err("no store");
    assert!(matches!(missing, RedisError::NoStore(_)) && !missing.is_transient(), "{missing:?}");
    assert_eq!(server.cli(&["DBSIZE"]), "0");
    connect(&settings).await;
    let keys = server.cli(&["DBSIZE"]);
    assert_eq!(RedisStore::find(&settings).await.expect("a store").partitions(), 8);
    assert_eq!(server.cli(&["DBSIZE"]), keys);
}

#[tokio::test]
async fn odd_settings_are_refused() {
    for namespace in ["", "a}b", "{a", "a b", "é", &"x".repeat(65)] {
        let settings = RedisSettings { namespace: namespace.to_owned(), ..settings("redis://h") };
        let refusal = RedisStore::connect(&settings).await.expect_err("an odd namespace");
        assert!(matches!(refusal, RedisError::Namespace(_)));
    }
    for partitions in [0, 1025, u16::MAX] {
        let settings = RedisSettings { partitions, ..settings("redis://h") };
        let refusal = RedisStore::connect(&settings).await.expect_err("odd partitions");
        assert!(matches!(refusal, RedisError::Partitions(_)));
    }
}

#[tokio::test]
async fn partitions_are_fixed_when_the_store_is_made() {
    let (_server, first) = server(&[]);
    assert_eq!(connect(&first).await.partitions(), 8);
    let store = connect(&RedisSettings { partitions: 64, ..first }).await;
    assert_eq!(store.partitions(), 8);
    let unknown = store.load(Partition(8), &[counter(1)]).await;
    assert!(matches!(unknown, Err(StoreError::NoPartition(Partition(8)))));
}

#[tokio::test]
async fn a_layout_of_a_later_release_is_refused() {
    let (server, settings) = server(&[]);
    connect(&settings).await;
    server.cli(&["SET", &format!("{{{}:0}}:layout", settings.namespace), "2 8"]);
    let refusal = refusal(&settings).await;
    assert!(matches!(&refusal, RedisError::Layout(found) if found == "2 8"), "{refusal:?}");
}

#[tokio::test]
async fn g11_two_namespaces_and_two_databases_never_meet() {
    let (server, one) = server(&[]);
    let other = settings(&format!("redis://127.0.0.1:{}", server.port));
    let elsewhere = RedisSettings {
        namespace: one.namespace.clone(),
        ..settings(&format!("redis://127.0.0.1:{}/5", server.port))
    };
    let (one, other, elsewhere) =
        (connect(&one).await, connect(&other).await, connect(&elsewhere).await);
    for (store, number) in [(&one, 1), (&other, 2), (&elsewhere, 3)] {
        done(store, HERE, put(counter(1), Version::ZERO, number)).await;
    }
    for (store, number) in [(&one, 1), (&other, 2), (&elsewhere, 3)] {
        assert_eq!(count(store, HERE, &counter(1)).await, Some(number));
    }
}

#[tokio::test]
async fn what_is_promised_is_what_the_server_is_set_to() {
    let (_server, flushing) = server(&FLUSHING);
    let (_other, lazy) = server(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    for (settings, promised) in [(flushing, Durability::Durable), (lazy, Durability::Local)] {
        let store = connect(&settings).await;
        let committed = done(&store, HERE, put(counter(1), Version::ZERO, 1)).await;
        assert_eq!(committed.durability, promised);
        assert_eq!(store.durability().await.expect("a promise"), promised);
    }
}
