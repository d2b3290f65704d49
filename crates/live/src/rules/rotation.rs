//! Refresh tokens: one successor each, and nothing for what is older.

use std::collections::BTreeMap;

use super::{Case, Finding, story};
use crate::fleet::GRACE_SECS;
use crate::history::{Entry, SECOND, Turn, What};

/// What a token was answered with: the entry, the token presented, the successor.
type Turned<'a> = (&'a Entry, &'a str, &'a str);

fn turned<'a>(entries: &[&'a Entry]) -> Vec<Turned<'a>> {
    let turns = entries.iter().filter_map(|entry| match &entry.what {
        What::Refreshed { presented, turn: Turn::Next(next), .. } => {
            Some((*entry, presented.as_str(), next.as_str()))
        }
        _ => None,
    });
    turns.collect()
}

/// All answers to one predecessor carry the same successor.
pub(super) fn one_successor(case: &Case<'_>, finding: &mut Finding) {
    for (sid, entries) in &case.sessions {
        let mut answers: BTreeMap<&str, Vec<(&Entry, &str)>> = BTreeMap::new();
        for (entry, presented, next) in turned(entries) {
            answers.entry(presented).or_default().push((entry, next));
        }
        for same in answers.values() {
            finding.checked += same.len();
            let Some((first, successor)) = same.first() else { continue };
            for (other, _) in same.iter().filter(|(_, next)| next != successor) {
                let lost =
                    |one: &Entry, seen: &Entry| case.may_be_lost(one.span.done, seen.span.done);
                if lost(first, other) || lost(other, first) {
                    finding.excused += 1;
                } else {
                    let story = story(entries, sid);
                    finding.violations.push(format!("two successors: {first} {other}\n{story}"));
                }
            }
        }
    }
}

/// Once a successor was used, its predecessor is refused; and after the grace a thief's is.
pub(super) fn old_ones_are_refused(case: &Case<'_>, finding: &mut Finding) {
    for (sid, entries) in &case.sessions {
        let turned = turned(entries);
        let is_stolen = case.history.stolen.contains(*sid);
        let mut uses: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for (entry, presented, _) in &turned {
            uses.entry(presented).or_default().push(entry);
        }
        for (entry, presented, next) in &turned {
            finding.checked += 1;
            let used = uses.get(next).into_iter().flatten();
            let mut used = used.filter(|used| used.span.done < entry.span.begun);
            // Thieves send no key, so that only the grace tolerates them.
            let grace = GRACE_SECS * SECOND;
            let first = uses.get(presented).into_iter().flatten();
            let mut outlived =
                first.filter(|first| is_stolen && first.span.done + grace < entry.span.begun);
            let Some(before) = used.next().or_else(|| outlived.next()) else { continue };
            if case.may_be_lost(before.span.done, entry.span.done) {
                finding.excused += 1;
            } else {
                let story = story(entries, sid);
                finding.violations.push(format!("an old token was taken: {entry}\n{story}"));
            }
        }
        finding.checked += entries.iter().filter(|entry| is_reuse(entry)).count();
    }
}

/// Whoever only repeats what was lost is never told of a reuse.
pub(super) fn honest_is_no_thief(case: &Case<'_>, finding: &mut Finding) {
    for (sid, entries) in &case.sessions {
        if case.history.stolen.contains(*sid) {
            continue;
        }
        finding.checked += turned(entries).len();
        for entry in entries.iter().filter(|entry| is_reuse(entry)) {
            finding.violations.push(format!("{entry}\n{}", story(entries, sid)));
        }
    }
}

fn is_reuse(entry: &Entry) -> bool {
    match &entry.what {
        What::Refreshed { turn, .. } => match turn {
            Turn::Reused => true,
            Turn::Over(reason) => reason == "refresh_reused",
            Turn::Next(_) | Turn::Refused(_) => false,
        },
        What::Verified { saw, .. } => {
            *saw == crate::history::Saw::Over("refresh_reused".to_owned())
        }
        What::Opened { .. }
        | What::OpenTooLate
        | What::Ended { .. }
        | What::EndedAll { .. }
        | What::Wrote { .. }
        | What::WroteTooLate
        | What::Read { .. }
        | What::Unknown(_)
        | What::Wrong(_) => false,
    }
}
