//! What a credential is made of, how long it counts, and what it takes to find that out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cloakroom::core::keys::{Algorithm, KeyRecord, KeyRing, KeyState};
use cloakroom::core::limits::JWKS_CACHE;
use cloakroom::core::refresh::Channel;
use cloakroom::core::refusal::Refusal;
use cloakroom::core::session::{Delivery, EndReason, Grant};
use cloakroom::core::store_key::MasterKey;
use cloakroom::core::token::access::{AccessClaims, issue};
use cloakroom::core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom::core::types::{Sid, Subject};
use cloakroom::store::faulty::{Call, Fault, Faulty, Outcome, Wait};
use cloakroom::store::memory::MemoryStore;
use cloakroom::{
    Authority, Clock, Credential, Error, NewApiKey, Opened, Settings, StoreSecret, SystemEntropy,
    VerifySettings, Via,
};

use crate::directory::*;
use crate::world::*;

/// Sessions whose secrets are looked at.
const SAMPLES: usize = 20_000;

/// Secrets of one kind: none twice, no long run shared, no bit with a bias.
struct Sample {
    kind: &'static str,
    ones: Vec<usize>,
    count: usize,
    runs: BTreeSet<(usize, [u8; 8])>,
}

impl Sample {
    fn new(kind: &'static str) -> Self {
        Self { kind, ones: Vec::new(), count: 0, runs: BTreeSet::new() }
    }

    fn add(&mut self, secret: &[u8]) {
        assert!(secret.len() >= 16, "{} has less than 128 bits", self.kind);
        self.ones.resize(secret.len() * 8, 0);
        self.count += 1;
        for (at, byte) in secret.iter().enumerate() {
            for bit in 0..8 {
                self.ones[at * 8 + bit] += usize::from(byte >> bit & 1);
            }
        }
        for (at, run) in secret.chunks_exact(8).enumerate() {
            let run = run.try_into().expect("eight bytes");
            assert!(self.runs.insert((at, run)), "two of {} share a run", self.kind);
        }
    }

    fn judge(&self) {
        assert_eq!(self.count, SAMPLES);
        for (bit, ones) in self.ones.iter().enumerate() {
            let percent = *ones as f64 * 100.0 / self.count as f64;
            assert!((48.0..=52.0).contains(&percent), "{} bit {bit}: {percent} %", self.kind);
        }
    }
}

#[tokio::test]
async fn a1_secrets_are_random_and_never_come_twice() {
    let world = World::new().await;
    let authority = node(world.authority.store().clone(), &world, settings()).await;
    let secret_of = |kind, text: &str| {
        let token = OpaqueToken::parse(kind, text, authority.keys()).expect("genuine");
        *token.secret.expose()
    };
    let (mut cookies, mut refreshes) = (Sample::new("cks_"), Sample::new("ckr_"));
    let (mut csrf, mut keys) = (Sample::new("a CSRF token"), Sample::new("cka_"));
    let mut sids = BTreeSet::new();
    for n in 0..SAMPLES {
        let subject = Subject::parse(&format!("usr_{n}")).expect("a subject");
        let of = |delivery| request(Grant { subject: Some(subject.clone()), ..grant(delivery) });
        let opened = authority.open_session(of(Delivery::Cookie), &ctx()).await.expect("opened");
        cookies.add(&secret_of(OpaqueKind::Session, opened.token.expose()));
        csrf.add(&base64url(&authority.csrf_token(opened.session.sid)));
        assert!(sids.insert(opened.session.sid));
        let opened = authority.open_session(of(Delivery::Bearer), &ctx()).await.expect("opened");
        refreshes.add(&secret_of(OpaqueKind::Refresh, opened.token.expose()));
        assert!(sids.insert(opened.session.sid));
        keys.add(&secret_of(OpaqueKind::ApiKey, authority.generate_root_key().expose_text()));
    }
    for sample in [cookies, refreshes, csrf, keys] {
        sample.judge();
    }
}

