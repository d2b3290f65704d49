//! `cargo xtask`: the repository's own commands.

use std::io;
use std::process::{Command, ExitCode, Stdio};

use clap::{Args, Parser, Subcommand};
use xtask::backends;
use xtask::contract;
use xtask::dist;
use xtask::gate::{self, cargo};
use xtask::process::Tally;
use xtask::requirements;
use xtask::servers;
use xtask::tools;
use xtask::tree::{self, Tree};

/// The repository's own commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check everything that must hold before a change lands; the last line counts it.
    Test(Test),
    /// Run the benchmarks, optimised.
    Bench(Bench),
    /// Run seeded worlds through the engine and check its invariants after every step.
    Simulate(Simulate),
    /// Kill a writing process over and over and check that what it acknowledged is there.
    Crash(Crash),
    /// Run real nodes on real stores, under random clients and faults, and check what they promise.
    Live(Live),
    /// Feed random input to the parsers, with cargo-fuzz; `contract`: random requests to both
    /// listeners, with schemathesis.
    Fuzz(Fuzz),
    /// Check the rules of the tree; a part of `cargo test` too.
    Tidy,
    /// Rewrite the golden files and docs/security/tests.md: the diff is the review.
    Golden(Golden),
    /// Make what users install, in target/dist: tarball, bill of materials, container image.
    Dist,
    /// Mend what can be mended by itself: formatting and clippy's suggestions.
    Fix,
}

#[derive(Args)]
struct Test {
    /// Only these steps; all when none is named.
    #[arg(value_name = "STEP", value_parser = known_step)]
    steps: Vec<String>,
    /// List the steps and what each checks.
    #[arg(long)]
    list: bool,
}

#[derive(Args)]
struct Bench {
    /// Only these benchmarks, such as `http/`, `stores/` or `backends/express`; all when none is
    /// named.
    names: Vec<String>,
    /// Machine-readable output.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Simulate {
    /// How many seeds to try.
    #[arg(long, value_name = "N", conflicts_with = "seed")]
    seeds: Option<u64>,
    /// One seed: repeat a failure and print its history.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Break the engine on purpose, in each known way, and demand that the simulator notices.
    #[arg(long)]
    mutate: bool,
}

#[derive(Args)]
struct Crash {
    /// How often to kill.
    #[arg(long, value_name = "N", default_value_t = 300)]
    trials: u64,
}

#[derive(Args)]
struct Live {
    /// Only on this store: redis, redis-sentinel, redis-cluster or postgres; on all in turn when
    /// none is named.
    #[arg(long)]
    store: Vec<String>,
    /// How long on each, in minutes.
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// What the choices follow from; the timing is never the same twice.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

#[derive(Args)]
struct Golden {
    /// Only docs/security/tests.md, which needs no build.
    #[arg(long)]
    page: bool,
}

#[derive(Args)]
struct Fuzz {
    /// Only this target; all in turn when none is named.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Requests for the target `contract`, at least.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    cases: usize,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Task::Test(options) => test(&options),
        Task::Bench(options) => bench(&options),
        Task::Simulate(options) => simulate(&options),
        Task::Crash(options) => crash(&options),
        Task::Live(options) => live(&options),
        Task::Fuzz(options) => fuzz(&options),
        Task::Tidy => Tree::load().map(|tree| summed(gate::tidy_report(&tree))),
        Task::Golden(options) => golden(&options),
        Task::Dist => dist::make(),
        Task::Fix => fix(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("cargo xtask: {fault}");
            ExitCode::from(2)
        }
    }
}

fn test(options: &Test) -> io::Result<bool> {
    if options.list {
        gate::STEPS.iter().for_each(|step| println!("{:>10}  {}", step.name, step.about));
        return Ok(true);
    }
    Ok(gate::run(&options.steps))
}

