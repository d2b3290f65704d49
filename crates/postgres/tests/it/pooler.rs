//! Behind a PgBouncer that pools transactions: no two calls need meet the same server process.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloakroom_core::types::Secret;
use cloakroom_postgres::{PostgresSettings, PostgresStore};
use cloakroom_store::conformance::{Harness, Task, follow};
use cloakroom_store::{Commit, Kind, Log, Store, Tick, Version};

use crate::server::{PASSWORD, Server, as_nobody, free_port, own, shared};
use crate::skips;
use crate::world::{HERE, connect, count, counter, put};

/// A pooler in front of a server, until it is dropped.
struct Pooler {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Pooler {
    /// None where there is no such program.
    fn start(server: &Server) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let program = program.into_iter().find(|program| Path::new(program).is_file())?;
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let users = dir.path().join("users");
        fs::write(&users, format!("\"postgres\" \"{PASSWORD}\"\n")).expect("a file");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
             auth_file = {}\npool_mode = transaction\ndefault_pool_size = 3\n\
             server_reset_query_always = 1\nserver_reset_query = DISCARD ALL\n",
            server.port,
            users.display()
        );
        let file = dir.path().join("settings");
        fs::write(&file, settings).expect("a file");
        own(dir.path());
        let mut command = as_nobody(program);
        command.arg("-q").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("a pooler");
        let pooler = Self { process, port, _dir: dir };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(pooler);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("the pooler didn't start");
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Pooler {
    /// Through it to a schema of its own.
    fn settings(&self, server: &Server) -> PostgresSettings {
        let url = format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/postgres", self.port);
        PostgresSettings { url: Secret::new(url), ..server.settings() }
    }
}

/// One that runs; says so loudly where there is none.
fn started(server: &Server) -> Option<Pooler> {
    let pooler = Pooler::start(server);
    if pooler.is_none() {
        skips::tell("there is no pgbouncer on this machine");
    }
    pooler
}

/// The conformance suite's way through it.
struct Pooled<'a>(&'a Server, Pooler);

impl Harness for Pooled<'_> {
    type Store = PostgresStore;

    async fn fresh(&self) -> PostgresStore {
        connect(&self.1.settings(self.0)).await
    }

    async fn reopen(&self, store: PostgresStore) -> PostgresStore {
        store
    }

    async fn pass(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    async fn together(&self, tasks: Vec<Task>) {
        for running in tasks.into_iter().map(tokio::spawn).collect::<Vec<_>>() {
            running.await.expect("a task");
        }
    }
}

/// Here they are functions, whose plans the server keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_load_follows_through_a_pooler_is_what_it_follows_elsewhere() {
    let server = shared().await;
    let Some(pooler) = started(server) else { return };
    let harness = Pooled(server, pooler);
    follow::a_session_brings_the_subject_that_it_names(&harness).await;
    follow::a_session_brings_its_subjects_index(&harness).await;
    follow::an_index_brings_the_sessions_that_it_lists(&harness).await;
    follow::what_is_followed_is_followed_once(&harness).await;
    follow::what_is_followed_and_not_there_is_said_to_be_absent(&harness).await;
    follow::what_is_followed_is_of_one_state_with_what_names_it(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_works_through_a_pooler_of_transactions() {
    let server = shared().await;
    let Some(pooler) = started(server) else { return };
    let settings = pooler.settings(server);
    // Migrates through it as well.
    let store = Arc::new(connect(&settings).await);
    let writing: Vec<_> = (0..12)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for _ in 0..20 {
                    loop {
                        let found = count(&store, &counter(1)).await.expect("a load");
                        let (number, version) = found.unwrap_or((0, Version::ZERO));
                        let batch = put(counter(1), version, number + 1);
                        match store.commit(HERE, batch).await.expect("a commit") {
                            Commit::Done(_) => break,
                            Commit::Conflict(_) => {}
                        }
                    }
                    store.page(HERE, Kind::Throttle, None, 9).await.expect("a page");
                    store.log(HERE, Log::Feed, Tick::ZERO, 9).await.expect("a log");
                }
            })
        })
        .collect();
    for writer in writing {
        writer.await.expect("a writer");
    }
    let found = count(&store, &counter(1)).await.expect("a load");
    assert_eq!(found.map(|found| found.0), Some(240));
    let logged = store.log(HERE, Log::Feed, Tick::ZERO, 1000).await.expect("a log");
    assert_eq!(logged.len(), 240);
}

/// What the server was asked last for a schema.
async fn asked_for(server: &Server, schema: &str) -> Vec<String> {
    let sql = "SELECT query FROM pg_stat_activity WHERE query LIKE '%' || $1 || '.%' \
               AND pid <> pg_backend_pid()";
    let rows = server.client().await.query(sql, &[&schema]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn statements_are_kept_only_where_no_pooler_stands_between() {
    let server = shared().await;
    let direct = server.settings();
    let store = connect(&direct).await;
    count(&store, &counter(1)).await.expect("a load");
    let asked = asked_for(server, &direct.schema).await;
    assert!(asked.iter().any(|sql| sql.contains("unnest($2, $3)")), "{asked:?}");
    let Some(pooler) = started(server) else { return };
    let pooled = pooler.settings(server);
    let store = connect(&pooled).await;
    // What is reset afterwards isn't shown, so it has to be met while it runs.
    let is_over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&is_over);
    let asking = tokio::spawn(async move {
        while !until.load(Ordering::SeqCst) {
            count(&store, &counter(1)).await.expect("a load");
        }
    });
    for _ in 0..20 {
        let asked = asked_for(server, &pooled.schema).await;
        assert!(!asked.iter().any(|sql| sql.contains("unnest($2, $3)")), "{asked:?}");
    }
    is_over.store(true, Ordering::SeqCst);
    asking.await.expect("loads");
}
