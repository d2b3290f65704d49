//! What the server does for a call: never more for more that is stored.

use std::fs;
use std::time::Duration;

use cloakroom_core::session::Session;
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_postgres::{PostgresSettings, PostgresStore};
use cloakroom_store::conformance::samples;
use cloakroom_store::{Batch, Follow, Key, Kind, Log, Record, Review, Store, Tick, Version};
use tokio_postgres::Client;

use crate::server::Server;
use crate::world::{HERE, connect, counter, done, put};

/// How many records there are, a quarter of them in one partition; and as many log entries.
const RECORDS: u32 = 1_000_000;

/// Stores as many records as a large installation has.
async fn fill(client: &Client, schema: &str) {
    let sql = format!(
        "INSERT INTO {schema}.records (partition, kind, name, version, review_at, format, record) \
         SELECT CASE WHEN n % 4 = 0 THEN 1 ELSE n % 8 END, \
             CASE n % 3 WHEN 0 THEN 'session' WHEN 1 THEN 'data' ELSE 'throttle' END, \
             rpad(translate(md5(n::text), 'abcdef', 'ABCDEF'), 43, 'A'), n, \
             CASE n % 3 WHEN 2 THEN to_timestamp(n) END, 1, '{{\"t\":1}}' \
         FROM generate_series(1, {RECORDS}) n; \
         INSERT INTO {schema}.audit (partition, tick, place, kind, at, format, entry) \
         SELECT CASE WHEN n % 4 = 0 THEN 1 ELSE n % 8 END, n, 0, 'x', to_timestamp(n), 1, \
             '{{\"a\":{{\"k\":\"session.opened\",\"at\":1,\"act\":\"own\"}}}}' \
         FROM generate_series(1, {RECORDS}) n; \
         INSERT INTO {schema}.feed (partition, tick, place, kind, format, entry) \
         SELECT CASE WHEN n % 4 = 0 THEN 1 ELSE n % 8 END, n, 0, 'x', 1, \
             '{{\"f\":{{\"record\":{{}}}}}}' \
         FROM generate_series(1, {RECORDS}) n"
    );
    client.batch_execute(&sql).await.expect("many rows");
}

/// Makes every call of the store once or more.
async fn use_everything(store: &PostgresStore, round: u8) {
    let tick = done(store, put(counter(round), Version::ZERO, 1)).await.tick;
    let mut batch = put(counter(round), tick, 2);
    batch.expect(Key::Partition, Version::ZERO);
    let key = counter(round + 100);
    batch.put(key.clone(), Version::ZERO, Record::Throttle(1), Review::At(Timestamp::EPOCH));
    let tick = done(store, batch).await.tick;
    let mut batch = Batch::default();
    batch.delete(key, tick);
    batch.entries = samples::entries();
    done(store, batch).await;
    let keys: Vec<Key> = (0..8).map(counter).collect();
    store.load(HERE, &keys).await.expect("a load");
    for (key, record) in samples::one_of_each_kind().into_iter().take(4) {
        let version = version(store, &key).await;
        let mut batch = Batch::default();
        batch.put(key.clone(), version, record, Review::Keep);
        done(store, batch).await;
    }
    let keys: Vec<Key> = samples::one_of_each_kind().into_iter().map(|(key, _)| key).collect();
    for follow in [Follow::SubjectAndIndex, Follow::Sessions { at_least: 1 }] {
        let found = store.load_following(HERE, &keys[..4], follow).await.expect("a load");
        assert_eq!(found.asked.iter().flatten().count(), 4);
    }
    let page = store.page(HERE, Kind::Throttle, None, 50).await.expect("a page");
    let last = page.last().map(|(key, _)| key.clone());
    store.page(HERE, Kind::Throttle, last.as_ref(), 50).await.expect("a page");
    store.due(HERE, Timestamp::MAX, 50).await.expect("what is due");
    for log in [Log::Feed, Log::Audit] {
        store.log(HERE, log, Tick(500_000), 50).await.expect("a log");
        let all: Vec<_> = (0..8).map(|number| (Partition(number), Tick(999_900))).collect();
        assert!(store.logs(log, &all, 50).await.iter().all(Result::is_ok));
        store.log_back(HERE, log, Tick(u64::MAX), 50).await.expect("a log");
        store.trim(HERE, log, Timestamp::from_millis(1), 10).await.expect("trims");
    }
}

/// Calls the function that stands for a load behind a pooler, on a connection of its own.
async fn load_by_function(client: &Client, schema: &str) {
    let sql = format!(
        "SELECT count(*) FROM {schema}.load_records( \
         1, ARRAY['throttle', 'partition'], ARRAY['a', '*'])"
    );
    client.query_one(&sql, &[]).await.expect("a load");
    let sql = format!(
        "SELECT count(*) FROM {schema}.load_following( \
         1, ARRAY['session', 'index'], ARRAY['a', 'usr_1'], ARRAY['subject', 'index'], 1)"
    );
    client.query_one(&sql, &[]).await.expect("a load");
}

async fn version(store: &PostgresStore, key: &Key) -> Version {
    let found = store.load(HERE, std::slice::from_ref(key)).await.expect("a load");
    found.into_iter().flatten().next().map_or(Version::ZERO, |found| found.version)
}