/// Decodes base64url without padding.
fn base64url(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for char in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == char).expect("base64url");
        (bits, held) = (bits << 6 | u32::try_from(value).expect("six bits"), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).expect("a byte"));
        }
    }
    bytes
}

#[tokio::test]
async fn b5_no_token_outlives_its_session() {
    let world = World::new().await;
    let lasting = |delivery| Grant { lifetime: Some(100 * SECOND), ..grant(delivery) };
    let bearer = world.open_as(lasting(Delivery::Bearer)).await;
    let cookie = world.open_as(lasting(Delivery::Cookie)).await;
    let split = world.open_as(lasting(Delivery::Split)).await;
    world.advance(95 * SECOND);
    let by_cookie =
        world.authority.refresh(split.token.expose(), Channel::Cookie, None, &ctx()).await;
    for refreshed in
        [world.refresh(bearer.token.expose()).await.expect("live"), by_cookie.expect("live")]
    {
        assert_eq!(refreshed.access.as_ref().expect("access").expires_in, 5);
        assert_eq!(refreshed.refresh_expires_in, Some(5));
        assert!(claims_of(&world, &refreshed).await.expires_at <= refreshed.session.expires_at);
    }
    let verified = world.verify(&cookie).await.expect("live");
    let assertion = world.authority.assertion(&verified).await.expect("an assertion");
    let exp = expiry_of(assertion.expose());
    assert!(exp <= cookie.session.expires_at.as_secs(), "{exp}");
    assert!(exp > world.authority.now().as_secs(), "the control");
    world.advance(5 * SECOND);
    assert_eq!(ended(world.verify(&cookie).await), EndReason::AbsoluteTimeout);
    assert_eq!(ended(world.verify_access(&bearer).await), EndReason::AbsoluteTimeout);
}

/// `exp` of a token, unverified.
fn expiry_of(token: &str) -> i64 {
    let payload = token.split('.').nth(1).expect("three parts");
    let claims: serde_json::Value = serde_json::from_slice(&base64url(payload)).expect("JSON");
    claims["exp"].as_i64().expect("seconds")
}

