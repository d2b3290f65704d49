//! Section 8: sessions under ids of other frameworks, resets of passwords, a node's figures.

use serde_json::{Value, json};

use crate::http::{Answer, Ask};
use crate::world::{ADA, PASSWORD, World, login, on_each_store};

/// The SHA-256 of some id, in base64url.
const HANDLE: &str = "/admin/v1/handles/47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";

async fn put(world: &World, body: &Value) -> Answer {
    world.admin(Ask::new("PUT", HANDLE).json(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_put_read_and_ended() {
    on_each_store(&[], async |world| {
        world.admin(Ask::get(HANDLE)).await.refused(404, "not_found");
        let made = put(world, &json!({"data": {"cart": 1}, "idle_timeout": 600})).await;
        assert_eq!(made.is(201).header("location"), Some(HANDLE));
        assert_eq!(made.at("session.subject"), Value::Null);
        assert_eq!(made.at("session.delivery"), "cookie");
        assert_eq!(made.at("data"), json!({"cart": 1}));
        let etag = made.header("etag").expect("a version").to_owned();
        let read = world.admin(Ask::get(HANDLE)).await;
        assert_eq!(read.ok().at("data"), json!({"cart": 1}));
        assert_eq!(read.header("etag"), Some(etag.as_str()));
        let body = json!({"data": {"cart": 2}});
        let ask = || Ask::new("PUT", HANDLE).json(&body).header("if-match", &etag);
        let stored = world.admin(ask()).await;
        assert_ne!(stored.ok().header("etag"), Some(etag.as_str()));
        world.admin(ask()).await.refused(412, "precondition_failed");
        let several = format!("\"1\", {}", stored.header("etag").expect("a version"));
        world.admin(Ask::new("PUT", HANDLE).json(&body).header("if-match", &several)).await.ok();
        let gained = put(world, &json!({"subject": "ada", "data": {"user": "ada"}})).await;
        assert_eq!(gained.ok().at("session.subject"), "ada");
        assert!(gained.header("cloakroom-durability").is_some());
        assert_ne!(gained.at("session.id"), made.at("session.id"));
        let listed = world.admin(Ask::get("/admin/v1/subjects/ada/sessions")).await;
        assert_eq!(listed.at("sessions.0.id"), gained.at("session.id"));
        let touch = json!({"handles": [HANDLE.rsplit('/').next()], "sids": []});
        world.admin(Ask::post("/admin/v1/sessions/touch").json(&touch)).await.is(204);
        let ended = world.admin(Ask::delete(HANDLE)).await;
        assert!(ended.is(204).header("cloakroom-durability").is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handle_is_not_found_and_told_why() {
    let world = World::start(&[("store.url", "memory:")]).await;
    // Of 43 characters the last has bits that must be zero.
    for bad in ["short", "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFV"] {
        for method in ["GET", "PUT", "DELETE"] {
            let ask = Ask::new(method, &format!("/admin/v1/handles/{bad}"));
            let ask = if method == "PUT" { ask.json(&json!({"data": {}})) } else { ask };
            let refused = world.admin(ask).await;
            assert!(
                refused.refused(404, "not_found").text("detail").contains("base64url"),
                "{bad}"
            );
        }
    }
    let none = world.admin(Ask::get(HANDLE)).await;
    assert!(!none.refused(404, "not_found").text("detail").contains("base64url"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_an_ended_handle_is_a_conflict_and_stays_one() {
    on_each_store(&[], async |world| {
        put(world, &json!({"subject": "ada", "data": {}})).await.is(201);
        world.admin(Ask::delete("/admin/v1/subjects/ada/sessions")).await.ok();
        for body in [json!({"data": {"late": 1}}), json!({"subject": "ada", "data": {}})] {
            let late = put(world, &body).await;
            late.refused(409, "session_ended");
            assert_eq!(late.text("reason"), "signed_out_everywhere");
        }
        world.admin(Ask::get(HANDLE)).await.refused(409, "session_ended");
        world.admin(Ask::delete(HANDLE)).await.is(204);
        let listed = world.admin(Ask::get("/admin/v1/subjects/ada/sessions")).await;
        assert_eq!(listed.at("sessions"), json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_handles_and_bodies_are_refused() {
    let world = World::start(&[]).await;
    for bad in ["x", "47DEQpj8HBSa", "..%2F..%2Fx", "%00", "a%7D:%7Bb"] {
        let path = format!("/admin/v1/handles/{bad}");
        let asks = [Ask::get(&path), Ask::delete(&path)];
        for ask in asks {
            world.admin(ask).await.refused(404, "not_found");
        }
        let put = Ask::new("PUT", &path).json(&json!({"data": {}}));
        world.admin(put).await.refused(404, "not_found");
    }
    let big = "x".repeat(17 * 1024);
    let cases = [
        (json!({}), 422, "invalid_member"),
        (json!({"data": []}), 422, "invalid_member"),
        (json!({"data": {}, "subject": 7}), 422, "invalid_member"),
        (json!({"data": {}, "subject": ""}), 422, "invalid_member"),
        (json!({"data": {}, "idle_timeout": 0}), 422, "invalid_member"),
        (json!({"data": {}, "lifetime": -1}), 422, "invalid_member"),
        (json!({"data": {}, "claims": {}}), 422, "unknown_member"),
        (json!({"data": {"big": big}}), 413, "body_too_large"),
    ];
    for (body, status, code) in cases {
        put(&world, &body).await.refused(status, code);
    }
    let touch = json!({"handles": ["x"]});
    let refused = world.admin(Ask::post("/admin/v1/sessions/touch").json(&touch)).await;
    assert_eq!(refused.refused(422, "invalid_member").text("member"), "handles");
    world.admin(Ask::get(HANDLE)).await.refused(404, "not_found");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_a_forgotten_password_is_set_by_a_token_without_a_session() {
    let world = World::start(&[]).await;
    let ada = world.user(ADA).await;
    let tokens = world.tokens(ADA).await;
    let path = format!("/admin/v1/users/{}/reset", ada.id);
    let made = world.admin(Ask::post(&path)).await;
    let token = made.is(201).text("token");
    assert!(token.starts_with("ckp_") && made.at("expires_at").is_string());
    world.alive(&tokens.text("access_token")).await.expect("nothing has changed yet");
    let change = |current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        Ask::post("/auth/password").json(&body)
    };
    let other = "quite another umbrella";
    let forged = token.replace("ckp_", "ckp_A");
    world.send(change(&forged, other)).await.refused(401, "credentials_invalid");
    world.send(change(&token, "short")).await.refused(422, "password_rejected");
    let set = world.send(change(&token, other)).await;
    assert_eq!(set.ok().text("user.id"), ada.id.as_str());
    assert!(set.header("cloakroom-durability").is_some());
    assert_eq!(world.alive(&tokens.text("access_token")).await, Err("session_ended".into()));
    world.send(change(&token, PASSWORD)).await.refused(401, "credentials_invalid");
    world.send(login(ADA, "bearer")).await.refused(401, "credentials_invalid");
    let body = json!({"identifier": ADA, "password": other, "delivery": "bearer"});
    world.send(Ask::post("/auth/login").json(&body)).await.ok();
    // Without such a token it is still for whoever is signed in.
    world.send(change(other, PASSWORD)).await.refused(401, "credentials_required");
    world.admin(Ask::post("/admin/v1/users/usr_nobody/reset")).await.refused(404, "not_found");
    let events = world.admin(Ask::get("/admin/v1/events")).await;
    assert!(!String::from_utf8_lossy(&events.body).contains("ckp_"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_figures_count_what_it_did() {
    let world = World::start(&[]).await;
    world.user(ADA).await;
    let tokens = world.tokens(ADA).await;
    world.alive(&tokens.text("access_token")).await.expect("live");
    let site = world.running().site();
    site.authority.sample_stats();
    world.tokens(ADA).await;
    site.authority.sample_stats();
    let stats = world.admin(Ask::get("/admin/v1/stats")).await;
    assert_eq!(stats.ok().at("stats.totals.opened"), 2);
    assert_eq!(stats.at("stats.totals.verified"), 1);
    assert_eq!(stats.at("stats.series.0.opened"), 1);
    assert_eq!(stats.at("stats.streams.events"), 0);
    world.stop().await;
}
