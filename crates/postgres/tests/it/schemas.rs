//! The schema: made, brought up to date, refused; apart from others; readable.

use cloakroom_core::types::{Sid, Subject, Timestamp};
use cloakroom_postgres::{Migrated, PostgresSettings, PostgresStore, SCHEMA_VERSION};
use cloakroom_store::conformance::samples;
use cloakroom_store::{Batch, Key, Record, Review, Store, Version};
use tokio_postgres::Client;

use crate::server::shared;
use crate::world::{HERE, connect, count, counter, done, put, refusal};

/// Makes the schema as the first version had it.
async fn make_first_version(client: &Client, schema: &str) {
    let tables = include_str!("../../sql/0001_tables.sql");
    let sql = format!(
        "BEGIN; CREATE SCHEMA {schema}; SET LOCAL search_path = {schema}; {tables}; \
         INSERT INTO schema_version (version, readable_from, release) VALUES (1, 1, '0.0.1'); \
         INSERT INTO partitions (partition) SELECT n FROM generate_series(0, 7) n; COMMIT"
    );
    client.batch_execute(&sql).await.expect("a schema");
}

#[tokio::test]
async fn an_old_schema_is_refused_with_the_command_to_run_unless_it_may_be_migrated() {
    let server = shared().await;
    let client = server.client().await;
    make_first_version(&client, "old").await;
    let mut settings = PostgresSettings { migrate: false, ..server.settings_of("old") };
    let told = refusal(&settings).await;
    assert!(told.contains("version 1"), "{told}");
    assert!(told.contains("`cloakroom store migrate`"), "{told}");
    settings.migrate = true;
    let store = connect(&settings).await;
    done(&store, put(counter(1), Version::ZERO, 1)).await;
    settings.migrate = false;
    connect(&settings).await;
}

#[tokio::test]
async fn the_command_brings_up_to_date_and_says_so() {
    let server = shared().await;
    make_first_version(&server.client().await, "commanded").await;
    let settings = PostgresSettings { migrate: false, ..server.settings_of("commanded") };
    let migrate = async || PostgresStore::migrate(&settings).await.expect("it migrates");
    assert_eq!(migrate().await, Migrated { from: 1, to: SCHEMA_VERSION });
    assert_eq!(migrate().await, Migrated { from: SCHEMA_VERSION, to: SCHEMA_VERSION });
    connect(&settings).await;
    let none = PostgresSettings { migrate: false, ..server.settings_of("never_made") };
    assert!(refusal(&none).await.contains("version 0"));
}

#[tokio::test]
async fn nodes_that_start_at_once_make_one_schema() {
    let server = shared().await;
    let starting: Vec<_> = (0..6)
        .map(|number| {
            let partitions = 8 + number;
            let settings = PostgresSettings { partitions, ..server.settings_of("raced") };
            tokio::spawn(async move { connect(&settings).await.partitions() })
        })
        .collect();
    let mut partitions = Vec::new();
    for node in starting {
        partitions.push(node.await.expect("a node"));
    }
    assert!(partitions.iter().all(|number| *number == partitions[0]), "{partitions:?}");
    let client = server.client().await;
    let sql = "SELECT count(*) FROM raced.schema_version";
    let steps: i64 = client.query_one(sql, &[]).await.expect("a row").get(0);
    assert_eq!(steps, i64::from(SCHEMA_VERSION));
}

#[tokio::test]
async fn a_newer_schema_is_refused_unless_it_says_that_we_can_read_it() {
    let server = shared().await;
    let settings = server.settings_of("newer");
    connect(&settings).await;
    let client = server.client().await;
    let next = SCHEMA_VERSION + 1;
    let raise = format!(
        "INSERT INTO newer.schema_version (version, readable_from, release) \
         VALUES ({next}, {SCHEMA_VERSION}, '9')"
    );
    client.batch_execute(&raise).await.expect("a row");
    connect(&settings).await;
    let close = format!("UPDATE newer.schema_version SET readable_from = {next}");
    client.batch_execute(&close).await.expect("a row");
    let told = refusal(&settings).await;
    assert!(told.contains(&format!("version {next}, which is too new")), "{told}");
}

#[tokio::test]
async fn two_stores_in_two_schemas_dont_meet() {
    let server = shared().await;
    let (one, other) = (connect(&server.settings()).await, connect(&server.settings()).await);
    done(&one, put(counter(1), Version::ZERO, 1)).await;
    assert_eq!(count(&other, &counter(1)).await.expect("a load"), None);
    done(&other, put(counter(1), Version::ZERO, 2)).await;
    let found = count(&one, &counter(1)).await.expect("a load");
    assert_eq!(found.map(|found| found.0), Some(1));
}

