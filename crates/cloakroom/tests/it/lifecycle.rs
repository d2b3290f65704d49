//! Opening, verifying, refreshing and ending, as a caller of the engine sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom::core::event::EventKind;
use cloakroom::core::refresh::Channel;
use cloakroom::core::refusal::Refusal;
use cloakroom::core::session::{Delivery, EndReason, Grant};
use cloakroom::core::types::{Sid, Subject};
use cloakroom::store::faulty::{Call, Fault, Faulty};
use cloakroom::store::memory::MemoryStore;
use cloakroom::store::{Key, Record, Store};
use cloakroom::{
    ApiKeyIdentity, Credential, IfMatch, NewApiKey, OnLimit, OpenRequest, Opened, Settings,
};

use crate::directory::node;
use crate::world::*;

#[tokio::test]
async fn a6_logout_ends_every_form_the_session_has() {
    let world = World::new().await;
    let first = world.open(Delivery::Bearer).await;
    let second = world.refresh(first.token.expose()).await.expect("refreshed");
    assert!(world.verify_access(&first).await.is_ok(), "the control");
    let logout = world.authority.logout(Credential::Refresh(second.token.expose()), &ctx()).await;
    assert!(logout.expect("a logout").is_some());
    for opened in [&first, &second] {
        assert_eq!(ended(world.verify_access(opened).await), EndReason::SignedOut);
        assert_eq!(ended(world.refresh(opened.token.expose()).await), EndReason::SignedOut);
        let known = world.authority.introspect(opened.token.expose()).await.expect("an answer");
        assert!(known.is_none());
    }
}

#[tokio::test]
async fn a12_the_sid_grants_nothing() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    let sid = opened.session.sid.to_string();
    for text in [sid.clone(), format!("cks_{sid}"), format!("ckr_{sid}")] {
        for credential in
            [Credential::Cookie(&text), Credential::Access(&text), Credential::Refresh(&text)]
        {
            assert!(world.authority.verify(credential).await.is_err());
        }
    }
    assert!(world.verify(&opened).await.is_ok(), "the control");
}

#[tokio::test]
async fn a_genuine_but_expired_access_token_signs_out_and_a_forged_one_does_not() {
    let world = World::new().await;
    let opened = world.open(Delivery::Bearer).await;
    let access = opened.access.as_ref().expect("access").token.expose();
    let forged = format!("{}A", &access[..access.len() - 1]);
    world.advance(HOUR);
    assert_eq!(refusal(world.verify_access(&opened).await), Refusal::TokenExpired);
    let logout = world.authority.logout(Credential::Access(&forged), &ctx()).await;
    assert!(logout.expect("an answer").is_none() || forged == *access);
    assert!(world.verify(&opened).await.is_ok(), "nothing ended");
    let logout = world.authority.logout(Credential::Access(access), &ctx()).await;
    assert!(logout.expect("an answer").is_some());
    assert_eq!(ended(world.verify(&opened).await), EndReason::SignedOut);
}

