//! `cloakroom events tail --follow`: what happens, as it happens.

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use super::walk::{Walk, logged_at};
use super::{Filter, cells};
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::output::{Style, inert};

/// How often the authority is asked.
const EVERY: Duration = Duration::from_secs(1);

/// Prints `latest` and goes on until it is interrupted or nobody reads any more.
///
/// Each round reads the last ten seconds again: nodes' clocks differ, and an event may be logged a
/// moment later than one that is already shown.
pub(super) fn run(
    client: &Client,
    filter: &Filter,
    latest: Vec<Value>,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let mut shown = HashSet::new();
    let mut after = start_of(&latest);
    for event in &latest {
        show(event, &mut shown, style, out)?;
    }
    out.flush()?;
    let mut lost = false;
    loop {
        std::thread::sleep(EVERY);
        match round(client, filter, after.as_deref(), &mut shown, style, out) {
            Ok(next) => {
                after = next;
                lost = false;
            }
            Err(Failure::Unreachable(why)) => {
                if !lost {
                    // It may be restarting; what happens meanwhile is logged all the same.
                    let _ = writeln!(err, "{why}; trying again");
                }
                lost = true;
            }
            Err(other) => return Err(other),
        }
    }
}

/// Shows what is new; gives where the next round begins.
fn round(
    client: &Client,
    filter: &Filter,
    after: Option<&str>,
    shown: &mut HashSet<String>,
    style: Style,
    out: &mut dyn Write,
) -> Result<Option<String>, Failure> {
    let mut walk = Walk::new(client, filter, after.map(str::to_owned));
    let mut met = HashSet::new();
    while let Some(events) = walk.next_page()? {
        for event in &events {
            show(event, shown, style, out)?;
            met.extend(event["id"].as_str().map(str::to_owned));
        }
    }
    out.flush()?;
    // What lies before is never read again.
    shown.retain(|id| met.contains(id));
    Ok(walk.resume_at(after))
}

/// The cursor after which everything is read that isn't among `latest`.
fn start_of(latest: &[Value]) -> Option<String> {
    let newest = latest.last().and_then(logged_at)?;
    let old = |event: &&Value| logged_at(event).is_some_and(|at| at <= newest - 10_000);
    let from = latest.iter().rev().find(old).or_else(|| latest.first())?;
    from["cursor"].as_str().map(str::to_owned)
}

fn show(
    event: &Value,
    shown: &mut HashSet<String>,
    style: Style,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let id = event["id"].as_str().unwrap_or_default();
    if !shown.insert(id.to_owned()) {
        return Ok(());
    }
    if style.json {
        return Ok(writeln!(out, "{event}")?);
    }
    let line: Vec<String> = cells(event).iter().map(|cell| inert(cell)).collect();
    Ok(writeln!(out, "{}", line.join("  "))?)
}