fn bench(options: &Bench) -> io::Result<bool> {
    servers::install_for_benchmarks();
    let of_backends = |name: &&String| name.starts_with(backends::PREFIX);
    let (backends, others): (Vec<&String>, Vec<&String>) =
        options.names.iter().partition(of_backends);
    let all = options.names.is_empty();
    let mut good = true;
    if all || !others.is_empty() {
        let mut run =
            cargo(&["run", "--release", "-p", "cloakroom-bench", "--bin", "cloakroom-bench", "--"]);
        good &= shown(run.args(others).args(options.json.then_some("--json")))?;
    }
    if all || !backends.is_empty() {
        let mut run = backends::command()?;
        good &= shown(run.args(backends).args(options.json.then_some("--json")))?;
    }
    Ok(good)
}

fn simulate(options: &Simulate) -> io::Result<bool> {
    let mut run = gate::simulator(options.mutate);
    for (name, value) in [("--seeds", options.seeds), ("--seed", options.seed)] {
        if let Some(value) = value {
            run.args([name, &value.to_string()]);
        }
    }
    shown(run.args(options.mutate.then_some("--mutate")))
}

fn crash(options: &Crash) -> io::Result<bool> {
    servers::install();
    let mut run =
        cargo(&["run", "--release", "-p", "cloakroom-bench", "--bin", "cloakroom-crash", "--"]);
    shown(run.args(["--trials", &options.trials.to_string()]))
}

/// Held at one release, so that a new one never breaks the command by itself.
const CARGO_FUZZ: &str = "0.13.2";

fn live(options: &Live) -> io::Result<bool> {
    servers::install();
    let mut run = gate::live_program();
    for store in &options.store {
        run.args(["--store", store]);
    }
    if let Some(minutes) = options.minutes {
        run.args(["--minutes", &minutes.to_string()]);
    }
    if let Some(seed) = options.seed {
        run.args(["--seed", &seed.to_string()]);
    }
    shown(&mut run)
}

fn fuzz(options: &Fuzz) -> io::Result<bool> {
    if options.target.as_deref() == Some(CONTRACT) {
        return contract::fuzz(options.cases);
    }
    let folder = tree::root().join("fuzz");
    if !folder.join("Cargo.toml").is_file() {
        return Err(io::Error::other("there are no fuzz targets (the folder fuzz/ is missing)"));
    }
    let program = tools::cargo_tool("cargo-fuzz", CARGO_FUZZ)?;
    let targets = match &options.target {
        Some(target) => vec![target.clone()],
        None => fuzz_targets(&folder)?,
    };
    let limit = format!("-max_total_time={}", options.seconds);
    let mut all_passed = true;
    for target in targets {
        let mut run = Command::new(&program);
        run.args(["fuzz", "run", &target, "--", &limit]).current_dir(tree::root());
        // The sanitizer's flags are unstable; this lets a stable compiler take them.
        all_passed &= shown(run.env("RUSTC_BOOTSTRAP", "1"))?;
    }
    Ok(all_passed)
}

/// The target that cargo-fuzz knows nothing of.
const CONTRACT: &str = "contract";

fn fuzz_targets(folder: &std::path::Path) -> io::Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(folder.join("fuzz_targets"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        targets.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    targets.sort();
    Ok(targets)
}

fn golden(options: &Golden) -> io::Result<bool> {
    requirements::write_page(&Tree::load()?)?;
    if options.page {
        return Ok(true);
    }
    shown(cargo(&["test", "--workspace", "golden"]).env("UPDATE", "1"))
}

fn fix() -> io::Result<bool> {
    let clippy =
        ["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets"];
    let mended = shown(&mut cargo(&clippy))?;
    Ok(shown(&mut cargo(&["fmt", "--all"]))? && mended)
}

/// Runs a command on our own terminal, and tells whether it succeeded.
fn shown(command: &mut Command) -> io::Result<bool> {
    Ok(command.stdin(Stdio::inherit()).status()?.success())
}

fn summed(tally: Tally) -> bool {
    println!("{tally}");
    tally.failed == 0
}

fn known_step(name: &str) -> Result<String, String> {
    let known = gate::STEPS.iter().any(|step| step.name == name);
    let names = || gate::STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join(", ");
    if known { Ok(name.to_owned()) } else { Err(format!("the steps are {}", names())) }
}
