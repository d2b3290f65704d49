//! Servers of Redis and PostgreSQL that a test starts for itself, as the stores' own tests do.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::skips;

#[allow(dead_code, reason = "the store's own tests need more of it")]
#[path = "../../../postgres/tests/it/server.rs"]
mod postgres;
pub use postgres::PASSWORD;

#[allow(dead_code, reason = "the store's own tests need more of it")]
#[path = "../../../redis/tests/it/servers.rs"]
pub mod redis_servers;

/// A store's server, gone with the test.
pub enum Server {
    Redis(redis_servers::Process),
    Postgres(postgres::Server),
}

/// 32 bytes in base64url.
pub const MASTER_KEY: &str = "c3RvcmVzLXRlc3QtbWFzdGVyLWtleS1vbmUtMDAwMDA";

/// A Redis that has on its disk what it answers.
pub async fn redis() -> Option<Server> {
    redis_with(&["--appendonly", "yes", "--appendfsync", "always"]).await
}

/// A Redis with these options.
pub async fn redis_with(options: &[&str]) -> Option<Server> {
    if !is_there("redis-server", &["redis-server"]) {
        return None;
    }
    let process = redis_servers::Process::start(redis_servers::redis(), options);
    if !options.contains(&"--requirepass") {
        process.wait_until_ready();
    }
    Some(Server::Redis(process))
}

/// A Redis that speaks nothing but TLS, with the certificates in a folder, and asks for one.
pub async fn redis_tls(dir: &Path) -> Option<Server> {
    if !is_there("redis-server", &["redis-server"]) {
        return None;
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let port = redis_servers::free_port();
    let tls_port = port.to_string();
    let options = ["--port", "0", "--tls-port", &tls_port, "--tls-cert-file", &cert];
    let options = options.into_iter().chain(["--tls-key-file", &key, "--tls-ca-cert-file", &ca]);
    let options: Vec<&str> = options.collect();
    // A node waits for it by itself.
    Some(Server::Redis(redis_servers::Process::start_on(redis_servers::redis(), port, &options)))
}

/// A PostgreSQL with its defaults.
pub async fn postgres() -> Option<Server> {
    postgres_with(&[]).await
}

/// A PostgreSQL with these settings.
pub async fn postgres_with(settings: &[&str]) -> Option<Server> {
    postgres_prepared(settings, |_| {}).await
}

/// A PostgreSQL with these settings, whose data directory is prepared before it starts.
pub async fn postgres_prepared(settings: &[&str], prepare: impl FnOnce(&Path)) -> Option<Server> {
    if !is_there("postgresql", &["postgres", "/usr/lib/postgresql"]) {
        return None;
    }
    Some(Server::Postgres(postgres::Server::start_with(settings, prepare).await))
}

/// One of each that this machine can run.
pub async fn each() -> Vec<Server> {
    [redis().await, postgres().await].into_iter().flatten().collect()
}

impl Server {
    pub fn url(&self) -> String {
        match self {
            Self::Redis(process) => format!("redis://127.0.0.1:{}", process.port),
            Self::Postgres(server) => server.url(),
        }
    }

    pub const fn name(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Postgres(_) => "postgres",
        }
    }

    /// What a node must be told to run on it; in a namespace that nobody had before.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        vec![
            ("store.url", self.url()),
            ("store.namespace", format!("test_{number}")),
            ("store.pool", "4".to_owned()),
            ("master_key", MASTER_KEY.to_owned()),
        ]
    }

    pub const fn port(&self) -> u16 {
        match self {
            Self::Redis(process) => process.port,
            Self::Postgres(server) => server.port,
        }
    }

    /// Stops it as it is: connections stay open and nothing answers.
    pub fn freeze(&self) {
        match self {
            Self::Redis(process) => process.freeze(),
            Self::Postgres(server) => server.freeze(),
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        match self {
            Self::Redis(process) => process.thaw(),
            Self::Postgres(server) => server.thaw(),
        }
    }
}

/// Whether a program or a folder is on this machine; says so loudly where it isn't.
pub fn is_there(package: &str, names: &[&str]) -> bool {
    let is_found = names.iter().any(|name| {
        let mut program = Command::new(name);
        program.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
        Path::new(name).is_dir() || program.status().is_ok_and(|done| done.success())
    });
    if !is_found {
        skips::tell(&format!("there is no {package} on this machine"));
    }
    is_found
}
