//! An authority that is away, slow, restarted, or refuses our key.

use std::time::{Duration, Instant};

use cloakroom::Cloakroom;
use http::{Method, Request};

use crate::browser::{Browser, bearer, raw};
use crate::world::{Node, World};

/// A world with a real server, or a loud nothing.
async fn remote() -> Option<World> {
    let world = World::remote().await;
    if world.is_none() {
        eprintln!("SKIPPED: no program `cloakroom` was built; set CLOAKROOM_BIN");
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
