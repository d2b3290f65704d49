//! The nodes: three processes on one store, each killed and started again at random.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, RwLock};

use cloakroom_bench::server::{Launch, Server};

/// How many nodes there are.
pub const NODES: usize = 3;
/// The node that lets its cache decide; the others read the store every time.
pub const CACHING: usize = 2;
/// How old that node's cache may be, in seconds.
pub const STALENESS_SECS: u64 = 2;
/// How long a predecessor is answered with its successor, in seconds.
pub const GRACE_SECS: u64 = 4;

/// How often a node is started again that didn't start.
const STARTS: usize = 3;

/// Where a node is at the moment.
#[derive(Clone, Debug, Default)]
pub struct Whereabouts {
    /// Its public listener.
    pub public: String,
    /// Its admin listener.
    pub admin: String,
    /// Its operator's key.
    pub key: String,
}

/// The nodes.
pub struct Fleet {
    program: PathBuf,
    url: String,
    /// Where a command may have its own files.
    scratch: PathBuf,
    launches: Vec<Launch>,
    servers: Vec<Mutex<Option<Server>>>,
    whereabouts: Vec<RwLock<Whereabouts>>,
}

impl Fleet {
    /// Starts all nodes on a store; their files are in `dir`.
    pub fn start(program: &Path, url: &str, dir: &Path) -> io::Result<Self> {
        let launch = |node: usize| launch(program, url, &dir.join(format!("node-{node}")), node);
        let fleet = Self {
            program: program.to_owned(),
            url: url.to_owned(),
            scratch: dir.join("scratch"),
            launches: (0..NODES).map(launch).collect(),
            servers: (0..NODES).map(|_| Mutex::new(None)).collect(),
            whereabouts: (0..NODES).map(|_| RwLock::default()).collect(),
        };
        (0..NODES).try_for_each(|node| fleet.begin(node))?;
        Ok(fleet)
    }

    /// Kills a node and starts it again.
    pub fn kill_and_restart(&self, node: usize) -> io::Result<()> {
        let mut server = self.servers[node].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut server) = server.take() {
            if let Some(status) = server.ended_by_itself()? {
                return Err(io::Error::other(format!("node {node} ended by itself: {status}")));
            }
            server.kill()?;
            server.wait()?;
        }
        drop(server);
        self.begin(node)
    }

    /// Where a node is; where it was, while it is away.
    pub fn whereabouts(&self, node: usize) -> Whereabouts {
        self.whereabouts[node].read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails where a node ended though nobody killed it.
    pub fn check_alive(&self) -> io::Result<()> {
        for (node, server) in self.servers.iter().enumerate() {
            let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = server.as_mut().map(Server::ended_by_itself).transpose()?.flatten();
            if let Some(status) = ended {
                return Err(io::Error::other(format!("node {node} ended by itself: {status}")));
            }
        }
        Ok(())
    }

    /// What `cloakroom store check` finds wrong.
    pub fn check_store(&self) -> io::Result<Vec<String>> {
        let mut command = Command::new(&self.program);
        command.args(["store", "check", "--json", "--data"]).arg(&self.scratch);
        command.env("CLOAKROOM_STORE__URL", &self.url);
        command.env("CLOAKROOM_MASTER_KEY", MASTER_KEY).stdin(Stdio::null());
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let Ok(said) = serde_json::from_str::<serde_json::Value>(&said) else {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(io::Error::other(format!("store check: {why}")));
        };
        let found = said["found"].as_array().into_iter().flatten();
        Ok(found.map(|one| format!("{} {}", one["fault"], one["with"])).collect())
    }

    fn begin(&self, node: usize) -> io::Result<()> {
        // A node that is started amid a failover may give up; whoever runs it starts it again.
        let mut started = self.launches[node].start();
        for _ in 0..STARTS {
            if started.is_ok() {
                break;
            }
            started = self.launches[node].start();
        }
        let server = started?;
        let place = Whereabouts {
            public: server.public.clone(),
            admin: server.admin.clone(),
            key: server.root_key.clone(),
        };
        *self.whereabouts[node].write().unwrap_or_else(PoisonError::into_inner) = place;
        *self.servers[node].lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }
}

/// Limits out of the way, little hashing, and a grace that a thief can outwait.
fn launch(program: &Path, url: &str, data: &Path, node: usize) -> Launch {
    let mut launch = Launch::new(program, data)
        .set("store.url", url)
        .set("store.partitions", "32")
        .set("store.pool", "8")
        .set("master_key", MASTER_KEY)
        .set("password.argon2", "m=7168,t=5,p=1")
        .set("token.access_ttl", "1h")
        .set("refresh.grace", &format!("{GRACE_SECS}s"))
        .set("session.max_per_subject", "1000");
    for limit in ["network", "session", "verify", "login", "login_identifier", "login_network"] {
        launch = launch.set(&format!("limit.{limit}"), "1000000/1m");
    }
    if node == CACHING {
        launch = launch
            .set("verify.cache", "true")
            .set("verify.max_staleness", &format!("{STALENESS_SECS}s"));
    }
    launch
}

/// 32 bytes in base64url.
const MASTER_KEY: &str = "bGl2ZS10ZXN0LW1hc3Rlci1rZXktbnVtYmVyLTAwMDE";
