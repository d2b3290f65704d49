//! The axum example against the script that all example applications share.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::gate::{Outcome, cargo};
use crate::process::{Tally, stream};
use crate::tools;
use crate::tree;

const SCRIPT: &str = "examples/e2e";
const APPLICATION: &str = "example-axum-app";
/// What the script's browser checks use; without it they are skipped, and say so.
const CHROMIUM: (&str, &str) = ("/usr/bin/chromium", "chromium");

/// Builds the authority and the application, and runs the script.
pub fn step() -> io::Result<Outcome> {
    if !tools::has("npm", &["--version"]) {
        return Ok(Outcome::Skipped("there is no npm".to_owned()));
    }
    // As the step `tests` has built them: packages that are chosen together share their features.
    let mut build = cargo(&["build", "--workspace", "--bin", "cloakroom", "--bin", APPLICATION]);
    if !stream(&mut build)?.success {
        return Ok(Outcome::Counted(Tally::FAILED));
    }
    if !Path::new(CHROMIUM.0).exists() {
        tools::debian_package(CHROMIUM.1)?;
    }
    let script = tree::root().join(SCRIPT);
    let mut install = Command::new("npm");
    install.current_dir(&script).args(["ci", "--ignore-scripts", "--prefer-offline"]);
    install.env("npm_config_audit", "false").env("npm_config_fund", "false");
    if !stream(&mut install)?.success {
        return Ok(Outcome::Skipped(format!("npm can't install for {SCRIPT}")));
    }
    let mut node = Command::new("node");
    node.args(["run.mjs", "--"]).arg(tools::built(APPLICATION)?).current_dir(&script);
    node.env("CLOAKROOM_BIN", tools::built("cloakroom")?);
    Ok(Outcome::Counted(stream(&mut node)?.closing_line()))
}