#[tokio::test]
async fn f1_a_reuse_ends_the_session_with_one_event() {
    let world = World::new().await;
    let first = world.open(Delivery::Bearer).await;
    let second = world.refresh(first.token.expose()).await.expect("refreshed");
    world.advance(31 * SECOND);
    let third = world.refresh(second.token.expose()).await.expect("refreshed");
    assert_eq!(refusal(world.refresh(first.token.expose()).await), Refusal::RefreshTokenReused);
    assert_eq!(ended(world.refresh(third.token.expose()).await), EndReason::RefreshReused);
    assert_eq!(ended(world.verify_access(&third).await), EndReason::RefreshReused);
    assert_eq!(world.count_events(EventKind::SessionReuseDetected).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f2_any_number_of_concurrent_refreshes_have_one_successor() {
    for _ in 0..50 {
        let world = World::new().await;
        let opened = Arc::new(world.open(Delivery::Bearer).await);
        let authority = Arc::clone(&world.authority);
        let answers = together(16, move |_| {
            let (authority, opened) = (Arc::clone(&authority), Arc::clone(&opened));
            async move {
                let token = opened.token.expose();
                let answer = authority.refresh(token, Channel::Body, None, &ctx()).await;
                answer.expect("refreshed").token.expose().clone()
            }
        });
        let mut answers = answers.await;
        answers.sort();
        answers.dedup();
        assert_eq!(answers.len(), 1);
    }
}

#[tokio::test]
async fn f7_the_delivery_can_not_be_changed_by_asking() {
    let world = World::new().await;
    let split = world.open(Delivery::Split).await;
    assert_eq!(refusal(world.refresh(split.token.expose()).await), Refusal::TokenWrongType);
    let by_cookie =
        world.authority.refresh(split.token.expose(), Channel::Cookie, None, &ctx()).await;
    assert!(by_cookie.is_ok(), "the control");
}

#[tokio::test]
async fn f9_a_flipped_refresh_token_ends_nothing() {
    let world = World::new().await;
    let opened = world.open(Delivery::Bearer).await;
    let good = opened.token.expose();
    for at in 4..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let flipped = String::from_utf8(bytes).expect("text");
        assert!(matches!(refusal(world.refresh(&flipped).await), Refusal::TokenInvalid));
    }
    assert!(world.refresh(good).await.is_ok());
}

#[tokio::test]
async fn f12_a_changed_role_is_in_the_next_access_token_and_at_once_for_the_cookie() {
    let world = World::new().await;
    let (cookie, bearer) = (world.open(Delivery::Cookie).await, world.open(Delivery::Bearer).await);
    let mut patch = cloakroom::core::session::Object::new();
    patch.insert("role".into(), "admin".into());
    for opened in [&cookie, &bearer] {
        world.authority.change_claims(opened.session.sid, &patch, &ctx()).await.expect("changed");
    }
    assert_eq!(world.verify(&cookie).await.expect("live").claims()["role"], "admin");
    let refreshed = world.refresh(bearer.token.expose()).await.expect("refreshed");
    assert_eq!(refreshed.claims["role"], "admin");
}

#[tokio::test]
async fn everywhere_means_everywhere_and_the_kept_one_goes_on() {
    let world = World::new().await;
    let kept = world.open(Delivery::Bearer).await;
    let others = [world.open(Delivery::Cookie).await, world.open(Delivery::Split).await];
    let verified = world.verify_access(&kept).await.expect("live");
    let ended_many = world.authority.end_all_own(&verified, true, &ctx()).await.expect("ended");
    assert_eq!(ended_many.revoked, 2);
    for other in &others {
        assert_eq!(ended(world.verify(other).await), EndReason::SignedOutEverywhere);
    }
    assert_eq!(refusal(world.verify_access(&kept).await), Refusal::TokenExpired);
    let refreshed = world.refresh(kept.token.expose()).await.expect("refreshed");
    assert!(world.verify_access(&refreshed).await.is_ok());
    assert_eq!(world.authority.sessions_of(&ada()).await.expect("a list").len(), 1);
}

#[tokio::test]
async fn end_everything_ends_everybody_and_new_sessions_open() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    assert!(world.verify(&opened).await.is_ok(), "the control");
    world.authority.end_everything(&ctx()).await.expect("ended");
    assert_eq!(ended(world.verify(&opened).await), EndReason::EndedByOperator);
    let after = world.open(Delivery::Cookie).await;
    assert!(world.verify(&after).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a9_the_limit_of_sessions_is_exact_under_races() {
    let world = World::with(Settings { max_per_subject: 3, ..settings() }).await;
    let authority = Arc::clone(&world.authority);
    let opened = together(50, move |_| {
        let authority = Arc::clone(&authority);
        async move {
            authority.open_session(request(grant(Delivery::Cookie)), &ctx()).await.expect("open")
        }
    })
    .await;
    let mut live = 0;
    for opened in &opened {
        match world.verify(opened).await {
            Ok(_) => live += 1,
            refused => assert_eq!(ended(refused), EndReason::TooManySessions),
        }
    }
    assert_eq!((live, opened.len()), (3, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a9_with_refuse_exactly_as_many_are_accepted() {
    let refuse = Settings { max_per_subject: 3, on_limit: OnLimit::Refuse, ..settings() };
    let world = World::with(refuse).await;
    let authority = Arc::clone(&world.authority);
    let opened = together(50, move |_| {
        let authority = Arc::clone(&authority);
        async move { authority.open_session(request(grant(Delivery::Cookie)), &ctx()).await }
    })
    .await;
    assert_eq!(opened.iter().filter(|result| result.is_ok()).count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g4_no_update_of_data_is_lost() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    let sid = opened.session.sid;
    let authority = Arc::clone(&world.authority);
    let patched = together(50, move |n| {
        let authority = Arc::clone(&authority);
        async move {
            let mut patch = cloakroom::core::session::Object::new();
            patch.insert(format!("m{n}"), n.into());
            authority.patch_data(sid, &patch, IfMatch::Any, &ctx()).await.map(|_| ())
        }
    })
    .await;
    assert!(patched.iter().all(Result::is_ok));
    let seen = world.authority.data(sid).await.expect("data");
    assert_eq!(seen.data.len(), 50);
    let authority = Arc::clone(&world.authority);
    let put = together(50, move |n| {
        let authority = Arc::clone(&authority);
        async move {
            let mut data = cloakroom::core::session::Object::new();
            data.insert("n".into(), n.into());
            authority.put_data(sid, data, IfMatch::Version(seen.version), &ctx()).await.map(|_| ())
        }
    })
    .await;
    assert_eq!(put.iter().filter(|result| result.is_ok()).count(), 1);
}

#[tokio::test]
async fn nothing_is_saved_onto_an_ended_session() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    let sid = opened.session.sid;
    world.authority.end_session(sid, None, &ctx()).await.expect("ended");
    let data = cloakroom::core::session::Object::new();
    let put = world.authority.put_data(sid, data.clone(), IfMatch::Any, &ctx()).await;
    assert_eq!(ended(put), EndReason::EndedByOperator);
    let patch = world.authority.change_claims(sid, &data, &ctx()).await;
    assert_eq!(ended(patch), EndReason::EndedByOperator);
}

#[tokio::test]
async fn a_touch_that_meets_an_ended_session_is_dropped() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    world.advance(HOUR);
    assert!(world.verify(&opened).await.is_ok());
    world.authority.end_session(opened.session.sid, None, &ctx()).await.expect("ended");
    world.authority.flush_touches().await.expect("flushed");
    assert_eq!(ended(world.verify(&opened).await), EndReason::EndedByOperator);
    let listed = world.authority.session(opened.session.sid).await.expect("kept");
    assert_eq!(listed.ending.map(|ending| ending.reason), Some(EndReason::EndedByOperator));
}

#[tokio::test]
async fn use_slides_the_idle_timeout_and_disuse_ends_it_before_any_sweep() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    for _ in 0..6 {
        world.advance(23 * HOUR);
        assert!(world.verify(&opened).await.is_ok());
        world.authority.flush_touches().await.expect("flushed");
    }
    world.advance(25 * HOUR);
    assert_eq!(ended(world.verify(&opened).await), EndReason::IdleTimeout);
}

#[tokio::test]
async fn the_sweep_removes_only_what_is_refused_and_keeps_the_reason() {
    let world = World::new().await;
    let (idle, live) = (world.open(Delivery::Cookie).await, world.open(Delivery::Bearer).await);
    world.advance(DAY + HOUR);
    let swept = world.authority.sweep().await.expect("swept");
    assert_eq!((swept.ended, swept.removed), (1, 0));
    assert!(world.verify(&live).await.is_ok());
    let listed = world.authority.session(idle.session.sid).await.expect("kept");
    assert_eq!(listed.ending.map(|ending| ending.reason), Some(EndReason::IdleTimeout));
    world.advance(DAY);
    let swept = world.authority.sweep().await.expect("swept");
    assert_eq!(swept.removed, 1);
    let gone = world.authority.session(idle.session.sid).await;
    assert_eq!(refusal(gone), Refusal::NotFound);
    assert_eq!(world.count_events(EventKind::SessionEnded).await, 1);
}

#[tokio::test]
async fn a_sweep_takes_partitions_side_by_side_and_only_so_many() {
    let world = World::new().await;
    let clock = Arc::clone(&world.clock);
    let store = MemoryStore::new(32, move || cloakroom::Clock::now(&*clock));
    let plan = |call: Call<'_>| {
        let there = if matches!(call, Call::Due(_)) { SECOND } else { std::time::Duration::ZERO };
        Fault { there, ..Fault::NONE }
    };
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let pause = move |_| -> cloakroom::store::faulty::Wait {
        let (now, most) = (Arc::clone(&now), Arc::clone(&seen));
        Box::pin(async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // The others get as far as this.
            for _ in 0..64 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
        })
    };
    let node = node(Faulty::new(store, plan, pause), &world, settings()).await;
    let mut opened = Vec::new();
    for number in 0..64 {
        let subject = Subject::parse(&format!("user{number}")).expect("a subject");
        let asked = request(Grant { subject: Some(subject), ..grant(Delivery::Cookie) });
        opened.push(node.open_session(asked, &ctx()).await.expect("opened"));
    }
    world.advance(DAY + HOUR);
    assert_eq!(node.sweep().await.expect("swept").ended, opened.len());
    assert_eq!(most.load(Ordering::SeqCst), 8, "partitions at once");
}

#[tokio::test]
async fn a_replaced_session_hands_its_data_on_and_the_lost_answer_can_be_asked_again() {
    let world = World::new().await;
    let anonymous = world.open_as(Grant { subject: None, ..grant(Delivery::Cookie) }).await;
    let mut cart = cloakroom::core::session::Object::new();
    cart.insert("cart".into(), 3.into());
    let sid = anonymous.session.sid;
    world.authority.put_data(sid, cart, IfMatch::Any, &ctx()).await.expect("saved");
    let replace = || OpenRequest {
        replaces: Some(anonymous.token.expose().clone()),
        carry_data: true,
        ..request(grant(Delivery::Cookie))
    };
    let first = world.authority.open_session(replace(), &ctx()).await.expect("opened");
    let again = world.authority.open_session(replace(), &ctx()).await.expect("opened again");
    assert_eq!(first.token.expose(), again.token.expose());
    let data = world.authority.data(first.session.sid).await.expect("data");
    assert_eq!(data.data["cart"], 3);
    assert_eq!(ended(world.verify(&anonymous).await), EndReason::Replaced);
    world.advance(31 * SECOND);
    let late = world.authority.open_session(replace(), &ctx()).await;
    assert_eq!(ended(late), EndReason::Replaced);
}

#[tokio::test]
async fn f7_whoever_knew_the_old_cookie_is_not_given_the_new_one() {
    let world = World::new().await;
    let nobody = || Grant { subject: None, ..grant(Delivery::Cookie) };
    let replace = |old: &Opened, key: Option<&str>| OpenRequest {
        replaces: Some(old.token.expose().clone()),
        idempotency_key: key.map(str::to_owned),
        ..request(nobody())
    };
    let planted = world.open_as(nobody()).await;
    let first = world.authority.open_session(replace(&planted, None), &ctx()).await;
    assert!(first.is_ok());
    for key in [None, Some("another-request-1")] {
        let again = world.authority.open_session(replace(&planted, key), &ctx()).await;
        assert!(matches!(refusal(again), Refusal::Conflict(_)), "{key:?}");
    }
    // The same request, whose answer was lost.
    let planted = world.open_as(nobody()).await;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let request = replace(&planted, Some("the-same-request-1"));
        let opened = world.authority.open_session(request, &ctx()).await.expect("opened");
        tokens.push(opened.token.expose().clone());
    }
    assert_eq!(tokens[0], tokens[1]);
    let other = world.authority.open_session(replace(&planted, None), &ctx()).await;
    assert!(matches!(refusal(other), Refusal::Conflict(_)));
}

