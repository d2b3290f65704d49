//! An authority that is away, slow, restarted, or refuses our key.

use std::time::{Duration, Instant};

use cloakroom::Cloakroom;
use http::{Method, Request};

use crate::browser::{Browser, bearer, raw};
use crate::relay::{Fault, Relay};
use crate::world::{NO_PROGRAM, Node, World, skips};

/// A world with a real server, or a loud nothing.
async fn remote() -> Option<World> {
    let world = World::remote().await;
    if world.is_none() {
        skips::tell(NO_PROGRAM);
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_an_authority_that_is_down_is_503_and_touches_no_cookie() {
    let Some(mut world) = remote().await else { return };
    let app = world.app();
    let mut browser = Browser::new(app.clone());
    browser.post("/sign-in?user=ada").await.expect(200);
    let tokens = raw(&app, Request::post("/tokens?user=ada"), "").await.expect(200).json();
    let access = tokens["access_token"].as_str().expect("a token").to_owned();
    let token = browser.get("/csrf").await.expect(200).body;
    let mut node = world.node.take().expect("a node");
    let address = node.address().to_owned();
    node.kill();
    // What was known stays good for as long as it may be stale.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    for _ in 0..20 {
        let began = Instant::now();
        for path in ["/me", "/maybe", "/guarded", "/data/k"] {
            let down = browser.get(path).await.code(503, "store_unavailable");
            assert!(down.set_cookie().is_none());
            assert_eq!(down.headers["retry-after"], "1");
        }
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    raw(&app, bearer("/me", Method::GET, &access), "").await.code(503, "store_unavailable");
    browser.get("/").await.expect(200);
    let out = Request::post("/sign-out").header("origin", crate::world::ORIGIN);
    let out = browser.send(out.header("x-csrf-token", token), "").await;
    assert!(out.code(503, "store_unavailable").set_cookie().is_none());
    // A cookie that can't be one of ours needs no authority to be refused (G6).
    let junk = Request::get("/me").header("cookie", "session=junk");
    raw(&app, junk, "").await.code(401, "credentials_required");
    raw(&app, Request::get("/me"), "").await.code(401, "credentials_required");
    // Restarted on the same data and address: everything goes on by itself.
    let data = world.dir().to_owned();
    world.node = Node::start(&data, &address);
    let deadline = Instant::now() + Duration::from_secs(10);
    while browser.get("/me").await.status != 200 {
        assert!(Instant::now() < deadline, "it doesn't recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    raw(&app, bearer("/me", Method::GET, &access), "").await.expect(200);
    browser.post("/sign-out").await.expect(200);
    browser.get("/me").await.code(401, "credentials_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_hangs_is_503_within_the_deadline() {
    let Some(world) = remote().await else { return };
    let mut browser = Browser::new(world.app());
    browser.post("/sign-in?user=ada").await.expect(200);
    let node = world.node.as_ref().expect("a node");
    node.signal("-STOP");
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let began = Instant::now();
    browser.get("/me").await.code(503, "store_unavailable");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    node.signal("-CONT");
    let deadline = Instant::now() + Duration::from_secs(10);
    while browser.get("/me").await.status != 200 {
        assert!(Instant::now() < deadline, "it doesn't recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_made_elsewhere_is_heard_of() {
    let Some(world) = remote().await else { return };
    let node = world.node.as_ref().expect("a node");
    let mut browser = Browser::new(world.app());
    browser.post("/sign-in?user=ada").await.expect(200);
    let tokens = raw(&world.app(), Request::post("/tokens?user=ada"), "").await.expect(200).json();
    let access = tokens["access_token"].as_str().expect("a token").to_owned();
    browser.get("/me").await.expect(200);
    // Another process of ours, which learns of nothing here but by the stream.
    let other = Cloakroom::remote(&node.admin, &node.key).await.expect("connected");
    let layer = other.layer().origin(crate::world::ORIGIN).expect("an origin");
    let there = world.app_behind(layer.without_session_limit());
    let mut elsewhere = Browser::new(there).with_cookie(&browser.cookie.clone().expect("one"));
    elsewhere.get("/me").await.expect(200);
    elsewhere.post("/everywhere").await.expect(200);
    let deadline = Instant::now() + Duration::from_secs(2);
    while browser.get("/me").await.status == 200 {
        assert!(Instant::now() < deadline, "the end isn't heard of");
    }
    while raw(&world.app(), bearer("/me", Method::GET, &access), "").await.status == 200 {
        assert!(Instant::now() < deadline, "the end isn't heard of");
    }
    browser.get("/me").await.code(401, "session_ended");
    raw(&world.app(), bearer("/me", Method::GET, &access), "").await.code(401, "session_ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_or_address_is_told_at_the_start() {
    let Some(world) = remote().await else { return };
    let node = world.node.as_ref().expect("a node");
    let refused = async |url: &str, key: &str| {
        Cloakroom::remote(url, key).await.expect_err("refused").to_string()
    };
    let wrong = refused(&node.admin, "cka_wrong").await;
    assert!(wrong.contains("refuses the API key") && !wrong.contains("cka_wrong"), "{wrong}");
    assert!(refused(&node.admin, "x\ny").await.contains("refuses the API key"));
    let nobody = refused("http://127.0.0.1:1", &node.key).await;
    assert!(nobody.contains("can't be reached"), "{nobody}");
    assert!(!nobody.contains(&node.key), "{nobody}");
    assert!(refused("127.0.0.1:7401", &node.key).await.contains("is no address"));
}

/// An application whose authority is reached by way of a relay that does this wrong, and a way
/// around it.
async fn relayed(world: &World, fault: Fault) -> (Relay, axum::Router, Cloakroom) {
    let node = world.node.as_ref().expect("a node");
    let relay = Relay::to(node.address(), fault);
    let behind = Cloakroom::remote(&relay.url, &node.key).await.expect("connected");
    let layer = behind.layer().origin(crate::world::ORIGIN).expect("an origin");
    let app = world.app_behind(layer.without_session_limit());
    (relay, app, Cloakroom::remote(&node.admin, &node.key).await.expect("connected"))
}

/// Every request of a cookie and of a token asks, and what ends elsewhere is over at the next one.
async fn every_request_asks(relay: &Relay, app: axum::Router, elsewhere: &Cloakroom) {
    let mut browser = Browser::new(app.clone());
    browser.post("/sign-in?user=ada").await.expect(200);
    let tokens = raw(&app, Request::post("/tokens?user=ada"), "").await.expect(200).json();
    let access = tokens["access_token"].as_str().expect("a token").to_owned();
    let asked = relay.counted(async {
        for _ in 0..5 {
            browser.get("/me").await.expect(200);
            raw(&app, bearer("/me", Method::GET, &access), "").await.expect(200);
        }
    });
    assert_eq!(asked.await, 10);
    let ada = cloakroom_core::types::Subject::parse("ada").expect("a subject");
    let client = cloakroom_core::session::Client::default();
    elsewhere.guard().end_subject(&ada, client).await.expect("ended");
    browser.get("/me").await.code(401, "session_ended");
    raw(&app, bearer("/me", Method::GET, &access), "").await.code(401, "session_ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn g9_without_the_feed_every_request_asks_and_with_it_none_does() {
    let Some(world) = remote().await else { return };
    let (relay, app, elsewhere) = relayed(&world, Fault::NoStream).await;
    every_request_asks(&relay, app.clone(), &elsewhere).await;
    // The feed is there again, by itself, and requests are answered here.
    relay.faulty.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut browser = Browser::new(app);
    browser.post("/sign-in?user=ada").await.expect(200);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let asked = relay.counted(async {
            for _ in 0..5 {
                browser.get("/me").await.expect(200);
            }
        });
        if asked.await == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "the feed isn't followed again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_far_from_the_authoritys_asks_at_every_request() {
    let Some(world) = remote().await else { return };
    let (relay, app, elsewhere) = relayed(&world, Fault::WrongClock).await;
    // Time enough for heartbeats.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    every_request_asks(&relay, app, &elsewhere).await;
}

/// What an operator does; the answer.
fn operate(node: &Node, path: &str, method: &str, body: &str) -> serde_json::Value {
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "-X", method, "-d", body, "-H", "Content-Type: application/json"]);
    curl.arg("-H").arg(format!("Authorization: Bearer {}", node.key));
    let told = curl.arg(format!("{}{path}", node.admin)).output().expect("curl");
    serde_json::from_slice(&told.stdout).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn e10_a_key_revoked_at_the_authority_verifies_nothing_within_the_staleness() {
    let Some(world) = remote().await else { return };
    let node = world.node.as_ref().expect("a node");
    let app = world.app();
    let tokens = raw(&app, Request::post("/tokens?user=ada"), "").await.expect(200).json();
    let access = tokens["access_token"].as_str().expect("a token").to_owned();
    raw(&app, bearer("/me", Method::GET, &access), "").await.expect(200);
    let kid = cloakroom_core::token::access::named_key(&access).expect("a key's name");
    operate(node, &format!("/admin/v1/keys/{kid}/revoke"), "POST", "");
    // The staleness that is allowed, and a heartbeat.
    let deadline = Instant::now() + Duration::from_millis(2_500);
    while raw(&app, bearer("/me", Method::GET, &access), "").await.status == 200 {
        assert!(Instant::now() < deadline, "the revocation isn't heard of");
    }
    raw(&app, bearer("/me", Method::GET, &access), "").await.code(401, "token_invalid");
    let tokens = raw(&app, Request::post("/tokens?user=ada"), "").await.expect(200).json();
    let access = tokens["access_token"].as_str().expect("a token").to_owned();
    assert_ne!(cloakroom_core::token::access::named_key(&access), Some(kid));
    raw(&app, bearer("/me", Method::GET, &access), "").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_deleted_while_we_run_signs_nobody_out() {
    let Some(world) = remote().await else { return };
    let node = world.node.as_ref().expect("a node");
    let made = |path: &str, method: &str, body: &str| operate(node, path, method, body);
    let scopes = r#"{"name": "shop", "scopes": ["sessions:read", "sessions:write"]}"#;
    let key = made("/admin/v1/api-keys", "POST", scopes);
    let secret = key["secret"].as_str().expect("a secret");
    let cloakroom = Cloakroom::remote(&node.admin, secret).await.expect("connected");
    let layer = cloakroom.layer().origin(crate::world::ORIGIN).expect("an origin");
    let mut browser = Browser::new(world.app_behind(layer.without_session_limit()));
    browser.post("/sign-in?user=ada").await.expect(200);
    let id = key["api_key"]["id"].as_str().expect("an id");
    made(&format!("/admin/v1/api-keys/{id}"), "DELETE", "");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = browser.get("/me").await;
        assert!(answer.set_cookie().is_none(), "{answer:?}");
        if answer.status == 503 {
            break;
        }
        answer.expect(200);
        assert!(Instant::now() < deadline, "the key is still good");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
