//! Sessions that ended: they stay so, they ended for a reason, and in time.

use super::{Birth, Case, DONE_AGAIN, Finding, HEARD, LATE_EFFECT, ON_ITS_WAY, Told, story};
use crate::history::{At, Entry, Fault, Intent, Kept, SECOND, Saw, Turn, What};

/// Clocks of one machine are compared, through a measurement each.
const CLOCKS_AGREE: At = SECOND / 20;

/// After somebody was told that a session is over, nothing succeeds on it.
pub(super) fn stay(case: &Case<'_>, finding: &mut Finding) {
    for (sid, entries) in &case.sessions {
        let told = told(case, sid, entries);
        if told.is_empty() {
            continue;
        }
        for success in entries.iter().filter(|entry| succeeds(entry)) {
            finding.checked += 1;
            let after = told
                .iter()
                .filter(|told| told.at + slack(case, success, told) < success.span.begun);
            let (excused, bad) =
                after.partition::<Vec<&Told>, _>(|one| is_excused(case, &told, one, success));
            finding.excused += usize::from(!excused.is_empty());
            if let Some(told) = bad.first() {
                let why = format!("over at {} by node {}, and then: {success}", told.at, told.node);
                let faults = case.faults_near(told.at, success.span.done);
                finding.violations.push(format!("{why}\n{faults}{}", story(entries, sid)));
            }
        }
        finding.checked += entries.iter().filter(|entry| fails(entry)).count();
    }
}

/// A session that nobody ended, that hasn't expired and that wasn't stolen lives.
pub(super) fn have_a_cause(case: &Case<'_>, finding: &mut Finding) {
    for (sid, entries) in &case.sessions {
        if case.history.stolen.contains(*sid) {
            continue;
        }
        let Some(birth) = case.birth(entries) else { continue };
        for failure in entries.iter().filter(|entry| fails(entry)) {
            finding.checked += 1;
            if has_cause(case, sid, entries, &birth, failure) {
                continue;
            }
            let acknowledged = entries.iter().filter(|entry| {
                matches!(entry.what, What::Opened { .. })
                    || matches!(&entry.what, What::Refreshed { turn: Turn::Next(_), .. })
            });
            let mut acknowledged = acknowledged.map(|entry| entry.span.done);
            if acknowledged.any(|at| case.may_be_lost(at, failure.span.done)) {
                finding.excused += 1;
            } else {
                let story = story(entries, sid);
                finding.violations.push(format!("no cause for: {failure}\n{story}"));
            }
        }
    }
}

/// What has a short life is refused when it is over, and not before.
pub(super) fn on_time(case: &Case<'_>, finding: &mut Finding) {
    for (sid, entries) in &case.sessions {
        let Some(birth) = case.birth(entries) else { continue };
        let Some(lifetime) = birth.lifetime else { continue };
        let (earliest, latest) =
            (birth.entry.span.begun + lifetime, birth.entry.span.done + lifetime);
        for entry in entries {
            let What::Verified { saw, .. } = &entry.what else { continue };
            finding.checked += 1;
            let wrong = match saw {
                Saw::Live => entry.span.begun > latest + CLOCKS_AGREE,
                Saw::Over(reason) => {
                    reason.ends_with("_timeout") && entry.span.done + CLOCKS_AGREE < earliest
                }
                Saw::Refused(_) => false,
            };
            if wrong {
                finding
                    .violations
                    .push(format!("at the wrong time: {entry}\n{}", story(entries, sid)));
            }
        }
    }
}

/// Who was told when that a session is over.
fn told(case: &Case<'_>, sid: &str, entries: &[&Entry]) -> Vec<Told> {
    let of =
        |entry: &Entry, kept| Told { at: entry.span.done, node: entry.node, kept, is_read: false };
    let read = |entry: &Entry| Told { is_read: true, ..of(entry, Kept::Local) };
    let mut told: Vec<Told> = entries
        .iter()
        .filter_map(|entry| match &entry.what {
            What::Ended { kept, .. } => Some(of(entry, *kept)),
            What::Verified { saw: Saw::Over(reason), .. }
            | What::Refreshed { turn: Turn::Over(reason), .. }
                if !reason.ends_with("_timeout") =>
            {
                Some(read(entry))
            }
            What::Refreshed { turn: Turn::Reused, .. } => Some(of(entry, Kept::Local)),
            _ => None,
        })
        .collect();
    if let Some(birth) = case.birth(entries) {
        for entry in case.raised(birth.subject) {
            if let What::EndedAll { but, kept, .. } = &entry.what
                && but.as_deref() != Some(sid)
                && birth.checked.done <= entry.span.begun
            {
                // A session that was opened later, on an epoch read before, never lived.
                told.push(Told { at: entry.span.done.max(birth.checked.done), ..of(entry, *kept) });
            }
        }
    }
    told
}

