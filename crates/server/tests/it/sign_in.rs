//! Section 3: signing in, each delivery, and what ends with it.

use serde_json::{Value, json};

use crate::http::{Ask, send};
use crate::world::{ADA, BOB, PASSWORD, World, login, on_each_store};

#[tokio::test(flavor = "multi_thread")]
async fn each_delivery_puts_each_credential_in_its_place() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let cookie = world.send(login(ADA, "cookie")).await;
        assert_eq!(members(&cookie.ok().json()), ["csrf_token", "session"]);
        let value = cookie.set_cookie("session").expect("a session cookie");
        assert!(value.starts_with("cks_"));
        let bearer = world.send(login(ADA, "bearer")).await;
        let expected =
            ["access_token", "expires_in", "refresh_expires_in", "refresh_token", "session"];
        assert_eq!(members(&bearer.ok().json())[..5], expected);
        assert_eq!(bearer.text("token_type"), "Bearer");
        let left = bearer.at("expires_in").as_u64().expect("seconds");
        assert!((890..=900).contains(&left), "{left}");
        let left = bearer.at("refresh_expires_in").as_u64().expect("seconds");
        assert!((604_790..=604_800).contains(&left), "{left}");
        assert!(bearer.text("refresh_token").starts_with("ckr_"));
        assert!(bearer.all("set-cookie").is_empty());
        let split = world.send(login(ADA, "split")).await;
        assert_eq!(split.ok().at("refresh_token"), Value::Null);
        assert!(split.set_cookie("refresh").expect("a refresh cookie").starts_with("ckr_"));
        assert!(!split.text("csrf_token").is_empty() && !split.text("access_token").is_empty());
        for answer in [&cookie, &bearer, &split] {
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.at("session.subject"), ada.id.as_str());
        }
        assert_eq!(world.sessions_of(&ada).await.len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shows_itself_as_the_contract_has_it() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let body = json!({"identifier": ADA, "password": PASSWORD, "delivery": "bearer",
            "remember": true, "label": "The <b>desk</b>"});
        let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0";
        let ask = Ask::post("/auth/login").json(&body).header("user-agent", agent);
        let answer = world.send(ask).await;
        let session = answer.ok().at("session");
        let names: Vec<&str> =
            session.as_object().expect("an object").keys().map(|k| &**k).collect();
        let mut expected = vec![
            "id",
            "subject",
            "created_at",
            "last_seen_at",
            "auth_time",
            "idle_expires_at",
            "expires_at",
            "amr",
            "acr",
            "delivery",
            "claims",
            "client",
            "current",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(session["claims"], json!({"email": ADA, "role": "user"}));
        assert_eq!((&session["amr"], &session["acr"]), (&json!(["pwd"]), &json!("aal1")));
        assert_eq!(session["current"], true);
        let client = &session["client"];
        assert_eq!(client["ip"], "127.0.0.1");
        assert_eq!(client["browser"], "Firefox 141");
        assert_eq!((&client["os"], &client["device"]), (&json!("Linux"), &json!("desktop")));
        assert_eq!(client["label"], "The <b>desk</b>");
        let text = String::from_utf8(answer.body.clone()).expect("UTF-8");
        let order = ["\"id\"", "\"subject\"", "\"created_at\"", "\"client\"", "\"current\""];
        let places: Vec<_> = order.iter().map(|name| text.find(name)).collect();
        assert!(places.is_sorted() && places[0].is_some(), "{text}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j1_unknown_wrong_and_disabled_get_one_answer() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let bob = world.user(BOB).await;
        let disable = Ask::new("PATCH", &format!("/admin/v1/users/{}", bob.id.as_str()));
        world.admin(disable.json(&json!({"disabled": true}))).await.ok();
        let wrong = json!({"identifier": ADA, "password": "not the right password"});
        let unknown = json!({"identifier": "nobody@example.com", "password": PASSWORD});
        let mut seen = Vec::new();
        for ask in [
            Ask::post("/auth/login").json(&wrong),
            Ask::post("/auth/login").json(&unknown),
            login(BOB, "cookie"),
        ] {
            let answer = world.send(ask).await;
            answer.refused(401, "credentials_invalid");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            let mut body = answer.json();
            body["request_id"] = Value::Null;
            let names: Vec<String> = answer.headers.iter().map(|(n, _)| n.clone()).collect();
            seen.push((body, names, answer.body.len()));
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a_made_up_session_is_never_adopted() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let made_up = format!("cks_{}", "A".repeat(92));
        let mut browser = world.browser();
        browser.send(Ask::get("/auth/csrf-token")).await.ok();
        browser.jar.insert("session".into(), made_up.clone());
        let answer = browser.send(login(ADA, "cookie")).await;
        assert_ne!(answer.ok().set_cookie("session"), Some(made_up.clone()));
        let dead =
            world.send(Ask::get("/auth/session").cookie(&format!("session={made_up}"))).await;
        dead.refused(401, "token_invalid");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_whatever_a_sign_in_carries_ends() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        world.user(BOB).await;
        for (planted, delivery) in
            [("cookie", "cookie"), ("split", "cookie"), ("cookie", "bearer"), ("cookie", "split")]
        {
            let mut victim = world.signed_in(ADA, planted).await;
            assert_eq!(world.sessions_of(&ada).await.len(), 1);
            let stolen = victim.clone();
            let answer = victim.send(login(BOB, delivery)).await;
            answer.ok();
            assert!(answer.header("cloakroom-durability").is_some());
            assert!(world.sessions_of(&ada).await.is_empty(), "{planted} then {delivery}");
            let mut thief = stolen;
            let line = thief.cookie_line();
            thief.csrf = None;
            assert_ne!(thief.send(Ask::get("/auth/session")).await.status, 200, "{line}");
        }
        // And one that is carried as a bearer token.
        let tokens = world.tokens(ADA).await;
        let access = tokens.text("access_token");
        world.send(login(BOB, "bearer").bearer(&access)).await.ok();
        assert_eq!(world.alive(&access).await, Err("session_ended".into()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_sign_in_takes_known_members_only() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let with = |name: &str, value: Value| {
            let mut body = json!({"identifier": ADA, "password": PASSWORD});
            body[name] = value;
            Ask::post("/auth/login").json(&body)
        };
        let unknown = world.send(with("is_admin", json!("secret-value"))).await;
        unknown.refused(422, "unknown_member");
        assert_eq!(unknown.text("member"), "is_admin");
        assert!(!String::from_utf8_lossy(&unknown.body).contains("secret-value"));
        for (name, value) in [
            ("identifier", json!(7)),
            ("identifier", json!(null)),
            ("password", json!(["x"])),
            ("delivery", json!("carrier pigeon")),
            ("remember", json!("yes")),
            ("label", json!({})),
            ("label", json!("x".repeat(10 * 1024))),
            ("label", json!("a\u{0}b")),
        ] {
            let answer = world.send(with(name, value)).await;
            answer.refused(422, "invalid_member");
            assert_eq!(answer.text("member"), name);
        }
        let missing = world.send(Ask::post("/auth/login").json(&json!({"identifier": ADA}))).await;
        assert_eq!(missing.refused(422, "invalid_member").text("member"), "password");
        assert!(world.sessions_of(&ada).await.is_empty());
        world.send(login(ADA, "cookie")).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_the_limit_of_sessions_holds_in_parallel() {
    let settings = [
        ("session.max_per_subject", "3"),
        ("session.on_limit", "refuse"),
        ("limit.login", "1000/1m"),
    ];
    on_each_store(&settings, async |world| {
        let ada = world.user(ADA).await;
        let public = world.public;
        let tries: Vec<_> = (0..10)
            .map(|_| tokio::spawn(async move { send(public, &login(ADA, "bearer")).await }))
            .collect();
        let mut opened = 0;
        for one in tries {
            let answer = one.await.expect("no panic");
            if answer.status == 200 {
                opened += 1;
            } else {
                answer.refused(409, "too_many_sessions");
            }
        }
        assert_eq!((opened, world.sessions_of(&ada).await.len()), (3, 3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j11_registration_is_off_unless_it_is_on() {
    let body = json!({"identifier": "new@example.com", "password": PASSWORD});
    on_each_store(&[], async |world| {
        world.send(Ask::post("/auth/register").json(&body)).await.refused(404, "not_found");
        let admin = json!({"identifier": "admin", "password": "admin"});
        let answer = world.send(Ask::post("/auth/login").json(&admin)).await;
        answer.refused(401, "credentials_invalid");
    })
    .await;
    on_each_store(&[("registration.enabled", "true")], async |world| {
        let made = world.send(Ask::post("/auth/register").json(&body)).await;
        assert_eq!(made.is(201).text("user.identifier"), "new@example.com");
        assert!(made.text("user.id").starts_with("usr_"));
        assert!(made.all("set-cookie").is_empty());
        let taken = world.send(Ask::post("/auth/register").json(&body)).await;
        taken.refused(409, "conflict");
        let weak = json!({"identifier": "other@example.com", "password": "short"});
        let weak = world.send(Ask::post("/auth/register").json(&weak)).await;
        weak.refused(422, "password_rejected");
        world.send(login("new@example.com", "cookie")).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j8_guessing_is_throttled_and_j9_not_for_others() {
    on_each_store(&[("server.trusted_proxies", "127.0.0.1/32")], async |world| {
        world.user(ADA).await;
        let guess = |from: &str| {
            let body = json!({"identifier": ADA, "password": "not the right password"});
            Ask::post("/auth/login").json(&body).header("x-forwarded-for", from)
        };
        for _ in 0..5 {
            world.send(guess("203.0.113.9")).await.refused(401, "credentials_invalid");
        }
        let throttled = world.send(guess("203.0.113.9")).await;
        throttled.refused(429, "login_throttled");
        let wait: u64 = throttled.header("retry-after").and_then(|t| t.parse().ok()).expect("secs");
        assert!((1..=180).contains(&wait), "{wait}");
        let there = login(ADA, "cookie").header("x-forwarded-for", "203.0.113.9");
        world.send(there).await.refused(429, "login_throttled");
        let elsewhere = login(ADA, "cookie").header("x-forwarded-for", "198.51.100.7");
        world.send(elsewhere).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_client_address_is_the_peers_unless_a_trusted_proxy_says_otherwise() {
    let world = World::start(&[("store.url", "memory:")]).await;
    world.user(ADA).await;
    let forged = login(ADA, "bearer")
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-real-ip", "203.0.113.9")
        .header("forwarded", "for=203.0.113.9");
    assert_eq!(world.send(forged).await.text("session.client.ip"), "127.0.0.1");
    world.stop().await;
}

fn members(body: &Value) -> Vec<String> {
    body.as_object().expect("an object").keys().cloned().collect()
}
