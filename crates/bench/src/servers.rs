//! Redis and PostgreSQL for a measurement: on free ports of the loopback, in a folder of their
//! own, ended with it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;

/// A server process.
#[derive(Debug)]
pub struct Database {
    child: Child,
    /// Where it listens.
    pub port: u16,
    /// How it is asked to end.
    signal: &'static str,
}

const START_MAX: Duration = Duration::from_secs(60);
/// PostgreSQL doesn't run as root.
const NOBODY: u32 = 65534;

/// A Redis that has on its disk what it answers; nothing where there is no such program.
pub fn redis(folder: &Path) -> Outcome<Option<Database>> {
    if !runs("redis-server") {
        return Ok(None);
    }
    fs::create_dir_all(folder)?;
    let port = free_port()?;
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
    command.arg(folder).args(["--appendonly", "yes", "--appendfsync", "always"]);
    started(command, port, "-TERM").map(Some)
}

/// A PostgreSQL with its defaults but for the memory that it is given; nothing where there is no
/// such program.
pub fn postgres(folder: &Path) -> Outcome<Option<Database>> {
    let Some(programs) = postgres_programs() else { return Ok(None) };
    fs::create_dir_all(folder)?;
    let is_root = fs::metadata("/proc/self")?.uid() == 0;
    if is_root {
        std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY))?;
    }
    let as_nobody = |program: &str| {
        let mut command = Command::new(programs.join(program));
        command.current_dir("/").env("LC_ALL", "C.UTF-8").arg("-D").arg(folder.join("data"));
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let mut init = as_nobody("initdb");
    init.args(["--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust"]);
    let made = init.output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
    }
    let port = free_port()?;
    let mut command = as_nobody("postgres");
    command.args(["-p", &port.to_string()]);
    for setting in
        ["listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=512MB"]
    {
        command.args(["-c", setting]);
    }
    started(command, port, "-INT").map(Some)
}

fn started(mut command: Command, port: u16, signal: &'static str) -> Outcome<Database> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Database { child: command.spawn()?, port, signal };
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if began.elapsed() > START_MAX {
            return Err(format!("no server on port {port} after {START_MAX:?}").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

impl Drop for Database {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args([self.signal, &pid]).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn runs(program: &str) -> bool {
    let mut command = Command::new(program);
    let asked = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// The newest packaged `initdb` and `postgres`, or those in the path.
fn postgres_programs() -> Option<PathBuf> {
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = packaged.map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.into_iter().rev().chain(std::env::split_paths(&path));
    folders.into_iter().find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
