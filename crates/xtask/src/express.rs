//! The Express SDK, the browser helper and the Express example, against a running authority.
//!
//! Everything is tested as it would be published: the SDK is built, packed, and the tests and the
//! example import what the archive holds.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gate::{Outcome, cargo};
use crate::process::{Tally, stream};
use crate::tools;
use crate::tree;

const SDK: &str = "sdk/express";
const BROWSER: &str = "sdk/browser";
const APPLICATION: &str = "examples/express-app";
const SCRIPT: &str = "examples/e2e";

/// Programs of Debian that the tests use, and the packages that bring them.
const PROGRAMS: [(&str, &str); 2] =
    [("/usr/bin/chromium", "chromium"), ("/usr/bin/redis-server", "redis-server")];

/// Builds, packs and tests all of it.
pub fn step() -> io::Result<Outcome> {
    if !tools::has("npm", &["--version"]) {
        return Ok(Outcome::Skipped("there is no npm".to_owned()));
    }
    if !stream(&mut cargo(&["build", "-p", "cloakroom-server", "--bin", "cloakroom"]))?.success {
        return Ok(Outcome::Counted(Tally::FAILED));
    }
    for (program, package) in PROGRAMS {
        // What can't be installed is skipped by the tests that need it, which say so.
        if !Path::new(program).exists() {
            tools::debian_package(package)?;
        }
    }
    let root = tree::root();
    for folder in [SDK, BROWSER, SCRIPT, APPLICATION] {
        if let Err(fault) = installed(&root.join(folder)) {
            return Ok(Outcome::Skipped(fault.to_string()));
        }
    }
    let suites = [
        script(&root.join(SDK), &["scripts/test.mjs"])?,
        script(&root.join(BROWSER), &["scripts/test.mjs"])?,
        packed_application(&root)?,
    ];
    Ok(Outcome::Counted(suites.into_iter().sum()))
}

/// The example over the archive that the SDK's own tests have just packed.
fn packed_application(root: &Path) -> io::Result<Tally> {
    let Some(archive) = archive(&root.join(SDK).join(".packed"))? else {
        println!("FAILED: {SDK} has packed no archive");
        return Ok(Tally::FAILED);
    };
    let application = root.join(APPLICATION);
    let mut install = npm(&application);
    install.args(["install", "--no-save", "--no-package-lock", "--ignore-scripts"]).arg(archive);
    if !stream(&mut install)?.success {
        return Ok(Tally::FAILED);
    }
    let app = application.join("app.mjs");
    script(&root.join(SCRIPT), &["run.mjs", "--", "node", &app.to_string_lossy()])
}

fn archive(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tgz") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Installs what a folder's lock file names.
fn installed(folder: &Path) -> io::Result<()> {
    let mut install = npm(folder);
    install.args(["ci", "--ignore-scripts", "--prefer-offline"]);
    match stream(&mut install)?.success {
        true => Ok(()),
        false => Err(io::Error::other(format!("npm can't install for {}", folder.display()))),
    }
}

fn npm(folder: &Path) -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(folder);
    npm.env("npm_config_audit", "false").env("npm_config_fund", "false");
    npm
}

/// Runs a script that closes with its counts.
fn script(folder: &Path, arguments: &[&str]) -> io::Result<Tally> {
    println!("-- {}", folder.display());
    let mut node = Command::new("node");
    node.args(arguments).current_dir(folder).env("CLOAKROOM_BIN", tools::built("cloakroom")?);
    Ok(stream(&mut node)?.closing_line())
}
