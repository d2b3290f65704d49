//! The benchmark of what applications pay: the SDKs are made ready, then the program measures.

use std::io;
use std::process::Command;

use crate::gate::cargo;
use crate::process::stream;
use crate::tools;
use crate::tree;

const EXPRESS: &str = "sdk/express";
const FLASK: &str = "sdk/flask";

/// What the names of these figures begin with.
pub const PREFIX: &str = "backends";

/// The command that measures. What can't be made ready is left out, and told by the program.
pub fn command() -> io::Result<Command> {
    let mut run = cargo(&["run", "--release", "-p", "cloakroom-backends", "--"]);
    let root = tree::root();
    let express = root.join(EXPRESS);
    if tools::has("npm", &["--version"]) && express_is_ready(&express)? {
        run.arg("--express").arg(express);
    }
    match crate::flask::newest() {
        Ok(environment) => {
            run.arg("--flask").arg(environment.join("bin/python")).arg(root.join(FLASK));
        }
        Err(fault) => eprintln!("cargo xtask: no environment for Flask: {fault}"),
    }
    Ok(run)
}

/// Installs what the SDK's lock file names, where it isn't there, and builds the SDK.
fn express_is_ready(folder: &std::path::Path) -> io::Result<bool> {
    if !folder.join("node_modules/jsonwebtoken").is_dir() {
        let mut install = Command::new("npm");
        install.args(["ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]);
        if !stream(install.current_dir(folder))?.success {
            return Ok(false);
        }
    }
    Ok(stream(Command::new("node").arg("scripts/build.mjs").current_dir(folder))?.success)
}
