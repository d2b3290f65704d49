//! Histories in which one thing is wrong, and those in which the same is allowed.

use std::collections::BTreeSet;

use cloakroom_live::history::{
    At, Audited, Disturbance, Entry, Fault, History, Intent, Kept, Promises, SECOND, Saw, Span,
    Turn, What,
};
use cloakroom_live::rules::check;

const SID: &str = "one";
const SUBJECT: &str = "ada";

/// A history on a store that loses nothing; node 2 has a cache.
fn history(entries: Vec<Entry>) -> History {
    let kinds = ["session.opened"];
    let audit = kinds.map(|kind| Audited { kind: kind.to_owned(), sid: SID.to_owned() });
    History {
        promises: Promises { may_lose: false, staleness: vec![0, 0, 2 * SECOND] },
        entries,
        disturbances: Vec::new(),
        stolen: BTreeSet::new(),
        audit: audit.to_vec(),
        faults: Vec::new(),
    }
}

/// The same on a store that failed over at this second, for two seconds.
fn failed_over(at: At, fault: Fault, mut history: History) -> History {
    history.promises.may_lose = true;
    let span = Span { begun: at * SECOND, done: (at + 2) * SECOND };
    history.disturbances.push(Disturbance { span, fault });
    history
}

fn audited(mut history: History, kinds: &[&str]) -> History {
    let event = |kind: &&str| Audited { kind: (*kind).to_owned(), sid: SID.to_owned() };
    history.audit = kinds.iter().map(event).collect();
    history
}

/// An entry that begins at this second and takes a tenth of one.
fn at(second: At, node: usize, what: What) -> Entry {
    let begun = second * SECOND;
    Entry { span: Span { begun, done: begun + SECOND / 10 }, node, what }
}

fn opened(second: At) -> Entry {
    opened_on(second, second, None)
}

fn opened_on(second: At, checked: At, lifetime: Option<At>) -> Entry {
    let checked = at(checked, 0, What::OpenTooLate).span;
    let (sid, subject) = (SID.to_owned(), SUBJECT.to_owned());
    at(second, 0, What::Opened { sid, subject, credentials_checked: checked, lifetime })
}

fn ended(kept: Kept) -> What {
    What::Ended { sid: SID.to_owned(), kept }
}

fn ended_all(but: Option<&str>) -> What {
    let but = but.map(str::to_owned);
    What::EndedAll { subject: SUBJECT.to_owned(), but, kept: Kept::Replicated }
}

fn verified(saw: Saw) -> What {
    What::Verified { sid: SID.to_owned(), saw }
}

fn live() -> What {
    verified(Saw::Live)
}

fn over(reason: &str) -> What {
    verified(Saw::Over(reason.to_owned()))
}

fn refreshed(presented: &str, turn: Turn) -> What {
    What::Refreshed { sid: SID.to_owned(), presented: presented.to_owned(), turn }
}

fn next(presented: &str, next: &str) -> What {
    refreshed(presented, Turn::Next(next.to_owned()))
}

fn wrote(expected: &str, number: u64) -> What {
    What::Wrote { sid: SID.to_owned(), expected: expected.to_owned(), number }
}

/// The first words of the rules that a history breaks.
fn broken(history: &History) -> Vec<&'static str> {
    let broken = check(history).into_iter().filter(|finding| !finding.violations.is_empty());
    broken.map(|finding| finding.rule.split(':').next().unwrap_or_default()).collect()
}

#[track_caller]
fn is_broken(rule: &str, history: &History) {
    assert_eq!(broken(history), [rule]);
}

#[track_caller]
fn holds(history: &History) {
    assert_eq!(broken(history), [""; 0]);
}

const STAYS: &str = "1, 2, 7";

