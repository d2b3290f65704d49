//! PostgreSQL: one server, killed and started again.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::process::{free_port, wait_until};

/// A server of this run's own; it refuses to run as root, so it runs as nobody there.
#[derive(Debug)]
pub(super) struct Postgres {
    child: Child,
    programs: PathBuf,
    dir: PathBuf,
    port: u16,
}

const NOBODY: u32 = 65534;

impl Postgres {
    /// Makes one and starts it; `None`: there is no PostgreSQL here.
    pub(super) fn start(dir: &Path) -> io::Result<Option<Self>> {
        let Some(programs) = programs() else { return Ok(None) };
        let dir = dir.join("postgres");
        fs::create_dir_all(&dir)?;
        if is_root()? {
            chown(&dir, Some(NOBODY), Some(NOBODY))?;
        }
        let mut make = as_nobody(&programs.join("initdb"))?;
        make.args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]);
        make.args(["--auth=trust", "-D"]).arg(dir.join("data"));
        let made = make.output()?;
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        let port = free_port()?;
        let child = serve(&programs, &dir, port)?;
        let server = Self { child, programs, dir, port };
        server.wait()?;
        Ok(Some(server))
    }

    /// Where nodes find it.
    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Kills all of it and starts it again: what was acknowledged is on the disk.
    pub(super) fn kill_and_restart(&mut self) -> io::Result<()> {
        // SIGQUIT ends the server and its children at once, without writing anything more.
        self.end("QUIT")?;
        self.child = serve(&self.programs, &self.dir, self.port)?;
        self.wait()
    }

    fn end(&mut self, signal: &str) -> io::Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").arg(format!("-{signal}")).arg(pid).status()?;
        self.child.wait().map(drop)
    }

    fn wait(&self) -> io::Result<()> {
        let ask = |program: &mut Command| {
            program.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).stdin(Stdio::null());
            program.stdout(Stdio::null()).stderr(Stdio::null()).status()
        };
        let is_ready = self.programs.join("pg_isready");
        wait_until("the server accepts", || {
            if is_ready.is_file() {
                ask(&mut Command::new(&is_ready)).is_ok_and(|status| status.success())
            } else {
                std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            }
        })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.end("QUIT");
    }
}

fn serve(programs: &Path, dir: &Path, port: u16) -> io::Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("server.log"))?;
    let mut command = as_nobody(&programs.join("postgres"))?;
    command.arg("-D").arg(dir.join("data")).args(["-p", &port.to_string()]);
    let settings = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=100",
        "shared_buffers=64MB",
    ];
    command.args(settings.iter().flat_map(|setting| ["-c", setting]));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn()
}

fn as_nobody(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C.UTF-8");
    if is_root()? {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ok(command)
}

fn is_root() -> io::Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// The folder with `initdb` and `postgres`: the system's newest, else one in the path.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut packaged: Vec<PathBuf> = packaged.map(|entry| entry.path().join("bin")).collect();
    packaged.sort();
    let mut folders = packaged.into_iter().rev().chain(std::env::split_paths(&path));
    folders.find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}
