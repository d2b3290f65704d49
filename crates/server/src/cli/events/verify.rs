//! `cloakroom events verify`: what can be checked of an audit log from outside.
//!
//! An id says where its event stands: the tick of its commit, its partition, and its place among
//! the events of that commit, which are counted from 0. So a log whose events don't stand in
//! order, stand there twice, or have a gap within a commit was not written by an authority.
//! A commit that is missing as a whole leaves no gap: that is told by an export that was kept
//! where whoever writes to the store can't.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::Filter;
use super::walk::{Walk, logged_at};
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::output::{Style, counted, inert, print_json};

/// Faults that are told one by one.
const TOLD_MAX: usize = 20;
/// How much later than its commit an event may say that it happened, in milliseconds: clocks
/// of nodes differ.
const AHEAD_MS: i64 = 10_000;

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    tick: u64,
    partition: u16,
    index: u16,
}

impl Place {
    fn of(event: &Value) -> Option<Self> {
        let digits = event["id"].as_str()?.strip_prefix("evt_")?;
        if digits.len() != 24 {
            return None;
        }
        Some(Self {
            tick: u64::from_str_radix(digits.get(..16)?, 16).ok()?,
            partition: u16::from_str_radix(digits.get(16..20)?, 16).ok()?,
            index: u16::from_str_radix(digits.get(20..)?, 16).ok()?,
        })
    }
}

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    events: u64,
    first: Option<String>,
    last: Option<String>,
    faults: Vec<String>,
    fault_count: u64,
    before: Option<Place>,
    store: Option<String>,
}

impl Findings {
    fn fault(&mut self, event: &Value, why: &str) {
        let id = event["id"].as_str().unwrap_or("an event without id");
        self.fault_of(id, why);
    }

    fn fault_of(&mut self, id: &str, why: &str) {
        self.fault_count += 1;
        if self.faults.len() < TOLD_MAX {
            self.faults.push(format!("{id}: {why}"));
        }
    }

    /// Looks at the next event of the log.
    fn take(&mut self, event: &Value) {
        self.events += 1;
        let time = event["time"].as_str().map(str::to_owned);
        self.first = self.first.take().or_else(|| time.clone());
        self.last = time;
        let Some(place) = Place::of(event) else {
            self.fault(event, "no id that an authority writes");
            return;
        };
        self.judge_form(event);
        if let Some(before) = self.before {
            let same_commit = (before.tick, before.partition) == (place.tick, place.partition);
            if place <= before {
                self.fault(event, "it doesn't stand behind the one before it");
            } else if same_commit && place.index != before.index + 1 {
                self.fault(event, "events of its commit before it are missing");
            } else if !same_commit && place.index != 0 {
                self.fault(event, "the first events of its commit are missing");
            }
        }
        self.before = Some(place);
    }