fn succeeds(entry: &Entry) -> bool {
    match &entry.what {
        What::Verified { saw, .. } => *saw == Saw::Live,
        What::Refreshed { turn, .. } => matches!(turn, Turn::Next(_)),
        What::Wrote { .. } => true,
        What::Opened { .. }
        | What::OpenTooLate
        | What::Ended { .. }
        | What::EndedAll { .. }
        | What::WroteTooLate
        | What::Read { .. }
        | What::Unknown(_)
        | What::Wrong(_) => false,
    }
}

fn fails(entry: &Entry) -> bool {
    match &entry.what {
        What::Verified { saw, .. } => *saw != Saw::Live,
        What::Refreshed { turn, .. } => !matches!(turn, Turn::Next(_)),
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

/// How long a node may not know what another one answered. Only verdicts come from a cache.
fn slack(case: &Case<'_>, success: &Entry, told: &Told) -> At {
    let is_verdict = matches!(success.what, What::Verified { .. });
    if is_verdict && success.node != told.node {
        case.history.promises.staleness.get(success.node).copied().unwrap_or(0)
    } else {
        0
    }
}

/// Whether `docs/operate/redis.md` declares it.
fn is_excused(case: &Case<'_>, all: &[Told], told: &Told, success: &Entry) -> bool {
    let seen = success.span;
    case.failovers().any(|over| {
        let from = over.span.begun.saturating_sub(ON_ITS_WAY);
        let meanwhile = (from..=over.span.done + HEARD).contains(&told.at);
        // A master that is cut off is read until its readers have heard of another.
        let through_the_old = over.fault == Fault::CutOff
            && seen.done >= over.span.begun
            && seen.begun <= over.span.done + HEARD;
        // A lost ending is done again by a node that served it, if one is left.
        let until = over.span.done + DONE_AGAIN;
        let is_dead = |one: &Told| case.was_killed(one.node, one.at, until);
        let servers = || all.iter().filter(|one| !one.is_read);
        let nobody_is_left = if told.is_read { servers().all(is_dead) } else { is_dead(told) };
        // Even then the node that served it goes on refusing.
        let is_told_otherwise = !told.is_read
            && success.node == told.node
            && !case.was_killed(told.node, told.at, seen.begun);
        let lost = told.kept == Kept::Local
            && seen.done >= over.span.begun
            && !is_told_otherwise
            && (seen.begun <= until || nobody_is_left);
        meanwhile && (through_the_old || lost)
    })
}

fn has_cause(
    case: &Case<'_>,
    sid: &str,
    entries: &[&Entry],
    birth: &Birth<'_>,
    failure: &Entry,
) -> bool {
    let before = |entry: &&&Entry| entry.span.begun < failure.span.done;
    let is_expired = birth.lifetime.is_some_and(|lifetime| {
        failure.span.done + CLOCKS_AGREE >= birth.entry.span.begun + lifetime
    });
    let was_ended = entries
        .iter()
        .filter(before)
        .any(|entry| matches!(entry.what, What::Ended { .. } | What::Unknown(Intent::End(_))));
    let was_raised = case.raised(birth.subject).iter().filter(before).any(|entry| {
        let (ends, lasts) = match &entry.what {
            // The kept session lives on, on the new epoch; its earlier access tokens don't.
            What::EndedAll { but, .. } => (but.as_deref() != Some(sid) || is_old_token(failure), 0),
            _ => (true, LATE_EFFECT),
        };
        // What was over before the credentials were checked is no cause, unless it is done again.
        let is_again = case.may_be_lost(entry.span.done, failure.span.done);
        ends && (entry.span.done + lasts > birth.checked.begun || is_again)
    });
    is_expired || was_ended || was_raised
}

fn is_old_token(failure: &Entry) -> bool {
    match &failure.what {
        What::Verified { saw, .. } => *saw == Saw::Refused("token_expired".to_owned()),
        _ => false,
    }
}
