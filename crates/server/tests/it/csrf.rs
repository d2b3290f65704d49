//! Section 5: requests that another site made a browser send.

use serde_json::json;

use crate::http::{Answer, Ask, Browser};
use crate::world::{ADA, BOB, ORIGIN, World, login, on_each_store};

/// Every endpoint that changes something for whoever has a cookie.
const UNSAFE: [(&str, &str); 7] = [
    ("POST", "/auth/refresh"),
    ("POST", "/auth/logout"),
    ("POST", "/auth/logout/all"),
    ("POST", "/auth/reauthenticate"),
    ("POST", "/auth/password"),
    ("DELETE", "/auth/sessions/01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    ("POST", "/auth/login"),
];

fn refused(answer: &Answer, step: &str) {
    answer.refused(403, "csrf_failed");
    assert!(answer.text("detail").starts_with(step), "{}", answer.text("detail"));
    assert!(answer.all("set-cookie").is_empty());
}

/// A request to end everything, with the jar and these headers and nothing else.
async fn attack(browser: &Browser, headers: &[(&str, &str)]) -> Answer {
    let ask = Ask::post("/auth/logout/all").json(&json!({"keep_current": true}));
    let ask = headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
    browser.clone().send_bare(ask).await
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_every_unsafe_request_by_cookie_is_checked() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        for delivery in ["cookie", "split"] {
            let browser = world.signed_in(ADA, delivery).await;
            for (method, path) in UNSAFE {
                if delivery == "split" && !["/auth/refresh", "/auth/logout"].contains(&path) {
                    continue;
                }
                let ask = Ask::new(method, path).json(&json!({}));
                let answer = browser.clone().send_bare(ask.clone()).await;
                refused(&answer, "step 4");
                let foreign = ask.header("sec-fetch-site", "cross-site");
                refused(&browser.clone().send_bare(foreign).await, "step 2");
            }
        }
        assert_eq!(world.sessions_of(&ada).await.len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_another_site_is_refused_even_with_the_token() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let token = browser.csrf.clone().expect("a token");
        let with = |site| [("x-csrf-token", &*token), ("sec-fetch-site", site)];
        for site in ["same-site", "cross-site", "Same-Origin", "same-origin, cross-site", "", "x"] {
            refused(&attack(&browser, &with(site)).await, "step 2");
        }
        let twice = [&with("same-origin")[..], &with("same-origin")[1..]].concat();
        refused(&attack(&browser, &twice).await, "step 2");
        for site in ["same-origin", "none"] {
            attack(&browser, &with(site)).await.ok();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_origin_null_is_foreign_d4_and_origins_are_compared_whole() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let token = browser.csrf.clone().expect("a token");
        for origin in [
            "null",
            "https://localhost:7400",
            "http://localhost",
            "http://localhost:7400.evil.com",
            "http://localhost:74000",
            "http://localhost:7400@evil",
            "http://evil",
        ] {
            let headers = [("x-csrf-token", &*token), ("origin", origin)];
            refused(&attack(&browser, &headers).await, "step 3");
            let both = [&headers[..], &[("referer", "http://localhost:7400/")]].concat();
            refused(&attack(&browser, &both).await, "step 3");
        }
        attack(&browser, &[("x-csrf-token", &token), ("origin", ORIGIN)]).await.ok();
        for referer in [
            "http://evil/?http://localhost:7400/",
            "http://localhost:7400.evil/",
            "http://localhost:7400@evil/",
        ] {
            let headers = [("x-csrf-token", &*token), ("referer", referer)];
            refused(&attack(&browser, &headers).await, "step 3");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_the_own_origin_is_not_what_the_request_says() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let token = browser.csrf.clone().expect("a token");
        for (name, value) in [("host", "evil"), ("x-forwarded-host", "evil")] {
            let headers = [("x-csrf-token", &*token), ("origin", "http://evil"), (name, value)];
            refused(&attack(&browser, &headers).await, "step 3");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_token_is_for_one_session_only() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        world.user(BOB).await;
        let mut early = world.browser();
        early.send(Ask::get("/auth/csrf-token")).await.ok();
        let before = early.csrf.clone().expect("a token");
        let browser = world.signed_in(ADA, "cookie").await;
        let own = browser.csrf.clone().expect("a token");
        let bobs = world.signed_in(BOB, "cookie").await.csrf.expect("a token");
        let second = world.signed_in(ADA, "cookie").await.csrf.expect("a token");
        let flipped = format!("{}{}", if own.starts_with('A') { 'B' } else { 'A' }, &own[1..]);
        for bad in [&bobs, &second, &before, &flipped, &own[..63].to_owned(), &String::new()] {
            let headers = [("x-csrf-token", &**bad), ("sec-fetch-site", "same-origin")];
            refused(&attack(&browser, &headers).await, "step 4");
        }
        let twice = [("x-csrf-token", &*own), ("x-csrf-token", &*own)];
        refused(&attack(&browser, &twice).await, "step 4");
        attack(&browser, &[("x-csrf-token", &own)]).await.ok();
        let cookie = &browser.jar["session"];
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let token = browser.clone().send(Ask::get("/auth/csrf-token")).await.text("csrf_token");
            assert!(!cookie.contains(&token) && token.len() == 64);
            seen.insert(token);
        }
        assert_eq!(seen.len(), 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d8_nobody_is_signed_in_by_another_site() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let mut attacker = world.browser();
        attacker.send(Ask::get("/auth/csrf-token")).await.ok();
        let token = attacker.csrf.clone().expect("a token");
        let ask = || login(ADA, "cookie");
        let foreign = ask().header("x-csrf-token", &token).header("sec-fetch-site", "cross-site");
        refused(&attacker.clone().send_bare(foreign).await, "step 2");
        for (name, value) in
            [("cookie", "theme=dark"), ("origin", ORIGIN), ("sec-fetch-site", "same-origin")]
        {
            refused(&world.send(ask().header(name, value)).await, "step 4");
        }
        // The token without its cookie, and with another one.
        let other = ask().header("x-csrf-token", &token).cookie("csrf=01ARZ3NDEKTSV4RRFFQ69G5FAV");
        refused(&world.send(other).await, "step 4");
        refused(&world.send(ask().header("x-csrf-token", &token).cookie("a=b")).await, "step 4");
        assert!(world.sessions_of(&ada).await.is_empty());
        let signed_in = attacker.send(ask()).await;
        assert!(signed_in.ok().all("set-cookie").iter().any(|line| line.starts_with("csrf=;")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d13_a_refused_logout_clears_nothing() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let mut browser = world.signed_in(ADA, "cookie").await;
        let ask = Ask::post("/auth/logout").header("sec-fetch-site", "cross-site");
        refused(&browser.send_bare(ask).await, "step 2");
        // Nor does another site make a browser drop a cookie that is dead already.
        let ask = Ask::post("/auth/logout").cookie("session=x").header("origin", "http://evil");
        refused(&world.send(ask).await, "step 3");
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
        browser.send(Ask::get("/auth/session")).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d14_origin_mode_needs_no_token_and_still_an_origin() {
    let settings = [("csrf.mode", "origin"), ("csrf.allowed_origins", "https://shop.example")];
    on_each_store(&settings, async |world| {
        world.user(ADA).await;
        let browser = {
            let mut browser = world.browser();
            browser.send(login(ADA, "cookie")).await.ok();
            browser
        };
        attack(&browser, &[("sec-fetch-site", "same-origin")]).await.ok();
        attack(&browser, &[("sec-fetch-site", "cross-site"), ("origin", "https://shop.example")])
            .await
            .ok();
        refused(&attack(&browser, &[("sec-fetch-site", "cross-site")]).await, "step 2");
        refused(&attack(&browser, &[("origin", "null")]).await, "step 3");
        // Decided: with none of the three headers it is no browser, which sends at least one.
        attack(&browser, &[]).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d11_only_listed_origins_may_read_answers() {
    let listed = "https://shop.example";
    let plain = World::start(&[("store.url", "memory:")]).await;
    for origin in [listed, "null", "https://evil"] {
        for ask in [Ask::get("/auth/session"), Ask::new("OPTIONS", "/auth/login")] {
            let ask = ask.header("origin", origin).header("access-control-request-method", "POST");
            let answer = plain.send(ask).await;
            assert!(answer.headers.iter().all(|(n, _)| !n.starts_with("access-control")));
        }
    }
    plain.stop().await;
    on_each_store(&[("cors.allowed_origins", listed)], async |world| {
        let ask = |origin: &str| Ask::get("/auth/session").header("origin", origin);
        let allowed = world.send(ask(listed)).await;
        assert_eq!(allowed.header("access-control-allow-origin"), Some(listed));
        assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(allowed.header("vary"), Some("Origin"));
        let preflight = Ask::new("OPTIONS", "/auth/login")
            .header("origin", listed)
            .header("access-control-request-method", "POST");
        let preflight = world.send(preflight).await;
        assert!(preflight.is(204).header("access-control-allow-methods").is_some());
        for foreign in ["https://evil", "null", "https://shop.example.evil", "http://shop.example"]
        {
            let answer = world.send(ask(foreign)).await;
            assert!(answer.headers.iter().all(|(n, _)| !n.starts_with("access-control")));
            assert_eq!(answer.header("vary"), Some("Origin"));
        }
    })
    .await;
}
