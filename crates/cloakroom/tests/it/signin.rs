//! Signing in, proving oneself again and changing the password.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom::core::event::EventKind;
use cloakroom::core::refresh::Channel;
use cloakroom::core::refusal::Refusal;
use cloakroom::core::session::{Delivery, EndReason, Object};
use cloakroom::core::types::Subject;
use cloakroom::store::faulty::{Call, Fault, Faulty, Outcome};
use cloakroom::store::memory::MemoryStore;
use cloakroom::{Authority, Carried, Credential, Login, Settings, UserPatch};

use crate::directory::*;
use crate::world::*;

#[tokio::test]
async fn a_right_password_opens_a_session_of_its_user() {
    let world = World::new().await;
    let user = world.user("Ada@Example.com").await;
    let label = Some(format!("  my\nphone{}", "x".repeat(500)));
    let login = Login { label, ..login(" ADA@example.com ", PASSWORD) };
    let opened = world.authority.sign_in(login, &from("198.51.100.7")).await.expect("a sign-in");
    let session = &opened.session;
    assert_eq!(session.subject.as_ref(), Some(&user.id));
    assert_eq!((session.amr.as_slice(), session.acr.as_str()), (&["pwd".to_owned()][..], "aal1"));
    let label = session.client.label.as_deref().expect("a label");
    assert!(label.starts_with("myphonex") && label.chars().count() == 128, "{label}");
    assert_eq!(session.client.ip, Some([198, 51, 100, 7].into()));
    assert!(world.verify(&opened).await.is_ok());
}

#[tokio::test]
async fn j3_only_the_whole_password_is_right() {
    let world = World::new().await;
    world.user("other@example.com").await;
    let long = format!("{}\u{e9}\0b", "x".repeat(200));
    let new = new_user(NAME, Some(&long));
    world.authority.create_user(new, &ctx()).await.expect("a user");
    let wrong = [
        format!("{long} "),
        format!("{}\u{e9}\0c", "x".repeat(200)),
        format!("{}\u{e9}\0", "x".repeat(200)),
        long.to_uppercase(),
    ];
    for wrong in wrong {
        let refused = world.authority.sign_in(login(NAME, &wrong), &ctx()).await;
        assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    }
    let decomposed = format!("{}e\u{301}\0b", "x".repeat(200));
    for right in [long, decomposed] {
        assert!(world.authority.sign_in(login(NAME, &right), &ctx()).await.is_ok());
    }
}

/// Counts what a sign-in costs.
#[derive(Debug, Default)]
struct Cost {
    loads: AtomicUsize,
    keys: AtomicUsize,
    commits: AtomicUsize,
}

impl Cost {
    fn note(&self, call: Call<'_>) {
        match call {
            Call::Load(_, keys) => {
                self.loads.fetch_add(1, Ordering::SeqCst);
                self.keys.fetch_add(keys.len(), Ordering::SeqCst);
            }
            Call::Commit(..) => {
                self.commits.fetch_add(1, Ordering::SeqCst);
            }
            Call::Now | Call::Page(..) | Call::Due(_) | Call::Log(..) | Call::Trim(..) => {}
        }
    }

    fn take(&self) -> [usize; 3] {
        [&self.loads, &self.keys, &self.commits].map(|count| count.swap(0, Ordering::SeqCst))
    }
}

fn at_once(_: std::time::Duration) -> cloakroom::store::faulty::Wait {
    Box::pin(std::future::ready(()))
}

