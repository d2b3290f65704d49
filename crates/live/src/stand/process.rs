//! A server's process on the loopback, its files in a directory of its own.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that a server is waited for: a failover that failed is tried again
/// after a while.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server's process; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    program: PathBuf,
    arguments: Vec<String>,
    /// Where it listens.
    pub(super) port: u16,
    dir: PathBuf,
}

impl Process {
    pub(super) fn start(
        program: &Path,
        arguments: Vec<String>,
        port: u16,
        dir: &Path,
    ) -> io::Result<Self> {
        let child = spawn(program, &arguments, dir)?;
        Ok(Self { child, program: program.to_owned(), arguments, port, dir: dir.to_owned() })
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Starts it again on its files.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.child = spawn(&self.program, &self.arguments, &self.dir)?;
        Ok(())
    }

    /// Sends it a signal, such as `STOP`.
    pub(super) fn signal(&self, signal: &str) -> io::Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").arg(format!("-{signal}")).arg(pid).status().map(drop)
    }

    /// Asks a server of Redis something; empty where it doesn't answer.
    pub(super) fn cli(&self, arguments: &[&str]) -> String {
        // One that hangs accepts connections and says nothing.
        let mut command = Command::new("timeout");
        command.args(["2", "redis-cli", "-p", &self.port.to_string()]).args(arguments);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

fn spawn(program: &Path, arguments: &[String], dir: &Path) -> io::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("server.log"))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn()
}

/// Waits for what must come.
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> io::Result<()> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("in vain: {what}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A port that nobody listens on, nor on the one 10,000 above: a cluster's nodes talk there.
pub(super) fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes of the same moment begin at different places.
    let first = u16::try_from(std::process::id() % 800).unwrap_or(0) * 10;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..8000 {
        let port = 12_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 8000;
        if is_free(port) && is_free(port + 10_000) {
            return Ok(port);
        }
    }
    Err(io::Error::other("there is no free port"))
}

/// Whether a program can be run.
pub(super) fn has(program: &Path) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
