//! `cloakroom-live`: real nodes on real stores, under random clients and faults.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cloakroom_live::history::{Fault, History, Kept, Turn, What};
use cloakroom_live::interrupt;
use cloakroom_live::rules::{Finding, check};
use cloakroom_live::run::{Plan, live};
use cloakroom_live::stand::Kind;

/// Run real nodes on real stores, under random clients and faults, and check what they promise.
#[derive(Parser)]
#[command(name = "cloakroom-live")]
struct Options {
    /// Only on this store; on all in turn when none is named.
    #[arg(long)]
    store: Vec<Kind>,
    /// How long on each, in minutes.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    minutes: f64,
    /// What the choices follow from; the timing is never the same twice.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// Violations that are told in full.
const SHOWN: usize = 5;

fn main() -> ExitCode {
    let outcome = run(&Options::parse());
    interrupt::give_way();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("cloakroom-live: {fault}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> io::Result<bool> {
    interrupt::watch()?;
    let program = cloakroom_bench::server::build()?;
    let kinds = if options.store.is_empty() { &Kind::ALL[..] } else { &options.store };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for kind in kinds {
        let plan = Plan {
            kind: *kind,
            span: Duration::from_secs_f64(options.minutes.clamp(0.05, 600.0) * 60.0),
            seed: options.seed,
            program: program.clone(),
        };
        println!("-- {}, {:?}, seed {}", kind.name(), plan.span, plan.seed);
        let Some(history) = live(&plan)? else {
            println!("SKIPPED: {} can't be had on this machine", kind.name());
            skipped += 1;
            continue;
        };
        tell(&history);
        for finding in check(&history).iter().chain([&went_on(&history)]) {
            if tell_finding(finding) { passed += 1 } else { failed += 1 }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

/// A run in which nothing happened proves nothing.
fn went_on(history: &History) -> Finding {
    let count = |is: fn(&What) -> bool| history.entries.iter().filter(|e| is(&e.what)).count();
    let least = [
        ("openings", count(|what| matches!(what, What::Opened { .. })), 50),
        ("refreshes", count(is_rotation), 50),
        ("endings", count(is_ending), 20),
        ("writes", count(|what| matches!(what, What::Wrote { .. })), 20),
        ("faults", history.disturbances.len(), 1),
    ];
    let few = least.iter().filter(|(_, found, least)| found < least);
    Finding {
        rule: "the run went on",
        checked: least.len(),
        excused: 0,
        violations: few.map(|(what, found, _)| format!("only {found} {what}")).collect(),
    }
}

fn is_rotation(what: &What) -> bool {
    matches!(what, What::Refreshed { turn: Turn::Next(_), .. })
}

fn is_ending(what: &What) -> bool {
    matches!(what, What::Ended { .. } | What::EndedAll { .. })
}

/// What happened, in figures.
fn tell(history: &History) {
    let count = |is: &dyn Fn(&What) -> bool| history.entries.iter().filter(|e| is(&e.what)).count();
    let faults =
        |is: fn(&Fault) -> bool| history.disturbances.iter().filter(|one| is(&one.fault)).count();
    let kept_by = |kept: Kept| {
        count(&|what| match what {
            What::Ended { kept: found, .. } | What::EndedAll { kept: found, .. } => *found == kept,
            _ => false,
        })
    };
    println!(
        "{} requests: {} openings, {} rotations, {} writes, {} unknown",
        history.entries.len(),
        count(&|what| matches!(what, What::Opened { .. })),
        count(&is_rotation),
        count(&|what| matches!(what, What::Wrote { .. })),
        count(&|what| matches!(what, What::Unknown(_))),
    );
    println!(
        "endings: {} durable, {} replicated, {} local; {} reuses",
        kept_by(Kept::Durable),
        kept_by(Kept::Replicated),
        kept_by(Kept::Local),
        count(&|what| matches!(what, What::Refreshed { turn: Turn::Reused, .. })),
    );
    println!(
        "faults: {} nodes killed, {} stores killed, {} failovers, {} of them by a master that hung",
        faults(|fault| matches!(fault, Fault::NodeKilled(_))),
        faults(|fault| matches!(fault, Fault::StoreKilled)),
        faults(|fault| matches!(fault, Fault::FailedOver | Fault::CutOff)),
        faults(|fault| matches!(fault, Fault::CutOff)),
    );
}

/// Says whether it held.
fn tell_finding(finding: &Finding) -> bool {
    let Finding { rule, checked, excused, violations } = finding;
    let word = if violations.is_empty() { "ok" } else { "VIOLATED" };
    let excused = if *excused > 0 { format!(", {excused} as declared") } else { String::new() };
    println!("  {word}: {rule} ({checked} looked at{excused})");
    for violation in violations.iter().take(SHOWN) {
        println!("  {violation}");
    }
    if violations.len() > SHOWN {
        println!("  and {} more", violations.len() - SHOWN);
    }
    violations.is_empty()
}
