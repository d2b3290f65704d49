//! Sessions under ids that other frameworks mint.

use std::sync::Arc;

use cloakroom::core::event::EventKind;
use cloakroom::core::refusal::Refusal;
use cloakroom::core::session::{EndReason, Object};
use cloakroom::core::types::{Sid, Subject};
use cloakroom::{Handle, HandlePut, IfMatch, OnLimit, Settings};
use serde_json::json;

use crate::world::{DAY, HOUR, World, ada, ctx, ended, refusal, settings, together};

/// The SHA-256 of some id, in base64url.
const HANDLE: &str = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";

fn handle() -> Handle {
    Handle::parse(HANDLE).expect("a handle")
}

fn object(value: serde_json::Value) -> Object {
    match value {
        serde_json::Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn put(subject: Option<Subject>, data: serde_json::Value) -> HandlePut {
    HandlePut { subject, data: object(data), idle_timeout: None, lifetime: None }
}

async fn store(world: &World, put: HandlePut) -> cloakroom::HandleView {
    world.authority.put_handle(&handle(), put, IfMatch::Any, &ctx()).await.expect("stored")
}

async fn read(world: &World) -> (Sid, serde_json::Value) {
    let view = world.authority.handle(&handle()).await.expect("there");
    (view.session.session.sid, serde_json::Value::Object(view.data))
}

#[test]
fn a_handle_has_one_spelling() {
    assert!(Handle::parse(HANDLE).is_some());
    let padded = format!("{HANDLE}=");
    let bits = HANDLE.replace("uFU", "uFV");
    let other = HANDLE.replace('-', "+");
    for bad in ["", "x", &padded, &HANDLE[1..], &bits, &other, "a}:{b"] {
        assert!(Handle::parse(bad).is_none(), "{bad}");
    }
}

#[tokio::test]
async fn a_handles_session_is_created_replaced_and_read() {
    let world = World::new().await;
    assert_eq!(refusal(world.authority.handle(&handle()).await), Refusal::NotFound);
    let made = store(&world, put(None, json!({"cart": 1}))).await;
    assert!(made.is_new && made.session.session.subject.is_none());
    let stored = store(&world, put(None, json!({"cart": 2}))).await;
    assert!(!stored.is_new);
    assert_eq!(stored.session.session.sid, made.session.session.sid);
    assert_eq!(read(&world).await, (made.session.session.sid, json!({"cart": 2})));
    // Empty data is data: it has a version.
    let stored = store(&world, put(None, json!({}))).await;
    let version = IfMatch::Version(stored.version);
    let next = put(None, json!({"a": 1}));
    world.authority.put_handle(&handle(), next.clone(), version, &ctx()).await.expect("current");
    let stale = world.authority.put_handle(&handle(), next, version, &ctx()).await;
    assert_eq!(refusal(stale), Refusal::PreconditionFailed);
    let other = Handle::parse(&HANDLE.replace("47D", "48D")).expect("a handle");
    let absent = world.authority.put_handle(&other, put(None, json!({})), version, &ctx()).await;
    assert_eq!(refusal(absent), Refusal::PreconditionFailed);
}

#[tokio::test]
async fn a_session_that_gains_a_subject_moves_and_is_followed() {
    let world = World::new().await;
    let before = store(&world, put(None, json!({"cart": 1}))).await.session.session.sid;
    let gained = store(&world, put(Some(ada()), json!({"cart": 1, "user": "ada"}))).await;
    let after = gained.session.session.sid;
    assert!(!gained.is_new && gained.ended.is_some());
    assert_ne!(before, after);
    assert_eq!(read(&world).await.0, after);
    let old = world.authority.session(before).await.expect("kept");
    let ending = old.ending.expect("an ending");
    assert_eq!((ending.reason, ending.successor), (EndReason::Replaced, Some(after)));
    // What doesn't say whose it is leaves it whose it is.
    let stored = store(&world, put(None, json!({"cart": 2}))).await;
    assert_eq!(stored.session.session.subject, Some(ada()));
    assert_eq!(stored.session.session.sid, after);
    let listed = world.authority.sessions_of(&ada()).await.expect("a list");
    assert_eq!(listed.len(), 1);
    let bob = Subject::parse("usr_bob").expect("a subject");
    let changed = store(&world, put(Some(bob.clone()), json!({}))).await;
    assert_eq!(changed.session.session.subject, Some(bob));
    assert!(world.authority.sessions_of(&ada()).await.expect("a list").is_empty());
}

#[tokio::test]
async fn a_pointer_that_was_not_moved_is_followed() {
    // Many subjects, so that some live in the handle's own partition and some don't.
    let world = World::new().await;
    for number in 0..12 {
        let subject = Subject::parse(&format!("usr_{number}")).expect("a subject");
        let text = format!("{}DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", 10 + number);
        let handle = Handle::parse(&text).expect("a handle");
        let open = put(Some(subject.clone()), json!({"n": number}));
        let made = world.authority.put_handle(&handle, open, IfMatch::Any, &ctx()).await;
        assert!(made.expect("made").is_new);
        let view = world.authority.handle(&handle).await.expect("there");
        assert_eq!(view.session.session.subject, Some(subject));
    }
}

#[tokio::test]
async fn g3_after_an_end_nothing_lives_again() {
    let world = World::new().await;
    store(&world, put(Some(ada()), json!({"a": 1}))).await;
    world.authority.end_handle(&handle(), &ctx()).await.expect("an end");
    for subject in [None, Some(ada())] {
        let again = put(subject, json!({"a": 2}));
        let late = world.authority.put_handle(&handle(), again, IfMatch::Any, &ctx()).await;
        assert_eq!(ended(late), EndReason::SignedOut);
    }
    assert_eq!(ended(world.authority.handle(&handle()).await), EndReason::SignedOut);
    world.authority.touch_handles(&[handle()]).await.expect("dropped");
    world.authority.end_handle(&handle(), &ctx()).await.expect("it is over already");
    assert_eq!(world.count_events(EventKind::SessionEnded).await, 1);
}

/// A token of before may be good for longer than an end is kept: it must not open anything anew.
#[tokio::test]
async fn g3_a_handle_is_over_for_as_long_as_its_session_might_have_lived() {
    let world = World::new().await;
    // In the handle's own partition, and in others.
    for number in 0..8 {
        let subject = Subject::parse(&format!("usr_{number}")).expect("a subject");
        let handle = Handle::parse(&HANDLE.replace("47D", &format!("{number}4D"))).expect("one");
        let put = || put(Some(subject.clone()), json!({}));
        let ctx = ctx();
        let store = || world.authority.put_handle(&handle, put(), IfMatch::Any, &ctx);
        assert!(store().await.expect("stored").is_new);
        world.authority.sweep().await.expect("a sweep");
        world.advance(HOUR);
        world.authority.sweep().await.expect("a sweep");
        world.authority.end_subject(&subject, &ctx).await.expect("a raise");
        assert_eq!(ended(store().await), EndReason::SignedOutEverywhere);
        for _ in 0..6 {
            world.advance(DAY - HOUR / 6);
            world.authority.sweep().await.expect("a sweep");
            assert!(matches!(refusal(store().await), Refusal::SessionEnded(_)));
        }
        world.advance(DAY);
        world.authority.sweep().await.expect("a sweep");
        assert!(store().await.expect("stored").is_new);
    }
}

#[tokio::test]
async fn a_sign_out_everywhere_and_idleness_end_it_too() {
    let world = World::new().await;
    store(&world, put(Some(ada()), json!({}))).await;
    world.authority.end_subject(&ada(), &ctx()).await.expect("a raise");
    let again = put(None, json!({}));
    let late = world.authority.put_handle(&handle(), again, IfMatch::Any, &ctx()).await;
    assert_eq!(ended(late), EndReason::SignedOutEverywhere);
    let world = World::new().await;
    let short = HandlePut { idle_timeout: Some(HOUR), ..put(None, json!({})) };
    store(&world, short).await;
    world.advance(HOUR / 2);
    store(&world, put(None, json!({"used": true}))).await;
    world.advance(HOUR * 3 / 4);
    world.authority.touch_handles(&[handle()]).await.expect("a touch");
    world.authority.flush_touches().await.expect("written");
    world.advance(HOUR * 3 / 4);
    assert_eq!(read(&world).await.1, json!({"used": true}));
    world.advance(2 * HOUR);
    assert_eq!(ended(world.authority.handle(&handle()).await), EndReason::IdleTimeout);
}

#[tokio::test]
async fn a_live_session_keeps_its_pointer_through_every_clean_up() {
    let world = World::new().await;
    let sid = store(&world, put(Some(ada()), json!({}))).await.session.session.sid;
    for _ in 0..12 {
        world.advance(DAY / 2);
        assert_eq!(read(&world).await.0, sid);
        world.authority.flush_touches().await.expect("written");
        world.authority.sweep().await.expect("a sweep");
    }
}

#[tokio::test]
async fn requests_at_once_agree_on_one_session() {
    let world = World::new().await;
    for subject in [None, Some(ada())] {
        let authority = Arc::clone(&world.authority);
        let stored = together(24, move |number| {
            let (authority, subject) = (Arc::clone(&authority), subject.clone());
            async move {
                let put = put(subject, json!({"n": number}));
                let stored = authority.put_handle(&handle(), put, IfMatch::Any, &ctx()).await;
                stored.expect("stored").session.session.sid
            }
        });
        let sids = stored.await;
        let (last, _) = read(&world).await;
        assert!(sids.contains(&last));
        let live = world.authority.sessions_of(&ada()).await.expect("a list");
        assert!(live.iter().all(|listed| listed.session.sid == last), "one session, not {live:?}");
    }
}

#[tokio::test]
async fn a_disabled_subject_costs_nobody_the_session_they_had() {
    let world = World::new().await;
    let sid = store(&world, put(None, json!({}))).await.session.session.sid;
    let patch = cloakroom::SubjectPatch { disabled: Some(true), ..Default::default() };
    world.authority.patch_subject(&ada(), patch, &ctx()).await.expect("disabled");
    let sign_in = put(Some(ada()), json!({}));
    let refused = world.authority.put_handle(&handle(), sign_in, IfMatch::Any, &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::Conflict(_)));
    assert_eq!(read(&world).await.0, sid);
}

#[tokio::test]
async fn a_condition_on_what_was_only_begun_fails_at_once() {
    let world = World::new().await;
    let disabled = cloakroom::SubjectPatch { claims: None, disabled: Some(true) };
    world.authority.patch_subject(&ada(), disabled, &ctx()).await.expect("disabled");
    let mine = put(Some(ada()), json!({}));
    let begun = world.authority.put_handle(&handle(), mine, IfMatch::Any, &ctx()).await;
    assert!(begun.is_err());
    let etag = cloakroom::store::Version::ZERO;
    let other = put(None, json!({}));
    let condition = IfMatch::Version(etag);
    let refused = world.authority.put_handle(&handle(), other, condition, &ctx()).await;
    assert_eq!(refusal(refused), Refusal::PreconditionFailed);
}

#[tokio::test]
async fn after_a_refused_put_the_next_one_is_answered_at_once() {
    let limited = Settings { max_per_subject: 1, on_limit: OnLimit::Refuse, ..settings() };
    let world = World::with(limited).await;
    let disabled = cloakroom::SubjectPatch { claims: None, disabled: Some(true) };
    // Many subjects and handles, so that most pairs live in two partitions.
    for number in 10..22 {
        let subject = Subject::parse(&format!("usr_{number}")).expect("a subject");
        if number % 2 == 0 {
            world.authority.patch_subject(&subject, disabled.clone(), &ctx()).await.expect("done");
        } else {
            let other = Handle::parse(&HANDLE.replace("47D", &format!("{number}X"))).expect("one");
            let put = put(Some(subject.clone()), json!({}));
            world.authority.put_handle(&other, put, IfMatch::Any, &ctx()).await.expect("the first");
        }
        let handle = Handle::parse(&HANDLE.replace("47D", &format!("{number}D"))).expect("one");
        let wanted = put(Some(subject.clone()), json!({}));
        let refused =
            world.authority.put_handle(&handle, wanted.clone(), IfMatch::Any, &ctx()).await;
        assert!(matches!(refusal(refused), Refusal::Conflict(_) | Refusal::TooManySessions));
        assert_eq!(refusal(world.authority.handle(&handle).await), Refusal::NotFound);
        let before = world.authority.now();
        let anonymous = put(None, json!({"n": number}));
        let stored = world.authority.put_handle(&handle, anonymous, IfMatch::Any, &ctx()).await;
        let stored = stored.expect("stored");
        assert!(stored.is_new && world.authority.now() == before, "it waited");
        // Nor does a sign-in that is refused cost the session that there is.
        let refused = world.authority.put_handle(&handle, wanted, IfMatch::Any, &ctx()).await;
        assert!(matches!(refusal(refused), Refusal::Conflict(_) | Refusal::TooManySessions));
        let kept = world.authority.handle(&handle).await.expect("there");
        assert_eq!(kept.session.session.sid, stored.session.session.sid);
    }
}

#[tokio::test]
async fn what_is_refused_by_a_change_meanwhile_leaves_nothing_to_wait_for() {
    let world = World::new().await;
    for number in 10..40 {
        let authority = Arc::clone(&world.authority);
        let subject = Subject::parse(&format!("usr_{number}")).expect("a subject");
        let handle = Handle::parse(&HANDLE.replace("47D", &format!("{number}D"))).expect("one");
        together(3, move |task| {
            let (authority, subject) = (Arc::clone(&authority), subject.clone());
            async move {
                if task == 0 {
                    let disabled = cloakroom::SubjectPatch { claims: None, disabled: Some(true) };
                    authority.patch_subject(&subject, disabled, &ctx()).await.expect("disabled");
                    return;
                }
                let wanted = put(Some(subject), json!({}));
                // Stored and ended, or refused.
                drop(authority.put_handle(&handle, wanted, IfMatch::Any, &ctx()).await);
            }
        })
        .await;
        let before = world.authority.now();
        let next = put(None, json!({}));
        match world.authority.put_handle(&handle, next, IfMatch::Any, &ctx()).await {
            Ok(_) => {}
            late => assert_eq!(ended(late), EndReason::UserDisabled),
        }
        assert_eq!(world.authority.now(), before, "it waited");
    }
}