#[tokio::test]
async fn j1_j2_every_refusal_is_alike_and_costs_the_same() {
    let world = World::new().await;
    let cost = Arc::new(Cost::default());
    let noted = Arc::clone(&cost);
    let plan = move |call: Call<'_>| {
        noted.note(call);
        Fault::NONE
    };
    let store = Faulty::new(world.authority.store().clone(), plan, at_once);
    let authority = node(store, &world, settings()).await;
    world.user(NAME).await;
    let disabled = world.user("grace@example.com").await;
    let patch = UserPatch { disabled: Some(true), ..UserPatch::default() };
    world.authority.patch_user(&disabled.id, patch, &ctx()).await.expect("disabled");
    let bare = new_user("alan@example.com", None);
    world.authority.create_user(bare, &ctx()).await.expect("a user without a password");
    let too_long = "x".repeat(400);
    let mut costs = Vec::new();
    for (identifier, password) in [
        (NAME, OTHER_PASSWORD),
        ("nobody@example.com", PASSWORD),
        ("grace@example.com", PASSWORD),
        ("grace@example.com", OTHER_PASSWORD),
        ("alan@example.com", PASSWORD),
        (too_long.as_str(), PASSWORD),
        ("", PASSWORD),
        ("a\0b", PASSWORD),
    ] {
        let hashed = authority.password_load().hashed;
        cost.take();
        let refused = authority.sign_in(login(identifier, password), &ctx()).await;
        assert_eq!(refusal(refused), Refusal::CredentialsInvalid, "{identifier:?}");
        costs.push((authority.password_load().hashed - hashed, cost.take()));
    }
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
    assert_eq!(costs[0].0, 1, "one hash each");
    cost.take();
    assert!(authority.sign_in(login(NAME, PASSWORD), &ctx()).await.is_ok(), "the control");
    let [loads, _, commits] = cost.take();
    // Four round trips one after the other: the counters of two partitions are read, and written;
    // the user is read; then the session is written, and the counters beside it.
    assert_eq!((loads, commits), (3, 5));
}

#[tokio::test]
async fn j6_a_password_too_long_to_have_been_chosen_costs_no_hash() {
    let world = World::new().await;
    world.user(NAME).await;
    let hashed = world.authority.password_load().hashed;
    for bytes in [257, 64 * 1024] {
        let refused = world.authority.sign_in(login(NAME, &"x".repeat(bytes)), &ctx()).await;
        assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    }
    assert_eq!(world.authority.password_load().hashed, hashed);
}

#[tokio::test]
async fn j5_a_weak_hash_is_renewed_at_the_next_sign_in() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let stronger = Settings { argon2: (16, 2, 1), ..settings() };
    let authority = node(world.authority.store().clone(), &world, stronger).await;
    let weak = stored_hash(&authority, &user.id).await;
    let refused = authority.sign_in(login(NAME, OTHER_PASSWORD), &ctx()).await;
    assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    assert_eq!(stored_hash(&authority, &user.id).await, weak);
    let first = authority.sign_in(login(NAME, PASSWORD), &ctx()).await.expect("a sign-in");
    let strong = stored_hash(&authority, &user.id).await;
    assert!(strong.contains("m=16,t=2,p=1"), "{strong}");
    assert!(authority.sign_in(login(NAME, PASSWORD), &ctx()).await.is_ok());
    assert_eq!(stored_hash(&authority, &user.id).await, strong);
    let verified = authority.verify(Credential::Cookie(first.token.expose())).await;
    assert!(verified.is_ok(), "renewing a hash ends nothing");
}

#[tokio::test]
async fn a3_what_the_request_carried_ends_before_the_new_session_opens() {
    let world = World::new().await;
    let mallory = new_user("mallory@example.com", Some(PASSWORD));
    world.authority.create_user(mallory, &ctx()).await.expect("a user");
    world.user(NAME).await;
    let plant = login("mallory@example.com", PASSWORD);
    let cookie = world.authority.sign_in(plant, &ctx()).await.expect("a sign-in");
    let plant = Login { delivery: Delivery::Split, ..login("mallory@example.com", PASSWORD) };
    let refresh = world.authority.sign_in(plant, &ctx()).await.expect("a sign-in");
    let carried = vec![
        Carried::Cookie(cookie.token.expose().clone()),
        Carried::Refresh(refresh.token.expose().clone()),
        Carried::Cookie("cks_made-up".into()),
    ];
    let delivery = Delivery::Bearer;
    let login = Login { carried, delivery, ..login(NAME, PASSWORD) };
    let opened = world.authority.sign_in(login, &ctx()).await.expect("a sign-in");
    assert!(opened.ended.is_some());
    for planted in [&cookie, &refresh] {
        assert_eq!(ended(world.verify(planted).await), EndReason::Replaced);
        let listed = world.authority.session(planted.session.sid).await.expect("a session");
        let successor = listed.ending.and_then(|ending| ending.successor);
        assert_eq!(successor, Some(opened.session.sid));
    }
    assert!(world.verify(&opened).await.is_ok());
}

