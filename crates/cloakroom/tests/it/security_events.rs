//! The audit log: what happened, once, and by whom.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use cloakroom::core::event::{Actor, Event, EventKind};
use cloakroom::core::keys::Algorithm;
use cloakroom::core::refresh::Channel;
use cloakroom::core::session::{Client, Delivery, EndReason, Grant};
use cloakroom::core::store_key::MasterKey;
use cloakroom::core::types::Timestamp;
use cloakroom::store::Kind;
use cloakroom::{
    ApiKeyIdentity, Authority, Clock, Context, Credential, EventFilter, EventOrder, IfMatch,
    NewApiKey, Settings, StoreSecret, SubjectPatch, Swept, SystemEntropy, UserPatch,
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
    let channel = Channel::Body;
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

/// The same visitor's address with another browser.
fn another_browser() -> Context {
    let client = Client { user_agent: Some("Other/2".into()), ..ctx().client };
    Context { client, ..ctx() }
}

#[tokio::test]
async fn m4_a_retry_from_elsewhere_has_its_event_and_ends_nothing() {
    let world = World::new().await;
    let bearer = world.open(Delivery::Bearer).await;
    let twice = async {
        world.refresh(bearer.token.expose()).await.expect("refreshed");
        let retried = bearer.token.expose();
        world.authority.refresh(retried, Channel::Body, None, &another_browser()).await
    };
    let (retried, kinds) = told(&world, twice).await;
    assert_eq!(kinds, [EventKind::SessionRetriedElsewhere]);
    assert!(world.verify(&retried.expect("tolerated")).await.is_ok());
}

#[tokio::test]
async fn m4_a_token_newer_than_the_store_has_its_event_and_ends_nothing() {
    // Two worlds in which the same was done are the same: the second is the first one's backup.
    let (world, restored) = (World::new().await, World::new().await);
    let opened = world.open(Delivery::Bearer).await;
    let backup = restored.open(Delivery::Bearer).await;
    assert_eq!(opened.token.expose(), backup.token.expose());
    let newer = world.refresh(opened.token.expose()).await.expect("refreshed");
    let (refused, kinds) = told(&restored, restored.refresh(newer.token.expose())).await;
    assert!(refused.is_err());
    assert_eq!(kinds, [EventKind::SessionRollbackSeen]);
    assert!(restored.verify(&backup).await.is_ok(), "nothing was ended");
}

/// Settings by which the authority makes its own signing keys.
fn keyed() -> Settings {
    Settings { algorithm: Algorithm::EdDsa, hs256_secret: None, ..settings() }
}

#[tokio::test]
async fn m4_a_key_that_retires_or_is_revoked_has_its_event() {
    use EventKind::*;

    let (world, by) = (World::with(keyed()).await, &ctx());
    world.advance(DAY);
    world.authority.tend_keys().await.expect("tended");
    world.advance(DAY);
    let (rotated, kinds) = told(&world, world.authority.rotate_keys(by)).await;
    rotated.expect("the next key was published for long");
    assert_eq!(kinds, [KeyCreated, KeyActivated, KeyRetired]);
    let keys = world.authority.key_records();
    let retired = keys.iter().find(|key| key.retires_at.is_some()).expect("a retired key");
    let revoked = world.authority.revoke_key(retired.kid.as_str(), by);
    assert_eq!(told(&world, revoked).await.1, [KeyRevoked]);
    let again = world.authority.revoke_key(retired.kid.as_str(), by);
    assert!(told(&world, again).await.1.is_empty());
}

#[tokio::test]
async fn m4_a_backends_change_of_a_subject_has_its_event() {
    use EventKind::*;

    let (world, by) = (World::new().await, &ctx());
    let patch = || SubjectPatch {
        claims: Some(object(serde_json::json!({"plan": "gold"}))),
        ..Default::default()
    };
    let subject = &ada();
    let changed = world.authority.patch_subject(subject, patch(), by);
    assert_eq!(told(&world, changed).await.1, [SubjectChanged]);
    let again = world.authority.patch_subject(subject, patch(), by);
    assert!(told(&world, again).await.1.is_empty());
    let (erased, kinds) = told(&world, world.authority.erase_subject(subject, by)).await;
    erased.expect("erased");
    assert_eq!(kinds, [SubjectErased]);
}

#[tokio::test]
async fn m4_a_timeouts_event_has_the_time_of_the_expiry_and_goes_after_events_keep() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    let expiry = opened.session.refused_from();
    // The clean-up comes three hours late.
    world.advance(DAY + 3 * HOUR);
    world.authority.sweep().await.expect("swept");
    let of_it = async || -> Vec<(EventKind, Timestamp)> {
        let log = log(&world).await;
        let of_it = log.into_values().filter(|event| event.sid == Some(opened.session.sid));
        of_it.map(|event| (event.kind, event.at)).collect()
    };
    assert_eq!(
        of_it().await,
        [(EventKind::SessionOpened, START), (EventKind::SessionEnded, expiry)]
    );
    world.authority.end_subject(&ada(), &ctx()).await.expect("raised");
    // Kept for `events.keep`, counted from when it was written.
    world.advance(settings().events_keep - HOUR);
    world.authority.sweep().await.expect("swept");
    assert_eq!(of_it().await, [(EventKind::SessionEnded, expiry)]);
    world.advance(2 * HOUR);
    world.authority.sweep().await.expect("swept");
    assert!(of_it().await.is_empty());
    // What is known of the subject outlives them all.
    assert!(records(&world.authority, Kind::Session).await.is_empty());
    let subject = world.authority.subject(&ada()).await.expect("still known");
    assert_eq!((subject.state.epoch, subject.live_sessions), (1, 0));
}