#[tokio::test]
async fn a_repeated_replacement_as_another_actor_or_class_is_another_request() {
    let world = World::new().await;
    let old = world.open_as(Grant { subject: None, ..grant(Delivery::Cookie) }).await;
    let replace =
        |grant| OpenRequest { replaces: Some(old.token.expose().clone()), ..request(grant) };
    let acted = || Grant { actor: Some("usr_support".into()), ..grant(Delivery::Cookie) };
    world.authority.open_session(replace(acted()), &ctx()).await.expect("opened");
    assert!(world.authority.open_session(replace(acted()), &ctx()).await.is_ok());
    let stronger = || Grant { acr: "aal3".into(), ..acted() };
    for other in [grant(Delivery::Cookie), stronger()] {
        let again = world.authority.open_session(replace(other), &ctx()).await;
        assert!(matches!(refusal(again), Refusal::Conflict(_)));
    }
}

#[tokio::test]
async fn the_data_of_whoever_was_signed_in_before_is_not_carried_to_somebody_else() {
    let world = World::new().await;
    let mut data = cloakroom::core::session::Object::new();
    data.insert("mfa_passed".into(), true.into());
    for (same, carried) in [(true, true), (false, false)] {
        let old = world.open(Delivery::Cookie).await;
        let sid = old.session.sid;
        world.authority.put_data(sid, data.clone(), IfMatch::Any, &ctx()).await.expect("saved");
        let eve = cloakroom::core::types::Subject::parse("usr_eve").expect("a subject");
        let subject = if same { old.session.subject.clone() } else { Some(eve) };
        let request = OpenRequest {
            replaces: Some(old.token.expose().clone()),
            carry_data: true,
            ..request(Grant { subject, ..grant(Delivery::Cookie) })
        };
        let next = world.authority.open_session(request, &ctx()).await;
        // Where the new subject lives in another partition, so does the new session.
        let next = next.expect("opened");
        let kept = world.authority.data(next.session.sid).await.expect("data").data;
        assert_eq!(kept.contains_key("mfa_passed"), carried, "same subject: {same}");
    }
}

