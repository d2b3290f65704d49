//! Section 1: ids, bodies, errors, methods and headers that every answer has.

use serde_json::json;

use crate::http::{Ask, parse, send_raw};
use crate::world::{ADA, PASSWORD, World, login, on_each_store};

/// Every public route and its method.
const ROUTES: [(&str, &str); 12] = [
    ("POST", "/auth/login"),
    ("POST", "/auth/refresh"),
    ("POST", "/auth/logout"),
    ("POST", "/auth/logout/all"),
    ("GET", "/auth/session"),
    ("GET", "/auth/sessions"),
    ("DELETE", "/auth/sessions/01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    ("POST", "/auth/reauthenticate"),
    ("POST", "/auth/password"),
    ("GET", "/auth/csrf-token"),
    ("POST", "/oauth2/revoke"),
    ("POST", "/oauth2/token"),
];

#[tokio::test(flavor = "multi_thread")]
async fn m3_a_request_id_is_the_clients_own_or_a_fresh_one() {
    on_each_store(&[], async |world| {
        let longest = "x".repeat(128);
        for id in ["a", "\"<>", &longest] {
            let answer = world.send(Ask::get("/auth/session").header("x-request-id", id)).await;
            assert_eq!(answer.text("request_id"), id);
        }
        for id in ["a b", "é", &"x".repeat(129)] {
            let answer = world.send(Ask::get("/healthz").header("x-request-id", id)).await;
            assert_ne!(answer.header("x-request-id"), Some(id));
        }
        let twice = Ask::get("/healthz").header("x-request-id", "a").header("x-request-id", "a");
        assert_ne!(world.send(twice).await.header("x-request-id"), Some("a"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_d12_o2_every_answer_is_uncacheable_and_inert() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        for (method, path) in ROUTES {
            for ask in [Ask::new(method, path), Ask::new(method, path).bearer(&access)] {
                let answer = world.send(ask.header("if-none-match", "*")).await;
                assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
                assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
                assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
                assert!(answer.header("content-security-policy").expect("said").contains("'none'"));
                assert_eq!(answer.header("strict-transport-security"), None);
                assert_ne!(answer.status, 304);
            }
        }
    })
    .await;
    let settings = [("server.origin", "https://app.example"), ("store.url", "memory:")];
    let world = World::start(&settings).await;
    let answer = world.send(Ask::get("/auth/session")).await;
    assert!(answer.header("strict-transport-security").expect("said").starts_with("max-age=6"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_k10_a_wrong_method_changes_nothing_and_is_told_the_right_one() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        for (right, path) in ROUTES {
            for method in ["GET", "HEAD", "PUT", "PATCH", "TRACE", "OPTIONS", "FOO", "DELETE"] {
                if method == right || (right == "GET" && method == "HEAD") {
                    continue;
                }
                let ask = Ask::new(method, &format!("{path}?_method={right}"))
                    .cookie(&browser.cookie_line())
                    .header("x-http-method-override", right)
                    .header("x-marker", "echo-me");
                let answer = world.send(ask).await;
                assert_eq!(answer.status, 405, "{method} {path}");
                assert!(answer.header("allow").expect("said").contains(right), "{method} {path}");
                if method != "HEAD" && path.starts_with("/auth") {
                    assert_eq!(answer.code(), "method_not_allowed");
                }
                assert!(!String::from_utf8_lossy(&answer.body).contains("echo-me"));
            }
        }
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_only_json_is_json() {
    on_each_store(&[], async |world| {
        world.user(ADA).await;
        let body = json!({"identifier": ADA, "password": PASSWORD}).to_string();
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "",
            "text/plain; application/json",
            "application/json;charset=utf-7",
        ] {
            let answer = world.send(Ask::post("/auth/login").body(kind, body.as_bytes())).await;
            answer.refused(415, "unsupported_media_type");
        }
        let twice = Ask::post("/auth/login")
            .header("content-type", "application/json")
            .body("application/json", body.as_bytes());
        world.send(twice).await.refused(415, "unsupported_media_type");
        let packed = Ask::post("/auth/login")
            .header("content-encoding", "gzip")
            .body("application/json", body.as_bytes());
        world.send(packed).await.refused(415, "unsupported_media_type");
        let charset = "application/json; charset=UTF-8";
        world.send(Ask::post("/auth/login").body(charset, body.as_bytes())).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_what_is_no_json_is_malformed() {
    on_each_store(&[], async |world| {
        let deep = "[".repeat(60 * 1024);
        for body in [
            "",
            "{",
            "[]",
            "null",
            "{} {}",
            "\u{feff}{}",
            "{\"identifier\": NaN}",
            "{\"identifier\": 1e400}",
            "{\"identifier\": \"a\", \"identifier\": \"b\"}",
            "{\"identifier\": \"a\", \"identifi\\u0065r\": \"b\"}",
            "{\"identifier\": \"\\ud800\"}",
            &deep,
        ] {
            let ask = Ask::post("/auth/login").body("application/json", body.as_bytes());
            let answer = world.send(ask).await;
            answer.refused(400, "malformed_request");
        }
        let utf16 = Ask::post("/auth/login").body("application/json", b"\xff\xfe{\x00}\x00");
        world.send(utf16).await.refused(400, "malformed_request");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_large_body_is_refused_early() {
    on_each_store(&[], async |world| {
        let large = vec![b' '; 64 * 1024 + 1];
        let answer = world.send(Ask::post("/auth/login").body("application/json", &large)).await;
        answer.refused(413, "body_too_large");
        // Announced, and never sent.
        let announced =
            b"POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
            content-length: 10000000\r\nconnection: close\r\n\r\n";
        let answer = parse(&send_raw(world.public, announced).await).expect("an answer");
        answer.refused(413, "body_too_large");
        let mut chunked = b"POST /auth/login HTTP/1.1\r\nhost: x\r\n\
            content-type: application/json\r\ntransfer-encoding: chunked\r\n\
            connection: close\r\n\r\n"
            .to_vec();
        for _ in 0..20 {
            chunked.extend_from_slice(b"2000\r\n");
            chunked.extend_from_slice(&[b' '; 0x2000]);
            chunked.extend_from_slice(b"\r\n");
        }
        let answer = parse(&send_raw(world.public, &chunked).await).expect("an answer");
        answer.refused(413, "body_too_large");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k5_ambiguous_framing_is_refused_and_the_connection_closed() {
    on_each_store(&[], async |world| {
        for head in [
            "POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\
             content-length: 3\r\n\r\n{}",
            "POST /auth/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: x\r\nx: a\r\n b\r\n\r\n",
            "GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n",
            "GET /healthz HTTP/1.1\r\n\r\n",
            "GET http://a/healthz HTTP/1.1\r\nhost: b\r\n\r\n",
            "POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\
             transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST /auth/login HTTP/1.1\r\nhost: x\r\n\
             transfer-encoding: chunked\r\n\r\n0x2\r\n{}\r\n",
        ] {
            let smuggled = format!("{head}GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
            let bytes = send_raw(world.public, smuggled.as_bytes()).await;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(text.starts_with("HTTP/1.1 4"), "{head:?}: {text}");
            assert_eq!(text.matches("HTTP/1.").count(), 1, "{head:?}: {text}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_a_slow_client_is_cut_off_and_others_are_served() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    on_each_store(&[("server.request_timeout", "1s")], async |world| {
        world.user(ADA).await;
        let mut slow = Vec::new();
        for start in [
            "GET /healthz HTTP/1.1\r\nhost:",
            "POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: 100\r\n\r\n{",
        ] {
            let mut stream = tokio::net::TcpStream::connect(world.public).await.expect("accepted");
            stream.write_all(start.as_bytes()).await.expect("taken");
            slow.push(stream);
        }
        world.send(login(ADA, "cookie")).await.ok();
        for mut stream in slow {
            let mut rest = Vec::new();
            let cut = tokio::time::timeout(
                std::time::Duration::from_secs(3),
                stream.read_to_end(&mut rest),
            );
            assert!(cut.await.is_ok());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k11_a_path_that_is_not_there_says_so_and_no_more() {
    on_each_store(&[], async |world| {
        for path in [
            "/",
            "/auth",
            "/auth/",
            "/auth/devices",
            "/auth/sign-in",
            "/auth/register",
            "/AUTH/session",
            "/auth/session/",
            "//auth/session",
            "/auth/%73ession",
            "/x?y=cks_1",
        ] {
            let answer = world.send(Ask::get(path)).await;
            answer.refused(404, "not_found");
            assert!(!String::from_utf8_lossy(&answer.body).contains("cks_"));
        }
    })
    .await;
}

#[test]
fn error_codes_are_as_written_down() {
    use cloakroom_server::problem::Code;

    let lines =
        Code::ALL.iter().map(|code| format!("{} {}\n", code.status().as_u16(), code.as_str()));
    crate::world::golden("codes.txt", &lines.collect::<String>());
}