async fn claims_of(world: &World, opened: &cloakroom::Opened) -> AccessClaims {
    match world.verify_access(opened).await.expect("live").via {
        Via::Access(claims) => (*claims).clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn b7_a_stepping_clock_revives_nothing_and_everything_goes_on() {
    let world = World::new().await;
    world.user(NAME).await;
    let (live, over) = (world.sign_in().await, world.sign_in_for(Delivery::Bearer).await);
    let idle =
        world.open_as(Grant { idle_timeout: Some(100 * SECOND), ..grant(Delivery::Cookie) }).await;
    world.authority.logout(Credential::Refresh(over.token.expose()), &ctx()).await.expect("ended");
    world.advance(HOUR);
    assert_eq!(ended(world.verify(&idle).await), EndReason::IdleTimeout);
    world.authority.sweep().await.expect("swept");
    for step in [HOUR, 2 * HOUR, DAY] {
        world.clock.set_back(step);
        assert_eq!(ended(world.verify(&over).await), EndReason::SignedOut);
        assert_eq!(ended(world.verify(&idle).await), EndReason::IdleTimeout);
        let verified = world.verify(&live).await.expect("still live");
        assert!(verified.session.idle_expires_at() > world.authority.now());
        assert!(verified.session.last_seen_at >= verified.session.created_at);
        let opened = world.sign_in_for(Delivery::Bearer).await;
        let refreshed = world.refresh(opened.token.expose()).await.expect("refreshed");
        assert!(world.verify_access(&refreshed).await.is_ok());
        let sid = opened.session.sid;
        world.authority.end_session(sid, None, &ctx()).await.expect("ended");
        assert!(world.verify_access(&refreshed).await.is_err());
        world.authority.flush_touches().await.expect("flushed");
        world.authority.flush_reports().await.expect("written");
        world.authority.tend_keys().await.expect("tended");
        world.authority.sweep().await.expect("swept");
        world.advance(step + HOUR);
        world.authority.sweep().await.expect("swept");
        assert!(world.verify(&live).await.is_ok());
        assert!(world.verify_access(&refreshed).await.is_err());
    }
}

#[tokio::test]
async fn b7_nodes_a_few_seconds_apart_take_each_others_tokens_within_the_leeway() {
    let world = World::new().await;
    let ahead = Arc::new(world.clock.ahead_by(3 * SECOND));
    let secret = StoreSecret { master: MasterKey::from_bytes([7; 32]), previous: None };
    let entropy = Arc::new(SystemEntropy::new());
    let store = world.authority.store().clone();
    let clock = Arc::clone(&ahead) as Arc<dyn Clock>;
    let other = Authority::open(store, settings(), secret, clock, entropy).await.expect("opened");
    let opened = other.open_session(request(grant(Delivery::Bearer)), &ctx()).await;
    let opened = opened.expect("opened");
    let access = opened.access.as_ref().expect("access").token.expose();
    // Issued three seconds in this node's future.
    assert!(world.verify_access(&opened).await.is_ok());
    world.advance(900 * SECOND);
    ahead.advance(900 * SECOND);
    assert!(world.verify_access(&opened).await.is_ok());
    world.advance(8 * SECOND);
    ahead.advance(8 * SECOND);
    for node in [&world.authority, &Arc::new(other)] {
        let late = node.verify(Credential::Access(access)).await;
        assert_eq!(refusal(late), Refusal::TokenExpired);
    }
}

#[tokio::test]
async fn e7_a_token_must_agree_with_its_session() {
    let world = World::new().await;
    let eve = Subject::parse("usr_eve").expect("a subject");
    let mine = world.open(Delivery::Bearer).await;
    let hers = world.open_as(Grant { subject: Some(eve.clone()), ..grant(Delivery::Bearer) }).await;
    let shared = settings().hs256_secret;
    let ring = KeyRing::new(Vec::new(), world.authority.keys(), shared.as_ref()).expect("a ring");
    let key = ring.signer().expect("a key");
    let genuine = claims_of(&world, &mine).await;
    let unknown = Sid::new(START, mine.session.sid.partition(), [9; 8]);
    let elsewhere = Sid::new(START, cloakroom::core::types::Partition(60_000), [9; 8]);
    let forged = [
        AccessClaims { subject: eve.clone(), ..genuine.clone() },
        AccessClaims { sid: hers.session.sid, ..genuine.clone() },
        AccessClaims { epoch: 1, ..genuine.clone() },
        AccessClaims { epoch: u64::MAX, ..genuine.clone() },
        AccessClaims { sid: unknown, ..genuine.clone() },
        AccessClaims { sid: elsewhere, ..genuine.clone() },
        AccessClaims { auth_time: START.minus(HOUR), ..genuine.clone() },
    ];
    let sign = |claims: &AccessClaims| issue(key, claims, &Default::default()).expect("signed");
    let events = world.events().await.len();
    for claims in &forged {
        let token = sign(claims);
        let refused = world.authority.verify(Credential::Access(&token)).await;
        assert_eq!(refusal(refused), Refusal::TokenInvalid, "{claims:?}");
        assert!(world.authority.introspect(&token).await.expect("an answer").is_none());
        let out = world.authority.logout(Credential::Access(&token), &ctx()).await;
        assert!(matches!(out, Ok(None) | Err(Error::Refused(_))), "{claims:?}");
    }
    assert_eq!(world.events().await.len(), events);
    assert!(world.authority.verify(Credential::Access(&sign(&genuine))).await.is_ok());
    assert!(world.verify(&hers).await.is_ok(), "nothing ended");
    // Lower than the session's own: it was taken along by a sign-out everywhere.
    let verified = world.verify_access(&mine).await.expect("live");
    world.authority.end_all_own(&verified, true, &ctx()).await.expect("ended");
    let refused = world.authority.verify(Credential::Access(&sign(&genuine))).await;
    assert_eq!(refusal(refused), Refusal::TokenExpired);
}

#[tokio::test]
async fn f4_the_tolerance_does_not_outlive_a_logout_or_the_absolute_end() {
    for end in [false, true] {
        let world = World::new().await;
        let lasting = Grant { lifetime: Some(20 * SECOND), ..grant(Delivery::Bearer) };
        let first = world.open_as(lasting).await;
        let key = Some("0123456789abcdef");
        let by = &ctx();
        let retry = || world.authority.refresh(first.token.expose(), Channel::Body, key, by);
        let second = retry().await.expect("refreshed");
        let again = retry().await.expect("the control");
        assert_eq!(again.token.expose(), second.token.expose());
        if end {
            let logout = Credential::Refresh(second.token.expose());
            world.authority.logout(logout, &ctx()).await.expect("ended");
        } else {
            world.advance(20 * SECOND);
        }
        let reason = if end { EndReason::SignedOut } else { EndReason::AbsoluteTimeout };
        assert_eq!(ended(retry().await), reason);
        assert_eq!(ended(world.refresh(second.token.expose()).await), reason);
    }
}

#[tokio::test]
async fn f6_rotation_never_extends_the_absolute_end() {
    let world = World::new().await;
    let opened =
        world.open_as(Grant { lifetime: Some(8 * SECOND), ..grant(Delivery::Bearer) }).await;
    let end = opened.session.expires_at;
    assert_eq!(end, START.plus(8 * SECOND));
    let mut token = opened.token.expose().clone();
    for second in 1..8 {
        world.advance(SECOND);
        let answer = world.refresh(&token).await.expect("refreshed");
        assert_eq!(answer.session.expires_at, end);
        assert_eq!(answer.refresh_expires_in, Some(8 - second));
        token.clone_from(answer.token.expose());
    }
    world.advance(SECOND);
    assert_eq!(ended(world.refresh(&token).await), EndReason::AbsoluteTimeout);
}

#[tokio::test]
async fn g12_an_expired_session_is_over_before_any_sweep() {
    let world = World::new().await;
    let short = |delivery| Grant { lifetime: Some(100 * SECOND), ..grant(delivery) };
    let cookie = world.open_as(short(Delivery::Cookie)).await;
    let bearer = world.open_as(short(Delivery::Bearer)).await;
    world.advance(100 * SECOND - std::time::Duration::from_millis(1));
    assert_eq!(world.authority.sessions_of(&ada()).await.expect("a list").len(), 2);
    world.advance(std::time::Duration::from_millis(1));
    assert!(world.authority.sessions_of(&ada()).await.expect("a list").is_empty());
    let access = bearer.access.as_ref().expect("access").token.expose();
    for token in [cookie.token.expose(), bearer.token.expose(), access] {
        assert!(world.authority.introspect(token).await.expect("an answer").is_none());
    }
    for opened in [&cookie, &bearer] {
        assert_eq!(ended(world.verify(opened).await), EndReason::AbsoluteTimeout);
        let listed = world.authority.session(opened.session.sid).await.expect("kept");
        let ending = listed.ending.expect("over");
        assert_eq!(
            (ending.reason, ending.at),
            (EndReason::AbsoluteTimeout, START.plus(100 * SECOND))
        );
    }
    for subject in [None, Some(ada())] {
        let page = world.authority.page_sessions(None, 200, subject.as_ref()).await;
        let page = page.expect("a page").sessions;
        assert!(page.iter().all(|listed| listed.ending.is_some()), "{page:?}");
    }
    assert_eq!(world.authority.end_subject(&ada(), &ctx()).await.expect("ended").revoked, 0);
}

fn at_once(_: std::time::Duration) -> Wait {
    Box::pin(std::future::ready(()))
}

/// A node whose store can be taken away, and which counts the calls of it.
async fn cut_off(
    world: &World,
) -> (
    Authority<Faulty<MemoryStore, impl cloakroom::store::faulty::FaultPlan>>,
    Arc<AtomicBool>,
    Arc<AtomicUsize>,
) {
    let (down, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_down, counted) = (Arc::clone(&down), Arc::clone(&calls));
    let plan = move |_: Call<'_>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let down = is_down.load(Ordering::SeqCst);
        Fault::of(if down { Outcome::Unavailable } else { Outcome::Pass })
    };
    let store = Faulty::new(world.authority.store().clone(), plan, at_once);
    let verify = cloakroom::VerifySettings { cache: false, ..settings().verify };
    let settings = cloakroom::Settings { verify, ..settings() };
    (node(store, world, settings).await, down, calls)
}

#[tokio::test]
async fn g6_what_is_no_credential_needs_no_store() {
    let world = World::new().await;
    let (cookie, bearer) = (world.open(Delivery::Cookie).await, world.open(Delivery::Bearer).await);
    let new = NewApiKey { name: "shop".into(), scopes: vec!["events".into()], expires_in: None };
    let admin = cloakroom::ApiKeyIdentity {
        id: "root".into(),
        scopes: vec!["admin".into()],
        is_root: true,
    };
    let made = world.authority.create_api_key(new, &admin, &ctx()).await.expect("a key");
    let (node, down, calls) = cut_off(&world).await;
    down.store(true, Ordering::SeqCst);
    calls.store(0, Ordering::SeqCst);
    let access = bearer.access.as_ref().expect("access").token.expose();
    let genuine = [cookie.token.expose(), bearer.token.expose(), access, made.1.expose()];
    let mut junk = vec![String::new(), "x".repeat(60 * 1024), "a.b.c".into(), "cks_".into()];
    for token in genuine {
        for at in [4, token.len() / 2, token.len() - 12] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            junk.push(String::from_utf8(bytes).expect("text"));
        }
        // Another kind's place is no place for it.
        junk.push(format!("{token}A"));
    }
    for text in &junk {
        for credential in
            [Credential::Cookie(text), Credential::Access(text), Credential::Refresh(text)]
        {
            assert!(matches!(node.verify(credential).await, Err(Error::Refused(_))), "{text}");
        }
        let refreshed = node.refresh(text, Channel::Body, None, &ctx()).await;
        assert!(matches!(refreshed, Err(Error::Refused(_))), "{text}");
        assert!(matches!(node.authenticate_api_key(text).await, Err(Error::Refused(_))), "{text}");
        assert!(node.introspect(text).await.expect("an answer").is_none(), "{text}");
        let revoked = node.revoke_token(text, &ctx()).await;
        assert!(matches!(revoked, Ok(None) | Err(Error::Refused(_))), "{text}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    // A genuine one can't be judged without it: neither yes nor no.
    let unknown = node.verify(Credential::Cookie(genuine[0])).await;
    assert!(matches!(unknown, Err(Error::Unavailable(_))), "{unknown:?}");
    assert!(calls.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn g5_without_its_store_the_engine_says_neither_yes_nor_no() {
    let world = World::new().await;
    world.user(NAME).await;
    let (cookie, bearer) = (world.sign_in().await, world.sign_in_for(Delivery::Bearer).await);
    let (node, down, _) = cut_off(&world).await;
    let unavailable = |what: &str, error: Option<Error>| {
        assert!(matches!(error, Some(Error::Unavailable(_))), "{what}: {error:?}");
    };
    down.store(true, Ordering::SeqCst);
    let (session, refresh) = (cookie.token.expose(), bearer.token.expose());
    let access = bearer.access.as_ref().expect("access").token.expose();
    unavailable("verify", node.verify(Credential::Cookie(session)).await.err());
    unavailable("verify", node.verify(Credential::Access(access)).await.err());
    unavailable("sign-in", node.sign_in(login(NAME, PASSWORD), &ctx()).await.err());
    unavailable("sign-in", node.sign_in(login(NAME, OTHER_PASSWORD), &ctx()).await.err());
    unavailable("refresh", node.refresh(refresh, Channel::Body, None, &ctx()).await.err());
    unavailable("logout", node.logout(Credential::Cookie(session), &ctx()).await.err());
    unavailable("revoke", node.revoke_token(refresh, &ctx()).await.err());
    unavailable("introspect", node.introspect(access).await.err());
    unavailable(
        "list",
        node.sessions_of(cookie.session.subject.as_ref().expect("one")).await.err(),
    );
    let all = node.page_sessions(None, 10, None).await;
    unavailable("a page", all.err());
    unavailable("events", node.events(cloakroom::EventFilter::default()).await.err());
    unavailable("sweep", node.sweep().await.err());
    unavailable("users", node.users(None, 10).await.err());
    unavailable("keys", node.api_keys(None, 10).await.err());
    assert!(node.ready().await.is_err());
    // Afterwards everything is as it was.
    down.store(false, Ordering::SeqCst);
    assert!(node.verify(Credential::Cookie(session)).await.is_ok());
    assert!(node.verify(Credential::Access(access)).await.is_ok());
    assert!(node.refresh(refresh, Channel::Body, None, &ctx()).await.is_ok());
    assert!(node.ready().await.is_ok());
}

#[tokio::test]
async fn a_key_that_another_node_made_is_found_when_a_token_names_it() {
    let keyed =
        || cloakroom::Settings { algorithm: Algorithm::EdDsa, hs256_secret: None, ..settings() };
    let world = World::with(keyed()).await;
    let max_staleness = Some(std::time::Duration::from_secs(2));
    let verify = cloakroom::VerifySettings { cache: false, max_staleness, ..settings().verify };
    let store = world.authority.store().clone();
    let other = node(store, &world, cloakroom::Settings { verify, ..keyed() }).await;
    // With both keys gone a fresh one signs at once, and nobody was told.
    for key in world.authority.key_records() {
        world.authority.revoke_key(key.kid.as_str(), &ctx()).await.expect("revoked");
    }
    world.authority.tend_keys().await.expect("tended");
    let opened = world.open(Delivery::Bearer).await;
    let access = opened.access.as_ref().expect("access").token.expose();
    let verdict = other.verify(Credential::Access(access)).await;
    assert!(verdict.is_ok(), "{:?}", verdict.err());
}

/// Settings of a store that others write to as well, with keys of the authority's own.
fn rotating() -> Settings {
    let verify = VerifySettings { max_staleness: Some(2 * SECOND), ..settings().verify };
    Settings { algorithm: Algorithm::EdDsa, hs256_secret: None, verify, ..settings() }
}

#[tokio::test]
async fn e6_nothing_but_the_very_bytes_that_were_verified_is_known() {
    let world = World::with(rotating()).await;
    let opened = world.open(Delivery::Bearer).await;
    let access =
        |opened: &Opened| opened.access.as_ref().expect("an access token").token.expose().clone();
    let token = access(&opened);
    let other = access(&world.open(Delivery::Bearer).await);
    let stranger = World::new().await;
    let foreign = access(&stranger.open(Delivery::Bearer).await);
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (own, other, foreign) = (parts(&token), parts(&other), parts(&foreign));
    let [header, payload, signature] = &own[..] else { panic!("{own:?}") };
    let all = [
        format!("{header}.{}.{signature}", other[1]),
        format!("{}.{payload}.{signature}", foreign[0]),
        format!("{header}.{payload}.{}", other[2]),
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{token}."),
        format!("{token}="),
        format!("{token} "),
        format!(" {token}"),
        format!("{header}..{signature}"),
    ];
    for forged in &all {
        // It is in the cache of verified tokens, before each.
        assert!(world.verify_access(&opened).await.is_ok(), "the control");
        let refused = world.authority.verify(Credential::Access(forged)).await;
        assert_eq!(refusal(refused), Refusal::TokenInvalid, "{forged}");
    }
    assert!(world.verify_access(&opened).await.is_ok(), "the control");
}

#[tokio::test]
async fn e6_a_token_that_was_verified_before_ends_with_its_key_its_subject_and_its_time() {
    for case in ["kid", "epoch", "exp"] {
        let world = World::with(rotating()).await;
        let opened = world.open(Delivery::Bearer).await;
        for _ in 0..2 {
            assert!(world.verify_access(&opened).await.is_ok(), "the control");
        }
        let refused = match case {
            "kid" => {
                let active = world.authority.key_records().into_iter();
                let active = active.filter(|key| key.state == KeyState::Active);
                for key in active {
                    world.authority.revoke_key(key.kid.as_str(), &ctx()).await.expect("revoked");
                }
                refusal(world.verify_access(&opened).await)
            }
            "epoch" => {
                world.authority.end_subject(&ada(), &ctx()).await.expect("ended");
                refusal(world.verify_access(&opened).await)
            }
            _ => {
                // The leeway is that of RFC 9068 section 4.
                world.advance(settings().access_ttl + 6 * SECOND);
                refusal(world.verify_access(&opened).await)
            }
        };
        let expected = match case {
            "kid" => Refusal::TokenInvalid,
            "epoch" => Refusal::SessionEnded(EndReason::SignedOutEverywhere),
            _ => Refusal::TokenExpired,
        };
        assert_eq!(refused, expected, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn e9_of_two_nodes_that_rotate_at_once_one_wins_and_the_other_follows() {
    for _ in 0..50 {
        let world = World::with(rotating()).await;
        world.authority.tend_keys().await.expect("a next key");
        let store = world.authority.store().clone();
        let other = Arc::new(node(store, &world, rotating()).await);
        let nodes = [Arc::clone(&world.authority), other];
        for node in &nodes {
            let early = node.rotate_keys(&ctx()).await;
            assert!(matches!(refusal(early), Refusal::Conflict(_)), "published just now");
        }
        world.advance(JWKS_CACHE);
        let before = nodes[0].jwks();
        assert_eq!(nodes[1].jwks(), before);
        let asked = nodes.clone();
        let outcomes = together(2, move |n| {
            let node = Arc::clone(&asked[n]);
            async move { node.rotate_keys(&ctx()).await }
        });
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.await.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 1));
        for refused in lost {
            assert!(matches!(refusal(refused), Refusal::Conflict(_)));
        }
        for node in &nodes {
            node.follow().await.expect("followed");
        }
        assert_eq!(nodes[0].jwks(), nodes[1].jwks());
        assert_ne!(nodes[0].jwks(), before);
    }
}

#[tokio::test]
async fn e9_the_first_token_of_a_new_key_counts_where_the_rotation_is_not_known_yet() {
    let world = World::with(rotating()).await;
    world.authority.tend_keys().await.expect("a next key");
    let other = node(world.authority.store().clone(), &world, rotating()).await;
    let active = |records: Vec<KeyRecord>| {
        let mut active = records.into_iter().filter(|key| key.state == KeyState::Active);
        active.next().expect("an active key").kid
    };
    let old = world.open(Delivery::Bearer).await;
    world.advance(JWKS_CACHE);
    other.follow().await.expect("followed");
    world.authority.rotate_keys(&ctx()).await.expect("rotated");
    let opened = world.open(Delivery::Bearer).await;
    let access = opened.access.as_ref().expect("an access token").token.expose();
    // The other node still has the former key for the active one.
    assert_ne!(active(other.key_records()), active(world.authority.key_records()));
    assert!(other.verify(Credential::Access(access)).await.is_ok());
    // And a token of the former key goes on, on both.
    let former = old.access.as_ref().expect("an access token").token.expose();
    assert!(other.verify(Credential::Access(former)).await.is_ok());
    assert!(world.authority.verify(Credential::Access(former)).await.is_ok());
}