#[test]
fn what_is_right_passes() {
    let both = ["session.opened", "session.ended"];
    holds(&audited(
        history(vec![
            opened(1),
            at(2, 1, live()),
            at(3, 1, next("a", "b")),
            at(3, 2, next("a", "b")),
            at(4, 0, next("b", "c")),
            at(5, 0, wrote("7", 1)),
            at(6, 1, What::Read { sid: SID.to_owned(), number: 1 }),
            at(7, 1, ended(Kept::Durable)),
            at(8, 0, over("signed_out")),
        ]),
        &both,
    ));
}

#[test]
fn a_verdict_after_a_revoke_that_was_acknowledged_is_found() {
    let both = ["session.opened", "session.ended"];
    let story = |node, second| {
        let entries = vec![opened(1), at(2, 0, ended(Kept::Durable)), at(second, node, live())];
        audited(history(entries), &both)
    };
    is_broken(STAYS, &story(1, 3));
    is_broken(STAYS, &story(0, 3));
    // A cache may be two seconds old, and no older; the node that ended it knows at once.
    holds(&story(2, 4));
    is_broken(STAYS, &story(2, 5));
    // While the ending is under way either is right.
    holds(&story(1, 2));
}

#[test]
fn a_cache_is_no_excuse_for_a_refresh_or_a_write() {
    for what in [next("a", "b"), wrote("7", 1)] {
        let entries = vec![opened(1), at(2, 0, ended(Kept::Durable)), at(3, 2, what)];
        is_broken(STAYS, &audited(history(entries), &["session.opened", "session.ended"]));
    }
}

#[test]
fn what_was_said_to_be_over_stays_so() {
    let cause = at(2, 0, What::Unknown(Intent::End(SID.to_owned())));
    let entries = vec![opened(1), cause, at(3, 0, over("signed_out")), at(4, 1, live())];
    is_broken(STAYS, &history(entries));
}

#[test]
fn everywhere_means_sessions_opened_on_credentials_of_before() {
    let story = |opening, but: Option<&str>| {
        history(vec![opening, at(4, 0, ended_all(but)), at(6, 1, live())])
    };
    is_broken(STAYS, &story(opened(1), None));
    is_broken(STAYS, &story(opened_on(5, 1, None), None));
    holds(&story(opened(5), None));
    holds(&story(opened(1), Some(SID)));
}

#[test]
fn an_ending_without_a_cause_is_found() {
    const CAUSE: &str = "4, 5";
    is_broken(CAUSE, &history(vec![opened(1), at(2, 0, over("signed_out"))]));
    let refused = || verified(Saw::Refused("token_invalid".to_owned()));
    is_broken(CAUSE, &history(vec![opened(1), at(2, 0, refused())]));
    // What was over before the sign-in ended nothing.
    let entries = vec![at(1, 0, ended_all(None)), opened(3), at(4, 0, over("signed_out"))];
    is_broken(CAUSE, &history(entries));
    let unknown = at(2, 0, What::Unknown(Intent::EndAll(SUBJECT.to_owned())));
    holds(&history(vec![opened(1), unknown, at(3, 0, over("signed_out_everywhere"))]));
    // A failover may lose an opening of the last second, and none before.
    let lost = |at_second| {
        let entries = vec![opened(1), at(9, 0, refused())];
        failed_over(at_second, Fault::FailedOver, history(entries))
    };
    holds(&lost(2));
    is_broken(CAUSE, &lost(5));
}

