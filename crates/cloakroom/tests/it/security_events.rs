//! The audit log: what happened, once, and by whom.

use std::collections::BTreeMap;
use std::future::Future;

use cloakroom::core::event::{Actor, Event, EventKind};
use cloakroom::core::session::{Delivery, Grant};
use cloakroom::{
    ApiKeyIdentity, Credential, EventFilter, EventOrder, IfMatch, NewApiKey, UserPatch,
};

use crate::directory::*;
use crate::world::*;

/// All events, by id.
async fn log(world: &World) -> BTreeMap<String, Event> {
    let mut events = BTreeMap::new();
    let mut after = None;
    loop {
        let filter =
            EventFilter { after, limit: 200, order: EventOrder::Ascending, ..Default::default() };
        let page = world.authority.events(filter).await.expect("events");
        events.extend(page.events.into_iter().map(|view| (view.id, view.event)));
        after = page.next;
        if after.is_none() {
            return events;
        }
    }
}

/// What a deed added to the log, sorted by kind. Each is from the request that did it.
async fn told<T>(world: &World, deed: impl Future<Output = T>) -> (T, Vec<EventKind>) {
    world.advance(61 * SECOND);
    world.authority.flush_reports().await.expect("written");
    let before = log(world).await;
    let now = world.authority.now();
    let done = deed.await;
    world.authority.flush_reports().await.expect("written");
    let mut added: Vec<Event> = log(world)
        .await
        .into_iter()
        .filter(|(id, _)| !before.contains_key(id))
        .map(|e| e.1)
        .collect();
    for event in &added {
        assert_eq!(event.at, now, "{event:?}");
        assert_eq!(event.count, 1, "{event:?}");
    }
    added.sort_by_key(|event| event.kind);
    for event in added.iter().filter(|event| event.actor != Actor::System) {
        assert_eq!(event.client.ip, ctx().client.ip, "{event:?}");
        assert_eq!(event.request_id, ctx().request_id, "{event:?}");
    }
    (done, added.into_iter().map(|event| event.kind).collect())
}

#[tokio::test]
async fn m4_each_change_of_a_session_has_exactly_one_event() {
    use EventKind::*;

    let (world, by) = (World::new().await, &ctx());
    world.user(NAME).await;
    let authority = &world.authority;
    let some = object(serde_json::json!({"some": "thing"}));
    let (opened, kinds) = told(&world, world.sign_in()).await;
    assert_eq!(kinds, [SessionOpened]);
    let sid = opened.session.sid;
    let (_, kinds) = told(&world, authority.change_claims(sid, &some, by)).await;
    assert_eq!(kinds, [SessionClaimsChanged]);
    let put = authority.put_data(sid, some.clone(), IfMatch::Any, by);
    assert_eq!(told(&world, put).await.1, [SessionDataChanged]);
    let verified = world.verify(&opened).await.expect("live");
    let again = authority.reauthenticate(&verified, secret(PASSWORD), by);
    let (again, kinds) = told(&world, again).await;
    assert_eq!(kinds, [SessionSteppedUp]);
    let again = again.expect("stepped up");
    let out = authority.logout(Credential::Cookie(again.token.expose()), by);
    assert_eq!(told(&world, out).await.1, [SessionEnded]);
    // Said again, it changes nothing.
    let out = authority.logout(Credential::Cookie(again.token.expose()), by);
    assert!(told(&world, out).await.1.is_empty());
    let bearer = world.sign_in_for(Delivery::Bearer).await;
    let (refreshed, kinds) = told(&world, world.refresh(bearer.token.expose())).await;
    assert!(kinds.is_empty(), "from where it was: {kinds:?}");
    let refreshed = refreshed.expect("refreshed");
    let moved = from("198.51.100.77");
    let token = refreshed.token.expose();
    let channel = cloakroom::core::refresh::Channel::Body;
    let before = log(&world).await.len();
    world.advance(31 * SECOND);
    authority.refresh(token, channel, None, &moved).await.expect("refreshed");
    let events = log(&world).await;
    assert_eq!(events.len(), before + 1);
    assert_eq!(events.values().filter(|event| event.kind == SessionRefreshed).count(), 1);
    let (_, kinds) = told(&world, world.refresh(bearer.token.expose())).await;
    assert_eq!(kinds, [SessionEnded, SessionReuseDetected]);
}

