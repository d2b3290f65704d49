//! Sizes that browsers and gateways take.

use serde_json::{Value, json};

use crate::http::{Answer, Ask};
use crate::world::{World, on_each_store};

/// What browsers keep of a cookie's name and value (RFC 6265bis section 5.6), in bytes.
const COOKIE_BYTES_MAX: usize = 4096;
/// And of each attribute.
const ATTRIBUTE_BYTES_MAX: usize = 1024;
/// The head of an answer that every gateway takes by default with a little tuning, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

fn head_bytes(answer: &Answer) -> usize {
    answer.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
}

/// Opens a session with claims of about this many bytes, for one's own subject.
async fn opened(world: &World, delivery: &str, claim_bytes: usize) -> Answer {
    let body = json!({
        "subject": "s".repeat(255),
        "delivery": delivery,
        "claims": {"role": "admin", "much": "x".repeat(claim_bytes)},
        "data": {"cart": "y".repeat(16 * 1024 - 64)},
        "client": {"label": "l".repeat(128), "user_agent": "u".repeat(512)},
    });
    let answer = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
    answer.is(201);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_cookies_and_identity_headers_stay_within_what_is_taken() {
    let settings = [
        ("forward_auth.claim_headers", "role,much,missing"),
        ("server.trusted_proxies", "127.0.0.1/32"),
    ];
    on_each_store(&settings, async |world| {
        for delivery in ["cookie", "split"] {
            let answer = opened(world, delivery, 4000).await;
            let lines = answer.at("set_cookie");
            for line in lines.as_array().expect("lines") {
                let line = line.as_str().expect("text");
                let mut parts = line.split(';');
                assert!(parts.next().expect("a pair").len() <= COOKIE_BYTES_MAX);
                assert!(parts.all(|part| part.trim().len() <= ATTRIBUTE_BYTES_MAX), "{line}");
            }
        }
        for (claim_bytes, whole) in [(500, true), (4000, false)] {
            let cookie = opened(world, "cookie", claim_bytes).await.text("session_token");
            let ask = Ask::get("/auth/verify")
                .cookie(&format!("theme=dark; session={cookie}"))
                .header("x-forwarded-method", "GET");
            let answer = world.send(ask).await;
            answer.ok();
            let head = head_bytes(&answer);
            assert!(head < HEAD_BYTES_MAX, "{head}");
            // Each is there; what didn't fit is empty, and the assertion has it all.
            assert_eq!(answer.header("x-auth-claim-role"), Some("admin"));
            assert_eq!(answer.header("x-auth-claim-missing"), Some(""));
            assert_eq!(answer.header("x-auth-claims").map(|text| !text.is_empty()), Some(whole));
            assert_eq!(
                answer.header("x-auth-claim-much").map(str::len),
                Some(whole as usize * 500)
            );
            let assertion = answer.header("authorization").expect("an assertion");
            assert_eq!(claims_of(assertion)["much"].as_str().map(str::len), Some(claim_bytes));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_claims_of_a_subject_and_a_session_together_still_make_a_token() {
    let world = World::start(&[("store.url", "memory:")]).await;
    let first = opened(&world, "cookie", 10).await;
    let subject = first.text("session.subject");
    let claims = json!({"claims": {"of_the_subject": "z".repeat(4000)}});
    let patch = Ask::new("PATCH", &format!("/admin/v1/subjects/{subject}")).json(&claims);
    world.admin(patch).await.ok();
    let body = json!({"subject": subject, "delivery": "bearer",
        "claims": {"of_the_session": "x".repeat(4000)}});
    let answer = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
    let access = answer.is(201).text("access_token");
    assert_eq!(world.alive(&access).await, Ok(()));
    let claims = claims_of(&access);
    for name in ["of_the_subject", "of_the_session"] {
        assert_eq!(claims[name].as_str().map(str::len), Some(4000));
    }
    let refresh = json!({"refresh_token": answer.text("refresh_token")});
    world.send(Ask::post("/auth/refresh").json(&refresh)).await.ok();
    world.stop().await;
}

/// The claims of a token, unverified.
fn claims_of(token: &str) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let payload = token.split('.').nth(1).expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}
