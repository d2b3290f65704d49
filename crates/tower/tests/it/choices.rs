//! What the layer and a sign-in can be told besides, and what it changes.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_tower::{CloakroomLayer, Error, Session, SignIn, require_recent_auth};
use http::Request;
use serde_json::{Value, json};

use crate::browser::{Browser, raw};
use crate::world::{ORIGIN, World, worlds};

const PARTNER: &str = "https://partner.example";
const EVIL: &str = "https://evil.example";

/// An application whose layer is told something besides its own origin.
fn app(world: &World, told: impl FnOnce(CloakroomLayer) -> CloakroomLayer) -> Router {
    let layer = world.cloakroom.layer().origin(ORIGIN).expect("an origin");
    world.app_behind(told(layer.without_session_limit()))
}

/// A form that changes something, as a page of this origin sends it.
fn sent_by(origin: &str) -> http::request::Builder {
    let site = if origin == ORIGIN { "same-origin" } else { "cross-site" };
    Request::post("/everywhere").header("origin", origin).header("sec-fetch-site", site)
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_an_allowed_origin_may_send_what_all_others_may_not() {
    for world in worlds().await {
        let plain = world.app();
        let allowing = app(&world, |layer| layer.allow_origin(PARTNER).expect("an origin"));
        let mut browser = Browser::new(plain);
        browser.post("/sign-in?user=ada").await.expect(200);
        let token = browser.get("/csrf").await.expect(200).body;
        let sent = |origin| sent_by(origin).header("x-csrf-token", &token);
        // Without it, the partner is foreign; with it, all others still are, and so are pages that
        // only look like the partner.
        browser.send(sent(PARTNER), "").await.code(403, "csrf_failed");
        let mut browser = browser.over(allowing);
        for foreign in [EVIL, "null", "http://partner.example", "https://partner.example.evil"] {
            browser.send(sent(foreign), "").await.code(403, "csrf_failed");
        }
        // Its token is needed nevertheless.
        browser.send(sent_by(PARTNER), "").await.code(403, "csrf_failed");
        browser.get("/me").await.expect(200);
        browser.send(sent(PARTNER), "").await.expect(200);
        browser.get("/me").await.code(401, "credentials_required");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_none_is_no_allowed_one() {
    let world = World::memory().await;
    for none in ["", "null", "*", "partner.example", "https://partner.example/path"] {
        let layer = world.cloakroom.layer();
        assert!(layer.allow_origin(none).is_err(), "{none}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_by_origin_alone_needs_no_token_and_lets_no_other_site_in() {
    for world in worlds().await {
        let mut browser = Browser::new(app(&world, CloakroomLayer::csrf_by_origin));
        browser.send(sent_by(ORIGIN).uri("/sign-in?user=ada"), "").await.expect(200);
        for forged in [
            sent_by(EVIL),
            sent_by("null"),
            Request::post("/everywhere").header("origin", EVIL),
            Request::post("/everywhere").header("sec-fetch-site", "cross-site"),
            Request::post("/everywhere").header("sec-fetch-site", "same-site"),
            Request::post("/everywhere").header("referer", "https://evil.example/page"),
        ] {
            let refused = browser.send(forged, "").await.code(403, "csrf_failed");
            assert!(refused.set_cookie().is_none(), "{}", world.name);
        }
        browser.get("/me").await.expect(200);
        // The default refuses just this one.
        let mut guarded = browser.clone().over(world.app());
        guarded.send(sent_by(ORIGIN), "").await.code(403, "csrf_failed");
        browser.send(sent_by(ORIGIN), "").await.expect(200);
        browser.get("/me").await.code(401, "credentials_required");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_only_an_application_that_says_so_goes_unguarded() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.post("/sign-in?user=ada").await.expect(200);
        browser.send(sent_by(EVIL), "").await.code(403, "csrf_failed");
        browser.get("/me").await.expect(200);
        let mut browser = browser.over(app(&world, CloakroomLayer::without_csrf));
        browser.send(sent_by(EVIL), "").await.expect(200);
        browser.get("/me").await.code(401, "credentials_required");
    }
}

/// An application that signs in as its caller wants to, and asks for a strong sign-in at `/strong`.
fn signing_in(world: &World, grant: SignIn) -> Router {
    let tokens_of = grant.clone();
    let sign_in = async move |session: Session| {
        session.sign_in(grant.clone()).await?;
        Ok::<_, Error>("in")
    };
    let tokens =
        async move |session: Session| session.issue_tokens(tokens_of.clone()).await.map(axum::Json);
    let strong = require_recent_auth(Duration::from_secs(300)).assurance("aal2");
    let layer = world.cloakroom.layer().origin(ORIGIN).expect("an origin");
    Router::new()
        .route("/in", post(sign_in))
        .route("/out", post(tokens))
        .route("/me", get(async || "me").layer(cloakroom_tower::require_auth()))
        .route("/strong", get(async || "strong").layer(strong))
        .layer(layer.csrf_by_origin().without_session_limit())
}

fn ask(path: &str) -> http::request::Builder {
    Request::post(path).header("origin", ORIGIN)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strong_sign_in_opens_what_a_weak_one_does_not() {
    for world in worlds().await {
        for (acr, status) in [(None, 401), (Some("aal1"), 401), (Some("aal2"), 200)] {
            let grant = SignIn::new("ada");
            let grant = acr.map_or(grant.clone(), |acr| grant.assurance(acr));
            let mut browser = Browser::new(signing_in(&world, grant));
            browser.send(ask("/in"), "").await.expect(200);
            browser.get("/me").await.expect(200);
            let answer = browser.get("/strong").await.expect(status);
            if status == 401 {
                answer.code(401, "reauthentication_required");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_tells_by_which_methods_and_how_strongly_its_user_signed_in() {
    for world in worlds().await {
        let grant = SignIn::new("ada").methods(["pwd", "otp"]).assurance("aal2");
        for (grant, amr, acr) in
            [(grant, json!(["pwd", "otp"]), "aal2"), (SignIn::new("ada"), json!(["pwd"]), "aal1")]
        {
            let app = signing_in(&world, grant);
            let tokens = raw(&app, ask("/out"), "").await.expect(200).json();
            let token = tokens["access_token"].as_str().expect("a token");
            let payload = token.split('.').nth(1).expect("a payload");
            let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
            let claims: Value = serde_json::from_slice(&payload).expect("JSON");
            assert_eq!((&claims["amr"], &claims["acr"]), (&amr, &json!(acr)), "{}", world.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_session_has_a_cookie_that_outlives_the_browser() {
    for world in worlds().await {
        let remembered = SignIn::new("ada").remember_for_days(3);
        for (grant, kept) in [(SignIn::new("ada"), None), (remembered, Some("Max-Age=259200"))] {
            let mut browser = Browser::new(signing_in(&world, grant));
            let answer = browser.send(ask("/in"), "").await.expect(200);
            let line = answer.set_cookie().expect("a cookie");
            let found = line.split("; ").find(|part| part.starts_with("Max-Age="));
            assert_eq!(found, kept, "{}: {line}", world.name);
            browser.get("/me").await.expect(200);
        }
    }
}
