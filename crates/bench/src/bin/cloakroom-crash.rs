//! `cloakroom-crash`: kills a writing server over and over and checks what it acknowledged.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use cloakroom_bench::crash::{self, trace};

/// Kill a writing server over and over and check what it acknowledged.
#[derive(Parser)]
#[command(name = "cloakroom-crash")]
struct Options {
    /// How often to kill.
    #[arg(long, value_name = "N", default_value_t = 100)]
    trials: u64,
    /// What the choices follow from; the timing of a kill is never the same twice.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Watch the system calls instead: the disk must be asked before each answer.
    #[arg(long)]
    strace: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = if options.strace { traced() } else { killed(&options) };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("cloakroom-crash: {fault}");
            ExitCode::from(2)
        }
    }
}

fn killed(options: &Options) -> io::Result<bool> {
    let outcome = crash::run(&crash::program()?, options.trials, options.seed)?;
    println!(
        "{} kills: {} changes acknowledged, {} requests unanswered, {} facts checked",
        options.trials, outcome.acknowledged, outcome.unanswered, outcome.checked
    );
    println!("{} passed, {} failed", outcome.passed, outcome.failed);
    Ok(outcome.failed == 0)
}

fn traced() -> io::Result<bool> {
    let Some(traced) = trace::run(&crash::program()?)? else {
        println!("SKIPPED: there is no strace on this machine");
        println!("0 passed, 0 failed, 1 skipped");
        return Ok(true);
    };
    println!("{} passed, {} failed", traced.after_sync, traced.without_sync);
    Ok(traced.without_sync == 0)
}
