//! Section 3: signing out, here and everywhere.

use serde_json::json;

use crate::http::Ask;
use crate::world::{ADA, PASSWORD, on_each_store};

#[tokio::test(flavor = "multi_thread")]
async fn a6_logout_ends_every_form_of_the_session() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let tokens = world.tokens(ADA).await;
        let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
        let out = world.send(Ask::post("/auth/logout").bearer(&access)).await;
        out.is(204);
        assert!(["durable", "local"].contains(&out.header("cloakroom-durability").expect("said")));
        assert!(out.all("set-cookie").is_empty() && out.body.is_empty());
        assert_eq!(world.alive(&access).await, Err("session_ended".into()));
        let again = Ask::post("/auth/refresh").json(&json!({"refresh_token": refresh}));
        let dead = world.send(again).await;
        assert_eq!(dead.refused(401, "session_ended").text("reason"), "signed_out");
        // A second time there is nothing to end.
        let twice = world.send(Ask::post("/auth/logout").bearer(&access)).await;
        assert_eq!(twice.is(204).header("cloakroom-durability"), None);
        assert!(world.sessions_of(&ada).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_by_cookie_clears_it_with_the_flags_that_set_it() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        for (delivery, name, line) in [
            ("cookie", "session", "session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"),
            ("split", "refresh", "refresh=; Path=/auth; Max-Age=0; HttpOnly; SameSite=Strict"),
        ] {
            let mut browser = world.signed_in(ADA, delivery).await;
            let out = browser.send(Ask::post("/auth/logout")).await;
            assert!(out.is(204).all("set-cookie").contains(&line), "{out:?}");
            assert!(out.header("cloakroom-durability").is_some());
            assert_eq!(out.header("clear-site-data"), Some("\"cache\""));
            assert!(!browser.jar.contains_key(name));
            assert!(world.sessions_of(&ada).await.is_empty());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_takes_a_refresh_token_in_the_body() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let token = world.tokens(ADA).await.text("refresh_token");
        let body = json!({"refresh_token": token});
        world.send(Ask::post("/auth/logout").json(&body)).await.is(204);
        assert!(world.sessions_of(&ada).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_or_forged_credential_is_cleared_and_ends_nothing() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        world.tokens(ADA).await.ok();
        for cookie in ["session=junk", "session=a; session=b", "refresh=junk"] {
            let out = world.send(Ask::post("/auth/logout").cookie(cookie)).await;
            assert_eq!(out.is(204).header("cloakroom-durability"), None);
            assert!(out.all("set-cookie").iter().all(|line| line.contains("Max-Age=0")));
            assert_eq!(out.all("set-cookie").len(), 1, "{cookie}");
        }
        world.send(Ask::post("/auth/logout").bearer("junk")).await.is(204);
        world.send(Ask::post("/auth/logout")).await.is(204);
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_access_token_still_ends_its_session() {
    let settings = [("token.access_ttl", "1s")];
    on_each_store(&settings, async |world| {
        let ada = world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        // One second, and the five that clocks may be apart.
        tokio::time::sleep(std::time::Duration::from_millis(7100)).await;
        assert_eq!(world.alive(&access).await, Err("token_expired".into()));
        world.send(Ask::post("/auth/logout").bearer(&access)).await.is(204);
        assert!(world.sessions_of(&ada).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_everywhere_ends_all_or_all_others() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let mut desk = world.signed_in(ADA, "cookie").await;
        let phone = world.tokens(ADA).await;
        let keep = Ask::post("/auth/logout/all").json(&json!({"keep_current": true}));
        let kept = desk.send(keep).await;
        assert_eq!(kept.ok().at("revoked"), 1);
        assert!(kept.header("cloakroom-durability").is_some());
        assert!(kept.all("set-cookie").is_empty());
        desk.send(Ask::get("/auth/session")).await.ok();
        let access = phone.text("access_token");
        assert_eq!(world.alive(&access).await, Err("session_ended".into()));
        let dead = Ask::get("/auth/session").bearer(&access);
        assert_eq!(world.send(dead).await.text("reason"), "signed_out_everywhere");
        world.tokens(ADA).await.ok();
        assert_eq!(desk.send(Ask::post("/auth/logout/all")).await.ok().at("revoked"), 2);
        assert!(!desk.jar.contains_key("session"));
        assert!(world.sessions_of(&ada).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kept_sessions_earlier_access_tokens_are_over() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let tokens = world.tokens(ADA).await;
        let access = tokens.text("access_token");
        let keep = Ask::post("/auth/logout/all").json(&json!({"keep_current": true}));
        assert_eq!(world.send(keep.bearer(&access)).await.ok().at("revoked"), 0);
        assert_eq!(world.alive(&access).await, Err("token_expired".into()));
        let body = json!({"refresh_token": tokens.text("refresh_token")});
        let fresh = world.send(Ask::post("/auth/refresh").json(&body)).await;
        assert_eq!(world.alive(&fresh.ok().text("access_token")).await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_a_new_password_ends_the_others_and_rotates_the_current() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let mut desk = world.signed_in(ADA, "cookie").await;
        let old_cookie = desk.jar["session"].clone();
        let phone = world.tokens(ADA).await.text("access_token");
        let change = |current: &str, new: &str| {
            let body = json!({"current_password": current, "new_password": new});
            Ask::post("/auth/password").json(&body)
        };
        let new = "a quite different sentence";
        desk.send(change("not the right password", new)).await.refused(401, "credentials_invalid");
        desk.send(change(PASSWORD, "short")).await.refused(422, "password_rejected");
        assert_eq!(world.sessions_of(&ada).await.len(), 2);
        desk.send(change(PASSWORD, new)).await.ok();
        assert_ne!(desk.jar["session"], old_cookie);
        desk.send(Ask::get("/auth/session")).await.ok();
        let ask = Ask::get("/auth/session").cookie(&format!("session={old_cookie}"));
        world.send(ask).await.refused(401, "token_invalid");
        let ask = Ask::get("/auth/session").bearer(&phone);
        assert_eq!(
            world.send(ask).await.refused(401, "session_ended").text("reason"),
            "password_changed"
        );
        world.send(crate::world::login(ADA, "cookie")).await.refused(401, "credentials_invalid");
        let body = json!({"identifier": ADA, "password": new});
        world.send(Ask::post("/auth/login").json(&body)).await.ok();
    })
    .await;
}