#[tokio::test]
async fn a_failed_sign_in_ends_nothing_it_carried() {
    let world = World::new().await;
    world.user(NAME).await;
    let before = world.sign_in().await;
    let carried = vec![Carried::Cookie(before.token.expose().clone())];
    let login = Login { carried, ..login(NAME, OTHER_PASSWORD) };
    let refused = world.authority.sign_in(login, &ctx()).await;
    assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    assert!(world.verify(&before).await.is_ok());
}

#[tokio::test]
async fn a4_proving_oneself_again_voids_the_former_credential_at_once() {
    let world = World::new().await;
    world.user(NAME).await;
    for delivery in [Delivery::Cookie, Delivery::Bearer] {
        let before = world.sign_in_for(delivery).await;
        world.advance(HOUR);
        let verified = world.verify(&before).await.expect("live");
        let again = world.authority.reauthenticate(&verified, secret(PASSWORD), &ctx()).await;
        let again = again.expect("a step-up");
        assert_eq!(again.session.sid, before.session.sid);
        assert_eq!(again.session.auth_time, world.authority.now());
        assert_eq!(again.session.expires_at, before.session.expires_at.plus(HOUR), "b2");
        assert_eq!(refusal(world.verify(&before).await), Refusal::TokenInvalid);
        if delivery == Delivery::Bearer {
            assert!(world.verify_access(&before).await.is_err());
            assert!(world.verify_access(&again).await.is_ok());
            let refused = world.refresh(before.token.expose()).await;
            assert_eq!(refusal(refused), Refusal::TokenInvalid, "no reuse: nothing ends");
        }
        assert!(world.verify(&again).await.is_ok());
    }
    assert_eq!(world.count_events(EventKind::SessionSteppedUp).await, 2);
}

#[tokio::test]
async fn of_two_step_ups_by_one_credential_the_second_is_void() {
    let world = World::new().await;
    world.user(NAME).await;
    let before = world.sign_in().await;
    let verified = world.verify(&before).await.expect("live");
    let first = world.authority.reauthenticate(&verified, secret(PASSWORD), &ctx()).await;
    let second = world.authority.reauthenticate(&verified, secret(PASSWORD), &ctx()).await;
    assert_eq!(refusal(second), Refusal::TokenInvalid);
    assert!(world.verify(&first.expect("a step-up")).await.is_ok());
}

#[tokio::test]
async fn b4_a_password_now_is_not_the_second_factor_of_then() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let strong = cloakroom::core::session::Grant {
        subject: Some(user.id),
        acr: "aal2".into(),
        amr: vec!["pwd".into(), "otp".into()],
        ..grant(Delivery::Cookie)
    };
    let opened = world.open_as(strong).await;
    let verified = world.verify(&opened).await.expect("live");
    let again = world.authority.reauthenticate(&verified, secret(PASSWORD), &ctx()).await;
    assert_eq!(again.expect("a step-up").session.acr, "aal1");
}

#[tokio::test]
async fn a5_failed_reauthentication_changes_nothing_and_is_throttled_like_a_sign_in() {
    let world = World::new().await;
    world.user(NAME).await;
    let opened = world.sign_in().await;
    let verified = world.verify(&opened).await.expect("live");
    for _ in 0..5 {
        let wrong = secret(OTHER_PASSWORD);
        let refused = world.authority.reauthenticate(&verified, wrong, &ctx()).await;
        assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    }
    let hashed = world.authority.password_load().hashed;
    let refused = world.authority.reauthenticate(&verified, secret(PASSWORD), &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::LoginThrottled { .. }));
    let (current, new) = (secret(PASSWORD), secret(OTHER_PASSWORD));
    let refused = world.authority.change_password(&verified, current, new, &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::LoginThrottled { .. }));
    let refused = world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::LoginThrottled { .. }), "one counter");
    assert_eq!(world.authority.password_load().hashed, hashed);
    let verified = world.verify(&opened).await.expect("alive");
    assert_eq!(verified.session.auth_time, opened.session.auth_time);
}

