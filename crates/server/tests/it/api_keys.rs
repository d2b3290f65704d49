//! Section 8: keys of backends.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Ask;
use crate::world::{World, on_each_store};

const KEYS: &str = "/admin/v1/api-keys";

#[tokio::test(flavor = "multi_thread")]
async fn l8_a_keys_secret_is_shown_once_and_never_listed() {
    on_each_store(&[], async |world| {
        let body = json!({"name": "shop", "scopes": ["sessions:read"], "expires_in": 86400});
        let made = world.admin(Ask::post(KEYS).json(&body)).await;
        let id = made.is(201).text("api_key.id");
        assert_eq!(made.header("location"), Some(format!("{KEYS}/{id}").as_str()));
        let secret = made.text("secret");
        assert!(secret.starts_with("cka_"));
        let names = ["id", "name", "scopes", "created_at", "expires_at", "last_used_at"];
        assert_eq!(made.at("api_key").as_object().map(serde_json::Map::len), Some(names.len()));
        assert_eq!(made.at("api_key.last_used_at"), Value::Null);
        world.send_admin(Ask::get("/admin/v1/sessions").bearer(&secret)).await.ok();
        let listed = world.admin(Ask::get(KEYS)).await;
        assert_eq!(listed.ok().at("api_keys.0.id"), id.as_str());
        assert_eq!(listed.at("next"), Value::Null);
        let events = world.admin(Ask::get("/admin/v1/events")).await;
        for answer in [&listed, &events] {
            assert!(!String::from_utf8_lossy(&answer.body).contains("cka_"));
        }
        let types: Vec<Value> = events.at("events").as_array().cloned().unwrap_or_default();
        assert!(types.iter().any(|event| event["type"] == "api_key.created"));
        world.running().site().authority.flush_key_uses().await.expect("written");
        let listed = world.admin(Ask::get(KEYS)).await;
        assert!(listed.at("api_keys.0.last_used_at").is_string());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_deleted_or_expired_key_is_nobodys() {
    let world = World::start(&[]).await;
    let make = async |expires_in: u64| {
        let body = json!({"name": "n", "scopes": ["keys"], "expires_in": expires_in});
        let made = world.admin(Ask::post(KEYS).json(&body)).await;
        (made.is(201).text("api_key.id"), made.text("secret"))
    };
    let (id, secret) = make(1000).await;
    let ask = || Ask::get("/admin/v1/keys").bearer(&secret);
    world.send_admin(ask()).await.ok();
    let path = format!("{KEYS}/{id}");
    world.admin(Ask::delete(&path)).await.is(204);
    world.send_admin(ask()).await.refused(401, "token_invalid");
    world.admin(Ask::delete(&path)).await.refused(404, "not_found");
    let (_, secret) = make(1).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let refused = world.send_admin(Ask::get("/admin/v1/keys").bearer(&secret)).await;
    assert_eq!(refused.status, 401);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l2_no_key_makes_another_without_admin() {
    let world = World::start(&[]).await;
    let body = json!({"name": "n", "scopes": ["users:write", "keys"]});
    let made = world.admin(Ask::post(KEYS).json(&body)).await;
    let secret = made.is(201).text("secret");
    for ask in [Ask::get(KEYS), Ask::post(KEYS).json(&body), Ask::delete(&format!("{KEYS}/x"))] {
        world.send_admin(ask.bearer(&secret)).await.refused(403, "insufficient_scope");
    }
    let body = json!({"name": "n", "scopes": ["admin"]});
    let made = world.admin(Ask::post(KEYS).json(&body)).await;
    let admin = made.is(201).text("secret");
    world.send_admin(Ask::post(KEYS).json(&body).bearer(&admin)).await.is(201);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_keys_are_refused_by_the_member() {
    let world = World::start(&[]).await;
    let cases = [
        (json!({"scopes": ["keys"]}), "name"),
        (json!({"name": "", "scopes": ["keys"]}), "name"),
        (json!({"name": "a\u{7}b", "scopes": ["keys"]}), "name"),
        (json!({"name": "n"}), "scopes"),
        (json!({"name": "n", "scopes": []}), "scopes"),
        (json!({"name": "n", "scopes": ["root"]}), "scopes"),
        (json!({"name": "n", "scopes": "keys"}), "scopes"),
        (json!({"name": "n", "scopes": ["keys"], "expires_in": 0}), "expires_in"),
        (json!({"name": "n", "scopes": ["keys"], "expires_in": u64::MAX}), "expires_in"),
    ];
    for (body, member) in cases {
        let refused = world.admin(Ask::post(KEYS).json(&body)).await;
        assert_eq!(refused.refused(422, "invalid_member").text("member"), member, "{body}");
    }
    let body = json!({"name": "n", "scopes": ["keys"], "secret": "cka_x"});
    let refused = world.admin(Ask::post(KEYS).json(&body)).await;
    refused.refused(422, "unknown_member");
    world.admin(Ask::get(&format!("{KEYS}?after=x"))).await.refused(422, "invalid_member");
    assert_eq!(world.admin(Ask::get(KEYS)).await.at("api_keys"), json!([]));
    world.stop().await;
}
