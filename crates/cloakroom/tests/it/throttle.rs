//! Guessing passwords, and being guessed at.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::event::EventKind;
use cloakroom::core::rate::Quota;
use cloakroom::core::refusal::Refusal;
use cloakroom::store::Kind;
use cloakroom::{Context, LoginLimits, Settings};

use crate::directory::*;
use crate::world::*;

async fn fail(world: &World, name: &str, from: &Context) -> Refusal {
    refusal(world.authority.sign_in(login(name, OTHER_PASSWORD), from).await)
}

fn is_throttled(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::LoginThrottled { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn j8_a_burst_of_guesses_is_checked_no_more_often_than_the_limit() {
    let world = World::new().await;
    world.user(NAME).await;
    let hashed = world.authority.password_load().hashed;
    let refusals = together(200, |_| {
        let authority = Arc::clone(&world.authority);
        async move { authority.sign_in(login(NAME, OTHER_PASSWORD), &ctx()).await }
    });
    let refusals: Vec<_> = refusals.await.into_iter().map(refusal).collect();
    assert_eq!(world.authority.password_load().hashed - hashed, 5);
    let wrong = refusals.iter().filter(|&r| *r == Refusal::CredentialsInvalid).count();
    assert_eq!((wrong, refusals.iter().filter(|r| is_throttled(r)).count()), (5, 195));
}

#[tokio::test]
async fn j8_spellings_of_one_name_share_a_counter_and_other_names_do_not() {
    let world = World::new().await;
    world.user(NAME).await;
    for name in ["ada@example.com", "ADA@example.com", " ada@example.com", "ａda@example.com"] {
        assert_eq!(fail(&world, name, &ctx()).await, Refusal::CredentialsInvalid);
    }
    assert_eq!(fail(&world, "Ada@Example.Com", &ctx()).await, Refusal::CredentialsInvalid);
    assert!(is_throttled(&fail(&world, NAME, &ctx()).await));
    assert_eq!(fail(&world, "ada+x@example.com", &ctx()).await, Refusal::CredentialsInvalid);
}

#[tokio::test]
async fn j1_a_name_that_nobody_has_is_throttled_alike() {
    let world = World::new().await;
    world.user(NAME).await;
    for name in [NAME, "nobody@example.com", "\0", ""] {
        for _ in 0..5 {
            assert_eq!(fail(&world, name, &ctx()).await, Refusal::CredentialsInvalid);
        }
        let throttled = Refusal::LoginThrottled { retry_after_secs: 180 };
        assert_eq!(fail(&world, name, &ctx()).await, throttled, "{name:?}");
    }
}

#[tokio::test]
async fn j8_a_network_is_counted_for_all_names_together() {
    let world = World::new().await;
    for n in 0..50 {
        // One /64, whatever the rest of the address is.
        let from = from(&format!("2001:db8:1:2::{n:x}"));
        let refused = fail(&world, &format!("user{n}@example.com"), &from).await;
        assert_eq!(refused, Refusal::CredentialsInvalid);
    }
    let refused = fail(&world, "another@example.com", &from("2001:db8:1:2:3:4:5:6")).await;
    assert!(is_throttled(&refused));
    let refused = fail(&world, "another@example.com", &from("2001:db8:1:3::1")).await;
    assert_eq!(refused, Refusal::CredentialsInvalid);
}

#[tokio::test]
async fn j8_an_identifier_has_a_cap_over_all_networks() {
    let quota = |count| Quota::new(count, HOUR).expect("a quota");
    let login_limits = LoginLimits { login: quota(5), identifier: quota(12), network: quota(50) };
    let world = World::with(Settings { login_limits, ..settings() }).await;
    world.user(NAME).await;
    for n in 0..12 {
        let refused = fail(&world, NAME, &from(&format!("10.0.0.{n}"))).await;
        assert_eq!(refused, Refusal::CredentialsInvalid);
    }
    assert!(is_throttled(&fail(&world, NAME, &from("10.0.1.1")).await));
    world.advance(HOUR);
    assert!(world.authority.sign_in(login(NAME, PASSWORD), &from("10.0.1.1")).await.is_ok());
}

#[tokio::test]
async fn j9_the_owner_gets_in_from_another_network() {
    let world = World::new().await;
    world.user(NAME).await;
    let alive = world.authority.sign_in(login(NAME, PASSWORD), &from("10.0.0.9")).await;
    let attacker = from("192.0.2.66");
    for _ in 0..5 {
        fail(&world, NAME, &attacker).await;
    }
    assert!(is_throttled(&fail(&world, NAME, &attacker).await));
    let owner = world.authority.sign_in(login(NAME, PASSWORD), &from("10.0.0.10")).await;
    assert!(owner.is_ok());
    assert!(world.verify(&alive.expect("a session")).await.is_ok());
    assert!(is_throttled(&fail(&world, NAME, &attacker).await), "the owner's luck isn't theirs");
}

#[tokio::test]
async fn j10_a_success_starts_the_counter_anew() {
    let world = World::new().await;
    world.user(NAME).await;
    for _ in 0..3 {
        for _ in 0..4 {
            assert_eq!(fail(&world, NAME, &ctx()).await, Refusal::CredentialsInvalid);
        }
        assert!(world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await.is_ok());
    }
}

#[tokio::test]
async fn right_passwords_alone_never_throttle() {
    let world = World::new().await;
    world.user(NAME).await;
    for _ in 0..120 {
        assert!(world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await.is_ok());
    }
    assert!(records(&world.authority, Kind::Throttle).await.is_empty());
}

#[tokio::test]
async fn j10_the_counters_are_shared_by_nodes_and_outlive_a_restart() {
    let world = World::new().await;
    world.user(NAME).await;
    let other = node(world.authority.store().clone(), &world, settings()).await;
    for _ in 0..3 {
        fail(&world, NAME, &ctx()).await;
    }
    for _ in 0..2 {
        let refused = other.sign_in(login(NAME, OTHER_PASSWORD), &ctx()).await;
        assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    }
    let restarted = node(world.authority.store().clone(), &world, settings()).await;
    for authority in [&other, &restarted] {
        let refused = authority.sign_in(login(NAME, PASSWORD), &ctx()).await;
        assert!(is_throttled(&refusal(refused)));
    }
}

#[tokio::test]
async fn time_gives_attempts_back_and_the_answer_says_when() {
    let world = World::new().await;
    world.user(NAME).await;
    for _ in 0..5 {
        fail(&world, NAME, &ctx()).await;
    }
    let Refusal::LoginThrottled { retry_after_secs } = fail(&world, NAME, &ctx()).await else {
        panic!("not throttled");
    };
    world.advance(Duration::from_secs(retry_after_secs - 1));
    assert!(is_throttled(&fail(&world, NAME, &ctx()).await));
    world.advance(SECOND);
    assert!(world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await.is_ok());
}

#[tokio::test]
async fn a_refused_attempt_is_counted_nowhere() {
    let world = World::new().await;
    world.user(NAME).await;
    for _ in 0..5 {
        fail(&world, NAME, &ctx()).await;
    }
    let before = records(&world.authority, Kind::Throttle).await;
    for _ in 0..100 {
        assert!(is_throttled(&fail(&world, NAME, &ctx()).await));
    }
    let after = records(&world.authority, Kind::Throttle).await;
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

#[tokio::test]
async fn k8_counters_and_failures_leave_nothing_behind() {
    let world = World::new().await;
    for n in 0..40 {
        fail(&world, &format!("nobody{n}@example.com"), &ctx()).await;
    }
    for _ in 0..40 {
        fail(&world, "nobody0@example.com", &ctx()).await;
    }
    world.authority.flush_reports().await.expect("written");
    assert_eq!(world.count_events(EventKind::SigninFailed).await, 1, "coalesced");
    assert_eq!(world.count_events(EventKind::SigninThrottled).await, 1);
    assert!(!records(&world.authority, Kind::Throttle).await.is_empty());
    world.advance(HOUR);
    world.authority.sweep().await.expect("a sweep");
    assert!(records(&world.authority, Kind::Throttle).await.is_empty());
}
