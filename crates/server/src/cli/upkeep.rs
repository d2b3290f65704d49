//! `cloakroom sweep` and `cloakroom health`.

use std::io::Write;

use clap::Args;
use serde_json::json;
use ureq::http::Method;

use super::client::{KeyWanted, Reach};
use super::failure::Failure;
use super::output::{Style, counted, print_json};

/// The arguments of `cloakroom sweep`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom sweep
  cloakroom sweep --json
  cloakroom sweep --admin-url https://cloakroom.internal:7401")]
pub struct SweepArgs {
    #[command(flatten)]
    reach: Reach,
}

/// The arguments of `cloakroom health`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom health
  cloakroom health --ready
  HEALTHCHECK CMD [\"cloakroom\", \"health\", \"--ready\"]    (in a Dockerfile)")]
pub struct HealthArgs {
    /// Ask whether it can serve: its store answers and it isn't stopping
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Removes what has expired.
///
/// # Errors
///
/// Why it didn't succeed.
pub fn sweep(args: &SweepArgs, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = args.reach.client(KeyWanted::Yes)?.order(Method::POST, "/admin/v1/sweep")?;
    if style.json {
        return Ok(print_json(&answer, out)?);
    }
    Ok(writeln!(out, "removed {}", counted(&answer["removed"], "record"))?)
}

/// Asks whether the authority lives, or whether it can serve.
///
/// # Errors
///
/// [`Failure::Failed`] where it doesn't, also where it can't be reached: whoever asks wants 0 or 1.
pub fn health(args: &HealthArgs, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = args.reach.client(KeyWanted::No)?.send(Method::GET, path, None);
    let answer = answer.map_err(|failure| Failure::Failed(failure.to_string()))?;
    let well = answer.status == 200;
    if style.json {
        print_json(&json!({"ok": well, "status": answer.status}), out)?;
        return if well { Ok(()) } else { Err(Failure::Silent(1)) };
    }
    if well {
        return Ok(writeln!(out, "ok")?);
    }
    Err(Failure::Failed(answer.explanation()))
}
