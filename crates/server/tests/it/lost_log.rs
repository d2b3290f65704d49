//! A log that can't be read, while everything else of the store goes on.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::Ask;
use crate::servers::{Server, each};
use crate::world::{ADA, World, login};

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);
/// Verifications that are asked at once, to see what they cost.
const VERIFIES: u64 = 5;

/// The name in PostgreSQL of whoever may be kept from the log: a superuser can't be.
const NODE: &str = "node";

/// How the nodes of this test reach a server, after preparing it.
async fn settings(server: &Server) -> Vec<(&'static str, String)> {
    let mut settings = server.settings();
    if let Server::Postgres(server) = server {
        let password = crate::servers::PASSWORD;
        let sql = format!(
            "CREATE ROLE {NODE} LOGIN PASSWORD '{password}'; \
             GRANT CREATE ON DATABASE postgres TO {NODE}"
        );
        server.client().await.batch_execute(&sql).await.expect("a role");
        settings.push(("store.url", server.url_of(NODE, "postgres")));
    }
    settings
}

/// Takes the right to read the feed from the running nodes, or gives it back.
async fn let_read(server: &Server, settings: &[(&str, String)], may: bool) {
    match server {
        Server::Redis(process) => {
            let right = if may { "+xrange" } else { "-xrange" };
            assert_eq!(process.cli(&["ACL", "SETUSER", "default", right]), "OK");
        }
        Server::Postgres(server) => {
            let schema = settings.iter().find(|(key, _)| *key == "store.namespace");
            let (_, schema) = schema.expect("a schema");
            let sql = match may {
                true => format!("GRANT SELECT ON {schema}.feed TO {NODE}"),
                false => format!("REVOKE SELECT ON {schema}.feed FROM {NODE}"),
            };
            server.client().await.batch_execute(&sql).await.expect("done");
        }
    }
}

/// How often a node has loaded records so far.
async fn loads(node: &World) -> u64 {
    let answer = node.admin(Ask::get("/metrics")).await;
    let text = String::from_utf8(answer.ok().body.clone()).expect("UTF-8");
    let name = "cloakroom_store_call_duration_seconds_count{operation=\"load";
    let counts = text.lines().filter(|line| line.starts_with(name));
    let counts = counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    counts.sum()
}

/// Verifies some times, and says how often records were loaded meanwhile.
async fn loads_of_verifies(node: &World, access: &str) -> u64 {
    let before = loads(node).await;
    for _ in 0..VERIFIES {
        node.send(Ask::get("/auth/verify").bearer(access)).await.ok();
    }
    loads(node).await - before
}

/// Waits until verifying costs what it should.
async fn wait_for_loads(node: &World, access: &str, what: &str, is_it: impl Fn(u64) -> bool) {
    let began_at = Instant::now();
    loop {
        let found = loads_of_verifies(node, access).await;
        if is_it(found) {
            return;
        }
        assert!(began_at.elapsed() < PATIENCE, "{what}, in vain: {found} loads");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g9_a_lost_feed_lets_no_cache_decide() {
    for server in each().await {
        let own = settings(&server).await;
        let cached = [
            ("verify.cache", "true"),
            ("verify.max_staleness", "600ms"),
            ("limit.session", "100000/1m"),
            ("limit.verify", "100000/1m"),
        ];
        let all: Vec<_> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let all: Vec<_> = all.into_iter().chain(cached).collect();
        let (one, two) = (World::start(&all).await, World::start(&all).await);
        one.user(ADA).await;
        let (lives, ends) = (one.tokens(ADA).await, one.tokens(ADA).await);
        let (lives, refresh) = (lives.text("access_token"), lives.text("refresh_token"));
        let ends = ends.text("access_token");
        wait_for_loads(&two, &lives, "the cache decides", |found| found == 0).await;
        assert_eq!(two.alive(&ends).await, Ok(()));

        let_read(&server, &own, false).await;
        wait_for_loads(&two, &lives, "the store is read", |found| found >= VERIFIES).await;
        one.send(Ask::post("/auth/logout").bearer(&ends)).await.is(204);
        for node in [&two, &one] {
            assert_eq!(node.alive(&ends).await, Err("session_ended".into()));
            assert_eq!(node.alive(&lives).await, Ok(()));
            node.send(Ask::get("/auth/session")).await.refused(401, "credentials_required");
            node.send(Ask::get("/readyz")).await.ok();
        }
        two.send(login(ADA, "bearer")).await.ok();
        let body = json!({"refresh_token": refresh});
        two.send(Ask::post("/auth/refresh").json(&body)).await.ok();

        let_read(&server, &own, true).await;
        wait_for_loads(&two, &lives, "the cache decides again", |found| found == 0).await;
        assert_eq!(two.alive(&ends).await, Err("session_ended".into()));
        one.stop().await;
        two.stop().await;
    }
}
