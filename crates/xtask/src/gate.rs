//! The gate: everything that must hold before a change lands, in one run.
//!
//! All steps run, whatever fails; a step that can't be made here says so loudly and is counted.
//! Quick checks come first, and every step builds with the same profile and flags, so that a crate
//! is compiled once for checking and once for running.

use std::io;
use std::process::Command;
use std::time::Instant;

use crate::axum;
use crate::contract;
use crate::dist;
use crate::express;
use crate::flask;
use crate::guide;
use crate::interop;
use crate::monitoring;
use crate::process::{Tally, stream};
use crate::servers;
use crate::skips::{Skips, tell};
use crate::tidy;
use crate::tools;
use crate::tree::{self, Tree};

/// Seeds of the simulator in a run of the gate; `cargo xtask simulate` takes any number.
const SIMULATED_SEEDS: &str = "2000";
/// Kills in a run of the gate; `cargo xtask crash` makes more.
const CRASH_TRIALS: &str = "20";

/// Minutes of a live run on each of three stores; `cargo xtask live` takes any number, on all.
const LIVE_MINUTES: &str = "0.5";

/// One part of the gate.
pub struct Step {
    /// The name for `cargo xtask test NAME`.
    pub name: &'static str,
    /// What it checks, in one line.
    pub about: &'static str,
    run: fn() -> io::Result<Outcome>,
}

/// How a step ended.
pub enum Outcome {
    /// It ran, and counted this.
    Counted(Tally),
    /// It could not be made here, for this reason.
    Skipped(String),
}

/// The steps, in their order.
pub const STEPS: &[Step] = &[
    Step { name: "lock", about: "Cargo.lock agrees with the manifests", run: lock },
    Step { name: "fmt", about: "rustfmt has nothing to change", run: fmt },
    Step { name: "tidy", about: "the rules of the tree", run: tidy_step },
    Step { name: "clippy", about: "no warning in any target", run: clippy },
    Step { name: "deny", about: "bans, licences and sources of all dependencies", run: deny },
    Step { name: "docs", about: "the documentation builds without a warning", run: docs },
    Step { name: "tests", about: "unit and integration tests of all crates", run: tests },
    Step { name: "doctests", about: "the examples in the documentation", run: doctests },
    Step {
        name: "simulate",
        about: "seeded worlds, and mutants that must be caught",
        run: simulate,
    },
    Step {
        name: "crash",
        about: "kills that lose nothing acknowledged; a sync before each answer",
        run: crash,
    },
    Step { name: "live", about: "nodes on real stores, killed and failed over", run: live },
    Step { name: "packaging", about: "the unit is hardened, the image runs", run: dist::step },
    Step {
        name: "monitoring",
        about: "alerts and dashboard, judged by promtool",
        run: monitoring::step,
    },
    Step {
        name: "express",
        about: "the Express SDK, the browser helper and the Express example",
        run: express::step,
    },
    Step { name: "axum", about: "the axum example, by the shared script", run: axum::step },
    Step { name: "guide", about: "the Rust guide's five minutes, followed", run: guide::step },
    Step {
        name: "contract",
        about: "the OpenAPI document, by a validator and by requests made from it",
        run: contract::step,
    },
    Step { name: "interop", about: "tokens against jose and PyJWT", run: interop::step },
    Step { name: "flask", about: "the Flask SDK and its example", run: flask::step },
];

/// Runs the named steps, or all, and returns whether nothing failed.
///
/// The last line of the output is the count of everything.
pub fn run(names: &[String]) -> bool {
    let started = Instant::now();
    let chosen =
        STEPS.iter().filter(|step| names.is_empty() || names.iter().any(|n| n == step.name));
    let mut report = Vec::new();
    for step in chosen {
        println!("\n== {}: {}", step.name, step.about);
        let began = Instant::now();
        let (tally, note) = match (step.run)() {
            Ok(Outcome::Counted(tally)) => (tally, None),
            Ok(Outcome::Skipped(why)) => {
                (Tally::SKIPPED, Some(format!("SKIPPED: {}: {why}", step.name)))
            }
            Err(fault) => (Tally::FAILED, Some(format!("FAILED: {}: {fault}", step.name))),
        };
        if let Some(note) = &note {
            println!("{note}");
        }
        println!("-- {}: {tally} ({} s)", step.name, began.elapsed().as_secs());
        report.push((step.name, tally, note));
    }
    println!("\n== {} s in all", started.elapsed().as_secs());
    for (name, tally, note) in &report {
        println!(
            "{name:>10}: {tally}{}",
            note.as_ref().map_or(String::new(), |n| format!("  {n}"))
        );
    }
    let total: Tally = report.iter().map(|(_, tally, _)| *tally).sum();
    println!("{total}");
    total.failed == 0
}

/// Prints what breaks the rules of the tree, and counts the rules.
pub fn tidy_report(tree: &Tree) -> Tally {
    let verdicts = match tidy::judge(tree) {
        Ok(verdicts) => verdicts,
        Err(fault) => {
            println!("{fault}");
            return Tally::FAILED;
        }
    };
    for verdict in &verdicts {
        for finding in &verdict.findings {
            println!("{finding} [{}]", verdict.rule);
        }
    }
    let figures = tidy::figures(tree);
    println!(
        "{} rules; {} lines of Rust, {} % of them tests, the median file has {} lines",
        verdicts.len(),
        figures.lines,
        figures.test_percent,
        figures.file_median
    );
    verdicts.iter().map(|verdict| Tally::of(verdict.findings.is_empty())).sum()
}

