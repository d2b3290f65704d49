//! A session's life in time: never over early, never over late, and over for good.

use std::time::Duration;

use cloakroom_core::session::{
    CookieMatch, Delivery, EndReason, Ending, Epochs, Grant, Lifecycle, Object, Session,
    SessionRules,
};
use cloakroom_core::subject::{Bump, PartitionState, SubjectState};
use cloakroom_core::token::opaque::OpaqueToken;
use cloakroom_core::types::{Partition, Secret, Sid, Subject, Timestamp};
use proptest::prelude::*;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn rules() -> SessionRules {
    SessionRules {
        idle: DAY,
        idle_remember: 14 * DAY,
        idle_anonymous: HOUR,
        absolute: 7 * DAY,
        absolute_remember: 30 * DAY,
        refresh_ttl: 7 * DAY,
        aal_caps: vec![
            ("aal2".into(), HOUR, DAY),
            ("aal3".into(), Duration::from_secs(900), 12 * HOUR),
        ],
    }
}

fn ada() -> Subject {
    Subject::parse("usr_ada").expect("a subject")
}

fn grant(delivery: Delivery) -> Grant {
    Grant {
        subject: Some(ada()),
        delivery,
        remember: false,
        claims: Object::new(),
        amr: vec!["pwd".into()],
        acr: "aal1".into(),
        actor: None,
        idle_timeout: None,
        lifetime: None,
        client: Default::default(),
    }
}

fn open(grant: Grant) -> (Session, OpaqueToken) {
    let sid = Sid::new(START, Partition(1), [1; 8]);
    Session::open(grant, &rules(), sid, Epochs::default(), START, Secret::new([3; 32]))
}

fn standing(session: &Session, now: Timestamp) -> Result<(), EndReason> {
    let subject = SubjectState::new(ada());
    session
        .standing(Some(&subject), &PartitionState::default(), now)
        .map_err(|ending| ending.reason)
}

#[test]
fn lifetimes_follow_delivery_remember_and_overrides() {
    let cookie = grant(Delivery::Cookie);
    let anonymous = Grant { subject: None, ..cookie.clone() };
    let remembered = Grant { remember: true, ..cookie.clone() };
    let own = Grant { idle_timeout: Some(HOUR), lifetime: Some(2 * HOUR), ..cookie.clone() };
    let short = Grant { lifetime: Some(HOUR), ..cookie.clone() };
    let cases = [
        (cookie, DAY, 7 * DAY),
        (anonymous, HOUR, 7 * DAY),
        (remembered, 14 * DAY, 30 * DAY),
        (grant(Delivery::Bearer), 7 * DAY, 30 * DAY),
        (grant(Delivery::Split), 7 * DAY, 30 * DAY),
        (own, HOUR, 2 * HOUR),
        (short, HOUR, HOUR),
    ];
    for (grant, idle, lifetime) in cases {
        assert_eq!(rules().lifetimes(&grant), (idle, lifetime), "{grant:?}");
    }
}

#[test]
fn b3_assurance_levels_cap_the_lifetimes_that_were_asked_for() {
    let asked =
        Grant { idle_timeout: Some(30 * DAY), lifetime: Some(30 * DAY), ..grant(Delivery::Cookie) };
    let aal2 = Grant { acr: "aal2".into(), ..asked.clone() };
    let aal3 = Grant { acr: "aal3".into(), ..asked.clone() };
    assert_eq!(rules().lifetimes(&aal2), (HOUR, DAY));
    assert_eq!(rules().lifetimes(&aal3), (Duration::from_secs(900), 12 * HOUR));
    assert_eq!(rules().lifetimes(&asked), (30 * DAY, 30 * DAY), "the control");
}

#[test]
fn who_acts_for_another_does_so_for_an_hour_at_most() {
    let asked = Grant { actor: Some("usr_eve".into()), ..grant(Delivery::Cookie) };
    assert_eq!(rules().lifetimes(&asked), (HOUR, HOUR));
}

#[test]
fn b1_idle_and_absolute_ends_hold_each_for_itself_to_the_millisecond() {
    let ms = Duration::from_millis(1);
    let (mut session, _) = open(Grant {
        idle_timeout: Some(100 * ms),
        lifetime: Some(1000 * ms),
        ..grant(Delivery::Cookie)
    });
    let slack = session.touch_slack();
    assert_eq!(slack, 5 * ms);
    let idle_end = START.plus(100 * ms).plus(slack);
    assert_eq!(standing(&session, idle_end.minus(ms)), Ok(()));
    assert_eq!(standing(&session, idle_end), Err(EndReason::IdleTimeout));
    session.last_seen_at = START.plus(990 * ms);
    assert_eq!(standing(&session, START.plus(999 * ms)), Ok(()));
    assert_eq!(standing(&session, START.plus(1000 * ms)), Err(EndReason::AbsoluteTimeout));
}

