//! The list of a user's own sessions, where each was opened, and ending one from another.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use axum::{Json, extract::connect_info::MockConnectInfo};
use cloakroom::Cloakroom;
use cloakroom_core::guard::Presented;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::types::Sid;
use cloakroom_tower::{CloakroomLayer, Error, Peer, Session, SetupError, SignIn, testing};
use http::{Method, Request};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::browser::{Answer, Browser, bearer, raw};
use crate::relay::{Fault, Relay};
use crate::world::{NO_PROGRAM, ORIGIN, World, routes, skips, worlds};

async fn list(session: Session) -> Result<Json<Value>, Error> {
    let own = session.id();
    let devices = session.devices().await?.into_iter().map(|device| {
        json!({
            "sid": device.sid.to_string(),
            "ip": device.client.ip,
            "agent": device.client.user_agent,
            "label": device.client.label,
            "current": own == Some(device.sid),
        })
    });
    Ok(Json(devices.collect()))
}

async fn end(session: Session, Path(sid): Path<String>) -> Result<&'static str, Error> {
    let sid: Sid = sid.parse().map_err(|_| Refusal::NotFound)?;
    session.sign_out_device(sid).await?;
    Ok("ended")
}

async fn labelled(session: Session) -> Result<&'static str, Error> {
    session.sign_in(SignIn::new("ada").device_label("kitchen\n tablet")).await?;
    Ok("in")
}

fn layer(world: &World) -> CloakroomLayer {
    let layer = world.cloakroom.layer().origin(ORIGIN).expect("an origin");
    layer.without_session_limit().trusted_proxy("10.0.0.0/8").expect("a network")
}

fn app(world: &World) -> Router {
    routes(world.doors.clone())
        .route("/devices", get(list))
        .route("/devices/{sid}", axum::routing::delete(end))
        .route("/labelled", axum::routing::post(labelled))
        .layer(layer(world))
}

/// The same, reached by way of a proxy at 10.1.1.1.
fn behind_a_proxy(world: &World) -> Router {
    let peer: std::net::SocketAddr = ([10, 1, 1, 1], 4711).into();
    app(world).layer(MockConnectInfo(peer))
}

async fn signed_in(app: &Router, user: &str, from: &str) -> Browser {
    let mut browser = Browser::new(app.clone());
    let request = Request::post(format!("/sign-in?user={user}")).header("origin", ORIGIN);
    let token = browser.get("/csrf").await.expect(200).body;
    let request = request.header("x-csrf-token", token).header("user-agent", "Tester/1");
    browser.send(request.header("x-forwarded-for", from), "").await.expect(200);
    browser
}

fn field<'a>(devices: &'a Value, at: usize, name: &str) -> &'a Value {
    &devices[at][name]
}

