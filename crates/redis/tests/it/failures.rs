//! Servers that die, hang, are full, forget or hold what they shouldn't.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloakroom_core::types::Timestamp;
use cloakroom_redis::{RedisSettings, RedisStore};
use cloakroom_store::{Commit, Kind, Log, Store, StoreError, Tick, Version};

use crate::servers::{Process, free_port, redis};
use crate::world::{FLUSHING, HERE, connect, count, counter, done, ending, find, put, settings};

async fn world(options: &[&str]) -> (Process, RedisSettings, RedisStore) {
    let process = Process::start(redis(), options);
    let url = format!("redis://127.0.0.1:{}", process.port);
    let settings = RedisSettings { timeout: Duration::from_millis(600), ..settings(&url) };
    let store = connect(&settings).await;
    (process, settings, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_death_of_the_server() {
    let (mut server, settings, store) = world(&FLUSHING).await;
    let store = Arc::new(store);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writing = {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            let mut version = Version::ZERO;
            for number in 1.. {
                match store.commit(HERE, ending(counter(1), version, number)).await {
                    Ok(Commit::Done(committed)) => version = committed.tick,
                    Ok(Commit::Conflict(key)) => panic!("{key} has moved"),
                    Err(_) => return,
                }
                acknowledged.store(number, Ordering::SeqCst);
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(400)).await;
    server.kill();
    writing.await.expect("a writer");
    server.restart();
    let store = connect(&settings).await;
    let found = count(&store, HERE, &counter(1)).await.expect("a counter");
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    assert!(acknowledged > 10, "{acknowledged}");
    // The one whose answer was lost may have taken effect.
    assert!(found == acknowledged || found == acknowledged + 1, "{found} of {acknowledged}");
    let logged = store.log(HERE, Log::Feed, Tick::ZERO, 100_000).await.expect("a log");
    assert_eq!(logged.len() as u64, found, "one entry a commit");
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable_at_once_and_used_when_it_is_back() {
    let (mut server, _, store) = world(&FLUSHING).await;
    let tick = done(&store, HERE, put(counter(1), Version::ZERO, 1)).await.tick;
    server.kill();
    for _ in 0..20 {
        let began_at = Instant::now();
        let load = find(&store, HERE, &counter(1)).await;
        assert!(matches!(load, Err(StoreError::Unavailable(_))), "{load:?}");
        let commit = store.commit(HERE, put(counter(1), tick, 2)).await;
        assert!(matches!(commit, Err(StoreError::Unavailable(_))), "{commit:?}");
        assert!(began_at.elapsed() < Duration::from_millis(400));
    }
    server.restart();
    server.wait_until_ready();
    let back_at = Instant::now();
    while find(&store, HERE, &counter(1)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(back_at.elapsed() < Duration::from_secs(1), "{:?}", back_at.elapsed());
    done(&store, HERE, put(counter(1), tick, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_broke_while_idle_leaves_no_outcome_unknown() {
    let (mut server, _, store) = world(&FLUSHING).await;
    let mut tick = Version::ZERO;
    for number in 0..3 {
        tick = done(&store, HERE, put(counter(1), tick, number)).await.tick;
        server.restart();
        server.wait_until_ready();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(count(&store, HERE, &counter(1)).await, Some(2));
}

#[tokio::test]
async fn g5_a_server_that_hangs_is_given_up_at_the_deadline() {
    let (server, _, store) = world(&FLUSHING).await;
    let tick = done(&store, HERE, put(counter(1), Version::ZERO, 1)).await.tick;
    server.freeze();
    let began_at = Instant::now();
    let key = counter(1);
    let (load, commit) =
        tokio::join!(find(&store, HERE, &key), store.commit(HERE, put(counter(1), tick, 2)),);
    assert!(matches!(load, Err(StoreError::Unavailable(_))), "{load:?}");
    assert!(matches!(commit, Err(StoreError::OutcomeUnknown(_))), "{commit:?}");
    assert!(began_at.elapsed() < Duration::from_millis(900), "{:?}", began_at.elapsed());
    // Nothing was sent now: no connection can be made.
    let commit = store.commit(HERE, put(counter(2), Version::ZERO, 2)).await;
    assert!(matches!(commit, Err(StoreError::Unavailable(_))), "{commit:?}");
    server.thaw();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // It was in the server's hands and happened later.
    assert_eq!(count(&store, HERE, &counter(1)).await, Some(2));
    assert_eq!(count(&store, HERE, &counter(2)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_waits_for_a_hanging_server_no_longer_than_one() {
    let (server, _, store) = world(&[]).await;
    let store = Arc::new(store);
    server.freeze();
    let began_at = Instant::now();
    let crowd = (0..2000).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { find(&store, HERE, &counter(1)).await.is_err() })
    });
    for one in crowd.collect::<Vec<_>>() {
        assert!(one.await.expect("a caller"));
    }
    assert!(began_at.elapsed() < Duration::from_millis(1600), "{:?}", began_at.elapsed());
    server.thaw();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count(&store, HERE, &counter(1)).await, None);
}

#[tokio::test]
async fn a_server_that_is_full_takes_no_writes_and_keeps_no_half() {
    let (server, _, store) = world(&[]).await;
    let tick = done(&store, HERE, put(counter(1), Version::ZERO, 1)).await.tick;
    server.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let commit = store.commit(HERE, ending(counter(1), tick, 2)).await;
    assert!(matches!(commit, Err(StoreError::ReadOnly(_))), "{commit:?}");
    let mut batch = put(counter(2), Version::ZERO, 2);
    batch.delete(counter(1), tick);
    let commit = store.commit(HERE, batch).await;
    assert!(matches!(commit, Err(StoreError::ReadOnly(_))), "{commit:?}");
    assert_eq!(count(&store, HERE, &counter(1)).await, Some(1));
    assert_eq!(count(&store, HERE, &counter(2)).await, None);
    assert!(store.log(HERE, Log::Feed, Tick::ZERO, 9).await.expect("a log").is_empty());
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    done(&store, HERE, ending(counter(1), tick, 2)).await;
}

#[tokio::test]
async fn a_server_that_lacks_replicas_takes_no_writes() {
    let (server, _, store) = world(&[]).await;
    server.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let commit = store.commit(HERE, put(counter(1), Version::ZERO, 1)).await;
    assert!(matches!(commit, Err(StoreError::ReadOnly(_))), "{commit:?}");
    assert_eq!(count(&store, HERE, &counter(1)).await, None);
}

#[tokio::test]
async fn a_server_that_became_a_replica_takes_no_writes() {
    let (server, _, store) = world(&[]).await;
    server.cli(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    let commit = store.commit(HERE, put(counter(1), Version::ZERO, 1)).await;
    assert!(matches!(commit, Err(StoreError::ReadOnly(_))), "{commit:?}");
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    done(&store, HERE, put(counter(1), Version::ZERO, 1)).await;
}

#[tokio::test]
async fn scripts_that_a_server_forgot_are_taught_again() {
    let (server, _, store) = world(&[]).await;
    let mut tick = Version::ZERO;
    for number in 0..5 {
        server.cli(&["SCRIPT", "FLUSH"]);
        tick = done(&store, HERE, ending(counter(1), tick, number)).await.tick;
        server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(count(&store, HERE, &counter(1)).await, Some(number));
        server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(store.page(HERE, Kind::Throttle, None, 9).await.expect("a page").len(), 1);
    }
}

#[tokio::test]
async fn a_key_that_holds_something_else_is_corrupt_and_stays_as_it_is() {
    let (server, settings, store) = world(&[]).await;
    let key = |name: &str| format!("{{{}:1}}:{name}", settings.namespace);
    let record = key(&format!("throttle:{}", "01".repeat(32)));
    let foreign = [record.clone(), key("tick"), key("due"), key("feed"), key("all:throttle")];
    for foreign in foreign {
        server.cli(&["HSET", &foreign, "a", "b"]);
        let commit = store.commit(HERE, ending(counter(1), Version::ZERO, 1)).await;
        let Err(StoreError::Corrupt { key, problem }) = commit else { panic!("{commit:?}") };
        assert_eq!((key.as_str(), problem.as_str()), (foreign.as_str(), "it is a Redis hash"));
        let left = server.cli(&["KEYS", &format!("{{{}:1}}:*", settings.namespace)]);
        assert_eq!(left, foreign, "something was written");
        server.cli(&["DEL", &foreign]);
    }
    server.cli(&["HSET", &record, "a", "b"]);
    let load = find(&store, HERE, &counter(1)).await;
    assert!(matches!(load, Err(StoreError::Corrupt { .. })), "{load:?}");
    server.cli(&["HSET", &key("due"), "a", "b"]);
    let due = store.due(HERE, Timestamp::MAX, 9).await;
    assert!(matches!(due, Err(StoreError::Corrupt { .. })), "{due:?}");
    server.cli(&["DEL", &record]);
    for value in ["", "x", "2000000000000000199999999999999990", "1"] {
        server.cli(&["SET", &record, &format!("{value} ")]);
        let load = find(&store, HERE, &counter(1)).await;
        assert!(matches!(load, Err(StoreError::Corrupt { .. })), "{value}: {load:?}");
    }
}

#[tokio::test]
async fn a_tick_that_was_removed_lets_no_log_go_back() {
    let (server, settings, store) = world(&[]).await;
    let first = done(&store, HERE, ending(counter(1), Version::ZERO, 1)).await.tick;
    // As if drawn by a server whose clock is an hour ahead.
    let ahead = Tick(first.0 + (3_600_000 << 16));
    let tick = format!("{{{}:1}}:tick", settings.namespace);
    server.cli(&["SET", &tick, &format!("{:016x}", ahead.0)]);
    let second = done(&store, HERE, ending(counter(1), first, 2)).await.tick;
    assert_eq!(second, ahead.successor());
    server.cli(&["DEL", &tick]);
    let third = done(&store, HERE, ending(counter(1), second, 3)).await.tick;
    assert_eq!(third, second.successor());
    assert_eq!(store.log(HERE, Log::Feed, Tick::ZERO, 9).await.expect("a log").len(), 3);
}

#[tokio::test]
async fn records_are_readable_by_the_command_line_and_removed_in_time() {
    let (server, settings, store) = world(&[]).await;
    let expires_at = store.now().await.expect("an instant").plus(Duration::from_secs(60));
    let mut batch = put(counter(1), Version::ZERO, 1);
    for write in &mut batch.writes {
        if let cloakroom_store::Change::Put { expires_at: at, .. } = &mut write.change {
            *at = Some(expires_at);
        }
    }
    let tick = done(&store, HERE, batch).await.tick;
    let key = format!("{{{}:1}}:throttle:{}", settings.namespace, "01".repeat(32));
    let held = server.cli(&["GET", &key]);
    let head = format!("1{:016x}{:016}", tick.0, expires_at.as_millis());
    assert!(held.contains(&head), "{held}");
    let seconds: i64 = server.cli(&["TTL", &key]).parse().expect("a number");
    assert!((86_400..=86_461).contains(&seconds), "a day after its expiry, not {seconds}");
}

#[tokio::test]
async fn nothing_looks_through_the_whole_key_space() {
    let (server, _, store) = world(&[]).await;
    server.cli(&["CONFIG", "RESETSTAT"]);
    let mut tick = Version::ZERO;
    for number in 0..20 {
        tick = done(&store, HERE, ending(counter(1), tick, number)).await.tick;
        find(&store, HERE, &counter(1)).await.expect("a load");
        store.page(HERE, Kind::Throttle, None, 9).await.expect("a page");
        store.due(HERE, Timestamp::MAX, 9).await.expect("what is due");
        store.log(HERE, Log::Feed, Tick::ZERO, 9).await.expect("a log");
        store.trim(HERE, Log::Feed, Timestamp::MAX, 9).await.expect("trims");
    }
    let statistics = server.cli(&["INFO", "commandstats"]);
    for command in ["cmdstat_keys:", "cmdstat_scan:", "cmdstat_config|set:", "cmdstat_eval:"] {
        assert!(!statistics.contains(command), "{command}");
    }
    let calls = |command: &str| {
        let line = statistics.lines().find(|line| line.starts_with(command)).expect("a line");
        line.split(['=', ',']).nth(1).expect("a count").parse::<u32>().expect("a number")
    };
    // One round trip each, two for a page: commit, load, log and trim are a script, due a command.
    // Scripts that were not known yet are sent again.
    assert!((100..=104).contains(&calls("cmdstat_evalsha:")), "{statistics}");
    assert_eq!(calls("cmdstat_zrangebyscore:"), 20);
    assert_eq!(calls("cmdstat_zrangebylex:"), 20);
}
