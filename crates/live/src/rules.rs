//! A history held against the invariants of the architecture.
//!
//! Only what must be so whatever the timing is judged: what one request did before it was
//! answered, another that was sent after the answer must see. What is excused is what
//! `docs/operate/redis.md` declares that a failover may cost, and it is counted.

mod endings;
mod records;
mod rotation;

use std::collections::BTreeMap;

use crate::history::{At, Audited, Disturbance, Entry, Fault, History, Intent, Kept, SECOND, What};

/// One invariant and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub rule: &'static str,
    /// How often it was looked at.
    pub checked: usize,
    /// How often what a failover may cost was seen.
    pub excused: usize,
    /// What violates it.
    pub violations: Vec<String>,
}

/// Looks at all of a history for one of them.
type Judge = fn(&Case<'_>, &mut Finding);

/// Holds a history against all of them.
pub fn check(history: &History) -> Vec<Finding> {
    let case = Case::of(history);
    let rules: [(&'static str, Judge); 10] = [
        ("1, 2, 7: ended stays ended and is refused, everywhere", endings::stay),
        ("4, 5: nothing ends or is lost by itself", endings::have_a_cause),
        ("3: one successor to a predecessor", rotation::one_successor),
        ("3: an older token is refused", rotation::old_ones_are_refused),
        ("4: an honest user is never taken for a thief", rotation::honest_is_no_thief),
        ("8: refused from its expiry on, and not before", endings::on_time),
        ("10: no lost update", records::no_lost_update),
        ("6: an event for each change, once", records::events),
        ("12: a fault is 503, and nothing else is unknown", records::faults),
        ("whole: all that is stored belongs together", records::whole),
    ];
    rules
        .into_iter()
        .map(|(rule, judge)| {
            let mut finding = Finding { rule, checked: 0, excused: 0, violations: Vec::new() };
            judge(&case, &mut finding);
            finding
        })
        .collect()
}

/// What is acknowledged this long before a fault may not have left its master yet.
const ON_ITS_WAY: At = SECOND;
/// Within this time of a failover nodes have done again what it lost.
const DONE_AGAIN: At = 10 * SECOND;
/// Within this time of a failover every node has heard of the new master.
const HEARD: At = 2 * SECOND;
/// A request that was given up may still take effect this much later.
const LATE_EFFECT: At = 5 * SECOND;

/// A history by its sessions.
struct Case<'a> {
    history: &'a History,
    sessions: BTreeMap<&'a str, Vec<&'a Entry>>,
    /// What ended, or may have ended, all sessions of a subject.
    raised: BTreeMap<&'a str, Vec<&'a Entry>>,
    audit: BTreeMap<&'a str, Vec<&'a Audited>>,
}

/// Whose a session is, from when.
struct Birth<'a> {
    entry: &'a Entry,
    subject: &'a str,
    checked: crate::history::Span,
    lifetime: Option<At>,
}

impl<'a> Case<'a> {
    fn of(history: &'a History) -> Self {
        let mut sessions: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        let mut raised: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for entry in &history.entries {
            if let Some(sid) = entry.what.sid() {
                sessions.entry(sid).or_default().push(entry);
            }
            if let What::EndedAll { subject, .. } | What::Unknown(Intent::EndAll(subject)) =
                &entry.what
            {
                raised.entry(subject).or_default().push(entry);
            }
        }
        for entries in sessions.values_mut() {
            entries.sort_by_key(|entry| entry.span.begun);
        }
        let mut audit: BTreeMap<&str, Vec<&Audited>> = BTreeMap::new();
        for event in &history.audit {
            audit.entry(&event.sid).or_default().push(event);
        }
        Self { history, sessions, raised, audit }
    }

    fn birth(&self, entries: &[&'a Entry]) -> Option<Birth<'a>> {
        entries.iter().find_map(|entry| match &entry.what {
            What::Opened { sid: _, subject, credentials_checked, lifetime } => {
                Some(Birth { entry, subject, checked: *credentials_checked, lifetime: *lifetime })
            }
            _ => None,
        })
    }

    fn raised(&self, subject: &str) -> &[&'a Entry] {
        self.raised.get(subject).map_or(&[], Vec::as_slice)
    }

    /// Times at which masters were replaced, where that may cost something.
    fn failovers(&self) -> impl Iterator<Item = &'a Disturbance> {
        let may_lose = self.history.promises.may_lose;
        self.history.disturbances.iter().filter(move |disturbance| {
            may_lose && matches!(disturbance.fault, Fault::FailedOver | Fault::CutOff)
        })
    }

    /// Whether what was acknowledged at this time may have been lost when something was seen.
    fn may_be_lost(&self, acknowledged: At, seen: At) -> bool {
        self.failovers().any(|over| {
            let from = over.span.begun.saturating_sub(ON_ITS_WAY);
            (from..=over.span.done + ON_ITS_WAY).contains(&acknowledged) && seen >= over.span.begun
        })
    }

    /// What was disturbed shortly before and between these times, for people.
    fn faults_near(&self, from: At, to: At) -> String {
        let near = |one: &&Disturbance| one.span.begun <= to && one.span.done + DONE_AGAIN >= from;
        let near = self.history.disturbances.iter().filter(near);
        let line = |one: &Disturbance| {
            let seconds = |at: At| at as f64 / SECOND as f64;
            let (begun, done) = (seconds(one.span.begun), seconds(one.span.done));
            format!("    {begun:.4} to {done:.4} {:?}\n", one.fault)
        };
        near.map(line).collect()
    }

    fn was_killed(&self, node: usize, from: At, to: At) -> bool {
        self.history.disturbances.iter().any(|one| {
            one.fault == Fault::NodeKilled(node) && one.span.begun <= to && one.span.done >= from
        })
    }
}

/// An ending that somebody was told of.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: At,
    node: usize,
    kept: Kept,
    /// Whether it was only read: whoever served it knows of it too.
    is_read: bool,
}

/// A session's story, for people.
fn story(entries: &[&Entry], sid: &str) -> String {
    let lines: Vec<_> = entries.iter().map(|entry| format!("    {entry}")).collect();
    let skipped = lines.len().saturating_sub(STORY_LINES);
    format!("session {sid} ({skipped} entries before)\n{}", lines[skipped..].join("\n"))
}

const STORY_LINES: usize = 30;
