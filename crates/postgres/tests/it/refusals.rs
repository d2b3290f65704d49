//! What keeps a store from opening: one plain sentence each.

use cloakroom_core::types::Secret;
use cloakroom_postgres::{ConnectError, PostgresSettings, PostgresStore};
use cloakroom_store::Version;

use crate::server::{PASSWORD, Server, shared};
use crate::world::{connect, counter, done, put, refusal};

fn with_url(settings: PostgresSettings, url: String) -> PostgresSettings {
    PostgresSettings { url: Secret::new(url), ..settings }
}

async fn run(server: &Server, sql: &str) {
    // One at a time: some of these can't run in a block.
    let client = server.client().await;
    for statement in sql.split(';').filter(|statement| !statement.trim().is_empty()) {
        client.batch_execute(statement).await.expect("a statement");
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_shown() {
    let server = shared().await;
    let url = format!("postgres://postgres:hush@127.0.0.1:{}/postgres", server.port);
    let told = refusal(&with_url(server.settings(), url)).await;
    assert!(told.starts_with("the server refuses the user or its password"), "{told}");
}

#[tokio::test]
async fn an_unknown_database_is_named() {
    let server = shared().await;
    let url = server.url_of("postgres", "nowhere");
    let told = refusal(&with_url(server.settings(), url)).await;
    assert!(told.starts_with("the server has no such database") && told.contains("nowhere"));
}

#[tokio::test]
async fn nobody_there_is_worth_another_try() {
    let server = shared().await;
    let url = "postgres://postgres:hush@127.0.0.1:9/postgres".to_owned();
    let settings = with_url(server.settings(), url);
    let error = PostgresStore::connect(&settings).await.expect_err("nobody is there");
    assert!(error.is_temporary(), "{error}");
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
    refusal(&settings).await;
}

#[tokio::test]
async fn a_missing_privilege_is_named() {
    let server = shared().await;
    let settings = server.settings_of("guarded");
    connect(&settings).await;
    run(server, &format!("CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")).await;
    let url = server.url_of("guest", "postgres");
    let make = with_url(server.settings_of("guests_own"), url.clone());
    assert!(refusal(&make).await.starts_with("the database user lacks a privilege"));
    let mut settings = with_url(settings, url);
    assert!(refusal(&settings).await.starts_with("the database user lacks a privilege"));
    run(
        server,
        "GRANT USAGE ON SCHEMA guarded TO guest; \
         GRANT SELECT ON ALL TABLES IN SCHEMA guarded TO guest",
    )
    .await;
    let told = refusal(&settings).await;
    assert!(told.contains("UPDATE on guarded.partitions"), "{told}");
    run(
        server,
        "GRANT UPDATE ON guarded.partitions TO guest; \
         GRANT INSERT, UPDATE, DELETE ON guarded.records, guarded.feed, guarded.audit TO guest",
    )
    .await;
    settings.migrate = false;
    let store = connect(&settings).await;
    done(&store, put(counter(1), Version::ZERO, 1)).await;
}

#[tokio::test]
async fn a_database_that_cant_hold_every_text_is_refused() {
    let server = shared().await;
    run(server, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").await;
    let url = server.url_of("postgres", "latin");
    let told = refusal(&with_url(server.settings(), url)).await;
    assert!(told.contains("LATIN1") && told.contains("UTF8"), "{told}");
}

#[tokio::test]
async fn an_isolation_that_would_fail_commits_is_refused_with_the_remedy() {
    let server = shared().await;
    run(
        server,
        &format!(
            "CREATE ROLE strict SUPERUSER LOGIN PASSWORD '{PASSWORD}'; \
             ALTER ROLE strict SET default_transaction_isolation = 'repeatable read'"
        ),
    )
    .await;
    let settings = with_url(server.settings(), server.url_of("strict", "postgres"));
    let told = refusal(&settings).await;
    let remedy = "ALTER ROLE \"strict\" SET default_transaction_isolation = 'read committed'";
    assert!(told.contains(remedy), "{told}");
    run(server, remedy).await;
    connect(&settings).await;
}

#[tokio::test]
async fn tables_of_somebody_else_are_left_alone() {
    let server = shared().await;
    run(server, "CREATE SCHEMA foreign_; CREATE TABLE foreign_.records (a integer)").await;
    let told = refusal(&server.settings_of("foreign_")).await;
    assert!(told.starts_with("the schema foreign_ can't be used"), "{told}");
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 'foreign_'::regnamespace";
    let left: i64 = server.client().await.query_one(sql, &[]).await.expect("a row").get(0);
    assert_eq!(left, 1);
}