#[test]
fn use_slides_a_cookie_session_and_only_rotation_slides_a_bearer_session() {
    let (mut cookie, _) = open(grant(Delivery::Cookie));
    let (mut bearer, _) = open(grant(Delivery::Bearer));
    let later = START.plus(HOUR);
    cookie.last_seen_at = later;
    bearer.last_seen_at = later;
    assert_eq!(cookie.idle_expires_at(), later.plus(DAY));
    assert_eq!(bearer.idle_expires_at(), START.plus(7 * DAY));
}

#[test]
fn ended_is_final_and_keeps_its_first_reason() {
    let (session, _) = open(grant(Delivery::Cookie));
    let first = Ending { at: START, reason: EndReason::SignedOut, successor: None };
    let ended = session.ended(first);
    let again = ended.clone().ended(Ending { reason: EndReason::Replaced, ..first });
    assert_eq!(again.lifecycle, Lifecycle::Ended(first));
    assert_eq!(standing(&again, START), Err(EndReason::SignedOut));
}

#[test]
fn a_raised_epoch_ends_what_was_opened_before_and_says_why() {
    let (session, _) = open(grant(Delivery::Cookie));
    let mut subject = SubjectState::new(ada());
    subject.raise(EndReason::PasswordChanged, START.plus(HOUR));
    let partition = PartitionState::default();
    let ending = session.standing(Some(&subject), &partition, START.plus(2 * HOUR)).unwrap_err();
    assert_eq!((ending.reason, ending.at), (EndReason::PasswordChanged, START.plus(HOUR)));
    let mut later = session.clone();
    later.subject_epoch = 1;
    assert!(later.standing(Some(&subject), &partition, START.plus(2 * HOUR)).is_ok());
    for _ in 0..20 {
        subject.raise(EndReason::SignedOutEverywhere, START.plus(3 * HOUR));
    }
    assert!(session.standing(Some(&subject), &partition, START.plus(4 * HOUR)).is_err());
    assert!(later.standing(Some(&subject), &partition, START.plus(4 * HOUR)).is_err());
}

#[test]
fn a_lost_raise_is_known_by_its_instant_and_outranks_the_one_that_took_its_epoch() {
    let (kept, _) = open(grant(Delivery::Cookie));
    let lost = Bump { epoch: 1, at: START, reason: EndReason::SignedOutEverywhere };
    let mut subject = SubjectState::new(ada());
    assert!(!subject.was_raised_at(lost.at));
    // The store lost the raise, and another one took its epoch, which spared this session.
    subject.raise(EndReason::PasswordChanged, START.plus(HOUR));
    let kept = Session { subject_epoch: subject.epoch, ..kept };
    let partition = PartitionState::default();
    assert!(kept.standing(Some(&subject), &partition, START.plus(HOUR)).is_ok());
    assert!(!subject.was_raised_at(lost.at));
    subject.raise_again(lost);
    assert_eq!(subject.epoch, 2);
    assert!(subject.was_raised_at(lost.at));
    let ending = kept.standing(Some(&subject), &partition, START.plus(HOUR)).unwrap_err();
    assert_eq!((ending.reason, ending.at), (EndReason::SignedOutEverywhere, START));
    // Done again by itself, it has the epoch that it had.
    let mut subject = SubjectState::new(ada());
    subject.raise_again(Bump { epoch: 5, ..lost });
    assert_eq!(subject.epoch, 5);
}

#[test]
fn a_raise_that_later_ones_pushed_out_of_the_record_is_not_taken_for_lost() {
    let mut subject = SubjectState::new(ada());
    subject.raise(EndReason::SignedOutEverywhere, START);
    for hour in 1..=20_u32 {
        subject.raise(EndReason::SignedOutEverywhere, START.plus(hour * HOUR));
    }
    assert!(subject.was_raised_at(START));
    assert!(!subject.was_raised_at(START.plus(20 * HOUR).plus(HOUR / 2)));
}