#[tokio::test]
async fn m4_refused_sign_ins_are_told_and_name_nobody_unknown() {
    use EventKind::*;

    let (world, by) = (World::new().await, &ctx());
    world.user(NAME).await;
    for (name, password) in [(NAME, OTHER_PASSWORD), ("nobody@example.com", PASSWORD)] {
        let attempt = world.authority.sign_in(login(name, password), by);
        assert_eq!(told(&world, attempt).await.1, [SigninFailed]);
    }
    let mut throttled = 0;
    for _ in 0..8 {
        let attempt = world.authority.sign_in(login(NAME, OTHER_PASSWORD), by);
        let kinds = told(&world, attempt).await.1;
        assert!([[SigninFailed], [SigninThrottled]].contains(&[kinds[0]]) && kinds.len() == 1);
        throttled += usize::from(kinds[0] == SigninThrottled);
    }
    assert!(throttled > 0);
    for event in log(&world).await.values() {
        let text = format!("{event:?}");
        for secret in [PASSWORD, OTHER_PASSWORD, "nobody@example.com"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test]
async fn m4_each_change_of_a_user_a_key_or_all_has_its_event() {
    use EventKind::*;

    let (world, by) = (World::new().await, &ctx());
    let authority = &world.authority;
    let (user, kinds) = told(&world, world.user(NAME)).await;
    assert_eq!(kinds, [UserCreated]);
    let patch = |patch| authority.patch_user(&user.id, patch, by);
    let claims = || Some(object(serde_json::json!({"role": "admin"})));
    let deeds = [
        (UserPatch { claims: claims(), ..Default::default() }, vec![UserChanged]),
        (UserPatch { claims: claims(), ..Default::default() }, vec![]),
        (UserPatch { disabled: Some(true), ..Default::default() }, vec![UserDisabled]),
        (UserPatch { disabled: Some(true), ..Default::default() }, vec![]),
        (UserPatch { disabled: Some(false), ..Default::default() }, vec![UserEnabled]),
        (
            UserPatch { password: Some(secret(OTHER_PASSWORD)), ..Default::default() },
            vec![UserPasswordChanged],
        ),
    ];
    for (change, expected) in deeds {
        let (done, kinds) = told(&world, patch(change)).await;
        assert!(done.is_ok());
        assert_eq!(kinds, expected);
    }
    let deleted = authority.delete_user(&user.id, by);
    assert_eq!(told(&world, deleted).await.1, [UserDeleted]);
    let admin = ApiKeyIdentity { id: "root".into(), scopes: vec!["admin".into()], is_root: true };
    let new = NewApiKey { name: "shop".into(), scopes: vec!["events".into()], expires_in: None };
    let (made, kinds) = told(&world, authority.create_api_key(new, &admin, by)).await;
    assert_eq!(kinds, [ApiKeyCreated]);
    let id = made.expect("a key").0.id;
    assert_eq!(told(&world, authority.delete_api_key(id, by)).await.1, [ApiKeyDeleted]);
    assert_eq!(told(&world, authority.end_everything(by)).await.1, [AllEnded]);
    let other = Grant { amr: vec!["pwd".into(), "otp".into()], ..grant(Delivery::Bearer) };
    let opened = world.open_as(other).await;
    let ended = authority.end_session(opened.session.sid, Some("left the company"), by);
    assert_eq!(told(&world, ended).await.1, [SessionEnded]);
    world.open(Delivery::Cookie).await;
    let subject = &ada();
    let ended = authority.end_subject(subject, by);
    assert_eq!(told(&world, ended).await.1, [SubjectSignedOutEverywhere]);
}

#[tokio::test]
async fn m5_an_event_that_can_not_be_written_fails_with_its_change() {
    use cloakroom::store::faulty::{Call, Fault, Faulty, Outcome};

    let world = World::new().await;
    let user = world.user(NAME).await;
    let opened = world.sign_in().await;
    let before = log(&world).await;
    // Every batch that has something to say in the audit log is turned away, as by a full disk.
    let plan = |call: Call<'_>| {
        Fault::of(match call {
            Call::Commit(_, batch) if !batch.entries.is_empty() => Outcome::ReadOnly,
            Call::Commit(..)
            | Call::Now
            | Call::Load(..)
            | Call::Page(..)
            | Call::Due(_)
            | Call::Log(..)
            | Call::Trim(..) => Outcome::Pass,
        })
    };
    let at_once = |_| Box::pin(std::future::ready(())) as cloakroom::store::faulty::Wait;
    let store = Faulty::new(world.authority.store().clone(), plan, at_once);
    let node = node(store, &world, settings()).await;
    let (by, token) = (&ctx(), Credential::Cookie(opened.token.expose()));
    assert!(node.sign_in(login(NAME, PASSWORD), by).await.is_err());
    assert!(node.logout(token, by).await.is_err());
    assert!(node.end_subject(&user.id, by).await.is_err());
    assert_eq!(log(&world).await.len(), before.len());
    assert_eq!(world.authority.sessions_of(&user.id).await.expect("a list").len(), 1);
    assert!(world.verify(&opened).await.is_ok(), "what was refused did not happen");
}

#[tokio::test]
async fn m4_refusals_counted_while_the_store_was_away_are_written_when_it_is_back() {
    use cloakroom::store::faulty::{Call, Fault, Faulty, Outcome};

    let world = World::new().await;
    world.user(NAME).await;
    let away = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_away = std::sync::Arc::clone(&away);
    let plan = move |call: Call<'_>| {
        let is_away = is_away.load(std::sync::atomic::Ordering::Relaxed);
        Fault::of(match call {
            Call::Commit(..) if is_away => Outcome::ReadOnly,
            Call::Commit(..)
            | Call::Now
            | Call::Load(..)
            | Call::Page(..)
            | Call::Due(_)
            | Call::Log(..)
            | Call::Trim(..) => Outcome::Pass,
        })
    };
    let at_once = |_| Box::pin(std::future::ready(())) as cloakroom::store::faulty::Wait;
    let store = Faulty::new(world.authority.store().clone(), plan, at_once);
    let node = node(store, &world, settings()).await;
    let count = async || {
        let failed = |event: &&Event| event.kind == EventKind::SigninFailed;
        let log = log(&world).await;
        log.values().filter(failed).map(|event| event.count).sum::<u32>()
    };
    for name in [NAME, NAME, "grace@example.com"] {
        let refused = node.sign_in(login(name, "not the password"), &ctx()).await;
        assert!(refused.is_err());
    }
    away.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(node.flush_reports().await.is_err());
    assert_eq!(count().await, 0);
    away.store(false, std::sync::atomic::Ordering::Relaxed);
    node.flush_reports().await.expect("written");
    assert_eq!(count().await, 3);
}