#[test]
fn a_replicated_ending_is_never_lost_and_a_local_one_is_done_again() {
    let both = ["session.opened", "session.ended"];
    let story = |kept, second, fault| {
        let entries = vec![opened(1), at(9, 0, ended(kept)), at(second, 1, live())];
        failed_over(10, fault, audited(history(entries), &both))
    };
    is_broken(STAYS, &story(Kept::Replicated, 13, Fault::FailedOver));
    holds(&story(Kept::Local, 13, Fault::FailedOver));
    is_broken(STAYS, &story(Kept::Local, 23, Fault::FailedOver));
    // A master that is cut off is read until its readers have heard of another.
    holds(&story(Kept::Replicated, 13, Fault::CutOff));
    is_broken(STAYS, &story(Kept::Replicated, 15, Fault::CutOff));
    // The node that served it goes on refusing, as long as it lives.
    let entries = |node| {
        vec![
            opened(1),
            at(9, 0, ended(Kept::Local)),
            at(10, 1, over("signed_out")),
            at(13, node, live()),
        ]
    };
    let told = |node| failed_over(10, Fault::FailedOver, audited(history(entries(node)), &both));
    holds(&told(2));
    is_broken(STAYS, &told(0));
    // Nobody is left who could do it again.
    let mut dead = story(Kept::Local, 23, Fault::FailedOver);
    let span = Span { begun: 11 * SECOND, done: 12 * SECOND };
    dead.disturbances.push(Disturbance { span, fault: Fault::NodeKilled(0) });
    holds(&dead);
}

#[test]
fn two_successors_and_old_tokens_are_found() {
    let same = vec![opened(1), at(2, 0, next("a", "b")), at(3, 1, next("a", "c"))];
    is_broken("3", &history(same.clone()));
    holds(&failed_over(2, Fault::FailedOver, history(same)));
    let used = at(3, 0, next("b", "c"));
    let entries = vec![opened(1), at(2, 0, next("a", "b")), used, at(4, 1, next("a", "b"))];
    is_broken("3", &history(entries));
}

#[test]
fn a_copy_is_refused_after_the_grace() {
    let story = |second| {
        let entries = vec![opened(1), at(2, 0, next("a", "b")), at(second, 1, next("a", "b"))];
        let mut history = history(entries);
        history.stolen.insert(SID.to_owned());
        history
    };
    holds(&story(5));
    is_broken("3", &story(8));
}

#[test]
fn an_honest_user_taken_for_a_thief_is_found() {
    let reused = || vec![opened(1), at(2, 0, refreshed("a", Turn::Reused))];
    assert_eq!(broken(&history(reused())), ["4, 5", "4"]);
    let mut stolen = history(reused());
    stolen.stolen.insert(SID.to_owned());
    holds(&stolen);
}

#[test]
fn an_expiry_is_neither_early_nor_late() {
    let story =
        |second, what| history(vec![opened_on(1, 1, Some(3 * SECOND)), at(second, 1, what)]);
    holds(&story(3, live()));
    holds(&story(5, over("absolute_timeout")));
    is_broken("8", &story(5, live()));
    assert_eq!(broken(&story(2, over("absolute_timeout"))), ["4, 5", "8"]);
}

#[test]
fn lost_updates_are_found() {
    let two = vec![opened(1), at(2, 0, wrote("7", 1)), at(3, 1, wrote("7", 1))];
    is_broken("10", &history(two));
    let read = What::Read { sid: SID.to_owned(), number: 1 };
    let gone = vec![opened(1), at(2, 0, wrote("7", 2)), at(3, 1, read)];
    is_broken("10", &history(gone.clone()));
    holds(&failed_over(2, Fault::FailedOver, history(gone)));
}

#[test]
fn a_missing_or_doubled_event_is_found() {
    let entries = || vec![opened(1), at(2, 0, ended(Kept::Durable))];
    let with = |kinds: &[&str]| audited(history(entries()), kinds);
    holds(&with(&["session.opened", "session.ended"]));
    is_broken("6", &with(&["session.ended"]));
    is_broken("6", &with(&["session.opened"]));
    is_broken("6", &with(&["session.opened", "session.ended", "session.ended"]));
    is_broken("6", &with(&["session.opened", "session.opened", "session.ended"]));
}

#[test]
fn a_store_that_is_not_whole_is_found() {
    let mut history = history(vec![opened(1)]);
    holds(&history);
    history.faults.push("session_without_index one".to_owned());
    is_broken("whole", &history);
}

#[test]
fn an_answer_that_is_never_right_is_found() {
    is_broken("12", &history(vec![at(1, 0, What::Wrong("500".to_owned()))]));
}