#[tokio::test]
async fn a8_others_sessions_are_as_unknown_as_unknown_ones() {
    let world = World::new().await;
    let mine = world.open(Delivery::Cookie).await;
    let eve = cloakroom::core::types::Subject::parse("usr_eve").expect("a subject");
    let hers = world.open_as(Grant { subject: Some(eve), ..grant(Delivery::Cookie) }).await;
    let verified = world.verify(&mine).await.expect("live");
    let unknown = Sid::new(START, mine.session.sid.partition(), [200; 8]);
    for sid in [hers.session.sid, unknown] {
        let refused = world.authority.end_own(&verified, sid, &ctx()).await;
        assert_eq!(refusal(refused), Refusal::NotFound);
    }
    assert!(world.verify(&hers).await.is_ok());
}

#[tokio::test]
async fn an_impersonated_session_ends_itself_only() {
    let world = World::new().await;
    let other = world.open(Delivery::Cookie).await;
    let acted = Grant { actor: Some("usr_support".into()), ..grant(Delivery::Cookie) };
    let acted = world.open_as(acted).await;
    let verified = world.verify(&acted).await.expect("live");
    let refused = world.authority.end_own(&verified, other.session.sid, &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::Forbidden(_)));
    let refused = world.authority.end_all_own(&verified, true, &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::Forbidden(_)));
    assert!(world.authority.end_own(&verified, acted.session.sid, &ctx()).await.is_ok());
}

