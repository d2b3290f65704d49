//! What is started for a measurement: applications, a Redis, each a process of its own.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom_bench::{machine, server};

const START_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A process that listens; ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: String,
}

/// A command on one core only, where that can be.
pub fn pinned(core: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let before = machine::pinned_to(core);
    match before.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    }
}

impl Process {
    /// Starts `command` and waits until something listens at `address`. What it complains of is
    /// kept in the file `log`.
    pub fn start(mut command: Command, address: String, log: &Path) -> io::Result<Self> {
        let file = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut process = Self { child: command.spawn()?, address };
        let started = Instant::now();
        while TcpStream::connect(&process.address).is_err() {
            let ended = process.child.try_wait()?;
            if ended.is_some() || started.elapsed() > START_MAX {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(io::Error::other(format!("nothing listens: {command:?}: {said}")));
            }
            thread::sleep(POLL);
        }
        Ok(process)
    }

    /// The process that answers: this one, or the worker that it has started.
    pub fn worker(&self) -> io::Result<u32> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"))?;
        Ok(children.split(' ').next().and_then(|pid| pid.parse().ok()).unwrap_or(own))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A server with workers ends them when it is asked to end, not when it is killed.
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let began = Instant::now();
        while asked.is_ok() && matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(5) {
                break;
            }
            thread::sleep(POLL);
        }
        // It may have ended by itself; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Redis that keeps nothing on a disk: the fastest there is for who keeps sessions in it.
pub fn redis(core: usize, folder: &Path) -> io::Result<Process> {
    let address = server::free_address()?;
    let port = address.rsplit(':').next().unwrap_or_default().to_owned();
    let mut command = pinned(core, "redis-server");
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(folder);
    Process::start(command, address, &folder.join("redis.log"))
}
