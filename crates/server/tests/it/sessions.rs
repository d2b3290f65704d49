//! Section 3: seeing one's sessions and ending one of them; who counts as signed in.

use serde_json::{Value, json};

use crate::http::{Ask, Browser};
use crate::world::{ADA, BOB, PASSWORD, World, on_each_store};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_names_its_user() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let mut browser = world.signed_in(ADA, "cookie").await;
        let answer = browser.send(Ask::get("/auth/session")).await;
        assert_eq!(answer.ok().text("user.id"), ada.id.as_str());
        assert_eq!(answer.text("user.identifier"), ADA);
        assert_eq!(answer.at("session.current"), true);
        let head = browser.send(Ask::new("HEAD", "/auth/session")).await;
        assert!(head.ok().body.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_has_ones_own_live_sessions_the_latest_first() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        world.user(BOB).await;
        world.tokens(BOB).await.ok();
        let first = world.tokens(ADA).await.text("session.id");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let mut browser = world.signed_in(ADA, "cookie").await;
        let listed = browser.send(Ask::get("/auth/sessions")).await;
        assert_eq!(listed.ok().json().as_object().expect("an object").len(), 1);
        let sessions = listed.at("sessions");
        assert_eq!(sessions.as_array().expect("an array").len(), 2);
        assert_eq!(
            (&sessions[0]["current"], &sessions[1]["current"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(sessions[1]["id"], first);
        let cookie = browser.jar["session"].clone();
        assert!(!String::from_utf8_lossy(&listed.body).contains(&cookie[..12]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_one_ends_ones_own_sessions_and_no_others() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        world.user(BOB).await;
        let adas = world.tokens(ADA).await;
        let mut bob = world.signed_in(BOB, "cookie").await;
        let other = Ask::delete(&format!("/auth/sessions/{}", adas.text("session.id")));
        let theirs = bob.send(other).await;
        let unknown = bob.send(Ask::delete("/auth/sessions/01ARZ3NDEKTSV4RRFFQ69G5FAV")).await;
        let garbled = bob.send(Ask::delete("/auth/sessions/..%2f")).await;
        for answer in [&theirs, &unknown, &garbled] {
            answer.refused(404, "not_found");
        }
        let strip = |body: Value| {
            let mut body = body;
            body["request_id"] = Value::Null;
            body
        };
        assert_eq!(strip(theirs.json()), strip(unknown.json()));
        assert_eq!(theirs.body.len(), unknown.body.len());
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
        // Her own she can end, from another device of hers.
        let mut desk = world.signed_in(ADA, "cookie").await;
        let own = Ask::delete(&format!("/auth/sessions/{}", adas.text("session.id")));
        let ended = desk.send(own).await;
        assert!(ended.is(204).header("cloakroom-durability").is_some());
        let dead = Ask::get("/auth/session").bearer(&adas.text("access_token"));
        let dead = world.send(dead).await;
        assert_eq!(dead.refused(401, "session_ended").text("reason"), "signed_out_elsewhere");
        desk.send(Ask::get("/auth/session")).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_the_current_session_clears_its_cookie() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let mut browser = world.signed_in(ADA, "cookie").await;
        let sid = browser.send(Ask::get("/auth/session")).await.text("session.id");
        browser.send(Ask::delete(&format!("/auth/sessions/{sid}"))).await.is(204);
        assert!(!browser.jar.contains_key("session"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_no_credential_stands_in_for_another() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let tokens = world.tokens(ADA).await;
        let (cookie, csrf) = (browser.jar["session"].clone(), browser.csrf.clone().expect("one"));
        let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
        let sid = tokens.text("session.id");
        let key = world.root_key.clone();
        let refused = async |ask: Ask, what: &str| {
            let answer = world.send(ask).await;
            assert_eq!(answer.status, 401, "{what}");
            let code = answer.code();
            assert!(["token_wrong_type", "token_invalid"].contains(&&*code), "{what}: {code}");
        };
        for other in [&cookie, &refresh, &key, &csrf, &sid, &format!("cks_{sid}")] {
            refused(Ask::get("/auth/session").bearer(other), other).await;
        }
        for other in [&access, &refresh, &key, &csrf, &sid, &format!("cks_{sid}")] {
            let ask = Ask::get("/auth/session").cookie(&format!("session={other}"));
            refused(ask, other).await;
        }
        for other in [&access, &cookie, &key, &csrf, &sid] {
            let body = json!({"refresh_token": other});
            refused(Ask::post("/auth/refresh").json(&body), other).await;
        }
        world.send(Ask::get("/auth/session").bearer(&access)).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_credentials_count_only_where_they_belong() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        for ask in [
            Ask::get(&format!("/auth/session?access_token={access}")),
            Ask::get(&format!("/auth/session?session={access}")),
            Ask::get("/auth/session").header("x-session", &access),
            Ask::get("/auth/session").form(&format!("access_token={access}")),
        ] {
            let answer = world.send(ask).await;
            answer.refused(401, "credentials_required");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_a_bearer_token_decides_and_nothing_falls_back() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let line = browser.cookie_line();
        for value in ["Bearer junk", "Bearer", "Bearer ", "bearer x.y.z", "Bearer\tx"] {
            let ask = Ask::post("/auth/logout/all").cookie(&line).header("authorization", value);
            let answer = world.send(ask).await;
            assert_eq!(answer.status, 401, "{value}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        }
        let twice = Ask::post("/auth/logout/all").cookie(&line).bearer("x").bearer("y");
        world.send(twice).await.refused(401, "token_invalid");
        for value in ["Basic eDp5", "Digest x", "x"] {
            let ask = Ask::post("/auth/logout/all").cookie(&line).header("authorization", value);
            world.send(ask).await.refused(403, "csrf_failed");
        }
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
        // A live token beside a dead cookie is a live token.
        let access = world.tokens(ADA).await.text("access_token");
        let ask = Ask::get("/auth/session").cookie("session=junk").bearer(&access);
        world.send(ask).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anonymous_session_is_shown_and_is_nobody() {
    on_each_store(&[], async |world| {
        let body = json!({"subject": null, "delivery": "cookie"});
        let opened = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
        let cookie = format!("session={}", opened.is(201).text("session_token"));
        let shown = world.send(Ask::get("/auth/session").cookie(&cookie)).await;
        assert_eq!(shown.ok().at("session.subject"), Value::Null);
        assert_eq!(shown.at("user"), Value::Null);
        for ask in [
            Ask::get("/auth/sessions"),
            Ask::get("/auth/verify"),
            Ask::post("/auth/refresh").header("x-csrf-token", &opened.text("csrf_token")),
            Ask::post("/auth/logout/all").header("x-csrf-token", &opened.text("csrf_token")),
        ] {
            let ask = ask.cookie(&cookie).header("sec-fetch-site", "same-origin");
            world.send(ask).await.refused(401, "credentials_required");
        }
        let token = world.send(Ask::get("/auth/csrf-token").cookie(&cookie)).await;
        assert!(token.ok().all("set-cookie").is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_count_by_session_and_by_network() {
    let settings = [("limit.session", "3/15m"), ("limit.network", "6/1m")];
    on_each_store(&settings, async |world| {
        world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        let list = || Ask::get("/auth/sessions").bearer(&access);
        let first = world.send(list()).await;
        assert_eq!(first.ok().header("ratelimit-policy"), Some("\"session\";q=3;w=900"));
        assert_eq!(first.header("ratelimit"), Some("\"session\";r=2;t=300"));
        world.send(list()).await.ok();
        world.send(list()).await.ok();
        let over = world.send(list()).await;
        over.refused(429, "rate_limited");
        assert!(over.header("retry-after").is_some());
        assert!(over.header("ratelimit").expect("said").starts_with("\"session\";r=0;"));
        // Another session of the same user has a quota of its own, and looking at oneself another.
        let other = world.tokens(ADA).await.text("access_token");
        world.send(Ask::get("/auth/sessions").bearer(&other)).await.ok();
        let look = world.send(Ask::get("/auth/session").bearer(&access)).await;
        assert!(look.ok().header("ratelimit-policy").expect("said").starts_with("\"verify\""));
        for _ in 0..4 {
            assert_eq!(world.send(Ask::get("/auth/sessions")).await.status, 401);
        }
        let over = world.send(Ask::get("/auth/sessions").bearer("junk")).await;
        over.refused(429, "rate_limited");
        // Without credentials a gateway's question costs nothing and is not counted.
        assert_eq!(world.send(Ask::get("/auth/verify")).await.status, 401);
        world.send(Ask::get("/auth/session").bearer(&access)).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_superseded_refresh_token_spends_nothing_of_its_holders() {
    let settings = [("limit.session", "4/15m"), ("limit.network", "12/1m")];
    on_each_store(&settings, async |world| {
        world.user(ADA).await;
        let old = world.tokens(ADA).await;
        let proof = Ask::post("/auth/reauthenticate").bearer(&old.text("access_token"));
        let fresh = world.send(proof.json(&json!({"password": PASSWORD}))).await;
        let refresh =
            |token: String| Ask::post("/auth/refresh").json(&json!({"refresh_token": token}));
        for _ in 0..8 {
            world.send(refresh(old.text("refresh_token"))).await.refused(401, "token_invalid");
        }
        world.send(refresh(fresh.ok().text("refresh_token"))).await.ok();
        // It is the network of whoever asks that it costs.
        for _ in 0..8 {
            world.send(refresh(old.text("refresh_token"))).await;
        }
        world.send(refresh(old.text("refresh_token"))).await.refused(429, "rate_limited");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_spent_its_quota_can_be_signed_out_all_the_same() {
    on_each_store(&[("limit.session", "2/15m")], async |world| {
        world.user(ADA).await;
        let spend = async |browser: &mut Browser| {
            while browser.send(Ask::get("/auth/sessions")).await.status != 429 {}
        };
        let mut browser = world.signed_in(ADA, "cookie").await;
        spend(&mut browser).await;
        browser.send(Ask::post("/auth/logout/all")).await.ok();
        let mut browser = world.signed_in(ADA, "cookie").await;
        spend(&mut browser).await;
        browser.send(Ask::post("/auth/logout")).await.is(204);
        assert_eq!(browser.send(Ask::get("/auth/session")).await.status, 401);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_a_restart() {
    let world = World::start(&[]).await;
    world.user(ADA).await;
    let tokens = world.tokens(ADA).await;
    let mut browser = world.signed_in(ADA, "cookie").await;
    let directory = world.stop().await;
    let world = World::start_in(directory, &[]).await;
    assert_eq!(world.alive(&tokens.text("access_token")).await, Ok(()));
    let line = browser.cookie_line();
    browser = world.browser();
    let answer = browser.send(Ask::get("/auth/session").cookie(&line)).await;
    assert_eq!(answer.ok().text("user.identifier"), ADA);
    world.stop().await;
}