#[tokio::test]
async fn e6_a_denied_token_is_refused_though_its_signature_was_checked_before() {
    let world = World::new().await;
    let opened = world.open(Delivery::Bearer).await;
    let verified = world.verify_access(&opened).await.expect("live");
    let cloakroom::Via::Access(claims) = &verified.via else { panic!("not by access token") };
    world.authority.deny_token(&claims.jti, claims.expires_at, &ctx()).await.expect("denied");
    assert_eq!(refusal(world.verify_access(&opened).await), Refusal::TokenInvalid);
    let fresh = world.refresh(opened.token.expose()).await.expect("refreshed");
    assert!(world.verify_access(&fresh).await.is_ok(), "the control");
}

#[tokio::test]
async fn e6_a_denial_is_extended_by_a_later_one_and_never_cut_short() {
    let world = World::new().await;
    let opened = world.open(Delivery::Bearer).await;
    let verified = world.verify_access(&opened).await.expect("live");
    let cloakroom::Via::Access(claims) = &verified.via else { panic!("not by access token") };
    let deny = async |until| {
        world.authority.deny_token(&claims.jti, until, &ctx()).await.expect("denied");
        let partition = cloakroom::core::token::access::jti_partition(&claims.jti).expect("one");
        let key = Key::DeniedToken(claims.jti.as_str().into());
        let found = world.authority.store().load(partition, &[key]).await.expect("loaded");
        match found.into_iter().next().expect("a place").expect("a record").record {
            Record::DeniedToken(denied) => denied.until,
            other => panic!("{other:?}"),
        }
    };
    let minute = 60 * SECOND;
    let first = deny(world.authority.now().plus(minute)).await;
    let longer = deny(claims.expires_at).await;
    assert!(longer > first);
    assert_eq!(deny(world.authority.now().plus(minute)).await, longer);
    world.advance(2 * minute);
    assert_eq!(refusal(world.verify_access(&opened).await), Refusal::TokenInvalid);
}

