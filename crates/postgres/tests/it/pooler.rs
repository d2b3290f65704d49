//! Behind a PgBouncer that pools transactions: no two calls need meet the same server process.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::types::Secret;
use cloakroom_postgres::PostgresSettings;
use cloakroom_store::{Commit, Kind, Log, Store, Tick, Version};

use crate::server::{PASSWORD, Server, as_nobody, free_port, own, shared};
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

/// Whether the pooler can be had; installs it where that is allowed.
fn is_installed() -> bool {
    let mut install = Command::new("apt-get");
    let found = || Path::new("/usr/sbin/pgbouncer").is_file();
    found() || install.args(["install", "-y", "pgbouncer"]).output().is_ok() && found()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_works_through_a_pooler_of_transactions() {
    let server = shared().await;
    let Some(pooler) = is_installed().then(|| Pooler::start(server)).flatten() else {
        println!("SKIPPED: there is no pgbouncer, and it couldn't be installed");
        return;
    };
    let url = format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/postgres", pooler.port);
    let settings = PostgresSettings { url: Secret::new(url), ..server.settings() };
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