#[tokio::test]
async fn m4_no_kind_of_event_is_without_a_deed_that_has_it() {
    let world = World::with(keyed()).await;
    deeds_on_users(&world).await;
    deeds_on_sessions(&world).await;
    deeds_on_keys_and_all(&world).await;
    let restored = World::new().await;
    let newer = World::new().await;
    restored.open(Delivery::Bearer).await;
    let opened = newer.open(Delivery::Bearer).await;
    let opened = newer.refresh(opened.token.expose()).await.expect("refreshed");
    assert!(restored.refresh(opened.token.expose()).await.is_err());
    let mut seen = BTreeSet::new();
    for world in [&world, &restored] {
        world.authority.flush_reports().await.expect("written");
        seen.extend(log(world).await.into_values().map(|event| event.kind.as_str()));
    }
    let all: BTreeSet<&str> = EventKind::NAMES.into_iter().map(|(_, name)| name).collect();
    assert_eq!(seen, all);
}

async fn deeds_on_users(world: &World) {
    let (authority, by) = (&world.authority, &ctx());
    let user = world.user(NAME).await;
    for disabled in [true, false] {
        let patch = UserPatch { disabled: Some(disabled), ..Default::default() };
        authority.patch_user(&user.id, patch, by).await.expect("changed");
    }
    let claims = Some(object(serde_json::json!({"role": "admin"})));
    let patch = UserPatch { claims, ..Default::default() };
    authority.patch_user(&user.id, patch, by).await.expect("changed");
    let (token, _) = authority.issue_reset(&user.id, by).await.expect("a token");
    let reset = authority.reset_password(token.expose(), secret(PASSWORD), by);
    reset.await.expect("set");
    for _ in 0..8 {
        assert!(authority.sign_in(login(NAME, OTHER_PASSWORD), by).await.is_err());
    }
    let other = authority.create_user(new_user("grace", None), by).await.expect("a user");
    authority.delete_user(&other.id, by).await.expect("deleted");
    let claims = Some(object(serde_json::json!({"plan": "gold"})));
    let patch = SubjectPatch { claims, ..Default::default() };
    authority.patch_subject(&ada(), patch, by).await.expect("changed");
    authority.erase_subject(&ada(), by).await.expect("erased");
    world.advance(HOUR);
}

async fn deeds_on_sessions(world: &World) {
    let (authority, by) = (&world.authority, &ctx());
    let some = object(serde_json::json!({"some": "thing"}));
    let cookie = world.sign_in().await;
    let sid = cookie.session.sid;
    authority.change_claims(sid, &some, by).await.expect("changed");
    authority.put_data(sid, some, IfMatch::Any, by).await.expect("put");
    let verified = world.verify(&cookie).await.expect("live");
    authority.reauthenticate(&verified, secret(PASSWORD), by).await.expect("stepped up");
    let bearer = world.open(Delivery::Bearer).await;
    let token = bearer.token.expose();
    let elsewhere = &another_browser();
    for by in [by, elsewhere] {
        authority.refresh(token, Channel::Body, None, by).await.expect("refreshed");
    }
    let other = world.open(Delivery::Bearer).await;
    let moved = authority.refresh(other.token.expose(), Channel::Body, None, elsewhere);
    let moved = moved.await.expect("refreshed");
    world.advance(31 * SECOND);
    assert!(world.refresh(other.token.expose()).await.is_err(), "reuse");
    assert_eq!(ended(world.verify(&moved).await), EndReason::RefreshReused);
    authority.end_subject(&ada(), by).await.expect("ended");
}

async fn deeds_on_keys_and_all(world: &World) {
    let (authority, by) = (&world.authority, &ctx());
    let admin = ApiKeyIdentity { id: "root".into(), scopes: vec!["admin".into()], is_root: true };
    let new = NewApiKey { name: "shop".into(), scopes: vec!["events".into()], expires_in: None };
    let (key, _) = authority.create_api_key(new, &admin, by).await.expect("a key");
    authority.delete_api_key(key.id, by).await.expect("deleted");
    let opened = world.open(Delivery::Bearer).await;
    let verified = world.verify_access(&opened).await.expect("live");
    let cloakroom::Via::Access(claims) = &verified.via else { panic!("not by access token") };
    authority.deny_token(&claims.jti, claims.expires_at, by).await.expect("denied");
    authority.end_everything(by).await.expect("ended");
    authority.report_start("0.1.0 on memory").await.expect("written");
    let swept = Swept { ended: 1, removed: 1, trimmed: 0 };
    authority.report_sweep(swept, by).await.expect("written");
    for _ in 0..2 {
        world.advance(DAY);
        authority.tend_keys().await.expect("tended");
    }
    authority.rotate_keys(by).await.expect("rotated");
    let keys = authority.key_records();
    let retired = keys.iter().find(|key| key.retires_at.is_some()).expect("a retired key");
    authority.revoke_key(retired.kid.as_str(), by).await.expect("revoked");
    let previous = Some(MasterKey::from_bytes([7; 32]));
    let secret = StoreSecret { master: MasterKey::from_bytes([8; 32]), previous };
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let (store, entropy) = (authority.store().clone(), Arc::new(SystemEntropy::new()));
    let node = Authority::open(store, keyed(), secret, clock, entropy).await.expect("open");
    assert!(node.rewrap_store_key(by).await.expect("rewrapped"));
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
