//! `cloakroom-sim`: runs seeds, repeats one, or breaks rules and demands to notice.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cloakroom_sim::mutation::Mutation;
use cloakroom_sim::schedule::lock;
use cloakroom_sim::tally::Tally;
use cloakroom_sim::{Outcome, report, run};

/// Seeds where none are asked for.
const SEEDS: u64 = 2_000;
/// Seeds that notice a rule whose breach shows in one world of ten thousand.
const RARE: [u64; 1] = [11_776];
/// Within this many seeds, or by the rare ones, each broken rule must be noticed.
const MUTANT_SEEDS: u64 = 3_000;

/// What was asked for.
enum Task {
    Seeds { first: u64, count: u64, threads: Option<usize>, keep_going: bool },
    One(u64),
    Mutate { seeds: u64 },
}

fn main() -> ExitCode {
    let task = match parse(std::env::args().skip(1)) {
        Ok(task) => task,
        Err(why) => {
            eprintln!("cloakroom-sim: {why}");
            eprintln!("usage: cloakroom-sim [--seeds N] [--from S] [--seed S] [--mutate]");
            eprintln!("                     [--threads N] [--keep-going]");
            return ExitCode::from(2);
        }
    };
    let passed = match task {
        Task::Seeds { first, count, threads, keep_going } => {
            run_seeds(first, count, threads, keep_going)
        }
        Task::One(seed) => run_one(seed),
        Task::Mutate { seeds } => mutate(seeds),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(words: impl Iterator<Item = String>) -> Result<Task, String> {
    let (mut seeds, mut first, mut seed, mut wants_mutants) = (None, 1, None, false);
    let (mut threads, mut keep_going) = (None, false);
    let mut words = words;
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or(format!("{word} takes a number"))?;
            text.parse::<u64>().map_err(|_| format!("{word} takes a number, not {text:?}"))
        };
        match word.as_str() {
            "--seeds" => seeds = Some(number()?),
            "--from" => first = number()?,
            "--seed" => seed = Some(number()?),
            "--threads" => threads = usize::try_from(number()?).ok().filter(|count| *count > 0),
            "--keep-going" => keep_going = true,
            "--mutate" => wants_mutants = true,
            other => return Err(format!("unknown option {other:?}")),
        }
    }
    Ok(match (seed, wants_mutants) {
        (_, true) => Task::Mutate { seeds: seeds.unwrap_or(MUTANT_SEEDS) },
        (Some(seed), false) => Task::One(seed),
        (None, false) => {
            let count = seeds.unwrap_or(SEEDS);
            Task::Seeds { first, count, threads, keep_going }
        }
    })
}

fn run_seeds(first: u64, count: u64, threads: Option<usize>, keep_going: bool) -> bool {
    let started = Instant::now();
    let end = first.saturating_add(count);
    let next = AtomicU64::new(first);
    let failed = Mutex::new(BTreeSet::new());
    let sum = Mutex::new(Tally::default());
    let wronged = Mutex::new(BTreeSet::new());
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or_else(all);
    // One world is one thread; several worlds may go on beside each other.
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || (!keep_going && !lock(&failed).is_empty()) {
                        return;
                    }
                    let outcome = run(seed, None, false);
                    lock(&sum).add(&outcome.tally);
                    for kind in outcome.tally.honest_residue.keys() {
                        lock(&wronged).insert((*kind, seed));
                    }
                    if outcome.violation.is_some() {
                        lock(&failed).insert(seed);
                    }
                }
            });
        }
    });
    let (sum, failed) = (lock(&sum).clone(), lock(&failed).clone());
    let ran = next.load(Ordering::Relaxed).min(end) - first;
    for seed in &failed {
        print!("{}", explain(*seed, None));
    }
    print!("{}", report::summary(ran, &sum));
    for (kind, seed) in lock(&wronged).iter() {
        println!("beyond the tolerances: {}, seed {seed}", kind.name());
    }
    println!("{:.1} s, {threads} worlds at once", started.elapsed().as_secs_f64());
    println!("simulate: {} passed, {} failed", ran - failed.len() as u64, failed.len());
    failed.is_empty()
}

fn run_one(seed: u64) -> bool {
    let outcome = run(seed, None, true);
    print!("{}", report::summary(1, &outcome.tally));
    if outcome.violation.is_some() {
        print!("{}", report::failure(&outcome, &again(seed), usize::MAX));
        println!("simulate: 0 passed, 1 failed");
        return false;
    }
    for line in &outcome.history {
        let sid = line.sid.map(|sid| sid.to_string()).unwrap_or_default();
        println!("{:>6} ms {:>26} {}", line.moment.at, sid, line.text);
    }
    println!("simulate: 1 passed, 0 failed");
    true
}

/// Runs a failed seed once more, with its history.
fn explain(seed: u64, mutation: Option<Mutation>) -> String {
    let outcome: Outcome = run(seed, mutation, true);
    if outcome.violation.is_none() {
        return format!("seed {seed} failed once and not again: something isn't deterministic\n");
    }
    report::failure(&outcome, &again(seed), report::SHOWN)
}

fn again(seed: u64) -> String {
    format!("cargo xtask simulate --seed {seed}")
}

fn mutate(seeds: u64) -> bool {
    if !cfg!(feature = "mutants") {
        println!("the engine's own rules are whole in this build; build with --features mutants");
    }
    let all = Mutation::all();
    let mut missed = 0;
    for mutation in &all {
        let started = Instant::now();
        let caught = (1..=seeds)
            .chain(RARE)
            .find_map(|seed| run(seed, Some(*mutation), false).violation.map(|v| (seed, v)));
        match caught {
            Some((seed, violation)) => println!(
                "{mutation:?}: caught by seed {seed}, invariant {} ({:.1} s)",
                violation.invariant,
                started.elapsed().as_secs_f64()
            ),
            None => {
                missed += 1;
                println!("{mutation:?}: NOT caught by {seeds} seeds");
            }
        }
    }
    println!("mutants: {} passed, {missed} failed", all.len() - missed);
    missed == 0
}