/// As on a store that others write to as well.
fn shared() -> Settings {
    let max_staleness = Some(2 * SECOND);
    let verify = cloakroom::VerifySettings { cache: false, max_staleness, ..settings().verify };
    Settings { verify, ..settings() }
}

#[tokio::test]
async fn a_store_that_went_back_is_told_what_it_lost_and_no_more() {
    let world = World::with(shared()).await;
    let opened = world.open(Delivery::Bearer).await;
    let verified = world.verify_access(&opened).await.expect("live");
    let cloakroom::Via::Access(claims) = &verified.via else { panic!("not by access token") };
    world.authority.deny_token(&claims.jti, claims.expires_at, &ctx()).await.expect("denied");
    let other = world.open(Delivery::Cookie).await;
    world.authority.follow().await.expect("followed");
    let until = world.authority.revocations().await.expect("told").tokens[&claims.jti];
    let then = world.authority.store().snapshot();
    world.authority.end_session(other.session.sid, None, &ctx()).await.expect("ended");
    world.authority.follow().await.expect("followed");
    world.authority.store().restore(then);
    // Somebody else goes on where the store is now.
    let patch = cloakroom::core::session::Object::from_iter([("a".to_owned(), 1.into())]);
    let sid = opened.session.sid;
    world.authority.put_data(sid, patch, IfMatch::Any, &ctx()).await.expect("written");
    world.authority.follow().await.expect("followed");
    let fresh = node(world.authority.store().clone(), &world, shared()).await;
    let verdict = fresh.verify(Credential::Cookie(other.token.expose())).await;
    assert_eq!(ended(verdict), EndReason::EndedByOperator, "done again");
    // The denial was there all the while.
    let again = world.authority.revocations().await.expect("told");
    assert_eq!(again.tokens[&claims.jti], until);
    assert_eq!(world.count_events(EventKind::TokenDenied).await, 1);
}