/// `cargo` with `arguments`, in the root.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(tree::root());
    // What the outer cargo told this program is not meant for an inner one.
    command.env_remove("CARGO_MANIFEST_DIR");
    command
}

fn passes(command: &mut Command) -> io::Result<Outcome> {
    Ok(Outcome::Counted(Tally::of(stream(command)?.success)))
}

fn lock() -> io::Result<Outcome> {
    let mut metadata = cargo(&["metadata", "--locked", "--format-version", "1"]);
    let output = metadata.output()?;
    print!("{}", String::from_utf8_lossy(&output.stderr));
    Ok(Outcome::Counted(Tally::of(output.status.success())))
}

fn fmt() -> io::Result<Outcome> {
    passes(&mut cargo(&["fmt", "--all", "--check"]))
}

fn tidy_step() -> io::Result<Outcome> {
    Ok(Outcome::Counted(tidy_report(&Tree::load()?)))
}

fn clippy() -> io::Result<Outcome> {
    passes(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn deny() -> io::Result<Outcome> {
    let program = match tools::cargo_deny() {
        Ok(program) => program,
        Err(fault) => return Ok(Outcome::Skipped(fault.to_string())),
    };
    // The advisories need a database from outside; CONTRIBUTING.md says where they are checked.
    let checks = ["bans", "licenses", "sources"].map(|check| {
        let mut command = Command::new(&program);
        command.args(["--workspace", "check", "--hide-inclusion-graph", check]);
        stream(command.current_dir(tree::root())).map(|finished| Tally::of(finished.success))
    });
    let tallies: io::Result<Vec<Tally>> = checks.into_iter().collect();
    Ok(Outcome::Counted(tallies?.into_iter().sum()))
}

fn docs() -> io::Result<Outcome> {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    passes(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> io::Result<Outcome> {
    servers::install();
    let told = std::env::temp_dir().join(format!("cloakroom-skips-{}", std::process::id()));
    let run = |arguments: &[&str]| stream(cargo(arguments).env(tell::VARIABLE, &told));
    let is_process_a_test = tools::has_cargo("nextest");
    let tally = if is_process_a_test {
        run(&["nextest", "run", "--workspace", "--no-fail-fast"])?.nextest()
    } else {
        run(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])?.cargo_test()
    };
    let skips = Skips::read(&told)?;
    // It is in a directory for such files, should this fail.
    let _ = std::fs::remove_file(&told);
    skips.lines.iter().for_each(|line| println!("{line}"));
    Ok(Outcome::Counted(skips.taken_from(tally, is_process_a_test)))
}

fn doctests() -> io::Result<Outcome> {
    let mut test = cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]);
    Ok(Outcome::Counted(stream(&mut test)?.cargo_test()))
}

fn simulate() -> io::Result<Outcome> {
    if !has_binary("cloakroom-sim")? {
        return Ok(Outcome::Skipped("there is no program cloakroom-sim".to_owned()));
    }
    let seeds = stream(simulator(false).args(["--seeds", SIMULATED_SEEDS]))?.closing_line();
    let mutants = stream(simulator(true).arg("--mutate"))?.closing_line();
    Ok(Outcome::Counted([seeds, mutants].into_iter().sum()))
}

/// The simulator, optimised: it lives through thousands of worlds. Only with `mutants` can the
/// engine's own rules be broken; no other build has that in it.
pub fn simulator(mutants: bool) -> Command {
    let run = ["run", "-q", "--release", "-p", "cloakroom-sim", "--bin", "cloakroom-sim"];
    let mut command = cargo(&run);
    if mutants {
        command.args(["--features", "mutants"]);
    }
    command.arg("--");
    command
}

fn crash() -> io::Result<Outcome> {
    if !has_binary("cloakroom-crash")? {
        return Ok(Outcome::Skipped("there is no program cloakroom-crash".to_owned()));
    }
    servers::install();
    let run = ["run", "-q", "-p", "cloakroom-bench", "--bin", "cloakroom-crash", "--"];
    let trials = stream(cargo(&run).args(["--trials", CRASH_TRIALS]))?.closing_line();
    // A kill leaves the page cache alone: that the disk is asked first, only the calls show.
    let calls = stream(cargo(&run).arg("--strace"))?.closing_line();
    Ok(Outcome::Counted([trials, calls].into_iter().sum()))
}

/// Real nodes on real stores.
pub fn live_program() -> Command {
    cargo(&["run", "-q", "-p", "cloakroom-live", "--bin", "cloakroom-live", "--"])
}

fn live() -> io::Result<Outcome> {
    servers::install();
    let stores =
        ["postgres", "redis-sentinel", "redis-cluster"].iter().flat_map(|store| ["--store", store]);
    let run = stream(live_program().args(stores).args(["--minutes", LIVE_MINUTES]))?;
    Ok(Outcome::Counted(run.closing_line()))
}

/// Whether the workspace has a program called `name`.
pub fn has_binary(name: &str) -> io::Result<bool> {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let target = format!("\"crate_types\":[\"bin\"],\"name\":\"{name}\"");
    Ok(String::from_utf8_lossy(&output.stdout).contains(&target))
}
