//! Tokens of a running authority, judged by other people's libraries.
//!
//! One authority is started for each algorithm; the scripts sign in, verify what they get over the
//! key set, and try forgeries that the authority must refuse.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::gate::{Outcome, cargo};
use crate::process::{Tally, stream};
use crate::tools;
use crate::tree;

/// Where the scripts are.
const SCRIPTS: &str = "crates/server/tests/interop";
const JOSE: (&str, &str) = ("jose", "6.2");
const PYTHON: (&str, [&str; 2]) = ("pyjwt", ["PyJWT>=2.10,<3", "cryptography"]);
const ALGORITHMS: [&str; 4] = ["EdDSA", "ES256", "RS256", "HS256"];
/// Shared by the authority and the scripts; generated for this test and used nowhere else.
const SHARED_SECRET: &str = "iJ0rV5m2QzXw8bTn4LkY7cGd1sPfHuEaR6oZvK3xM9U";
/// How much faster time passes while keys are rotated, and for how many of its seconds.
const FASTER: &str = "+0 x20";
const ROTATION_SECONDS: &str = "1600";
const ROTATION_SETTINGS: [(&str, &str); 5] = [
    ("LOG__LEVEL", "warn"),
    ("TOKEN__ACCESS_TTL", "3m"),
    ("LIMIT__SESSION", "1000000/1m"),
    ("LIMIT__VERIFY", "1000000/1m"),
    ("LIMIT__NETWORK", "1000000/1m"),
];
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs both scripts against an authority of each algorithm.
pub fn step() -> io::Result<Outcome> {
    let root = tree::root();
    if !stream(&mut cargo(&["build", "-p", "cloakroom-server", "--bin", "cloakroom"]))?.success {
        return Ok(Outcome::Counted(Tally::FAILED));
    }
    let help = Command::new(binary()?).args(["serve", "--help"]).output()?;
    if !String::from_utf8_lossy(&help.stdout).contains("--data") {
        return Ok(Outcome::Skipped("the program can't serve yet".to_owned()));
    }
    let (scripts, absent) = scripts(&root.join(SCRIPTS));
    for why in &absent {
        println!("SKIPPED: interop: {why}");
    }
    let mut tallies = vec![Tally { skipped: absent.len(), ..Tally::default() }];
    for algorithm in ALGORITHMS {
        let authority = Authority::start(&binary()?, algorithm)?;
        for script in &scripts {
            println!("-- {} with {algorithm}", script.name);
            tallies.push(stream(&mut script.command(&authority))?.closing_line());
        }
    }
    tallies.push(rotation(&scripts)?);
    Ok(Outcome::Counted(tallies.into_iter().sum()))
}

/// Rotates keys under load, in a time that passes many times faster: what is published long enough
/// takes minutes.
fn rotation(scripts: &[Script]) -> io::Result<Tally> {
    let [node, python] = scripts else { return Ok(Tally::SKIPPED) };
    if !tools::has("faketime", &["--version"]) && !tools::debian_package("faketime")? {
        println!("SKIPPED: interop: there is no faketime on this machine; keys were not rotated");
        return Ok(Tally::SKIPPED);
    }
    println!("-- jose and PyJWT while keys are rotated");
    let folder = tree::root().join(SCRIPTS);
    let node_folder = node.file.parent().unwrap_or(Path::new("."));
    std::fs::copy(folder.join("rotation.mjs"), node_folder.join("rotation.mjs"))?;
    let (public, admin) = (free_address()?, free_address()?);
    let mut run = Command::new("faketime");
    run.args(["-f", FASTER, "sh"]).arg(folder.join("rotation.sh")).stdin(Stdio::null());
    // Deadlines of requests stay what they are.
    run.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    run.env("PROGRAM", binary()?).env("NODE_FOLDER", node_folder);
    run.env("PYTHONPATH", python.search_path.as_deref().unwrap_or(Path::new("")));
    run.env("CLOAKROOM_PUBLIC", format!("http://{public}"));
    run.env("CLOAKROOM_ADMIN", format!("http://{admin}"));
    run.env("CLOAKROOM_SERVER__PUBLIC", &public).env("CLOAKROOM_SERVER__ADMIN", &admin);
    run.env("CLOAKROOM_SERVER__ORIGIN", format!("http://{public}"));
    for (setting, value) in ROTATION_SETTINGS {
        run.env(format!("CLOAKROOM_{setting}"), value);
    }
    let finished = stream(run.env("SECONDS_LONG", ROTATION_SECONDS))?;
    Ok(finished.closing_line())
}