#[tokio::test]
async fn a7_a_password_change_ends_all_other_sessions_and_renews_the_own() {
    for current in [Delivery::Cookie, Delivery::Bearer, Delivery::Split] {
        let world = World::new().await;
        let user = world.user(NAME).await;
        let mut others = Vec::new();
        for delivery in [Delivery::Cookie, Delivery::Bearer, Delivery::Split] {
            others.push(world.sign_in_for(delivery).await);
        }
        let rotated = world.refresh(others[1].token.expose()).await.expect("rotated");
        let own = world.sign_in_for(current).await;
        let verified = world.verify(&own).await.expect("live");
        let (old, new) = (secret(PASSWORD), secret(OTHER_PASSWORD));
        let changed = world.authority.change_password(&verified, old, new, &ctx()).await;
        let changed = changed.expect("a change");
        assert!(changed.ended.is_some());
        for other in others.iter().chain([&rotated]) {
            assert_eq!(ended(world.verify(other).await), EndReason::PasswordChanged);
            if other.access.is_some() {
                assert!(world.verify_access(other).await.is_err());
            }
        }
        let retry = world.refresh(others[1].token.expose()).await;
        assert_eq!(ended(retry), EndReason::PasswordChanged, "in grace, too");
        assert_eq!(refusal(world.verify(&own).await), Refusal::TokenInvalid);
        assert!(world.verify(&changed).await.is_ok());
        let live = world.authority.sessions_of(&user.id).await.expect("a list");
        assert_eq!(live.len(), 1);
        let refused = world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await;
        assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
        let renewed = world.authority.sign_in(login(NAME, OTHER_PASSWORD), &ctx()).await;
        assert!(renewed.is_ok());
        assert_eq!(world.count_events(EventKind::UserPasswordChanged).await, 1);
    }
}

#[tokio::test]
async fn a_split_session_refreshes_by_the_cookie_of_its_changed_password() {
    let world = World::new().await;
    world.user(NAME).await;
    let own = world.sign_in_for(Delivery::Split).await;
    let verified = world.verify(&own).await.expect("live");
    let (old, new) = (secret(PASSWORD), secret(OTHER_PASSWORD));
    let changed = world.authority.change_password(&verified, old, new, &ctx()).await;
    let changed = changed.expect("a change");
    world.advance(HOUR);
    let token = changed.token.expose();
    let refreshed = world.authority.refresh(token, Channel::Cookie, None, &ctx()).await;
    let refreshed = refreshed.expect("a refresh");
    assert!(world.verify_access(&refreshed).await.is_ok());
    let former = world.authority.refresh(own.token.expose(), Channel::Cookie, None, &ctx()).await;
    assert_eq!(refusal(former), Refusal::TokenInvalid);
    assert!(world.verify_access(&refreshed).await.is_ok(), "nothing ended");
}

#[tokio::test]
async fn j4_a_password_that_may_not_be_chosen_changes_nothing() {
    let world = World::new().await;
    world.user(NAME).await;
    let (own, other) = (world.sign_in().await, world.sign_in().await);
    let verified = world.verify(&own).await.expect("live");
    let too_long = "x".repeat(64 * 1024);
    for new in ["short", "correcthorsebatterystaple", "cloakroom2026!!", NAME, &too_long] {
        let (old, new) = (secret(PASSWORD), secret(new));
        let refused = world.authority.change_password(&verified, old, new, &ctx()).await;
        assert!(matches!(refusal(refused), Refusal::PasswordRejected(_)));
    }
    for opened in [&own, &other] {
        assert!(world.verify(opened).await.is_ok());
    }
    assert!(world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await.is_ok());
}

