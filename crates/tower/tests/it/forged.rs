//! Requests that another site sent, and cookies that nobody issued.

use http::header::COOKIE;
use http::{Method, Request};

use crate::browser::{Browser, raw};
use crate::world::{ORIGIN, World, worlds};

#[tokio::test(flavor = "multi_thread")]
async fn d1_an_unsafe_request_by_cookie_needs_origin_and_token() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.post("/sign-in?user=ada").await.expect(200);
        let token = browser.get("/csrf").await.expect(200).body;
        let post = || Request::post("/sign-out");
        let own = |request: http::request::Builder| request.header("origin", ORIGIN);
        for forged in [
            post(),
            own(post()),
            own(post()).header("x-csrf-token", "A".repeat(64)),
            own(post()).header("x-csrf-token", &token).header("x-csrf-token", &token),
            post().header("origin", "null").header("x-csrf-token", &token),
            post().header("origin", "https://evil.example").header("x-csrf-token", &token),
            post().header("sec-fetch-site", "cross-site").header("x-csrf-token", &token),
            post().header("sec-fetch-site", "same-site").header("x-csrf-token", &token),
            post()
                .header("host", "evil.example")
                .header("origin", "http://evil.example")
                .header("x-csrf-token", &token),
        ] {
            let refused = browser.send(forged, "").await.code(403, "csrf_failed");
            assert!(refused.set_cookie().is_none(), "{}", world.name);
            browser.get("/me").await.expect(200);
        }
        browser.send(own(post()).header("x-csrf-token", &token), "").await.expect(200);
        browser.get("/me").await.code(401, "credentials_required");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_forms_field_is_as_good_as_the_header_and_the_form_arrives_whole() {
    let world = World::memory().await;
    let echo = axum::routing::post(|body: String| async move { body });
    let layer = world.cloakroom.layer().origin(ORIGIN).expect("an origin");
    let app = crate::world::routes(world.doors.clone()).route("/form", echo).layer(layer);
    let mut browser = Browser::new(app);
    browser.post("/sign-in?user=ada").await.expect(200);
    let token = browser.get("/csrf").await.expect(200).body;
    let form = || {
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        Request::post("/form").header("origin", ORIGIN).header("content-type", kind)
    };
    let body = format!("a=1&csrf_token={token}&b=2");
    assert_eq!(browser.send(form(), &body).await.expect(200).body, body);
    for bad in ["a=1", "csrf_token=", &format!("csrf_token={token}&csrf_token={token}")] {
        browser.send(form(), bad).await.code(403, "csrf_failed");
    }
    let large = format!("a={}", "x".repeat(70_000));
    browser.send(form(), &large).await.code(413, "body_too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_token_is_for_its_session_alone() {
    for world in worlds().await {
        let mut ada = Browser::new(world.app());
        let visitor = ada.get("/csrf").await.expect(200).body;
        ada.post("/sign-in?user=ada").await.expect(200);
        let mut eve = Browser::new(world.app());
        eve.post("/sign-in?user=eve").await.expect(200);
        let eves = eve.get("/csrf").await.expect(200).body;
        for token in [visitor, eves] {
            let post = Request::post("/sign-out").header("origin", ORIGIN);
            let answer = ada.send(post.header("x-csrf-token", token), "").await;
            answer.code(403, "csrf_failed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d8_another_site_signs_nobody_in() {
    for world in worlds().await {
        let foreign = Request::post("/sign-in?user=eve").header("origin", "https://evil.example");
        let refused = raw(&world.app(), foreign, "").await.code(403, "csrf_failed");
        assert!(refused.set_cookie().is_none(), "{}", world.name);
        for (name, value) in
            [("origin", ORIGIN), ("sec-fetch-site", "same-origin"), ("cookie", "theme=dark")]
        {
            let tokenless = Request::post("/sign-in?user=eve").header(name, value);
            raw(&world.app(), tokenless, "").await.code(403, "csrf_failed");
        }
        raw(&world.app(), Request::post("/sign-in?user=ada"), "").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_a_bearer_token_decides_and_needs_no_csrf_token() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.post("/sign-in?user=ada").await.expect(200);
        for header in ["Bearer junk", "Bearer ", "Bearer", "bearer x"] {
            let asked = Request::get("/me").header("authorization", header);
            browser.send(asked, "").await.code(401, "token_invalid");
        }
        let other = Request::get("/me").header("authorization", "Basic eDp5");
        assert_eq!(browser.send(other, "").await.expect(200).body, "ada", "{}", world.name);
        let unsafe_ = Request::post("/sign-out").header("authorization", "Basic eDp5");
        browser.send(unsafe_, "").await.code(403, "csrf_failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_cookies_are_nobody_and_cost_no_question() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.post("/sign-in?user=ada").await.expect(200);
        let good = browser.cookie.clone().expect("signed in");
        let flipped =
            format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'Q' } else { 'A' });
        let lines = [
            "session=".to_owned(),
            "session=x".to_owned(),
            format!("session={}", "x".repeat(8_000)),
            format!("session={good}; session={good}"),
            format!("session=\"{good}\""),
            format!("session={flipped}"),
            format!("session={good}="),
            format!("session={}", good.to_uppercase()),
            format!("__Host-session={good}"),
            format!("$Version=1; session={good}"),
        ];
        for line in &lines {
            let asked = Request::get("/me").header(COOKIE, line);
            let refused = raw(&world.app(), asked, "").await.code(401, "credentials_required");
            assert!(refused.set_cookie().is_none(), "{}: {line}", world.name);
        }
        let bytes = http::HeaderValue::from_bytes(b"session=\xff\xfe").expect("a value");
        let asked = Request::get("/me").header(COOKIE, bytes);
        raw(&world.app(), asked, "").await.code(401, "credentials_required");
        browser.get("/me").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_the_cookie_is_named_by_the_origin() {
    let world = World::memory().await;
    for (origin, name, secure) in [
        (None, "__Host-session=cks_", true),
        (Some("https://shop.example"), "__Host-session=cks_", true),
        (Some("http://localhost:3000"), "session=cks_", false),
    ] {
        let layer = world.cloakroom.layer();
        let layer = match origin {
            Some(origin) => layer.origin(origin).expect("an origin"),
            None => layer,
        };
        let asked = Request::builder().method(Method::POST).uri("/sign-in?user=ada");
        let signed_in = raw(&world.app_behind(layer), asked, "").await.expect(200);
        let line = signed_in.set_cookie().expect("a cookie");
        assert!(line.starts_with(name), "{line}");
        assert!(line.contains("HttpOnly") && line.contains("SameSite=Lax"), "{line}");
        assert_eq!(line.contains("; Secure"), secure, "{line}");
        assert_eq!(signed_in.headers["cache-control"], "no-store");
    }
    for bad in ["http://shop.example", "shop.example", "https://shop.example/"] {
        assert!(world.cloakroom.layer().origin(bad).is_err(), "{bad}");
    }
}