/// A script with what its language needs to find its library.
struct Script {
    name: &'static str,
    program: &'static str,
    file: PathBuf,
    search_path: Option<PathBuf>,
}

impl Script {
    fn command(&self, authority: &Authority) -> Command {
        let mut command = Command::new(self.program);
        command.arg(&self.file);
        command.envs(self.search_path.as_ref().map(|path| ("PYTHONPATH", path)));
        command.env("CLOAKROOM_PUBLIC", &authority.public);
        command.env("CLOAKROOM_ADMIN", &authority.admin);
        command.env("CLOAKROOM_API_KEY", &authority.api_key);
        command.env("CLOAKROOM_ALGORITHM", authority.algorithm);
        command.env("CLOAKROOM_SECRET", SHARED_SECRET);
        command
    }
}

/// The scripts that can run here, and why the others can't.
fn scripts(folder: &Path) -> (Vec<Script>, Vec<String>) {
    let (mut ready, mut absent) = (Vec::new(), Vec::new());
    // A bare import is looked up beside the script, so the script goes where the package is.
    let jose = tools::node_package(JOSE.0, JOSE.1).and_then(|packages| {
        let file = packages.join("jose.mjs");
        std::fs::copy(folder.join("jose.mjs"), &file)?;
        Ok(Script { name: "jose", program: "node", file, search_path: None })
    });
    let pyjwt = tools::python_packages(PYTHON.0, &PYTHON.1).map(|packages| Script {
        name: "PyJWT",
        program: "python3",
        file: folder.join("pyjwt.py"),
        search_path: Some(packages),
    });
    for (name, script) in [("jose", jose), ("PyJWT", pyjwt)] {
        match script {
            Ok(script) => ready.push(script),
            Err(fault) => absent.push(format!("{name}: {fault}")),
        }
    }
    (ready, absent)
}

fn binary() -> io::Result<PathBuf> {
    // This program was built into the same folder by the same profile.
    let here = std::env::current_exe()?;
    let folder = here.parent().ok_or_else(|| io::Error::other("no folder of programs"))?;
    Ok(folder.join("cloakroom"))
}

/// A running authority with an empty store, ended and removed when dropped.
struct Authority {
    child: Child,
    data: PathBuf,
    algorithm: &'static str,
    public: String,
    admin: String,
    api_key: String,
}

impl Authority {
    fn start(binary: &Path, algorithm: &'static str) -> io::Result<Authority> {
        let data = std::env::temp_dir()
            .join(format!("cloakroom-interop-{}-{algorithm}", std::process::id()));
        let (public, admin) = (free_address()?, free_address()?);
        let mut serve = Command::new(binary);
        serve.arg("serve").arg("--data").arg(&data).stdin(Stdio::null());
        serve.env("CLOAKROOM_SERVER__PUBLIC", &public).env("CLOAKROOM_SERVER__ADMIN", &admin);
        serve.env("CLOAKROOM_SERVER__ORIGIN", format!("http://{public}"));
        serve.env("CLOAKROOM_LOG__LEVEL", "warn").env("CLOAKROOM_TOKEN__ALGORITHM", algorithm);
        if algorithm == "HS256" {
            serve.env("CLOAKROOM_TOKEN__HS256_SECRET", SHARED_SECRET);
        }
        let child = serve.spawn()?;
        let (public, admin) = (format!("http://{public}"), format!("http://{admin}"));
        let mut authority =
            Authority { child, data, algorithm, public, admin, api_key: String::new() };
        authority.wait_until_ready()?;
        authority.api_key = std::fs::read_to_string(authority.data.join("root-api.key"))?;
        authority.api_key.truncate(authority.api_key.trim_end().len());
        Ok(authority)
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let started = Instant::now();
        let address = self.public.trim_start_matches("http://").to_owned();
        while !is_ready(&address) {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the authority ended at once: {status}")));
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(io::Error::other("the authority doesn't become ready"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // Both may have happened already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn free_address() -> io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn is_ready(address: &str) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
