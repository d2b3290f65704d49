//! A master that dies with what it acknowledged: what nodes make of it.

use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::http::Ask;
use crate::servers::redis_servers::{Process, free_port, redis, wait_until};
use crate::servers::{MASTER_KEY, is_there};
use crate::world::{ADA, World, login};

/// A master, a replica and three sentinels.
struct Watched {
    servers: Vec<Process>,
    sentinels: Vec<Process>,
}

impl Watched {
    fn start() -> Option<Self> {
        if !is_there("redis-server", &["redis-server"]) {
            return None;
        }
        let options = ["--appendonly", "yes", "--repl-diskless-sync-delay", "0"];
        let servers: Vec<_> = (0..2).map(|_| Process::start(redis(), &options)).collect();
        servers.iter().for_each(Process::wait_until_ready);
        let master = servers[0].port;
        servers[1].cli(&["REPLICAOF", "127.0.0.1", &master.to_string()]);
        wait_until("the replica follows", || {
            servers[1].cli(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(master)).collect();
        for sentinel in &sentinels {
            wait_until("the sentinel knows all", || {
                let said = sentinel.cli(&["SENTINEL", "MASTER", "main"]);
                let fields: Vec<_> = said.lines().collect();
                let is = |name, value| fields.chunks(2).any(|pair| pair == [name, value]);
                is("num-slaves", "1") && is("num-other-sentinels", "2")
            });
        }
        Some(Self { servers, sentinels })
    }

    async fn node(&self) -> World {
        let hosts: Vec<_> =
            self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        let url = format!("redis+sentinel://{}/main", hosts.join(","));
        let settings = [
            ("store.url", url.as_str()),
            ("store.pool", "8"),
            ("store.replica_wait", "300ms"),
            ("store.timeout", "700ms"),
            ("master_key", MASTER_KEY),
        ];
        World::start(&settings).await
    }

    /// From now on the replica gets nothing more of what its master says.
    fn part(&self) {
        self.servers[0].cli(&["CONFIG", "SET", "requirepass", "other"]);
        let kill = ["-a", "other", "CLIENT", "KILL", "TYPE", "replica"];
        assert_eq!(self.servers[0].cli(&kill), "1");
    }

    fn kill_the_master(&mut self) {
        self.servers[0].kill();
        let replica = &self.servers[1];
        wait_until("the replica takes over", || replica.cli(&["ROLE"]).starts_with("master"));
    }
}

fn sentinel(master: u16) -> Process {
    let (port, dir) = (free_port(), TempDir::new().expect("a directory"));
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\n\
         sentinel monitor main 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds main 1000\n\
         sentinel failover-timeout main 3000\n",
        dir.path().display()
    );
    std::fs::write(dir.path().join("sentinel.conf"), text).expect("a file");
    let process = Process::sentinel(redis(), port, dir);
    process.wait_until_ready();
    process
}

/// Signs in, and signs out again by one node; the access token and what the answer promises.
async fn signed_out(node: &World) -> (String, String) {
    let access = node.tokens(ADA).await.text("access_token");
    assert_eq!(node.alive(&access).await, Ok(()));
    let out = node.send(Ask::post("/auth/logout").bearer(&access)).await;
    let kept = out.is(204).header("cloakroom-durability").expect("a promise").to_owned();
    (access, kept)
}

/// Waits until a node says yes or no again.
async fn verdict(node: &World, access: &str) -> Result<(), String> {
    let began_at = Instant::now();
    loop {
        match node.alive(access).await {
            Err(code) if code == "store_unavailable" => {}
            verdict => return verdict,
        }
        assert!(began_at.elapsed() < Duration::from_secs(20), "the store isn't used again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a session is refused, for as long as an ending may take to be done again.
async fn is_refused_again(node: &World, access: &str) -> Duration {
    let began_at = Instant::now();
    while verdict(node, access).await.is_ok() {
        assert!(began_at.elapsed() < Duration::from_secs(15), "a lost ending stays lost");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    began_at.elapsed()
}

/// Waits until a node has read all logs once more: it does so twice a second, and at once where
/// another one ended something.
async fn has_followed(node: &World, since: Instant) {
    let authority = &node.running().site().authority;
    let is_fresh = || authority.figures().feed.staleness.is_some_and(|age| age < since.elapsed());
    while !is_fresh() {
        assert!(since.elapsed() < Duration::from_secs(4), "the logs aren't followed closely");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_an_ending_answered_replicated_survives_its_master_and_its_node() {
    let Some(mut watched) = Watched::start() else { return };
    let (one, two) = (watched.node().await, watched.node().await);
    one.user(ADA).await;
    let tokens = two.tokens(ADA).await;
    let (lives, token) = (tokens.text("access_token"), tokens.text("refresh_token"));
    let mut ended = Vec::new();
    for _ in 0..10 {
        let (access, kept) = signed_out(&one).await;
        assert_eq!(kept, "replicated");
        ended.push(access);
    }
    // The master dies at once, and the node that was answered with it.
    watched.sentinels.iter().for_each(Process::freeze);
    watched.servers[0].kill();
    drop(one);
    // Nobody has taken over yet: nothing is known.
    let open = Ask::post("/admin/v1/sessions").json(&json!({"subject": "eve"}));
    let (sign_in, refreshed, opened, verdict_of, ready) = tokio::join!(
        two.send(login(ADA, "bearer")),
        two.send(Ask::post("/auth/refresh").json(&json!({"refresh_token": token}))),
        two.admin(open),
        two.send(Ask::get("/auth/session").bearer(&lives)),
        two.send(Ask::get("/readyz")),
    );
    for answer in [sign_in, refreshed, opened, verdict_of, ready] {
        assert_eq!(answer.refused(503, "store_unavailable").all("set-cookie"), [""; 0]);
    }
    watched.sentinels.iter().for_each(Process::thaw);
    watched.kill_the_master();
    for access in &ended {
        assert_eq!(verdict(&two, access).await, Err("session_ended".into()));
    }
    assert_eq!(verdict(&two, &lives).await, Ok(()));
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_a_lost_ending_is_done_again_by_the_node_that_served_it() {
    let Some(mut watched) = Watched::start() else { return };
    let (one, two) = (watched.node().await, watched.node().await);
    one.user(ADA).await;
    // The replica has this sign-in, and not what follows.
    let access = one.tokens(ADA).await.text("access_token");
    signed_out(&one).await;
    watched.part();
    let out = one.send(Ask::post("/auth/logout").bearer(&access)).await;
    assert_eq!(out.is(204).header("cloakroom-durability"), Some("local"));
    watched.kill_the_master();
    // Whoever served it knows at once, and tells the others by way of the store.
    assert_eq!(verdict(&one, &access).await, Err("session_ended".into()));
    is_refused_again(&two, &access).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_a_lost_ending_is_done_again_by_a_node_that_followed_it() {
    let Some(mut watched) = Watched::start() else { return };
    let (one, two) = (watched.node().await, watched.node().await);
    one.user(ADA).await;
    let access = one.tokens(ADA).await.text("access_token");
    signed_out(&one).await;
    watched.part();
    let out = one.send(Ask::post("/auth/logout").bearer(&access)).await;
    assert_eq!(out.is(204).header("cloakroom-durability"), Some("local"));
    // The other node reads of it by itself, without a cache; then the one that served it is gone.
    has_followed(&two, Instant::now()).await;
    drop(one);
    watched.kill_the_master();
    is_refused_again(&two, &access).await;
    two.stop().await;
}