#[tokio::test]
async fn a_session_on_behalf_of_a_user_cannot_prove_or_change_the_password() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let acting = cloakroom::core::session::Grant {
        subject: Some(user.id),
        actor: Some("usr_support".into()),
        ..grant(Delivery::Cookie)
    };
    let opened = world.open_as(acting).await;
    let verified = world.verify(&opened).await.expect("live");
    let refused = world.authority.reauthenticate(&verified, secret(PASSWORD), &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::Forbidden(_)));
    let (old, new) = (secret(PASSWORD), secret(OTHER_PASSWORD));
    let refused = world.authority.change_password(&verified, old, new, &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::Forbidden(_)));
    assert!(world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await.is_ok());
}

#[tokio::test]
async fn g1_g2_a_ticket_is_void_once_anything_it_names_has_moved() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let own = world.sign_in().await;
    for expected in [
        EndReason::SignedOutEverywhere,
        EndReason::PasswordChanged,
        EndReason::UserDisabled,
        EndReason::EndedByOperator,
    ] {
        let ticket = world.authority.ticket(&user.id).await.expect("a ticket");
        match expected {
            EndReason::SignedOutEverywhere => {
                world.authority.end_subject(&user.id, &ctx()).await.expect("an end");
            }
            EndReason::EndedByOperator => {
                world.authority.end_everything(&ctx()).await.expect("an end");
            }
            EndReason::PasswordChanged => {
                let password = Some(secret(OTHER_PASSWORD));
                let patch = UserPatch { password, ..UserPatch::default() };
                world.authority.patch_user(&user.id, patch, &ctx()).await.expect("a change");
            }
            _ => {
                for disabled in [true, false] {
                    let patch = UserPatch { disabled: Some(disabled), ..UserPatch::default() };
                    world.authority.patch_user(&user.id, patch, &ctx()).await.expect("a change");
                }
            }
        }
        let grant = cloakroom::core::session::Grant {
            subject: Some(user.id.clone()),
            claims: Object::new(),
            ..grant(Delivery::Cookie)
        };
        let opened = world.authority.open_with_ticket(grant.clone(), ticket, &[], &ctx()).await;
        assert_eq!(ended(opened), expected);
        let fresh = world.authority.ticket(&user.id).await.expect("a ticket");
        let opened = world.authority.open_with_ticket(grant, fresh, &[], &ctx()).await;
        assert!(opened.is_ok(), "the control");
    }
    assert!(world.verify(&own).await.is_err());
}

/// What is done to a user while sign-ins of that user are in flight.
#[derive(Clone, Copy, Debug)]
enum Against {
    SignOutEverywhere,
    PasswordSet,
    Disable,
    Delete,
}

async fn act(authority: &Authority<MemoryStore>, against: Against, subject: &Subject) {
    let patch = match against {
        Against::SignOutEverywhere => {
            authority.end_subject(subject, &ctx()).await.expect("an end");
            return;
        }
        Against::Delete => {
            authority.delete_user(subject, &ctx()).await.expect("a deletion");
            return;
        }
        Against::PasswordSet => {
            UserPatch { password: Some(secret(OTHER_PASSWORD)), ..UserPatch::default() }
        }
        Against::Disable => UserPatch { disabled: Some(true), ..UserPatch::default() },
    };
    authority.patch_user(subject, patch, &ctx()).await.expect("a change");
}

