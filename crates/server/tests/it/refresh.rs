//! Section 4: rotation, retries that are no theft, reuse that is, and sliding a cookie.

use serde_json::{Value, json};

use crate::http::{Answer, Ask};
use crate::world::{ADA, BOB, World, on_each_store};

/// No tolerance but the one that a test asks for.
const STRICT: &[(&str, &str)] = &[("refresh.grace", "1s")];

fn refresh(token: &str) -> Ask {
    Ask::post("/auth/refresh").json(&json!({"refresh_token": token}))
}

async fn grace_passes() {
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
}

async fn rotate(world: &World, token: &str) -> Answer {
    let answer = world.send(refresh(token)).await;
    answer.ok();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refresh_gives_new_tokens_and_a_retry_the_same_successor() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let first = world.tokens(ADA).await.text("refresh_token");
        let answers = [rotate(world, &first).await, rotate(world, &first).await];
        let [second, again] = &answers;
        assert_ne!(second.text("refresh_token"), first);
        assert_eq!(second.text("refresh_token"), again.text("refresh_token"));
        assert_eq!(second.text("token_type"), "Bearer");
        let third = rotate(world, &second.text("refresh_token")).await;
        assert_eq!(third.at("session.id"), second.at("session.id"));
        assert_eq!(world.alive(&third.text("access_token")).await, Ok(()));
        assert!(third.header("date").is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_reuse_outside_the_tolerance_ends_the_session() {
    on_each_store(STRICT, async |world| {
        let ada = world.user(ADA).await;
        let first = world.tokens(ADA).await;
        let token = first.text("refresh_token");
        let second = rotate(world, &token).await;
        let third = rotate(world, &second.text("refresh_token")).await;
        grace_passes().await;
        world.send(refresh(&token)).await.refused(401, "refresh_token_reused");
        assert!(world.sessions_of(&ada).await.is_empty());
        let dead = world.send(refresh(&third.text("refresh_token"))).await;
        assert_eq!(dead.refused(401, "session_ended").text("reason"), "refresh_reused");
        let access = third.text("access_token");
        assert_eq!(world.alive(&access).await, Err("session_ended".into()));
        // A second session of hers was never in danger.
        world.tokens(ADA).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f5_an_idempotency_key_makes_a_late_retry_safe() {
    on_each_store(STRICT, async |world| {
        world.user(ADA).await;
        let first = world.tokens(ADA).await.text("refresh_token");
        let keyed = |key: &str| refresh(&first).header("idempotency-key", key);
        let (key, other) = ("0123456789abcdef", "fedcba9876543210");
        let lost = world.send(keyed(key)).await;
        grace_passes().await;
        let again = world.send(keyed(key)).await;
        assert_eq!(again.ok().text("refresh_token"), lost.text("refresh_token"));
        world.send(keyed(other)).await.refused(401, "refresh_token_reused");
        for bad in ["short", &"x".repeat(129), "0123456789 abcdef", "0123456789äbcdef"] {
            world.send(keyed(bad)).await.refused(400, "malformed_request");
        }
        let twice = keyed(key).header("idempotency-key", key);
        world.send(twice).await.refused(400, "malformed_request");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_a_forged_token_is_no_reuse() {
    on_each_store(STRICT, async |world| {
        let ada = world.user(ADA).await;
        let first = world.tokens(ADA).await.text("refresh_token");
        let second = rotate(world, &first).await.text("refresh_token");
        grace_passes().await;
        for at in (4..second.len()).step_by(7) {
            let mut forged = second.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("ASCII");
            let code = world.send(refresh(&forged)).await.code();
            assert_eq!(code, "token_invalid", "{at}");
        }
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
        rotate(world, &second).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f7_a_refresh_cookie_never_becomes_a_token_in_a_body() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let mut browser = world.signed_in(ADA, "split").await;
        let cookie = browser.jar["refresh"].clone();
        for ask in [
            refresh(&cookie),
            Ask::post("/oauth2/token")
                .form(&format!("grant_type=refresh_token&refresh_token={cookie}")),
        ] {
            let answer = world.send(ask).await;
            assert!(answer.status >= 400, "{answer:?}");
            assert!(!String::from_utf8_lossy(&answer.body).contains("ckr_"));
        }
        let widened = Ask::post("/auth/refresh").json(&json!({"delivery": "bearer"}));
        browser.send(widened).await.refused(422, "unknown_member");
        let asked = browser.send(Ask::post("/auth/refresh?delivery=bearer")).await;
        assert_eq!(asked.ok().at("refresh_token"), Value::Null);
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f8_two_refresh_tokens_are_refused_and_neither_is_touched() {
    on_each_store(STRICT, async |world| {
        let ada = world.user(ADA).await;
        let bob = world.user(BOB).await;
        let mut browser = world.signed_in(ADA, "split").await;
        let token = world.tokens(BOB).await.text("refresh_token");
        browser.send(refresh(&token)).await.refused(400, "refresh_token_required");
        let sessions = (world.sessions_of(&ada).await.len(), world.sessions_of(&bob).await.len());
        assert_eq!(sessions, (1, 1));
        rotate(world, &token).await;
        let none = world.send(Ask::post("/auth/refresh").json(&json!({}))).await;
        none.refused(400, "refresh_token_required");
        world.send(Ask::post("/auth/refresh")).await.refused(400, "refresh_token_required");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_page_refreshes_with_its_cookie_and_a_young_one_stays() {
    on_each_store(STRICT, async |world| {
        world.user(ADA).await;
        let mut browser = world.signed_in(ADA, "split").await;
        let cookie = browser.jar["refresh"].clone();
        // The page is reloaded: it has nothing but the jar.
        browser.csrf = None;
        browser.send(Ask::get("/auth/csrf-token")).await.ok();
        let young = browser.send(Ask::post("/auth/refresh")).await;
        assert_eq!(young.ok().set_cookie("refresh"), Some(cookie.clone()));
        assert_eq!(world.alive(&young.text("access_token")).await, Ok(()));
        grace_passes().await;
        let rotated = browser.send(Ask::post("/auth/refresh").json(&json!({}))).await;
        assert_ne!(rotated.ok().set_cookie("refresh"), Some(cookie));
        assert_eq!(rotated.at("refresh_token"), Value::Null);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_cookie_slides_and_gets_a_fresh_csrf_token() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let mut browser = world.signed_in(ADA, "cookie").await;
        let token = browser.csrf.clone();
        let answer = browser.send(Ask::post("/auth/refresh")).await;
        assert_eq!(answer.ok().at("access_token"), Value::Null);
        assert_ne!(Some(answer.text("csrf_token")), token);
        assert_eq!(answer.at("session.current"), true);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_parallel_refreshes_agree_on_one_successor() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let first = world.tokens(ADA).await.text("refresh_token");
        let public = world.public;
        let tries: Vec<_> = (0..24)
            .map(|_| {
                let ask = refresh(&first);
                tokio::spawn(async move { crate::http::send(public, &ask).await })
            })
            .collect();
        let mut successors = std::collections::BTreeSet::new();
        for one in tries {
            successors.insert(one.await.expect("no panic").ok().text("refresh_token"));
        }
        assert_eq!(successors.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f12_a_refresh_reads_the_claims_afresh() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let first = world.tokens(ADA).await.text("refresh_token");
        let path = format!("/admin/v1/users/{}", ada.id.as_str());
        let patch = Ask::new("PATCH", &path).json(&json!({"claims": {"role": "admin"}}));
        world.admin(patch).await.ok();
        let claims = claims_of(&rotate(world, &first).await.text("access_token"));
        assert_eq!((&claims["role"], &claims["email"]), (&json!("admin"), &json!(ADA)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reauthentication_voids_earlier_credentials_without_alarm() {
    on_each_store(STRICT, async |world| {
        let ada = world.user(ADA).await;
        let before = world.tokens(ADA).await;
        let access = before.text("access_token");
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let ask = Ask::post("/auth/reauthenticate").bearer(&access);
        let body = json!({"password": crate::world::PASSWORD});
        let after = world.send(ask.clone().json(&body)).await;
        after.ok();
        assert!(after.text("session.auth_time") > before.text("session.auth_time"));
        assert!(after.text("session.expires_at") > before.text("session.expires_at"));
        let old = world.send(refresh(&before.text("refresh_token"))).await;
        old.refused(401, "token_invalid");
        assert_eq!(world.alive(&access).await, Err("token_invalid".into()));
        assert_eq!(world.alive(&after.text("access_token")).await, Ok(()));
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
        let wrong = json!({"password": "not the right password"});
        let fresh = after.text("access_token");
        let ask = Ask::post("/auth/reauthenticate").bearer(&fresh).json(&wrong);
        world.send(ask).await.refused(401, "credentials_invalid");
        assert_eq!(world.alive(&fresh).await, Ok(()));
    })
    .await;
}

/// The claims of a token, unverified.
fn claims_of(token: &str) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let payload = token.split('.').nth(1).expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}
