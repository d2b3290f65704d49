//! Section 7: introspection, revocation and refreshing as their RFCs have them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Answer, Ask};
use crate::world::{ADA, World, on_each_store};

async fn introspect(world: &World, token: &str) -> Answer {
    let ask = Ask::post("/oauth2/introspect").form(&format!("token={token}"));
    let answer = world.send(ask.bearer(&world.root_key)).await;
    assert_eq!(answer.ok().header("cache-control"), Some("no-store"));
    answer
}

fn oauth_error(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.text("error"), error);
    assert!(!answer.text("error_description").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_introspection_tells_all_of_a_live_token_and_nothing_of_others() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let tokens = world.tokens(ADA).await;
        let cookie = world.signed_in(ADA, "cookie").await.jar["session"].clone();
        let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
        for token in [&access, &refresh, &cookie] {
            let answer = introspect(world, token).await;
            assert_eq!(answer.at("active"), true);
            assert_eq!(answer.text("sub"), ada.id.as_str());
            assert_eq!(answer.text("role"), "user");
            assert!(answer.at("exp").is_i64() && !answer.text("sid").is_empty());
        }
        assert_eq!(introspect(world, &access).await.text("token_type"), "Bearer");
        let junk = "x".repeat(60 * 1024);
        let csrf = world.signed_in(ADA, "cookie").await.csrf.expect("a token");
        for token in ["", "junk", &format!("{access}x"), &world.root_key, &csrf, &junk] {
            assert_eq!(introspect(world, token).await.json(), json!({"active": false}));
        }
        world.send(Ask::post("/auth/logout").bearer(&access)).await.is(204);
        for token in [&access, &refresh] {
            assert_eq!(introspect(world, token).await.json(), json!({"active": false}));
        }
        assert_eq!(introspect(world, &cookie).await.at("active"), true);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_introspection_needs_an_api_key() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        let browser = world.signed_in(ADA, "cookie").await;
        let ask = || Ask::post("/oauth2/introspect").form(&format!("token={access}"));
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for ask in [
            ask(),
            ask().cookie(&browser.cookie_line()),
            ask().bearer(&access),
            ask().bearer("cka_junk"),
            ask().header("authorization", &basic(&format!("{}:", world.root_key))),
        ] {
            let answer = world.send(ask).await;
            oauth_error(&answer, 401, "invalid_client");
            assert!(answer.header("www-authenticate").is_some());
        }
        let as_password = basic(&format!("shop:{}", world.root_key));
        let answer = world.send(ask().header("authorization", &as_password)).await;
        assert_eq!(answer.ok().at("active"), true);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_introspection_needs_the_scope() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        for (scope, status) in [("keys", 403), ("sessions:read", 200)] {
            let body = json!({"name": "shop", "scopes": [scope]});
            let made = world.admin(Ask::post("/admin/v1/api-keys").json(&body)).await;
            let key = made.is(201).text("secret");
            let ask = Ask::post("/oauth2/introspect").form(&format!("token={access}"));
            let answer = world.send(ask.bearer(&key)).await;
            if status == 403 {
                oauth_error(&answer, 403, "insufficient_scope");
            } else {
                assert_eq!(answer.ok().at("active"), true);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_a_hint_is_only_a_hint() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let refresh = world.tokens(ADA).await.text("refresh_token");
        for hint in ["access_token", "refresh_token", "foo"] {
            let form = format!("token={refresh}&token_type_hint={hint}");
            let ask = Ask::post("/oauth2/introspect").form(&form).bearer(&world.root_key);
            assert_eq!(world.send(ask).await.ok().at("active"), true);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h3_introspection_changes_nothing() {
    on_each_store(&[("refresh.grace", "1s")], async |world| {
        world.user(ADA).await;
        let first = world.tokens(ADA).await.text("refresh_token");
        for _ in 0..20 {
            introspect(world, &first).await;
        }
        let body = json!({"refresh_token": first});
        world.send(Ask::post("/auth/refresh").json(&body)).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h4_revocation_takes_the_whole_session_along() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        for which in ["refresh_token", "access_token"] {
            let tokens = world.tokens(ADA).await;
            let ask = Ask::post("/oauth2/revoke").form(&format!("token={}", tokens.text(which)));
            let answer = world.send(ask.clone()).await;
            assert!(answer.ok().header("cloakroom-durability").is_some());
            let access = tokens.text("access_token");
            assert_eq!(world.alive(&access).await, Err("session_ended".into()));
            assert_eq!(world.send(ask).await.ok().header("cloakroom-durability"), None);
        }
        assert!(world.sessions_of(&ada).await.is_empty());
        world.send(Ask::post("/oauth2/revoke").form("token=junk")).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_endpoint_refreshes_and_f1_a_reuse_is_an_invalid_grant() {
    on_each_store(&[("refresh.grace", "1s")], async |world| {
        let ada = world.user(ADA).await;
        let first = world.tokens(ADA).await.text("refresh_token");
        let form = |token: &str| format!("grant_type=refresh_token&refresh_token={token}&scope=x");
        let answer = world.send(Ask::post("/oauth2/token").form(&form(&first))).await;
        assert_eq!(answer.ok().text("token_type"), "Bearer");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(world.alive(&answer.text("access_token")).await, Ok(()));
        let next = answer.text("refresh_token");
        world.send(Ask::post("/oauth2/token").form(&form(&next))).await.ok();
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let reused = world.send(Ask::post("/oauth2/token").form(&form(&first))).await;
        oauth_error(&reused, 400, "invalid_grant");
        assert_eq!(reused.text("code"), "refresh_token_reused");
        let late = world.send(Ask::post("/oauth2/token").form(&form(&next))).await;
        oauth_error(&late, 400, "invalid_grant");
        assert_eq!(late.text("code"), "session_ended");
        assert_eq!(late.text("reason"), "refresh_reused");
        assert!(world.sessions_of(&ada).await.is_empty());
        let forged = world.send(Ask::post("/oauth2/token").form(&form("ckr_junk"))).await;
        oauth_error(&forged, 400, "invalid_grant");
        assert_eq!(forged.text("code"), "token_invalid");
        assert_eq!(forged.at("reason"), Value::Null);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h5_only_refreshing_is_granted() {
    on_each_store(&[], async |world| {
        for grant in ["password", "client_credentials", "authorization_code", "refresh_token "] {
            let ask = Ask::post("/oauth2/token").form(&format!("grant_type={grant}&x=y"));
            oauth_error(&world.send(ask).await, 400, "unsupported_grant_type");
        }
        for form in ["", "grant_type=", "grant_type=refresh_token&grant_type=refresh_token"] {
            let ask = Ask::post("/oauth2/token").form(form);
            oauth_error(&world.send(ask).await, 400, "invalid_request");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_doubled_empty_and_query_parameters_are_refused() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let token = world.tokens(ADA).await.text("refresh_token");
        for ask in [
            Ask::post("/oauth2/revoke").form(&format!("token={token}&token={token}")),
            Ask::post("/oauth2/revoke").form("token="),
            Ask::post(&format!("/oauth2/revoke?token={token}")).form(""),
            Ask::post(&format!("/oauth2/revoke?token={token}")).form(&format!("token={token}")),
        ] {
            oauth_error(&world.send(ask).await, 400, "invalid_request");
        }
        let json = Ask::post("/oauth2/revoke").json(&json!({"token": token}));
        oauth_error(&world.send(json).await, 415, "invalid_request");
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
        let wrong = world.send(Ask::get("/oauth2/revoke")).await;
        oauth_error(&wrong, 405, "invalid_request");
        assert_eq!(wrong.at("code"), "method_not_allowed");
        assert_eq!(wrong.header("allow"), Some("POST"));
    })
    .await;
}
