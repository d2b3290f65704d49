//! Tokens of a running authority, judged by other people's libraries.
//!
//! One authority is started for each algorithm; the scripts sign in, verify what they get over the
//! key set, and try forgeries that the authority must refuse.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::authority::{Authority, free_address};
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

/// Runs both scripts against an authority of each algorithm.
pub fn step() -> io::Result<Outcome> {
    let root = tree::root();
    if !stream(&mut cargo(&["build", "-p", "cloakroom-server", "--bin", "cloakroom"]))?.success {
        return Ok(Outcome::Counted(Tally::FAILED));
    }
    let help = Command::new(tools::built("cloakroom")?).args(["serve", "--help"]).output()?;
    if !String::from_utf8_lossy(&help.stdout).contains("--data") {
        return Ok(Outcome::Skipped("the program can't serve yet".to_owned()));
    }
    let (scripts, absent) = scripts(&root.join(SCRIPTS));
    for why in &absent {
        println!("SKIPPED: interop: {why}");
    }
    let mut tallies = vec![Tally { skipped: absent.len(), ..Tally::default() }];
    for algorithm in ALGORITHMS {
        let mut settings = vec![("LOG__LEVEL", "warn"), ("TOKEN__ALGORITHM", algorithm)];
        if algorithm == "HS256" {
            settings.push(("TOKEN__HS256_SECRET", SHARED_SECRET));
        }
        let authority = Authority::start(algorithm, &settings)?;
        for script in &scripts {
            println!("-- {} with {algorithm}", script.name);
            let mut run = script.command(&authority, algorithm);
            tallies.push(stream(&mut run)?.closing_line());
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
    run.env("PROGRAM", tools::built("cloakroom")?).env("NODE_FOLDER", node_folder);
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
    fn command(&self, authority: &Authority, algorithm: &str) -> Command {
        let mut command = Command::new(self.program);
        command.arg(&self.file);
        command.envs(self.search_path.as_ref().map(|path| ("PYTHONPATH", path)));
        command.env("CLOAKROOM_PUBLIC", &authority.public);
        command.env("CLOAKROOM_ADMIN", &authority.admin);
        command.env("CLOAKROOM_API_KEY", &authority.api_key);
        command.env("CLOAKROOM_ALGORITHM", algorithm);
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