    fn judge_form(&mut self, event: &Value) {
        for member in ["time", "type", "cursor"] {
            if !event[member].is_string() {
                self.fault(event, &format!("it has no {member}"));
            }
        }
        if !event["actor"]["type"].is_string() {
            self.fault(event, "it has no actor");
        }
        let digits = event["id"].as_str().and_then(|id| id.strip_prefix("evt_")).unwrap_or("?");
        let cursor = event["cursor"].as_str().unwrap_or_default();
        let Some(store) = cursor.strip_prefix(digits) else {
            self.fault(event, "its cursor names another place");
            return;
        };
        match &self.store {
            None => self.store = Some(store.to_owned()),
            Some(known) if known == store => {}
            Some(_) => self.fault(event, "its cursor names another store"),
        }
        let said = event["time"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        if let (Some(said), Some(logged)) = (said, logged_at(event))
            && said.as_millisecond() > logged + AHEAD_MS
        {
            self.fault(event, "it says that it happened after it was logged");
        }
    }
}

/// Checks the log, and compares it with an export if one is given.
pub(super) fn run(
    client: &Client,
    against: Option<&Path>,
    style: Style,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut kept = against.map(read_export).transpose()?;
    let filter = Filter::default();
    let mut findings = Findings::default();
    let mut walk = Walk::new(client, &filter, None);
    let (mut compared, mut oldest) = (0_u64, None);
    let last_kept = kept.as_ref().and_then(|kept| kept.keys().next_back().copied());
    let first_kept = kept.as_ref().and_then(|kept| kept.keys().next().copied());
    while let Some(events) = walk.next_page()? {
        for event in &events {
            findings.take(event);
            let (Some(kept), Some(place)) = (&mut kept, Place::of(event)) else { continue };
            oldest = oldest.or(Some(place));
            match kept.remove(&place) {
                Some(then) if then == *event => compared += 1,
                Some(_) => findings.fault(event, "the export said something else"),
                // Between two exports' ends there is nothing that wasn't exported.
                None if Some(place) > first_kept && settled(place, last_kept) => {
                    findings.fault(event, "it isn't in the export");
                }
                None => {}
            }
        }
    }
    // What is older than the log's oldest event was let go of in its time (`events.keep`).
    let missing = kept.into_iter().flatten().filter(|(place, _)| Some(*place) >= oldest);
    for (_, event) in missing {
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        findings.fault_of(&id, "it is in the export, and no longer in the log");
    }
    tell(&findings, against.map(|_| compared), style, out)?;
    if findings.fault_count == 0 { Ok(()) } else { Err(Failure::Silent(1)) }
}

/// Whether everything at this place was there when the export was made: its last ten seconds may
/// have been incomplete.
fn settled(place: Place, last: Option<Place>) -> bool {
    let instant = |place: Place| cloakroom_store::Tick(place.tick).instant().as_millis();
    last.is_some_and(|last| instant(place) + AHEAD_MS < instant(last))
}

/// The events of an export, by their place. One that stands there twice is fine: exports overlap.
fn read_export(path: &Path) -> Result<BTreeMap<Place, Value>, Failure> {
    let failed = |why: String| Failure::Failed(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut kept = BTreeMap::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| failed(error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let event: Option<Value> = serde_json::from_str(&line).ok();
        let placed = event.and_then(|event| Place::of(&event).map(|place| (place, event)));
        let Some((place, event)) = placed else {
            return Err(failed(format!("line {} is no event", number + 1)));
        };
        if kept.insert(place, event.clone()).is_some_and(|other| other != event) {
            return Err(failed(format!("line {} contradicts an earlier one", number + 1)));
        }
    }
    Ok(kept)
}

fn tell(
    findings: &Findings,
    compared: Option<u64>,
    style: Style,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if style.json {
        let answer = json!({
            "events": findings.events,
            "first": findings.first,
            "last": findings.last,
            "compared": compared,
            "faults": findings.fault_count,
            "told": findings.faults,
        });
        return Ok(print_json(&answer, out)?);
    }
    for fault in &findings.faults {
        writeln!(out, "{}", inert(fault))?;
    }
    let span = match (&findings.first, &findings.last) {
        (Some(first), Some(last)) => format!(", from {first} to {last}"),
        _ => String::new(),
    };
    let (events, faults) = (counted(&findings.events.into(), "event"), findings.fault_count);
    writeln!(out, "{events}{span}; {}", counted(&faults.into(), "fault"))?;
    if let Some(compared) = compared {
        writeln!(out, "{compared} of them are in the export, word for word")?;
    }
    writeln!(
        out,
        "Looked for: events of another form or out of order, a place twice, a gap within a \
         commit{}.",
        if compared.is_some() { ", what of the export is missing or changed" } else { "" }
    )?;
    if compared.is_none() {
        writeln!(
            out,
            "Not shown by this: that nobody who writes to the store took a whole commit away. \
             Keep exports elsewhere, and give one with --against."
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(tick: u64, partition: u16, index: u16) -> Value {
        let digits = format!("{tick:016x}{partition:04x}{index:04x}");
        json!({
            "id": format!("evt_{digits}"),
            "cursor": format!("{digits}{:032x}", 7),
            "time": "2020-01-01T00:00:00Z",
            "type": "session.ended",
            "actor": {"type": "system", "id": null},
        })
    }

    fn faults(events: &[Value]) -> Vec<String> {
        let mut findings = Findings::default();
        events.iter().for_each(|event| findings.take(event));
        findings.faults
    }

    const NOW: u64 = 0x0666_0000_0000_0000;

    #[test]
    fn m8_a_log_in_order_has_no_fault_and_each_gap_is_one() {
        let whole = [event(NOW, 0, 0), event(NOW, 0, 1), event(NOW, 3, 0), event(NOW + 9, 0, 0)];
        assert_eq!(faults(&whole), [""; 0]);
        for without in [1, 2] {
            let mut commit = vec![
                event(NOW, 0, 0),
                event(NOW + 9, 2, 0),
                event(NOW + 9, 2, 1),
                event(NOW + 9, 2, 2),
            ];
            commit.remove(without);
            assert_eq!(faults(&commit).len(), 1, "{without}");
        }
        assert_eq!(faults(&[event(NOW + 9, 0, 0), event(NOW, 0, 0)]).len(), 1);
        assert_eq!(faults(&[event(NOW, 0, 0), event(NOW, 0, 0)]).len(), 1);
    }

    #[test]
    fn m8_an_event_from_elsewhere_is_a_fault() {
        let mut foreign = event(NOW + 9, 0, 0);
        foreign["cursor"] = foreign["cursor"].as_str().expect("text").replace('7', "8").into();
        assert_eq!(faults(&[event(NOW, 0, 0), foreign]).len(), 1);
        let mut moved = event(NOW, 0, 0);
        moved["cursor"] = event(NOW + 1, 0, 0)["cursor"].clone();
        assert_eq!(faults(&[moved]).len(), 1);
        let mut late = event(NOW, 0, 0);
        late["time"] = "9000-01-01T00:00:00Z".into();
        assert_eq!(faults(&[late]).len(), 1);
        assert_eq!(faults(&[json!({"id": "evt_1"})]).len(), 1);
    }
}