/// What the server would do for the same predicates if nobody told it to prefer indices.
async fn explain(client: &Client, schema: &str) -> String {
    let mut plans = String::new();
    for sql in [
        "SELECT version FROM {schema}.records WHERE partition = 1 AND kind = 'session' \
         AND name = 'a' AND (invisible_at IS NULL OR invisible_at > clock_timestamp())",
        "SELECT name FROM {schema}.records WHERE partition = 1 AND kind = 'data' AND name > 'a' \
         AND (invisible_at IS NULL OR invisible_at > (SELECT clock_timestamp())) \
         ORDER BY name LIMIT 100",
        "SELECT name FROM {schema}.records WHERE partition = 1 AND review_at < now() \
         ORDER BY review_at LIMIT 100",
        "SELECT tick FROM {schema}.feed WHERE partition = 1 AND tick >= 500000 \
         ORDER BY tick FETCH FIRST 100 ROWS WITH TIES",
        "SELECT tick FROM {schema}.audit WHERE partition = 1 AND tick < 500000 \
         ORDER BY tick DESC FETCH FIRST 100 ROWS WITH TIES",
        "DELETE FROM {schema}.audit WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.audit \
         WHERE partition = 1 AND tick < 9 ORDER BY tick, place LIMIT 100))",
        "UPDATE {schema}.records SET version = 2 \
         WHERE partition = 1 AND kind = 'session' AND name = 'a'",
    ] {
        let sql = format!("EXPLAIN {}", sql.replace("{schema}", schema));
        for row in client.query(&sql, &[]).await.expect("a plan") {
            plans.push_str(row.get(0));
            plans.push('\n');
        }
    }
    plans
}

/// By what an index is searched, in all of these plans.
fn conditions<'a>(plans: &'a str, index: &str) -> Vec<&'a str> {
    let lines: Vec<&str> = plans.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].contains(index));
    let found: Vec<&str> = pairs.map(|pair| pair[1]).filter(|l| l.contains("Cond:")).collect();
    assert!(!found.is_empty(), "{index} isn't searched: {plans}");
    found
}

/// How often each table was read from end to end, by anybody.
async fn scans(client: &Client, schema: &str) -> Vec<(String, i64)> {
    let sql = "SELECT relname::text, coalesce(seq_scan, 0) FROM pg_stat_user_tables \
               WHERE schemaname = $1 AND relname <> 'schema_version' ORDER BY relname";
    // The counts arrive a second after the fact.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let rows = client.query(sql, &[&schema]).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_reads_a_table_from_end_to_end_at_a_million_records() {
    let loud = [
        "session_preload_libraries=auto_explain",
        "auto_explain.log_min_duration=0",
        "auto_explain.log_nested_statements=on",
    ];
    let server = Server::start(&loud).await;
    let settings = PostgresSettings { pool: 1, ..server.settings() };
    let store = connect(&settings).await;
    let client = server.client().await;
    client.batch_execute("SET auto_explain.log_min_duration = -1").await.expect("a setting");
    // The plans of the functions are made now, of tables with hardly anything in them.
    client.batch_execute(&format!("ANALYZE {}.records", settings.schema)).await.expect("counts");
    let pooled = server.client().await;
    for round in 0..8 {
        use_everything(&store, round).await;
        load_by_function(&pooled, &settings.schema).await;
    }
    fill(&client, &settings.schema).await;
    // What was logged until here is of small tables, which are rightly read whole.
    let log = server.dir.with_file_name("log");
    let known = fs::read_to_string(&log).expect("a log").len();
    let before = scans(&client, &settings.schema).await;
    use_everything(&store, 10).await;
    load_by_function(&pooled, &settings.schema).await;
    let fresh = connect(&settings).await;
    use_everything(&fresh, 11).await;
    client.batch_execute("ANALYZE").await.expect("statistics");
    use_everything(&store, 12).await;
    use_everything(&connect(&settings).await, 13).await;
    load_by_function(&server.client().await, &settings.schema).await;
    let after = scans(&client, &settings.schema).await;
    // Opening a store counts its partitions: eight rows, once.
    let counted = |scans: Vec<(String, i64)>| {
        scans.into_iter().filter(|(table, _)| table != "partitions").collect::<Vec<_>>()
    };
    assert_eq!(counted(after), counted(before));
    let plans = fs::read_to_string(&log).expect("a log").split_off(known);
    for table in ["records", "feed", "audit"] {
        assert!(!plans.contains(&format!("Seq Scan on {table}")), "{plans}");
        assert!(plans.contains(&format!("{table}_pkey on {table}")), "no plan of {table}: {plans}");
    }
    assert!(plans.contains("records_review on records"), "{plans}");
    for condition in conditions(&plans, "records_pkey") {
        assert!(condition.contains("name"), "a partition is searched: {condition}\n{plans}");
    }
    let unasked = explain(&client, &settings.schema).await;
    assert!(!unasked.contains("Seq Scan"), "{unasked}");
}

#[tokio::test]
async fn a_touch_is_a_heap_only_update() {
    // Its own server: somebody's open transaction would keep old versions alive.
    let server = Server::start(&[]).await;
    let settings = server.settings();
    let store = connect(&settings).await;
    let session = samples::refreshed_session();
    let key = Key::Session(session.sid);
    let seen = |number: u64| Session {
        last_seen_at: session.last_seen_at.plus(Duration::from_secs(number)),
        ..session.clone()
    };
    let mut version = Version::ZERO;
    for number in 0..=TOUCHES {
        let mut batch = Batch::default();
        let review = if number == 0 { Review::At(Timestamp::MAX) } else { Review::Keep };
        let record = Record::Session(Box::new(seen(number)));
        batch.put(key.clone(), version, record, review);
        version = done(&store, batch).await.tick;
    }
    drop(store);
    let client = server.client().await;
    let sql = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables \
               WHERE schemaname = $1 AND relname = $2";
    for table in ["records", "partitions"] {
        let counts = loop {
            let row = client.query_one(sql, &[&settings.schema, &table]).await.expect("a row");
            let counts: (i64, i64) = (row.get(0), row.get(1));
            if counts.0 >= i64::try_from(TOUCHES).expect("few") {
                break counts;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(counts.0, counts.1, "{table}");
    }
}

const TOUCHES: u64 = 60;