/// Something that happens while the password of a sign-in is being hashed.
async fn overtake(against: Against) -> EndReason {
    let slow = Settings { argon2: (19_456, 2, 1), ..settings() };
    let world = World::with(slow).await;
    loop {
        let user = world.user(NAME).await;
        let authority = Arc::clone(&world.authority);
        let signing_in =
            tokio::spawn(async move { authority.sign_in(login(NAME, PASSWORD), &ctx()).await });
        while world.authority.password_load().running == 0 && !signing_in.is_finished() {
            tokio::task::yield_now().await;
        }
        act(&world.authority, against, &user.id).await;
        let in_time = world.authority.password_load().running > 0;
        let outcome = signing_in.await.expect("no panic");
        if in_time {
            return ended(outcome);
        }
        // The hash was faster, which proves nothing: once more.
        let _ = world.authority.delete_user(&user.id, &ctx()).await;
        world.advance(HOUR);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_g2_what_overtakes_a_sign_in_voids_it() {
    for (against, reason) in [
        (Against::SignOutEverywhere, EndReason::SignedOutEverywhere),
        (Against::Disable, EndReason::UserDisabled),
        (Against::Delete, EndReason::UserDisabled),
    ] {
        assert_eq!(overtake(against).await, reason);
    }
}

async fn race(against: Against) {
    let world = World::with(Settings { max_per_subject: 100, ..settings() }).await;
    let authority = &world.authority;
    for round in 0..200 {
        let name = format!("user{round}@example.com");
        let user = world.user(&name).await;
        let subject = user.id.clone();
        let outcomes = together(4, |n| {
            let (authority, name, subject) = (Arc::clone(authority), name.clone(), subject.clone());
            let from = from(&format!("10.0.{round}.{n}"));
            async move {
                if n > 0 {
                    return authority.sign_in(login(&name, PASSWORD), &from).await.ok();
                }
                act(&authority, against, &subject).await;
                None
            }
        });
        let opened: Vec<_> = outcomes.await.into_iter().flatten().collect();
        for opened in &opened {
            let alive = world.verify(opened).await.is_ok();
            // A sign-in whose credentials were checked after a mere sign-out may live; nothing
            // checked before any of these may.
            let state = authority.subject(&subject).await.expect("a subject").state;
            let after = opened.session.subject_epoch == state.epoch;
            assert_eq!(alive, after && matches!(against, Against::SignOutEverywhere));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g1_sign_out_everywhere_beats_sign_ins_in_flight() {
    race(Against::SignOutEverywhere).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g2_no_sign_in_by_the_old_password_lives_after_its_change() {
    race(Against::PasswordSet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g2_no_sign_in_of_a_disabled_user_lives() {
    race(Against::Disable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g2_no_sign_in_of_a_deleted_user_lives() {
    race(Against::Delete).await;
}

#[tokio::test]
async fn a_lost_answer_of_the_store_does_nothing_twice() {
    let world = World::new().await;
    // Every second commit takes effect without an answer.
    let commits = AtomicUsize::new(0);
    let plan = move |call: Call<'_>| match call {
        Call::Commit(..) if commits.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => {
            Fault::of(Outcome::AnswerLost)
        }
        _ => Fault::NONE,
    };
    let store = Faulty::new(world.authority.store().clone(), plan, at_once);
    let authority = node(store, &world, settings()).await;
    let new = new_user(NAME, Some(PASSWORD));
    let user = authority.create_user(new, &ctx()).await.expect("a user");
    for _ in 0..2 {
        let opened = authority.sign_in(login(NAME, PASSWORD), &ctx()).await.expect("a sign-in");
        let cookie = Credential::Cookie(opened.token.expose());
        let verified = authority.verify(cookie).await.expect("live");
        let again = authority.reauthenticate(&verified, secret(PASSWORD), &ctx()).await;
        let again = again.expect("a step-up");
        let verified = authority.verify(Credential::Cookie(again.token.expose())).await;
        let verified = verified.expect("live");
        let (old, new) = (secret(PASSWORD), secret(PASSWORD));
        let changed = authority.change_password(&verified, old, new, &ctx()).await;
        let changed = changed.expect("a change");
        assert!(authority.verify(Credential::Cookie(changed.token.expose())).await.is_ok());
    }
    let patch = UserPatch { identifier: Some("ada@example.org".into()), ..UserPatch::default() };
    authority.patch_user(&user.id, patch, &ctx()).await.expect("a change");
    authority.delete_user(&user.id, &ctx()).await.expect("a deletion");
    for (kind, times) in [
        (EventKind::UserCreated, 1),
        (EventKind::SessionOpened, 2),
        (EventKind::SessionSteppedUp, 4),
        (EventKind::UserPasswordChanged, 2),
        (EventKind::UserChanged, 1),
        (EventKind::UserDeleted, 1),
    ] {
        assert_eq!(world.count_events(kind).await, times, "{kind:?}");
    }
}
