//! `cloakroom-bench`: figures beside their references, in one run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloakroom_bench::Outcome;
use cloakroom_bench::cases::{engine, over_http, sizes, stores, streams, sweeping};
use cloakroom_bench::idle::{self, Answers};
use cloakroom_bench::report::Report;

/// Measure the authority beside what would be possible without it.
///
/// Ours and the reference's rounds are made in turn; a ratio is the median of the rounds, with
/// the least and the greatest. A missed aim is told, and is no failure.
#[derive(Parser)]
#[command(name = "cloakroom-bench")]
struct Options {
    /// Only the figures whose names contain one of these, such as `verify`, `http/` or `size/`.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// A line of JSON for each figure.
    #[arg(long)]
    json: bool,
    /// Where the stores lie that are measured; the build directory when it isn't given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Be the reference server on this address.
    #[arg(long, hide = true, value_name = "ADDRESS")]
    idle: Option<String>,
    /// What the reference answers to a POST.
    #[arg(long, hide = true, value_name = "FILE")]
    idle_body: Option<PathBuf>,
    /// With which status.
    #[arg(long, hide = true, value_name = "STATUS", default_value_t = 200)]
    idle_status: u16,
}

/// As in the program that is measured, and for the reference too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("cloakroom-bench: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Outcome<()> {
    if let Some(address) = &options.idle {
        let body = options.idle_body.map(std::fs::read_to_string).transpose()?;
        let answers = Answers { status: options.idle_status, body: body.unwrap_or_default() };
        return Ok(idle::serve(address, answers)?);
    }
    // The system's own temporary directory may be in memory, where nothing waits for a disk.
    let parent = match options.dir {
        Some(dir) => dir,
        None => std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default(),
    };
    let folder = tempfile::Builder::new().prefix("cloakroom-bench-").tempdir_in(parent)?;
    let report = Report::new(options.json, options.names);
    over_http::run(&report, folder.path())?;
    engine::run(&report, folder.path())?;
    sizes::run(&report, folder.path())?;
    sweeping::run(&report, folder.path())?;
    streams::run(&report, folder.path())?;
    stores::run(&report, folder.path())
}
