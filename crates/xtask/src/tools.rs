//! Programs that the gate needs and a machine may lack: found, else installed into a cache.
//!
//! The cache is the user's, outside the build directory, so that a fresh clone finds it filled.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Held at one release, so that a new one never breaks the gate by itself.
const CARGO_DENY: &str = "0.20.2";

/// Whether `program` can be started.
pub fn has(program: impl AsRef<OsStr>, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether `cargo NAME` is there.
pub fn has_cargo(name: &str) -> bool {
    has("cargo", &[name, "--version"])
}

/// The program `cargo-deny`: from the search path, the cache, or installed there.
pub fn cargo_deny() -> io::Result<PathBuf> {
    cargo_tool("cargo-deny", CARGO_DENY)
}

/// A program of a crate of its own name: from the search path, the cache, or installed there.
pub fn cargo_tool(name: &str, version: &str) -> io::Result<PathBuf> {
    if has(name, &["--version"]) {
        return Ok(PathBuf::from(name));
    }
    let folder = cache()?.join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    println!("installing {name} {version} into {}", folder.display());
    let mut install = Command::new("cargo");
    // An unoptimised build starts four times sooner and is fast enough for one run.
    install.args(["install", name, "--version", version, "--locked", "--debug"]);
    install.arg("--root").arg(&folder).arg("--target-dir").arg(folder.join("build"));
    let installed = crate::process::stream(&mut install)?.success;
    // The intermediate files are many times the program's size.
    let _ = std::fs::remove_dir_all(folder.join("build"));
    if installed { Ok(program) } else { Err(io::Error::other(format!("no {name} to be had"))) }
}

/// Installs a package of the system's own, where that is allowed; whether it is there now.
pub fn debian_package(name: &str) -> io::Result<bool> {
    if !has("apt-get", &["--version"]) {
        return Ok(false);
    }
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        crate::process::stream(&mut command).map(|finished| finished.success)
    };
    let install = ["install", "-y", "--no-install-recommends", name];
    // A fresh machine has no list of packages yet.
    Ok(apt_get(&install)? || (apt_get(&["update"])? && apt_get(&install)?))
}

/// A folder in which `node` finds the package `name`; installed when missing.
pub fn node_package(name: &str, version: &str) -> io::Result<PathBuf> {
    let folder = cache()?.join(format!("node-{name}-{version}"));
    if !folder.join("node_modules").join(name).is_dir() {
        std::fs::create_dir_all(&folder)?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
        npm.arg(&folder).arg(format!("{name}@{version}")).current_dir(&folder);
        installed(&mut npm, name)?;
    }
    Ok(folder)
}

/// A folder for Python's search path with `packages` in it; installed when missing.
pub fn python_packages(label: &str, packages: &[&str]) -> io::Result<PathBuf> {
    let folder = cache()?.join(format!("python-{label}"));
    let marker = folder.join(".complete");
    if !marker.is_file() {
        std::fs::create_dir_all(&folder)?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&folder);
        installed(pip.args(packages), label)?;
        std::fs::write(marker, "")?;
    }
    Ok(folder)
}

/// A program of this workspace, built into the same folder by the same profile as this one.
pub fn built(name: &str) -> io::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let folder = here.parent().ok_or_else(|| io::Error::other("no folder of programs"))?;
    Ok(folder.join(name))
}

/// A virtual environment of the Python `program` with `packages` in it, by `label`; made when
/// missing or changed.
pub fn python_environment(label: &str, program: &str, packages: &[&str]) -> io::Result<PathBuf> {
    let folder = cache()?.join(format!("python-{label}"));
    let (marker, wanted) =
        (folder.join(".complete"), format!("{program}\n{}", packages.join("\n")));
    if std::fs::read_to_string(&marker).is_ok_and(|found| found == wanted) {
        return Ok(folder);
    }
    let mut make = Command::new(program);
    installed(make.args(["-m", "venv", "--clear"]).arg(&folder), label)?;
    let mut pip = Command::new(folder.join("bin/python"));
    installed(pip.args(["-m", "pip", "install", "--quiet"]).args(packages), label)?;
    std::fs::write(marker, wanted)?;
    Ok(folder)
}

fn installed(command: &mut Command, name: &str) -> io::Result<()> {
    match crate::process::stream(command)?.success {
        true => Ok(()),
        false => Err(io::Error::other(format!("{name} can't be installed"))),
    }
}

fn cache() -> io::Result<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = named("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| named("HOME").map(|home| Path::new(&home).join(".cache")));
    let base = base.unwrap_or_else(std::env::temp_dir);
    let cache = base.join("cloakroom-tools");
    std::fs::create_dir_all(&cache)?;
    Ok(cache)
}