#[tokio::test]
async fn a_lost_sign_out_everywhere_is_done_again_though_another_raise_took_its_epoch() {
    let world = World::with(shared()).await;
    let kept = world.open(Delivery::Cookie).await;
    let subject = kept.session.subject.clone().expect("a subject");
    world.authority.follow().await.expect("followed");
    let then = world.authority.store().snapshot();
    world.authority.end_subject(&subject, &ctx()).await.expect("a raise");
    world.authority.store().restore(then);
    // Another node, which knows nothing of it, signs out all but this session, under that epoch.
    let store = world.authority.store().clone();
    let other = node(store, &world, shared()).await;
    world.advance(SECOND);
    let credential = Credential::Cookie(kept.token.expose());
    let verified = other.verify(credential).await.expect("as far as that node knows");
    other.end_all_own(&verified, true, &ctx()).await.expect("a raise");
    assert_eq!(ended(world.verify(&kept).await), EndReason::SignedOutEverywhere);
    world.authority.follow().await.expect("followed");
    let verdict = other.verify(Credential::Cookie(kept.token.expose())).await;
    assert_eq!(ended(verdict), EndReason::SignedOutEverywhere);
}

#[tokio::test]
async fn g1_a_replacement_is_refused_when_the_subject_was_signed_out_before_it_is_asked_again() {
    let world = World::new().await;
    let old = world.open(Delivery::Cookie).await;
    let replace = || OpenRequest {
        replaces: Some(old.token.expose().clone()),
        ..request(grant(Delivery::Cookie))
    };
    let first = world.authority.open_session(replace(), &ctx()).await.expect("opened");
    let subject = first.session.subject.clone().expect("a subject");
    world.authority.end_subject(&subject, &ctx()).await.expect("a raise");
    let again = world.authority.open_session(replace(), &ctx()).await;
    assert!(matches!(refusal(again), Refusal::Conflict(_)));
}

#[tokio::test]
async fn e12_the_gateways_assertion_is_no_credential_here() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    let verified = world.verify(&opened).await.expect("live");
    let assertion = world.authority.assertion(&verified).await.expect("an assertion");
    let used = world.authority.verify(Credential::Access(assertion.expose())).await;
    assert_eq!(refusal(used), Refusal::TokenWrongType);
}

#[tokio::test]
async fn i13_an_assertion_is_handed_out_again_until_claims_change() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    let assertion = async || {
        let verified = world.verify(&opened).await.expect("live");
        world.authority.assertion(&verified).await.expect("an assertion").expose().clone()
    };
    let first = assertion().await;
    assert_eq!(first, assertion().await);
    let mut patch = cloakroom::core::session::Object::new();
    patch.insert("role".into(), "admin".into());
    world.authority.change_claims(opened.session.sid, &patch, &ctx()).await.expect("changed");
    assert_ne!(first, assertion().await);
}

#[tokio::test]
async fn a_rotated_refresh_token_is_active_for_the_grace_and_no_longer() {
    let world = World::new().await;
    let opened = world.open(Delivery::Bearer).await;
    let next = world.refresh(opened.token.expose()).await.expect("refreshed");
    let is_active =
        async |token: &str| world.authority.introspect(token).await.expect("an answer").is_some();
    world.advance(29 * SECOND);
    assert!(is_active(opened.token.expose()).await);
    world.advance(2 * SECOND);
    assert!(!is_active(opened.token.expose()).await);
    assert!(is_active(next.token.expose()).await);
    // It still proves whose session it is: to end it is in nobody's way.
    let credential = Credential::Refresh(opened.token.expose());
    world.authority.logout(credential, &ctx()).await.expect("ended");
    assert!(!is_active(next.token.expose()).await);
}

#[tokio::test]
async fn h3_introspection_is_no_use_of_the_session() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    world.advance(HOUR);
    for _ in 0..10 {
        let known = world.authority.introspect(opened.token.expose()).await.expect("an answer");
        assert!(known.is_some());
    }
    world.authority.flush_touches().await.expect("flushed");
    let listed = world.authority.session(opened.session.sid).await.expect("kept");
    assert_eq!(listed.session.last_seen_at, START);
}