#[tokio::test]
async fn m4_a_partition_that_can_not_be_written_holds_up_no_refusals_of_others() {
    use cloakroom::store::faulty::{Call, Fault, Faulty, Outcome};

    let world = World::new().await;
    let names: Vec<String> = (0..12).map(|number| format!("user-{number}@example.com")).collect();
    for name in &names {
        world.user(name).await;
    }
    let broken = |call: &Call<'_>| matches!(call, Call::Commit(partition, _) if partition.0 == 1);
    let plan = move |call: Call<'_>| {
        Fault::of(if broken(&call) { Outcome::ReadOnly } else { Outcome::Pass })
    };
    let at_once = |_| Box::pin(std::future::ready(())) as cloakroom::store::faulty::Wait;
    let store = Faulty::new(world.authority.store().clone(), plan, at_once);
    let node = node(store, &world, settings()).await;
    for name in &names {
        assert!(node.sign_in(login(name, "not the password"), &ctx()).await.is_err());
    }
    let written = async || {
        let log = log(&world).await;
        let failed = log.values().filter(|event| event.kind == EventKind::SigninFailed);
        failed.map(|event| event.count).sum::<u32>()
    };
    let before = written().await;
    assert!(node.flush_reports().await.is_err());
    let others = written().await - before;
    assert!(others > 0, "none of the others was written");
    let again = node.flush_reports().await;
    assert!(again.is_err() && written().await - before == others);
}
