//! The Flask SDK and the Flask example, against a running authority.
//!
//! What is tested is the built wheel, on the oldest and the newest releases that it promises.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gate::{Outcome, cargo};
use crate::process::{Tally, stream};
use crate::tools;
use crate::tree;

const SDK: &str = "sdk/flask";
const APPLICATION: &str = "examples/flask-app/app.py";
const SCRIPT: &str = "examples/e2e";
/// Test processes at once: they wait for seconds to pass more than they compute.
const TESTERS: &str = "4";

/// Programs of Debian that the tests use, and the packages that bring them.
const PROGRAMS: [(&str, &str); 2] =
    [("/usr/bin/chromium", "chromium"), ("/usr/bin/redis-server", "redis-server")];

const TEST_TOOLS: [&str; 3] = ["pytest==9.*", "pytest-xdist==3.*", "hypothesis==6.*"];
/// The newest releases, the servers that run them, and the libraries that people come from.
const NEWEST: [&str; 16] = [
    "Flask==3.1.*",
    "Werkzeug==3.1.*",
    "PyJWT[crypto]==2.*",
    "gunicorn",
    "gevent",
    "asgiref",
    "Flask-JWT-Extended==4.*",
    "Flask-Login",
    "flask-restx",
    "Flask-Session==0.8.*",
    "redis",
    "msgspec",
    "build==1.*",
    "hatchling==1.*",
    "mypy==2.*",
    "ruff==0.17.*",
];
const OLD_PYTHON: &str = "python3.10";
/// The oldest releases that the wheel allows.
const OLDEST: [&str; 3] = ["Flask==2.3.0", "Werkzeug==2.3.0", "PyJWT[crypto]==2.8.0"];

/// Builds the wheel, checks its types and style, and tests it and the example.
pub fn step() -> io::Result<Outcome> {
    if !tools::has("python3", &["-m", "venv", "--help"]) {
        return Ok(Outcome::Skipped("there is no python3 with venv".to_owned()));
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
    // The oldest Python that the wheel allows, where this machine has it.
    let has_old = tools::has(OLD_PYTHON, &["-m", "venv", "--help"]);
    if !has_old {
        println!("SKIPPED: flask: there is no {OLD_PYTHON}; the oldest releases run on python3");
    }
    let old = if has_old { OLD_PYTHON } else { "python3" };
    let environments =
        newest().and_then(|newest| Ok((newest, environment("flask-oldest", old, &OLDEST)?)));
    let (newest, oldest) = match environments {
        Ok(both) => both,
        Err(fault) => return Ok(Outcome::Skipped(fault.to_string())),
    };
    let Some(wheel) = wheel(&newest)? else { return Ok(Outcome::Counted(Tally::FAILED)) };
    let mut tallies = vec![Tally { skipped: usize::from(!has_old), ..Tally::PASSED }];
    for arguments in
        [&["-m", "ruff", "check"][..], &["-m", "ruff", "format", "--check"], &["-m", "mypy", "src"]]
    {
        tallies.push(Tally::of(stream(python(&newest).args(arguments))?.success));
    }
    tallies.push(tests(&newest, &wheel, &[])?);
    // Servers and libraries of before are the newest environment's, and so are the README's five
    // minutes, which install what is newest whatever runs them.
    let left_out = ["servers", "migrate", "readme"].map(|name| format!("tests/test_{name}.py"));
    let left_out: Vec<&str> = left_out.iter().flat_map(|file| ["--ignore", file]).collect();
    tallies.push(tests(&oldest, &wheel, &left_out)?);
    tallies.push(application(&newest)?);
    Ok(Outcome::Counted(tallies.into_iter().sum()))
}

/// The environment of the newest releases, with the libraries that people come from.
pub fn newest() -> io::Result<PathBuf> {
    environment("flask-newest", "python3", &NEWEST)
}

/// A virtual environment with `packages`, made when missing.
fn environment(label: &str, program: &str, packages: &[&str]) -> io::Result<PathBuf> {
    let packages: Vec<&str> = packages.iter().chain(&TEST_TOOLS).copied().collect();
    tools::python_environment(label, program, &packages)
}

/// Builds the wheel.
fn wheel(environment: &Path) -> io::Result<Option<PathBuf>> {
    let folder = tree::root().join("target/flask");
    // A wheel of an earlier run isn't the one to test.
    let _ = std::fs::remove_dir_all(&folder);
    let mut build = python(environment);
    build.args(["-m", "build", "--wheel", "--no-isolation", "--outdir"]).arg(&folder);
    if !stream(&mut build)?.success {
        return Ok(None);
    }
    let mut wheels = std::fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(wheels.find(|path| path.extension().is_some_and(|extension| extension == "whl")))
}

/// Installs the wheel and runs the tests over it.
fn tests(environment: &Path, wheel: &Path, arguments: &[&str]) -> io::Result<Tally> {
    println!("-- {}", environment.display());
    let mut install = python(environment);
    install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]);
    if !stream(install.arg(wheel))?.success {
        return Ok(Tally::FAILED);
    }
    let mut pytest = python(environment);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", TESTERS]).args(arguments);
    pytest.env("CLOAKROOM_BIN", tools::built("cloakroom")?);
    Ok(stream(&mut pytest)?.closing_line())
}

/// The example, by the script that tests all three.
fn application(environment: &Path) -> io::Result<Tally> {
    let folder = tree::root().join(SCRIPT);
    let mut install = Command::new("npm");
    install.args(["ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]);
    if !tools::has("npm", &["--version"]) || !stream(install.current_dir(&folder))?.success {
        println!("SKIPPED: flask: the script that tests the examples needs npm");
        return Ok(Tally::SKIPPED);
    }
    let mut node = Command::new("node");
    node.args(["run.mjs", "--"]).arg(program(environment));
    node.arg(tree::root().join(APPLICATION)).current_dir(folder);
    node.env("CLOAKROOM_BIN", tools::built("cloakroom")?);
    Ok(stream(&mut node)?.closing_line())
}

fn python(environment: &Path) -> Command {
    let mut python = Command::new(program(environment));
    python.current_dir(tree::root().join(SDK)).env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

fn program(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}
