//! Signing in and out, guards, tokens.

use http::{Method, Request};
use serde_json::json;

use crate::browser::{Browser, bearer, raw};
use crate::world::worlds;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_signs_in_and_out() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.get("/me").await.code(401, "credentials_required");
        assert!(browser.get("/").await.expect(200).set_cookie().is_none(), "{}", world.name);
        browser.post("/sign-in?user=ada").await.expect(200);
        assert_eq!(browser.get("/me").await.expect(200).body, "ada");
        assert_eq!(browser.get("/guarded").await.expect(200).body, "in");
        let mut thief = browser.clone();
        let out = browser.post("/sign-out").await.expect(200);
        assert!(out.set_cookie().is_some_and(|line| line.contains("Max-Age=0")), "{out:?}");
        thief.get("/me").await.code(401, "session_ended");
        browser.get("/me").await.code(401, "credentials_required");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_is_new_at_sign_in_and_a_visitors_data_comes_along() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.put("/data/cart", "[1]").await.expect(200);
        let before = browser.cookie.clone().expect("a visitor has a session now");
        let told = browser.get("/maybe").await.expect(200).json();
        assert_eq!(told, json!({"session": true, "user": null}), "{}", world.name);
        browser.get("/me").await.code(401, "credentials_required");
        browser.post("/sign-in?user=ada").await.expect(200);
        assert_ne!(browser.cookie.as_deref(), Some(before.as_str()));
        assert_eq!(browser.get("/data/cart").await.expect(200).json(), json!([1]));
        // Whoever planted the visitor's session has nothing.
        let mut planted = browser.with_cookie(&before);
        planted.get("/me").await.code(401, "session_ended");
        // A second sign-in ends the first one's session too.
        let first = browser.cookie.clone().expect("signed in");
        browser.post("/sign-in?user=ada").await.expect(200);
        browser.with_cookie(&first).get("/me").await.code(401, "session_ended");
        assert_eq!(browser.get("/data/cart").await.expect(200).json(), json!([1]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everywhere_means_everywhere() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        let mut other = browser.clone();
        browser.post("/sign-in?user=ada").await.expect(200);
        other.post("/sign-in?user=ada").await.expect(200);
        let tokens = raw(&world.app(), Request::post("/tokens?user=ada"), "").await.expect(200);
        let access = tokens.json()["access_token"].as_str().expect("a token").to_owned();
        let ask = || bearer("/me", Method::GET, &access);
        raw(&world.app(), ask(), "").await.expect(200);
        assert_eq!(browser.post("/everywhere").await.expect(200).body, "3", "{}", world.name);
        other.get("/me").await.code(401, "session_ended");
        browser.get("/me").await.code(401, "credentials_required");
        raw(&world.app(), ask(), "").await.code(401, "session_ended");
        other.cookie = None;
        other.post("/sign-in?user=ada").await.expect(200);
        other.get("/me").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_told_apart() {
    for world in worlds().await {
        let app = world.app();
        let path = "/tokens?user=ada&role=admin";
        let tokens = raw(&app, Request::post(path), "").await.expect(200).json();
        let text = |name: &str| tokens[name].as_str().expect("a token").to_owned();
        let (access, refresh) = (text("access_token"), text("refresh_token"));
        assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(900)));
        let with = |path: &str, token: &str| bearer(path, Method::GET, token);
        assert_eq!(raw(&app, with("/me", &access), "").await.expect(200).body, "ada");
        assert_eq!(raw(&app, with("/role", &access), "").await.expect(200).body, "admin");
        raw(&app, with("/admin", &access), "").await.expect(200);
        raw(&app, with("/me", &refresh), "").await.code(401, "token_wrong_type");
        raw(&app, with("/me", "junk"), "").await.code(401, "token_invalid");
        let tampered = format!("{}AAAA", &access[..access.len() - 4]);
        raw(&app, with("/me", &tampered), "").await.code(401, "token_invalid");
        let refuse = async |token: &str| raw(&app, Request::post("/refresh"), token).await;
        refuse("").await.code(400, "refresh_token_required");
        refuse("junk").await.code(401, "token_invalid");
        refuse(&access).await.code(401, "token_wrong_type");
        // The expired token that a client still sends along doesn't matter.
        let asked = bearer("/refresh", Method::POST, "junk");
        let renewed = raw(&app, asked, &refresh).await.expect(200).json();
        let access = renewed["access_token"].as_str().expect("a token").to_owned();
        raw(&app, with("/me", &access), "").await.expect(200);
        raw(&app, bearer("/sign-out", Method::POST, &access), "").await.expect(200);
        raw(&app, with("/me", &access), "").await.code(401, "session_ended");
        let over = renewed["refresh_token"].as_str().expect("a token").to_owned();
        refuse(&over).await.code(401, "session_ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_let_in_whom_they_should() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        for path in ["/guarded", "/admin", "/fresh"] {
            browser.get(path).await.code(401, "credentials_required");
        }
        browser.post("/sign-in?user=ada&role=user").await.expect(200);
        browser.get("/admin").await.code(403, "insufficient_claims");
        browser.get("/guarded").await.expect(200);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let stale = browser.get("/fresh").await.code(401, "reauthentication_required");
        let challenge = stale.headers.get("www-authenticate").expect("a challenge");
        assert_eq!(challenge, "Bearer error=\"insufficient_user_authentication\"");
        browser.post("/sign-in?user=ada&role=admin").await.expect(200);
        browser.get("/admin").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_sent_to_the_sign_in_page_and_told_where_to_come_back() {
    let world = crate::world::World::memory().await;
    let mut browser = Browser::new(world.app());
    let page = Request::get("/me?x=1&y=/").header("accept", "text/html,*/*");
    let sent = browser.send(page, "").await.expect(302);
    assert_eq!(sent.headers["location"], "/login?return_to=%2Fme%3Fx%3D1%26y%3D%2F");
    browser.get("/me").await.code(401, "credentials_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_its_limit() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.get("/limited").await.expect(200);
        browser.post("/sign-in?user=ada").await.expect(200);
        let first = browser.get("/limited").await.expect(200);
        assert_eq!(first.headers["ratelimit-policy"], "\"limited\";q=2;w=60");
        browser.get("/limited").await.expect(200);
        let refused = browser.get("/limited").await.code(429, "rate_limited");
        assert_eq!(refused.headers["retry-after"], "30");
        // The layer's own limit, 100 in 15 minutes, counts everything that has a session.
        let layer = world.cloakroom.layer().origin(crate::world::ORIGIN).expect("an origin");
        let mut other = Browser::new(world.app_behind(layer));
        other.post("/sign-in?user=ada").await.expect(200);
        let mut answered = 0;
        while other.get("/").await.status == 200 {
            answered += 1;
        }
        assert_eq!(answered, 100, "{}", world.name);
        other.get("/").await.code(429, "rate_limited");
        browser.get("/").await.expect(200);
    }
}
