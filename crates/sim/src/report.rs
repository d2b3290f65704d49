//! What is printed of runs.

use std::fmt::Write as _;

use crate::Outcome;
use crate::book::Line;
use crate::tally::{ClientKind, Tally};

/// Lines of the history that are shown of a failure among many.
pub const SHOWN: usize = 60;

/// The counts of many seeds, for people.
pub fn summary(seeds: u64, tally: &Tally) -> String {
    let mut text = String::new();
    let mut line = |what: &str| {
        text.push_str(what);
        text.push('\n');
    };
    line(&format!(
        "{seeds} seeds: {} steps, {} commits, {} sessions, {} rotations, {} answers judged, \
         {} of them 503",
        tally.steps, tally.commits, tally.opened, tally.rotations, tally.judged, tally.unavailable
    ));
    let faults: Vec<String> =
        tally.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    line(&format!("faults: {}", faults.join(", ")));
    line("honest users taken for thieves: within the tolerances / beyond them / after a failover");
    for kind in ClientKind::ALL {
        let count = |map: &std::collections::BTreeMap<ClientKind, u64>| {
            map.get(&kind).copied().unwrap_or(0)
        };
        if kind == ClientKind::Browser {
            continue;
        }
        line(&format!(
            "  {}: {} / {} / {} of {} refreshes",
            kind.name(),
            count(&tally.honest_wronged),
            count(&tally.honest_residue),
            count(&tally.honest_after_failover),
            count(&tally.honest_refreshes)
        ));
    }
    line(&format!(
        "thieves: {} copies presented, {} answered within the tolerance or before the owner came, \
         {} sessions ended",
        tally.thief_refreshes, tally.thief_answered, tally.thieves_caught
    ));
    text
}

/// A failure: what was broken, the last lines of the history that led there, and how to see it
/// again.
pub fn failure(outcome: &Outcome, again: &str, shown: usize) -> String {
    let mut text = String::new();
    let Some(violation) = &outcome.violation else { return text };
    let concerns = |line: &&Line| {
        line.moment <= violation.moment
            && (violation.sid.is_none() || line.sid.is_none() || line.sid == violation.sid)
    };
    let lines: Vec<&Line> = outcome.history.iter().filter(concerns).collect();
    let hidden = lines.len().saturating_sub(shown);
    for line in lines.iter().skip(hidden) {
        let sid = line.sid.map(|sid| sid.to_string()).unwrap_or_default();
        let _ = writeln!(text, "{:>6} ms {:>26} {}", line.moment.at, sid, line.text);
    }
    let sid = violation.sid.map(|sid| format!(" (session {sid})")).unwrap_or_default();
    let _ = writeln!(
        text,
        "seed {} broke invariant {}{sid} at {} ms: {}\nagain: {again}",
        outcome.seed, violation.invariant, violation.moment.at, violation.text
    );
    text
}
