//! Section 6: what gateways ask, and what nobody may talk them into.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::http::{Answer, Ask, Browser};
use crate::world::{ADA, World, on_each_store};

/// A gateway on this machine, and policies to be asked.
const GATEWAY: &[(&str, &str)] = &[
    ("server.trusted_proxies", "127.0.0.1/32"),
    (
        "forward_auth.policies",
        "{ admin = { require = [\"role:admin\"] }, fresh = { max_age = \"1s\" }, \
         strong = { acr = \"aal2\" }, token = { csrf = \"token\" } }",
    ),
    ("forward_auth.claim_headers", "role,department"),
    ("forward_auth.sign_in_url", "/auth/sign-in"),
    ("forward_auth.allowed_return_origins", "https://shop.example"),
];

/// A gateway's question about a visitor's GET.
fn verify(path: &str) -> Ask {
    Ask::get(path)
        .header("x-forwarded-method", "GET")
        .header("x-forwarded-host", "localhost:7400")
        .header("x-forwarded-proto", "http")
        .header("x-forwarded-uri", "/private?page=2")
}

async fn by_cookie(browser: &Browser, ask: Ask) -> Answer {
    browser.clone().send_bare(ask).await
}

async fn give_role(world: &World, id: &str, role: Value) {
    let ask = Ask::new("PATCH", &format!("/admin/v1/users/{id}"));
    world.admin(ask.json(&json!({"claims": {"role": role}}))).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_live_session_comes_with_every_identity_header() {
    on_each_store(GATEWAY, async |world| {
        let ada = world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let line = format!("{}; theme=dark; b=c", browser.cookie_line());
        let answer = world.send(verify("/auth/verify").cookie(&line)).await;
        assert_eq!(answer.ok().header("x-auth-subject"), Some(ada.id.as_str()));
        assert_eq!(answer.header("x-auth-session"), Some(&*world.sessions_of(&ada).await[0]));
        let claims = URL_SAFE_NO_PAD.decode(answer.header("x-auth-claims").expect("said"));
        let claims: Value = serde_json::from_slice(&claims.expect("base64url")).expect("JSON");
        assert_eq!(claims, json!({"email": ADA, "role": "user"}));
        assert_eq!(answer.header("x-auth-claim-role"), Some("user"));
        assert_eq!(answer.header("x-auth-claim-department"), Some(""));
        assert_eq!(answer.header("x-auth-cookie"), Some("theme=dark; b=c"));
        assert!(answer.header("authorization").expect("said").starts_with("Bearer ey"));
        assert!(answer.all("set-cookie").is_empty() && answer.body.is_empty());
        let access = world.tokens(ADA).await.text("access_token");
        world.send(Ask::new("PROPFIND", "/auth/verify").bearer(&access)).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e12_the_gateways_token_is_no_session_credential() {
    on_each_store(GATEWAY, async |world| {
        world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        let answer = world.send(verify("/auth/verify").bearer(&access)).await;
        let assertion =
            answer.ok().header("authorization").expect("said")["Bearer ".len()..].to_owned();
        for ask in [
            Ask::get("/auth/session"),
            Ask::get("/auth/verify"),
            Ask::post("/auth/logout/all"),
            Ask::post("/auth/refresh"),
            Ask::post("/auth/password").json(&json!({})),
            Ask::delete("/auth/sessions/01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ] {
            world.send(ask.bearer(&assertion)).await.refused(401, "token_wrong_type");
        }
        assert_eq!(world.alive(&access).await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_nothing_is_believed_of_a_peer_that_is_not_trusted() {
    on_each_store(&GATEWAY[1..], async |world| {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        // The forwarded GET doesn't count, so the method is unknown: unsafe.
        by_cookie(&browser, verify("/auth/verify")).await.refused(403, "csrf_failed");
        let garbled = verify("/auth/verify").header("x-forwarded-uri", "%");
        by_cookie(&browser, garbled).await.refused(403, "csrf_failed");
        let own = Ask::get("/auth/verify").header("sec-fetch-site", "same-origin");
        by_cookie(&browser, own).await.ok();
        let evil = Ask::get("/auth/verify")
            .header("x-forwarded-host", "evil")
            .header("origin", "http://evil");
        by_cookie(&browser, evil).await.refused(403, "csrf_failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_an_original_method_that_is_not_surely_safe_is_unsafe() {
    on_each_store(GATEWAY, async |world| {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let with = |method: &str| Ask::get("/auth/verify").header("x-forwarded-method", method);
        for method in ["POST", "post", "PoST", "FOO", "get", "DELETE"] {
            by_cookie(&browser, with(method)).await.refused(403, "csrf_failed");
        }
        by_cookie(&browser, Ask::get("/auth/verify")).await.refused(403, "csrf_failed");
        let overridden = with("POST").header("x-http-method-override", "GET");
        by_cookie(&browser, overridden).await.refused(403, "csrf_failed");
        let alias = Ask::get("/auth/verify").header("x_forwarded_method", "GET");
        by_cookie(&browser, alias).await.refused(403, "csrf_failed");
        for ask in [
            with("GET, POST"),
            with(""),
            with("GET").header("x-forwarded-method", "GET"),
            with("GET").header("x-original-method", "POST"),
        ] {
            by_cookie(&browser, ask).await.refused(400, "malformed_request");
        }
        for (name, value) in [
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://localhost:7400"),
            ("referer", "http://localhost:7400/form"),
        ] {
            by_cookie(&browser, with("POST").header(name, value)).await.ok();
        }
        for (name, value) in [("sec-fetch-site", "cross-site"), ("origin", "null")] {
            by_cookie(&browser, with("POST").header(name, value)).await.refused(403, "csrf_failed");
        }
        // The application's own origin, as the gateway tells it.
        let app = with("POST")
            .header("x-forwarded-host", "app.example")
            .header("x-forwarded-proto", "https")
            .header("origin", "https://app.example");
        by_cookie(&browser, app).await.ok();
        let access = world.tokens(ADA).await.text("access_token");
        world.send(with("POST").bearer(&access)).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_other_spellings_of_a_forwarded_header_never_count() {
    on_each_store(GATEWAY, async |world| {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let aliases = ["x_forwarded_method", "x.forwarded.method", "x-forwarded_method"];
        for alias in aliases {
            // A visitor's own header, which a gateway that strips the right one passes on.
            let alone = Ask::get("/auth/verify").header(alias, "GET");
            by_cookie(&browser, alone).await.refused(403, "csrf_failed");
            let beside = verify("/auth/verify").header(alias, "POST");
            by_cookie(&browser, beside).await.ok();
        }
        for (alias, value) in [("x_forwarded_host", "evil"), ("x_forwarded_uri", "%")] {
            let answer = by_cookie(&browser, verify("/auth/verify").header(alias, value)).await;
            answer.ok();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_headers_that_a_connection_names_are_neither_dropped_nor_overlooked() {
    on_each_store(GATEWAY, async |world| {
        let ada = world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let hop = "x-auth-subject, x-forwarded-method, authorization, cookie";
        let answer = by_cookie(&browser, verify("/auth/verify").header("connection", hop)).await;
        assert_eq!(answer.ok().header("x-auth-subject"), Some(ada.id.as_str()));
        assert!(answer.header("authorization").is_some());
        // What names the method must not hide that the request is unsafe.
        let post =
            Ask::get("/auth/verify").header("x-forwarded-method", "POST").header("connection", hop);
        by_cookie(&browser, post).await.refused(403, "csrf_failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_may_want_our_own_token_too() {
    on_each_store(GATEWAY, async |world| {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let post = || {
            Ask::get("/auth/verify/token")
                .header("x-forwarded-method", "POST")
                .header("sec-fetch-site", "same-origin")
        };
        let without = by_cookie(&browser, post()).await;
        assert!(without.refused(403, "csrf_failed").text("detail").starts_with("step 4"));
        let token = browser.csrf.clone().expect("a token");
        by_cookie(&browser, post().header("x-csrf-token", &token)).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_a_garbled_original_request_is_refused() {
    on_each_store(GATEWAY, async |world| {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let long = format!("/{}", "x".repeat(8 * 1024));
        for uri in ["%", "/%zz", "http://[::1", "//x", "/a b", &long] {
            let ask = Ask::get("/auth/verify")
                .header("x-forwarded-method", "GET")
                .header("x-forwarded-uri", uri);
            by_cookie(&browser, ask).await.refused(400, "malformed_request");
        }
        for ask in [
            verify("/auth/verify").header("x-forwarded-uri", "/other"),
            verify("/auth/verify").header("x-original-url", "nonsense"),
            verify("/auth/verify").header("x-original-url", "http://evil/private"),
        ] {
            by_cookie(&browser, ask).await.refused(400, "malformed_request");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_policies_fail_closed_and_claims_are_compared_exactly() {
    on_each_store(GATEWAY, async |world| {
        let ada = world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        let ask = |path: &str| verify(path).bearer(&access);
        for path in [
            "/auth/verify/unknown",
            "/auth/verify/",
            "/auth/verify//",
            "/auth/verify/admin/",
            "/auth/verify/%61dmin",
            "/auth/verify/Admin",
            "/auth/verify/..",
        ] {
            world.send(ask(path)).await.refused(404, "not_found");
        }
        for refused in [
            json!("user"),
            json!("administrator"),
            json!(" admin"),
            json!("Admin"),
            json!({"admin": 1}),
            json!([["admin"]]),
            json!(null),
        ] {
            give_role(world, ada.id.as_str(), refused).await;
            let answer = world.send(ask("/auth/verify/admin")).await;
            answer.refused(403, "insufficient_claims");
        }
        for taken in [json!("admin"), json!(["user", "admin"])] {
            give_role(world, ada.id.as_str(), taken).await;
            world.send(ask("/auth/verify/admin")).await.ok();
        }
        let weak = world.send(ask("/auth/verify/strong").header("accept", "*/*")).await;
        weak.refused(401, "reauthentication_required");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_the_visitors_query_changes_nothing() {
    on_each_store(GATEWAY, async |world| {
        world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        let path = "/auth/verify/admin?require=&acr=aal1&max_age=999999&policy=default";
        world.send(verify(path).bearer(&access)).await.refused(403, "insufficient_claims");
        let path = "/auth/verify?policy=unknown&a=%zz&[]=&=;//";
        world.send(verify(path).bearer(&access)).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b6_max_age_counts_from_the_sign_in() {
    on_each_store(GATEWAY, async |world| {
        world.user(ADA).await;
        let tokens = world.tokens(ADA).await;
        let ask = |token: &str| verify("/auth/verify/fresh").bearer(token);
        world.send(ask(&tokens.text("access_token"))).await.ok();
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        let body = json!({"refresh_token": tokens.text("refresh_token")});
        let fresh = world.send(Ask::post("/auth/refresh").json(&body)).await;
        let late = world.send(ask(&fresh.ok().text("access_token"))).await;
        late.refused(401, "reauthentication_required");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_burst_sets_no_cookie_and_is_all_answered() {
    on_each_store(GATEWAY, async |world| {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let asks: Vec<_> = (0..100)
            .map(|_| {
                let mut browser = browser.clone();
                tokio::spawn(async move { browser.send_bare(verify("/auth/verify")).await })
            })
            .collect();
        for answer in asks {
            assert!(answer.await.expect("no panic").ok().all("set-cookie").is_empty());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_the_kept_identity_follows_revocation_and_claims() {
    on_each_store(GATEWAY, async |world| {
        let ada = world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        let ask = || verify("/auth/verify").bearer(&access);
        let first = world.send(ask()).await;
        let again = world.send(ask()).await;
        assert_eq!(first.ok().header("authorization"), again.ok().header("authorization"));
        give_role(world, ada.id.as_str(), json!("admin")).await;
        let changed = world.send(ask()).await;
        assert_eq!(changed.header("x-auth-claim-role"), Some("admin"));
        assert_ne!(changed.header("authorization"), first.header("authorization"));
        world.send(Ask::post("/auth/logout").bearer(&access)).await.is(204);
        world.send(ask()).await.refused(401, "session_ended");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i14_other_spellings_are_other_places() {
    on_each_store(GATEWAY, async |world| {
        world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        for path in [
            "//auth/verify",
            "/auth/%76erify",
            "/auth/x/../verify",
            "/AUTH/verify",
            "/auth/verify;x",
            "/auth/verifyx",
        ] {
            let ask = verify(path).bearer(&access);
            world.send(ask).await.refused(404, "not_found");
        }
        let absolute = verify("http://localhost/auth/verify/admin").bearer(&access);
        world.send(absolute).await.refused(403, "insufficient_claims");
        let other = verify("http://evil/auth/verify").bearer(&access);
        world.send(other).await.refused(400, "malformed_request");
        let trace = Ask::new("TRACE", "/auth/verify").bearer(&access);
        let trace = world.send(trace).await;
        assert!(trace.refused(405, "method_not_allowed").header("allow").is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_a_page_without_a_session_leads_to_the_sign_in_and_back() {
    on_each_store(GATEWAY, async |world| {
        let page = |ask: Ask| ask.header("accept", "text/html,application/xhtml+xml;q=0.9");
        let answer = world.send(page(verify("/auth/verify"))).await;
        let location = answer.is(302).header("location").expect("said").to_owned();
        assert_eq!(location, "/auth/sign-in?return_to=%2Fprivate%3Fpage%3D2");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let from = |host: &str, proto: &str, uri: &str| {
            page(
                Ask::get("/auth/verify")
                    .header("x-forwarded-method", "GET")
                    .header("x-forwarded-host", host)
                    .header("x-forwarded-proto", proto)
                    .header("x-forwarded-uri", uri),
            )
        };
        let shop = world.send(from("shop.example", "https", "/cart?a=%0d%0ab")).await;
        assert_eq!(shop.is(302).header("location"), Some("/auth/sign-in"));
        let shop = world.send(from("shop.example", "https", "/cart")).await;
        let place = "/auth/sign-in?return_to=https%3A%2F%2Fshop.example%2Fcart";
        assert_eq!(shop.is(302).header("location"), Some(place));
        let evil = world.send(from("evil.com", "https", "/cart")).await;
        assert_eq!(evil.is(302).header("location"), Some("/auth/sign-in"));
        world.send(from("evil.com", "javascript", "/x")).await.refused(400, "malformed_request");
        for ask in [
            verify("/auth/verify"),
            verify("/auth/verify").header("accept", "application/json, */*"),
            page(Ask::get("/auth/verify").header("x-forwarded-method", "POST")),
        ] {
            world.send(ask).await.refused(401, "credentials_required");
        }
    })
    .await;
}
