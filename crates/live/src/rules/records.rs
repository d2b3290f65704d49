//! Sessions' data, the audit log, and answers that are never right.

use std::collections::BTreeMap;

use super::{Case, Finding, story};
use crate::history::{Entry, Intent, What};

/// Of writes that expect one version, one succeeds; what was acknowledged is read.
pub(super) fn no_lost_update(case: &Case<'_>, finding: &mut Finding) {
    for (sid, entries) in &case.sessions {
        let mut wrote: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        let mut written: Vec<(&Entry, u64)> = Vec::new();
        for entry in entries {
            if let What::Wrote { expected, number, .. } = &entry.what {
                wrote.entry(expected).or_default().push(entry);
                written.push((entry, *number));
            }
        }
        for same in wrote.values() {
            finding.checked += 1;
            let [first, .., last] = same.as_slice() else { continue };
            let done = first.span.done.min(last.span.done);
            if case.may_be_lost(done, first.span.done.max(last.span.done)) {
                finding.excused += 1;
            } else {
                finding
                    .violations
                    .push(format!("two writes on one version\n{}", story(entries, sid)));
            }
        }
        for entry in entries {
            let What::Read { number, .. } = &entry.what else { continue };
            finding.checked += 1;
            let before = written.iter().filter(|(write, _)| write.span.done < entry.span.begun);
            let missing: Vec<_> = before.filter(|(_, written)| written > number).collect();
            if missing.is_empty() {
                continue;
            }
            if missing.iter().all(|(one, _)| case.may_be_lost(one.span.done, entry.span.done)) {
                finding.excused += 1;
            } else {
                finding
                    .violations
                    .push(format!("a write is gone: {entry}\n{}", story(entries, sid)));
            }
        }
    }
}

/// Each opening and each ending has its event, once.
pub(super) fn events(case: &Case<'_>, finding: &mut Finding) {
    let any_failover = case.failovers().next().is_some();
    for (sid, entries) in &case.sessions {
        let events = case.audit.get(sid).map_or(&[][..], Vec::as_slice);
        let count = |kind: &str| events.iter().filter(|event| event.kind == kind).count();
        let mut expect = |what: &str, found: usize, least: usize, most: usize, lost: bool| {
            finding.checked += 1;
            if (least..=most).contains(&found) {
            } else if lost {
                finding.excused += 1;
            } else {
                let story = story(entries, sid);
                finding.violations.push(format!("{found} events of {what}\n{story}"));
            }
        };
        let Some(birth) = case.birth(entries) else { continue };
        let lost = |entry: &Entry| case.may_be_lost(entry.span.done, crate::history::At::MAX);
        expect("an opening", count("session.opened"), 1, 1, lost(birth.entry));
        let acknowledged = entries.iter().find(|entry| matches!(entry.what, What::Ended { .. }));
        // One event ends all sessions of a subject.
        let by_itself = acknowledged.filter(|_| case.raised(birth.subject).is_empty());
        let least = usize::from(by_itself.is_some() && birth.lifetime.is_none());
        // After a failover an ending is done again, which is one more change.
        let lost = any_failover && entries.iter().any(|entry| ends(entry) && lost(entry));
        expect("an ending", count("session.ended"), least, 1, lost);
    }
}

fn ends(entry: &Entry) -> bool {
    match &entry.what {
        What::Ended { .. } | What::Unknown(Intent::End(_)) => true,
        What::Verified { .. } | What::Refreshed { .. } | What::Opened { .. } => true,
        What::OpenTooLate
        | What::EndedAll { .. }
        | What::Wrote { .. }
        | What::WroteTooLate
        | What::Read { .. }
        | What::Unknown(_)
        | What::Wrong(_) => false,
    }
}

/// No answer says what can't be known, and none is a fault of the program.
pub(super) fn faults(case: &Case<'_>, finding: &mut Finding) {
    for entry in &case.history.entries {
        finding.checked += 1;
        if matches!(entry.what, What::Wrong(_)) {
            finding.violations.push(entry.to_string());
        }
    }
}

/// No list, session, filing or event is left over or missing, whatever was killed when.
pub(super) fn whole(case: &Case<'_>, finding: &mut Finding) {
    finding.checked += case.sessions.len();
    finding.violations.extend(case.history.faults.iter().cloned());
}