#[tokio::test]
async fn a_store_keeps_the_partitions_it_was_made_with() {
    let server = shared().await;
    let mut settings = server.settings();
    assert_eq!(connect(&settings).await.partitions(), 8);
    settings.partitions = 64;
    assert_eq!(connect(&settings).await.partitions(), 8);
}

#[tokio::test]
async fn a_session_is_readable_by_plain_sql() {
    let server = shared().await;
    let settings = server.settings();
    let store = connect(&settings).await;
    let session = samples::ended_session();
    let (sid, subject) = (session.sid, session.subject.clone().expect("a subject"));
    let mut batch = Batch::default();
    let review = Review::At(Timestamp::from_secs(1_795_500_000));
    batch.put(Key::Session(sid), Version::ZERO, Record::Session(Box::new(session)), review);
    let tick = done(&store, batch).await.tick;
    let client = server.client().await;
    let sql = format!(
        "SELECT subject, state, reason, version, created_at::text, expires_at > created_at, \
         last_seen_at IS NOT NULL, review_at::text, client_ip::text \
         FROM {}.sessions WHERE sid = $1",
        settings.schema
    );
    client.batch_execute("SET TIME ZONE 'UTC'").await.expect("a setting");
    let row = client.query_one(&sql, &[&sid.to_string()]).await.expect("a row");
    assert_eq!(row.get::<_, &str>(0), subject.as_str());
    assert_eq!((row.get(1), row.get(2)), ("ended", "replaced"));
    assert_eq!(row.get::<_, i64>(3), i64::try_from(tick.0).expect("a tick"));
    assert!(row.get::<_, &str>(4).starts_with("2026-11-24 "), "{:?}", row.get::<_, &str>(4));
    assert!(row.get::<_, bool>(5) && row.get::<_, bool>(6));
    assert_eq!(row.get::<_, &str>(7), "2026-11-24 06:00:00+00");
    assert_eq!(row.get::<_, &str>(8), "2001:db8::7/128");
}

#[tokio::test]
async fn every_view_and_column_says_what_it_is() {
    let server = shared().await;
    let settings = server.settings();
    let store = connect(&settings).await;
    for (key, record) in samples::one_of_each_kind() {
        let mut batch = Batch::default();
        batch.put(key, Version::ZERO, record, Review::Never);
        batch.entries = samples::entries();
        done(&store, batch).await;
    }
    let client = server.client().await;
    let schema = &settings.schema;
    for view in [
        "sessions",
        "session_data",
        "subjects",
        "users",
        "signing_keys",
        "api_keys",
        "denied_tokens",
    ] {
        let sql = format!("SELECT * FROM {schema}.{view}");
        assert_eq!(client.query(&sql, &[]).await.expect("rows").len(), 1, "{view}");
    }
    let silent = "SELECT c.relname || '.' || a.attname FROM pg_class c \
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 \
        WHERE c.relnamespace = $1::text::regnamespace AND c.relkind = 'r' \
        AND col_description(c.oid, a.attnum) IS NULL";
    let silent = client.query(silent, &[schema]).await.expect("rows");
    assert!(silent.is_empty(), "{:?}", silent.iter().map(|r| r.get(0)).collect::<Vec<String>>());
    let sql = format!("SELECT kind, at IS NOT NULL, sid FROM {schema}.audit LIMIT 1");
    let row = client.query_one(&sql, &[]).await.expect("a row");
    assert!(!row.get::<_, &str>(0).is_empty() && row.get::<_, bool>(1));
}

#[tokio::test]
async fn texts_that_json_can_hold_and_postgres_cant_survive() {
    let server = shared().await;
    let store = connect(&server.settings()).await;
    let mut session = samples::anonymous_session();
    session.subject = Some(Subject::parse("50 %").expect("a subject"));
    session.client.label = Some("a\0b".to_owned());
    session.sid = Sid::new(Timestamp::EPOCH, HERE, [9; 8]);
    let key = Key::Session(session.sid);
    let mut batch = Batch::default();
    let record = Record::Session(Box::new(session));
    batch.put(key.clone(), Version::ZERO, record, Review::Never);
    done(&store, batch).await;
    let found = store.load(HERE, std::slice::from_ref(&key)).await.expect("a load");
    let found = found.into_iter().flatten().next().expect("a record");
    let session = found.record.into_session().expect("a session");
    assert_eq!(session.client.label.as_deref(), Some("a\0b"));
}