#[tokio::test]
async fn a_moved_epoch_is_a_conflict_to_a_backend() {
    let world = World::new().await;
    world.open(Delivery::Cookie).await;
    world.authority.end_subject(&ada(), &ctx()).await.expect("ended");
    let stale = OpenRequest { epoch: Some(0), ..request(grant(Delivery::Cookie)) };
    let refused = world.authority.open_session(stale, &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::Conflict(_)));
    let fresh = OpenRequest { epoch: Some(1), ..request(grant(Delivery::Cookie)) };
    assert!(world.authority.open_session(fresh, &ctx()).await.is_ok());
}

fn root() -> ApiKeyIdentity {
    ApiKeyIdentity { id: "root".into(), scopes: vec!["admin".into()], is_root: true }
}

fn key(scopes: &[&str]) -> NewApiKey {
    let scopes = scopes.iter().map(ToString::to_string).collect();
    NewApiKey { name: "shop".into(), scopes, expires_in: None }
}

#[tokio::test]
async fn l2_a_key_can_not_make_a_key_that_may_do_more() {
    let world = World::new().await;
    let (_, secret) = world
        .authority
        .create_api_key(key(&["sessions:write"]), &root(), &ctx())
        .await
        .expect("a key");
    let maker = world.authority.authenticate_api_key(secret.expose()).await.expect("known");
    for more in [&["admin"][..], &["sessions:write", "users:read"]] {
        let refused = world.authority.create_api_key(key(more), &maker, &ctx()).await;
        assert!(matches!(refusal(refused), Refusal::Forbidden(_)));
    }
    let same = world.authority.create_api_key(key(&["sessions:write"]), &maker, &ctx()).await;
    assert!(same.is_ok(), "the control");
}

#[tokio::test]
async fn l3_a_deleted_or_expired_key_stops_at_once() {
    let world = World::new().await;
    let make = async |expires_in| {
        let new = NewApiKey { expires_in, ..key(&["events"]) };
        world.authority.create_api_key(new, &root(), &ctx()).await.expect("a key")
    };
    let (deleted, deleted_secret) = make(None).await;
    let (_, expiring) = make(Some(HOUR)).await;
    for secret in [&deleted_secret, &expiring] {
        assert!(world.authority.authenticate_api_key(secret.expose()).await.is_ok());
    }
    world.authority.delete_api_key(deleted.id, &ctx()).await.expect("deleted");
    let gone = world.authority.authenticate_api_key(deleted_secret.expose()).await;
    assert_eq!(refusal(gone), Refusal::TokenInvalid);
    world.advance(HOUR);
    assert!(world.authority.authenticate_api_key(expiring.expose()).await.is_err());
    world.advance(SECOND);
    assert_eq!(world.authority.sweep().await.expect("swept").removed, 1);
    let (left, _) = world.authority.api_keys(None, 10).await.expect("a list");
    assert!(left.is_empty());
}

#[tokio::test]
async fn a_keys_last_use_is_known_to_within_a_minute() {
    let world = World::new().await;
    let (made, secret) =
        world.authority.create_api_key(key(&["events"]), &root(), &ctx()).await.expect("a key");
    world.advance(HOUR);
    world.authority.authenticate_api_key(secret.expose()).await.expect("known");
    world.authority.flush_key_uses().await.expect("flushed");
    let (keys, _) = world.authority.api_keys(None, 10).await.expect("a list");
    assert_eq!((keys[0].id, keys[0].last_used_at), (made.id, Some(START.plus(HOUR))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g4_of_writers_with_one_version_one_succeeds_even_if_they_write_the_same() {
    for _ in 0..50 {
        let world = World::new().await;
        let sid = world.open(Delivery::Cookie).await.session.sid;
        let seen = world.authority.data(sid).await.expect("data");
        let authority = Arc::clone(&world.authority);
        let put = together(8, move |_| {
            let authority = Arc::clone(&authority);
            async move {
                let mut data = cloakroom::core::session::Object::new();
                data.insert("same".into(), true.into());
                let condition = IfMatch::Version(seen.version);
                authority.put_data(sid, data, condition, &ctx()).await.map(|_| ())
            }
        })
        .await;
        assert_eq!(put.iter().filter(|result| result.is_ok()).count(), 1);
    }
}
