//! What a credential may do where it is not meant to be, and what comes after its end.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Answer, Ask, Browser, send};
use crate::world::{ADA, BOB, PASSWORD, World, login, on_each_store};

/// One of each kind: cookie, access token, refresh token, API key, CSRF token.
async fn one_of_each(world: &World) -> [(&'static str, String); 5] {
    let browser = world.signed_in(ADA, "cookie").await;
    let tokens = world.tokens(ADA).await;
    [
        ("cookie", browser.jar["session"].clone()),
        ("access", tokens.text("access_token")),
        ("refresh", tokens.text("refresh_token")),
        ("key", world.root_key.clone()),
        ("csrf", browser.csrf.clone().expect("a token")),
    ]
}

/// A use of each kind of credential, in the place where it belongs.
async fn present(world: &World, place: &str, text: &str) -> Answer {
    match place {
        "cookie" => world.send(Ask::get("/auth/session").cookie(&format!("session={text}"))).await,
        "access" => world.send(Ask::get("/auth/session").bearer(text)).await,
        "refresh" => {
            let body = json!({"refresh_token": text});
            world.send(Ask::post("/auth/refresh").json(&body)).await
        }
        "key" => send(world.admin, &Ask::get("/admin/v1/users").bearer(text)).await,
        _ => {
            let mut browser = world.signed_in(ADA, "cookie").await;
            browser.csrf = Some(text.to_owned());
            let body = json!({"keep_current": true});
            browser.send(Ask::post("/auth/logout/all").json(&body)).await
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_each_kind_of_credential_counts_in_its_own_place_only() {
    let settings = [("limit.network", "100000/1m"), ("session.max_per_subject", "100")];
    on_each_store(&settings, async |world| {
        let ada = world.user(ADA).await;
        let kinds = one_of_each(world).await;
        for (kind, text) in &kinds {
            for place in ["cookie", "access", "refresh", "key", "csrf"] {
                if *kind == place {
                    continue;
                }
                let before = world.sessions_of(&ada).await.len();
                let answer = present(world, place, text).await;
                if place == "csrf" {
                    answer.refused(403, "csrf_failed");
                    assert_eq!(world.sessions_of(&ada).await.len(), before + 1);
                    continue;
                }
                assert_eq!(answer.status, 401, "{kind} as {place}");
                let code = answer.code();
                assert!(
                    ["token_wrong_type", "token_invalid"].contains(&&*code),
                    "{kind} as {place}: {code}"
                );
                assert_eq!(world.sessions_of(&ada).await.len(), before);
            }
        }
        // The controls: nothing happened to them on the way.
        for (kind, text) in &kinds {
            if *kind != "csrf" {
                assert_eq!(present(world, kind, text).await.status, 200, "{kind}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_reading_never_changes_anything_on_the_admin_side_either() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let tokens = world.tokens(ADA).await;
        let sid = tokens.text("session.id");
        let events = async || world.admin(Ask::get("/admin/v1/events?limit=200")).await.text_body();
        let before = events().await;
        let table: Vec<_> = cloakroom_server::admin::table().collect();
        for (method, path, _) in &table {
            if *method == "GET" || *method == "OPTIONS" {
                continue;
            }
            let path = path
                .replace("{sid}", &sid)
                .replace("{id}", ada.id.as_str())
                .replace("{subject}", ada.id.as_str())
                .replace("{kid}", "unknown");
            for reading in ["GET", "HEAD"] {
                let target = format!("{path}?_method={method}");
                let ask =
                    Ask::new(reading, &target).header("x-http-method-override", method.as_str());
                let answer = world.admin(ask).await;
                assert!(
                    [200, 400, 404, 405, 422].contains(&answer.status),
                    "{reading} {path}: {}",
                    answer.status
                );
            }
        }
        assert_eq!(events().await, before);
        assert_eq!(world.sessions_of(&ada).await, [sid]);
        let access = tokens.text("access_token");
        assert_eq!(world.alive(&access).await, Ok(()));
    })
    .await;
}

impl Answer {
    /// The body as text.
    fn text_body(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_what_ignores_cookies_is_not_authenticated_by_them() {
    on_each_store(&[("registration.enabled", "true")], async |world| {
        let ada = world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let split = world.signed_in(ADA, "split").await;
        for path in ["/oauth2/revoke", "/oauth2/token", "/oauth2/introspect"] {
            for browser in [&browser, &split] {
                for form in ["", "grant_type=refresh_token", "token=x"] {
                    let ask = Ask::post(path).form(form).header("sec-fetch-site", "cross-site");
                    let answer = browser.clone().send_bare(ask).await;
                    assert!(answer.all("set-cookie").is_empty());
                    assert!(!answer.text_body().contains("ckr_"));
                    let known = (path, form) == ("/oauth2/revoke", "token=x");
                    assert_eq!(answer.status == 200, known, "{path} {form}");
                }
            }
        }
        // Whom another site makes register, it would sign in next.
        let body = json!({"identifier": BOB, "password": PASSWORD});
        let ask = Ask::post("/auth/register").json(&body);
        let foreign = ask.clone().header("sec-fetch-site", "cross-site");
        browser.clone().send_bare(foreign).await.refused(403, "csrf_failed");
        browser.clone().send_bare(ask).await.refused(403, "csrf_failed");
        assert_eq!(world.sessions_of(&ada).await.len(), 2);
        world.send(login(BOB, "cookie")).await.refused(401, "credentials_invalid");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_c7_a_cookies_age_ends_with_its_session_and_enforces_nothing() {
    let settings = [
        ("session.absolute", "3s"),
        ("session.absolute_remember", "3s"),
        ("session.idle", "3s"),
        ("session.idle_remember", "3s"),
        ("session.idle_anonymous", "3s"),
        ("refresh.grace", "1s"),
        ("refresh.ttl", "3s"),
        ("refresh.retry_window", "2s"),
        ("token.access_ttl", "2s"),
    ];
    on_each_store(&settings, async |world| {
        world.user(ADA).await;
        let asked = |remember| {
            let body = json!({"identifier": ADA, "password": PASSWORD, "remember": remember});
            Ask::post("/auth/login").json(&body)
        };
        let kept = world.send(asked(true)).await;
        let age = attribute(&kept, "Max-Age").expect("an age");
        assert!((1..=3).contains(&age.parse::<u64>().expect("seconds")), "{age}");
        let brief = world.send(asked(false)).await;
        assert_eq!((attribute(&brief, "Max-Age"), attribute(&brief, "Expires")), (None, None));
        let saved: Vec<String> = [&kept, &brief]
            .map(|answer| format!("session={}", answer.set_cookie("session").expect("a cookie")))
            .into();
        for cookie in &saved {
            world.send(Ask::get("/auth/session").cookie(cookie)).await.ok();
        }
        tokio::time::sleep(Duration::from_millis(3300)).await;
        for cookie in &saved {
            let dead = world.send(Ask::get("/auth/session").cookie(cookie)).await;
            assert_eq!(dead.refused(401, "session_ended").text("reason"), "absolute_timeout");
        }
    })
    .await;
}

/// An attribute of the one cookie that an answer sets.
fn attribute(answer: &Answer, name: &str) -> Option<String> {
    let line = answer.ok().header("set-cookie").expect("one cookie");
    let pairs = line.split(';').filter_map(|part| part.trim().split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_an_answer_that_comes_after_the_logout_brings_nothing_back() {
    on_each_store(&[("refresh.grace", "1s"), ("limit.session", "10000/1m")], async |world| {
        let ada = world.user(ADA).await;
        for delivery in ["cookie", "split"] {
            for round in 0..20u64 {
                let browser = world.signed_in(ADA, delivery).await;
                let late: Vec<_> = ["/auth/refresh", "/auth/refresh", "/auth/csrf-token"]
                    .map(|path| {
                        let mut browser = browser.clone();
                        let method = if path.ends_with("refresh") { "POST" } else { "GET" };
                        tokio::spawn(async move { browser.send(Ask::new(method, path)).await })
                    })
                    .into();
                for _ in 0..round {
                    tokio::task::yield_now().await;
                }
                let mut leaving = browser.clone();
                leaving.send(Ask::post("/auth/logout")).await.is(204);
                for answer in late {
                    let answer = answer.await.expect("no panic");
                    assert!(answer.status < 500);
                    for name in ["session", "refresh"] {
                        let Some(value) = answer.set_cookie(name) else { continue };
                        let mut holder = Browser::new(world.public);
                        holder.jar.insert(name.to_owned(), value);
                        holder.csrf.clone_from(&browser.csrf);
                        let again = holder.send(Ask::post("/auth/refresh")).await;
                        assert_eq!(again.status, 401, "{again:?}");
                    }
                    if answer.status == 200 && answer.at("access_token").is_string() {
                        assert!(world.alive(&answer.text("access_token")).await.is_err());
                    }
                }
                let line = browser.cookie_line();
                let dead = world.send(Ask::get("/auth/session").cookie(&line)).await;
                assert_eq!(dead.status, 401);
                assert!(world.sessions_of(&ada).await.is_empty());
            }
        }
    })
    .await;
}

/// A refresh at the standard endpoint.
fn standard(token: &str, more: &str) -> Ask {
    Ask::post("/oauth2/token")
        .form(&format!("grant_type=refresh_token&refresh_token={token}{more}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn f11_nothing_in_a_refresh_widens_the_token() {
    on_each_store(&[("refresh.grace", "1s")], async |world| {
        world.user(ADA).await;
        let first = world.tokens(ADA).await;
        let before = claims_of(&first.text("access_token"));
        let more = "&scope=admin&audience=upstream&resource=https%3A%2F%2Fbank.example\
                    &client_id=root&acr=aal3&role=admin&sub=usr_root&delivery=split&lifetime=99";
        let answer = world.send(standard(&first.text("refresh_token"), more)).await;
        let after = claims_of(&answer.ok().text("access_token"));
        assert_eq!(answer.at("scope"), Value::Null);
        for name in ["iss", "sub", "aud", "sid", "acr", "amr", "auth_time", "epoch", "role"] {
            assert_eq!(before[name], after[name], "{name}");
        }
        assert_eq!(keys(&before), keys(&after));
        let body = json!({"refresh_token": answer.text("refresh_token"), "scope": "admin"});
        let widened = world.send(Ask::post("/auth/refresh").json(&body)).await;
        widened.refused(422, "unknown_member");
        let again = world.send(standard(&answer.text("refresh_token"), "")).await;
        assert_eq!(keys(&claims_of(&again.ok().text("access_token"))), keys(&before));
    })
    .await;
}

fn keys(claims: &Value) -> Vec<&String> {
    claims.as_object().expect("an object").keys().collect()
}

/// The claims of a token, unverified.
fn claims_of(token: &str) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let payload = token.split('.').nth(1).expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_f4_f5_f9_the_standard_endpoint_rotates_by_the_same_rules() {
    on_each_store(&[("refresh.grace", "1s")], async |world| {
        let ada = world.user(ADA).await;
        let first = world.tokens(ADA).await.text("refresh_token");
        let public = world.public;
        let tries: Vec<_> = (0..16)
            .map(|_| {
                let ask = standard(&first, "");
                tokio::spawn(async move { send(public, &ask).await })
            })
            .collect();
        let mut successors = std::collections::BTreeSet::new();
        for one in tries {
            successors.insert(one.await.expect("no panic").ok().text("refresh_token"));
        }
        assert_eq!(successors.len(), 1);
        let second = successors.into_iter().next().expect("one");
        let keyed = |key: &str| standard(&second, "").header("idempotency-key", key);
        let third = world.send(keyed("0123456789abcdef")).await;
        // Forged ones are no reuse.
        for at in [6, 40, second.len() - 2] {
            let mut forged = second.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("ASCII");
            let answer = world.send(standard(&forged, "")).await;
            assert_eq!((answer.status, answer.text("error")), (400, "invalid_grant".into()));
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let late = world.send(keyed("0123456789abcdef")).await;
        assert_eq!(late.ok().text("refresh_token"), third.ok().text("refresh_token"));
        for bad in ["short", &"x".repeat(129)] {
            let answer = world.send(keyed(bad)).await;
            assert_eq!((answer.status, answer.text("error")), (400, "invalid_request".into()));
        }
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
        // After the logout the tolerance is over, and it ends nothing else.
        world.send(Ask::post("/oauth2/revoke").form(&format!("token={second}"))).await.ok();
        let dead = world.send(keyed("0123456789abcdef")).await;
        assert_eq!((dead.status, dead.text("error")), (400, "invalid_grant".into()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_a_revocation_beats_refreshes_in_flight_at_the_standard_endpoint() {
    on_each_store(&[("limit.session", "100000/1m")], async |world| {
        let ada = world.user(ADA).await;
        for round in 0..25u64 {
            let first = world.tokens(ADA).await;
            let token = first.text("refresh_token");
            let public = world.public;
            let flying: Vec<_> = (0..3)
                .map(|_| {
                    let ask = standard(&token, "");
                    tokio::spawn(async move { send(public, &ask).await })
                })
                .collect();
            for _ in 0..round % 5 {
                tokio::task::yield_now().await;
            }
            let revoke = Ask::post("/oauth2/revoke");
            world.send(revoke.form(&format!("token={}", first.text("access_token")))).await.ok();
            for answer in flying {
                let answer = answer.await.expect("no panic");
                if answer.status != 200 {
                    assert_eq!(
                        (answer.status, answer.text("error")),
                        (400, "invalid_grant".into())
                    );
                    continue;
                }
                assert!(world.alive(&answer.text("access_token")).await.is_err());
                let again = world.send(standard(&answer.text("refresh_token"), "")).await;
                assert_eq!(again.status, 400);
            }
            assert!(world.sessions_of(&ada).await.is_empty());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f6_the_standard_endpoint_extends_no_absolute_end() {
    let world = World::start(&[("store.url", "memory:")]).await;
    let body = json!({"subject": "usr_x", "delivery": "bearer", "lifetime": 4});
    let opened = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
    let mut token = opened.is(201).text("refresh_token");
    let mut answered = 0;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let answer = world.send(standard(&token, "")).await;
        if answer.status == 200 {
            answered += 1;
            assert!(answer.at("expires_in").as_u64().expect("seconds") <= 4 - answered / 2);
            token = answer.text("refresh_token");
        } else {
            assert_eq!((answer.status, answer.text("error")), (400, "invalid_grant".into()));
        }
    }
    assert!((4..=6).contains(&answered), "{answered}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m8_nobody_forges_who_did_what_and_when() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let events = async || {
            let path = "/admin/v1/events?order=desc&limit=1";
            world.admin(Ask::get(path)).await.at("events.0")
        };
        for (name, value) in
            [("time", json!("2001-01-01T00:00:00Z")), ("type", json!("user.deleted"))]
        {
            let body = json!({"subject": ada.id.as_str(), name: value});
            let answer = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
            answer.refused(422, "unknown_member");
        }
        let client =
            json!({"ip": "203.0.113.7", "user_agent": "x\",\"actor\":{\"type\":\"user\"}"});
        let body = json!({"subject": ada.id.as_str(), "client": client});
        let opened = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
        let sid = opened.is(201).text("session.id");
        let event = events().await;
        assert_eq!((&event["type"], &event["sid"]), (&json!("session.opened"), &json!(sid)));
        assert_eq!(event["actor"]["type"], "operator");
        let reason = "%22%2C%22actor%22%3A%7B%22type%22%3A%22user%22%7D%0A%0Dtype%3Auser.deleted";
        let path = format!("/admin/v1/sessions/{sid}?reason={reason}&actor=eve&type=user.deleted");
        let ended = world.admin(Ask::delete(&path)).await;
        assert!([204, 400, 422].contains(&ended.status), "{}", ended.status);
        if ended.status != 204 {
            let path = format!("/admin/v1/sessions/{sid}?reason=left");
            world.admin(Ask::delete(&path)).await.is(204);
        }
        let event = events().await;
        assert_eq!((&event["type"], &event["sid"]), (&json!("session.ended"), &json!(sid)));
        assert_eq!(
            (&event["actor"]["type"], &event["subject"]),
            (&json!("operator"), &json!(ada.id.as_str()))
        );
        let time = event["time"].as_str().expect("a time");
        assert!(time.ends_with('Z') && !time.starts_with("2001"), "{time}");
    })
    .await;
}
