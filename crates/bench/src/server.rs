//! The real program as a child: built by the caller's profile, on free ports, in a folder of its
//! own, known by its process id.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Client, Request};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a starting server is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(2);

/// Builds `cloakroom` by the profile that this program was built with, and says where it is.
///
/// `BENCH_PROGRAM` names another one to take, which is not built: an earlier release, say.
pub fn build() -> io::Result<PathBuf> {
    if let Some(program) = std::env::var_os("BENCH_PROGRAM") {
        return Ok(program.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "-q", "-p", "cloakroom-server", "--bin", "cloakroom"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    // What cargo told this program about itself isn't meant for another build.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") {
            build.env_remove(name);
        }
    }
    build.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = build.current_dir(root).stdout(Stdio::null()).status()?;
    if !built.success() {
        return Err(io::Error::other("the program `cloakroom` can't be built"));
    }
    let here = std::env::current_exe()?;
    let folder = here.parent().ok_or_else(|| io::Error::other("no folder of programs"))?;
    Ok(folder.join("cloakroom"))
}

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    data: PathBuf,
    /// Put before the program: what pins it to a core, or traces it.
    before: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Launch {
    /// `program serve` on the data directory `data`.
    pub fn new(program: &Path, data: &Path) -> Self {
        Self {
            program: program.to_owned(),
            data: data.to_owned(),
            before: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Started by another program, such as `taskset`.
    pub fn under(mut self, before: Vec<String>) -> Self {
        self.before = before;
        self
    }

    /// With a setting, by its key.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("CLOAKROOM_{}", key.to_uppercase().replace('.', "__"));
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> io::Result<Server> {
        let (public, admin) = (free_address()?, free_address()?);
        let mut command = match self.before.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.arg("serve").arg("--data").arg(&self.data);
        command.env("CLOAKROOM_SERVER__PUBLIC", &public);
        command.env("CLOAKROOM_SERVER__ADMIN", &admin);
        command.env("CLOAKROOM_LOG__LEVEL", "warn");
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        // A server that dies tells why in a file beside its data, not amid our own output.
        let log_file = self.data.with_extension("log");
        let log = || std::fs::OpenOptions::new().append(true).create(true).open(&log_file);
        command.stdin(Stdio::null()).stdout(log()?).stderr(log()?);
        let started = Instant::now();
        let child = command.spawn()?;
        let (root_key, ready_after) = (String::new(), Duration::ZERO);
        let mut server = Server { child, public, admin, root_key, ready_after };
        server.wait_until_ready(&log_file)?;
        server.ready_after = started.elapsed();
        server.root_key = std::fs::read_to_string(self.data.join("root-api.key"))?.trim().into();
        Ok(server)
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its public listener.
    pub public: String,
    /// Its admin listener.
    pub admin: String,
    /// The operator's own API key.
    pub root_key: String,
    /// From its start to its first answer that it is ready.
    pub ready_after: Duration,
}

impl Server {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a power cut would end the process.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Whether it ended by something else than a kill.
    pub fn ended_by_itself(&mut self) -> io::Result<Option<ExitStatus>> {
        const SIGKILL: i32 = 9;
        Ok(self.child.try_wait()?.filter(|status| status.signal() != Some(SIGKILL)))
    }

    /// Asks it to end and waits until it has.
    pub fn stop(mut self) -> io::Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > STOP_TIMEOUT {
                return Err(io::Error::other("the server doesn't end"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn wait_until_ready(&mut self, log: &Path) -> io::Result<()> {
        let started = Instant::now();
        let ask = Request::new("GET", "/readyz");
        loop {
            let answer = Client::new(&self.public).send(&ask);
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(io::Error::other(format!("the server ended, {status}: {said}")));
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(io::Error::other("the server doesn't become ready"));
            }
            thread::sleep(READY_POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both may have happened already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on loopback that nobody listens on.
pub fn free_address() -> io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Writes a secret to a file that only its owner reads.
pub fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}