async fn everywhere(session: Session) -> Result<String, Error> {
    Ok(session.sign_out_everywhere().await?.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_acts_on_behalf_of_a_user_ends_none_of_the_users_own_sessions() {
    let app = Router::new()
        .route("/everywhere", axum::routing::post(everywhere))
        .route("/devices/{sid}", axum::routing::delete(end))
        .layer(testing::layer());
    let ask = async |request: http::request::Builder| {
        let request = request.body(axum::body::Body::empty()).expect("a request");
        app.clone().oneshot(request).await.expect("an answer").status().as_u16()
    };
    let acting = || testing::signed_in("ada").acting("usr_support");
    let other = "/devices/01JH6Z3V4Q8R5T7W9XBDFGHJKM";
    assert_eq!(ask(acting().post("/everywhere")).await, 403);
    assert_eq!(ask(acting().request("DELETE", other)).await, 403);
    assert_eq!(ask(testing::signed_in("ada").request("DELETE", other)).await, 404);
    assert_eq!(ask(testing::signed_in("ada").post("/everywhere")).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_the_own_devices_and_ends_one_of_them() {
    for world in worlds().await {
        let app = behind_a_proxy(&world);
        let mut phone = signed_in(&app, "ada", "203.0.113.9").await;
        let mut laptop = signed_in(&app, "ada", "198.51.100.1, 10.2.2.2").await;
        let mut stranger = signed_in(&app, "eve", "203.0.113.9").await;
        let listed = laptop.get("/devices").await.expect(200).json();
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "{}: {listed}", world.name);
        let own = (0..2).find(|at| field(&listed, *at, "current") == true).expect("one's own");
        let other = 1 - own;
        assert_eq!(field(&listed, own, "ip"), "198.51.100.1", "{}", world.name);
        assert_eq!(field(&listed, other, "ip"), "203.0.113.9");
        assert_eq!(field(&listed, other, "agent"), "Tester/1");
        let phones = field(&listed, other, "sid").as_str().expect("an id").to_owned();
        let path = format!("/devices/{phones}");
        // Another's session isn't there for anybody else, and neither is one that never was.
        stranger.unsafe_(Method::DELETE, &path, "").await.code(404, "not_found");
        stranger.unsafe_(Method::DELETE, "/devices/junk", "").await.code(404, "not_found");
        phone.get("/me").await.expect(200);
        laptop.unsafe_(Method::DELETE, &path, "").await.expect(200);
        let over = phone.get("/me").await.code(401, "session_ended");
        assert_eq!(over.json()["reason"], "signed_out_elsewhere", "{}", world.name);
        // Once more, as after a lost answer.
        laptop.unsafe_(Method::DELETE, &path, "").await.expect(200);
        // One's own is a sign-out, cookie and all.
        let own = field(&listed, own, "sid").as_str().expect("an id").to_owned();
        let out = laptop.unsafe_(Method::DELETE, &format!("/devices/{own}"), "").await.expect(200);
        assert!(out.set_cookie().is_some_and(|line| line.contains("Max-Age=0")), "{out:?}");
        laptop.get("/devices").await.code(401, "credentials_required");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_client_that_is_no_trusted_proxy_says_nothing_about_its_address() {
    let world = World::memory().await;
    let ip = async |app: Router| {
        let mut browser = signed_in(&app, "ada", "203.0.113.9").await;
        let listed: Answer = browser.get("/devices").await.expect(200);
        let ip = listed.json()[0]["ip"].clone();
        browser.post("/everywhere").await.expect(200);
        ip
    };
    // Nobody said who is at the other end: nothing that the client wrote takes its place.
    assert_eq!(ip(app(&world)).await, Value::Null);
    let stranger: std::net::SocketAddr = ([192, 0, 2, 7], 4711).into();
    assert_eq!(ip(app(&world).layer(MockConnectInfo(stranger))).await, "192.0.2.7");
    let told = axum::Extension(Peer([10, 1, 1, 1].into()));
    assert_eq!(ip(app(&world).layer(told)).await, "203.0.113.9");
    for bad in ["", "10.0.0.0/33", "proxy.example"] {
        let refused = world.cloakroom.layer().trusted_proxy(bad).expect_err("no network");
        assert_eq!(refused, SetupError::Proxy(bad.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_may_have_a_name() {
    for world in worlds().await {
        let mut browser = Browser::new(app(&world));
        browser.post("/labelled").await.expect(200);
        let listed = browser.get("/devices").await.expect(200).json();
        assert_eq!(field(&listed, 0, "label"), "kitchen tablet", "{}", world.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_authority_hears_of_what_was_verified_here() {
    let Some(world) = World::remote().await else {
        skips::tell(NO_PROGRAM);
        return;
    };
    let node = world.node.as_ref().expect("a node");
    let relay = Relay::to(node.address(), Fault::Nothing);
    let behind = Cloakroom::remote(&relay.url, &node.key).await.expect("connected");
    let layer = behind.layer().origin(ORIGIN).expect("an origin");
    let app = world.app_behind(layer.without_session_limit());
    let guard = behind.guard();
    let told = || relay.touched.lock().expect("unpoisoned").join(" ");
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut tokens: Vec<(String, String)> = Vec::new();
    // The first are asked about, which tells of their use; as soon as the feed is followed they are
    // verified here.
    let (access, sid) = loop {
        if let Some(found) = tokens.iter().find(|(_, sid)| told().contains(sid.as_str())) {
            break found.clone();
        }
        assert!(Instant::now() < deadline, "the server doesn't hear of their use: {}", told());
        let issued = raw(&app, Request::post("/tokens?user=ada"), "").await.expect(200).json();
        let access = issued["access_token"].as_str().expect("a token").to_owned();
        let pass = guard.verify(Presented::Access(&access)).await.expect("live");
        tokens.push((access, pass.sid.to_string()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    // Once, however often it is used.
    for _ in 0..20 {
        raw(&app, bearer("/me", Method::GET, &access), "").await.expect(200);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(told().matches(&sid).count(), 1);
}