#[test]
fn a_raised_partition_and_a_disabled_subject_end_it_too() {
    let (session, _) = open(grant(Delivery::Cookie));
    let mut subject = SubjectState::new(ada());
    let raised = PartitionState { epoch: 1, bumped_at: START };
    let reason = |subject: &SubjectState, partition: &PartitionState| {
        session.standing(Some(subject), partition, START).map_err(|ending| ending.reason)
    };
    assert_eq!(reason(&subject, &raised), Err(EndReason::EndedByOperator));
    subject.disabled_at = Some(START);
    assert_eq!(reason(&subject, &PartitionState::default()), Err(EndReason::UserDisabled));
}

#[test]
fn of_several_causes_the_first_ended_it() {
    let (session, _) = open(grant(Delivery::Cookie));
    let mut subject = SubjectState::new(ada());
    subject.raise(EndReason::SignedOutEverywhere, START.plus(HOUR));
    subject.disabled_at = Some(START.plus(2 * HOUR));
    let raised = PartitionState { epoch: 1, bumped_at: START.plus(3 * HOUR) };
    let ending = session.standing(Some(&subject), &raised, START.plus(100 * DAY)).unwrap_err();
    assert_eq!((ending.reason, ending.at), (EndReason::SignedOutEverywhere, START.plus(HOUR)));
    let late = PartitionState { epoch: 1, bumped_at: START.plus(90 * DAY) };
    let ending = session.standing(None, &late, START.plus(100 * DAY)).unwrap_err();
    assert_eq!(ending.reason, EndReason::IdleTimeout);
}

#[test]
fn b2_a_step_up_restarts_both_lifetimes_and_supersedes_the_cookie() {
    let (session, old) = open(grant(Delivery::Cookie));
    let now = START.plus(5 * DAY);
    let (session, new) = session.stepped_up(now, Secret::new([8; 32]));
    assert_eq!(session.expires_at, now.plus(7 * DAY));
    assert_eq!(session.idle_expires_at(), now.plus(DAY));
    assert_eq!(session.auth_time, now);
    assert_eq!(session.match_cookie(&old), CookieMatch::Superseded);
    assert_eq!(session.match_cookie(&new), CookieMatch::Genuine);
}

#[test]
fn two_proofs_within_one_second_have_different_seconds() {
    let (session, _) = open(grant(Delivery::Bearer));
    let before = session.auth_time.as_secs();
    let (session, _) =
        session.stepped_up(START.plus(Duration::from_millis(3)), Secret::new([8; 32]));
    assert!(session.auth_time.as_secs() > before);
}

#[test]
fn claims_of_the_session_win_over_the_subjects() {
    let (mut session, _) = open(grant(Delivery::Cookie));
    let mut subject = SubjectState::new(ada());
    subject.claims.insert("role".into(), "user".into());
    subject.claims.insert("email".into(), "ada@example.com".into());
    session.claims.insert("role".into(), "admin".into());
    let claims = session.effective_claims(Some(&subject));
    assert_eq!(claims["role"], "admin");
    assert_eq!(claims["email"], "ada@example.com");
}

#[test]
fn every_reason_has_one_name() {
    for reason in EndReason::ALL {
        assert_eq!(EndReason::parse(reason.as_str()), Some(reason));
    }
    assert_eq!(EndReason::parse("because"), None);
}

proptest! {
    /// With touches written whenever they are wanted, a session that is used at least once an
    /// idle timeout lives to its absolute end, and one that isn't is over by idle + slack.
    #[test]
    fn never_early_never_late(gaps in prop::collection::vec(1u64..200_000, 1..50)) {
        let lifetime = Duration::from_secs(3600);
        let idle = Duration::from_secs(100);
        let asked = Grant {
            idle_timeout: Some(idle),
            lifetime: Some(lifetime),
            ..grant(Delivery::Cookie)
        };
        let (mut session, _) = open(asked);
        let mut used = START;
        for gap in gaps {
            let now = used.plus(Duration::from_millis(gap));
            let unused = now.since(used);
            match standing(&session, now) {
                Ok(()) => {
                    prop_assert!(now < session.expires_at, "late: past the absolute end");
                    prop_assert!(unused < idle + session.touch_slack(), "late: idle");
                    if session.wants_touch(session.last_seen_at, now) {
                        session.last_seen_at = now;
                    }
                    used = now;
                }
                Err(EndReason::IdleTimeout) => {
                    prop_assert!(unused >= idle, "early: idle");
                    break;
                }
                Err(reason) => {
                    prop_assert_eq!(reason, EndReason::AbsoluteTimeout);
                    prop_assert!(now >= START.plus(lifetime), "early: absolute");
                    break;
                }
            }
        }
    }
}
