//! Who is let in on the admin listener, and how bodies and queries are read there.

use std::io::{Read, Write};
use std::net::TcpStream;

use cloakroom_server::admin::{Scope, table};
use serde_json::{Value, json};

use crate::admin_world::{AdminWorld, text};
use crate::http::Ask;
use crate::world::{PASSWORD, on_each_store};

/// Every route with its variable segment filled.
fn routes() -> Vec<(String, String, Scope)> {
    table()
        .filter(|(_, path, _)| !path.contains("{*"))
        .map(|(method, path, scope)| {
            let start = path.find('{').unwrap_or(path.len());
            let end = path.find('}').map_or(path.len(), |end| end + 1);
            let filled = format!(
                "{}{}{}",
                &path[..start],
                if start < end { "01JZZZZZZZZZZZZZZZZZZZZZZZ" } else { "" },
                &path[end..]
            );
            (method.as_str().to_owned(), filled, scope)
        })
        .collect()
}

/// A key with these scopes.
fn key_with(world: &AdminWorld, scopes: &[&str]) -> String {
    let body = json!({"name": "test", "scopes": scopes});
    let made = world.post("/admin/v1/api-keys", &body).expect(201).body;
    text(&made["secret"]).to_owned()
}

#[test]
fn l1_a_route_takes_the_methods_of_the_table_and_no_other() {
    let world = AdminWorld::new();
    let routes = routes();
    for (_, path, _) in &routes {
        let url = format!("{}{path}", world.admin);
        let bearer = format!("Bearer {}", world.key);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            if routes.iter().any(|(listed, of, _)| listed == method && of == path) {
                continue;
            }
            let answer = world.send(method, &url, &[("authorization", &bearer)], None);
            assert_eq!(answer.status, 405, "{method} {path} {}", answer.text);
        }
    }
}

#[test]
fn l1_every_route_needs_a_key_and_the_scope_of_the_table() {
    let world = AdminWorld::new();
    let keys: Vec<(Scope, String)> = Scope::ALL
        .into_iter()
        .map(|scope| (scope, key_with(&world, &[scope.name().expect("a name")])))
        .collect();
    let mut routes = routes();
    assert!(routes.len() > 25);
    for (method, path, _) in routes.clone() {
        if method == "GET" {
            routes.push(("HEAD".to_owned(), path, Scope::Any));
        }
    }
    for (method, path, scope) in &routes {
        let url = format!("{}{path}", world.admin);
        let nobody = world.send(method, &url, &[], None);
        assert_eq!(nobody.status, 401, "{method} {path}");
        let challenge = nobody.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Bearer"), "{method} {path}: {challenge}");
        if method == "HEAD" {
            continue;
        }
        for (held, key) in &keys {
            // What would end or change everything is asked by keys that may not.
            let covered = held == scope || *held == Scope::Admin || *scope == Scope::Any;
            // A stream that is let in doesn't end.
            if covered && (method != "GET" || path.ends_with("/stream")) {
                continue;
            }
            let bearer = format!("Bearer {key}");
            let answer = world.send(method, &url, &[("authorization", &bearer)], None);
            if covered {
                assert!([200, 404].contains(&answer.status), "{method} {path} {}", answer.text);
            } else {
                assert_eq!(answer.status, 403, "{held:?} {method} {path}");
                assert_eq!(answer.code(), "insufficient_scope", "{method} {path}");
            }
        }
    }
}

#[test]
fn l1_an_unknown_path_is_unknown_to_holders_of_a_key_only() {
    let world = AdminWorld::new();
    for path in ["/admin/v1/nothing", "/admin", "/admin/", "/admin/v1/handles/x"] {
        let nobody = world.send("GET", &format!("{}{path}", world.admin), &[], None);
        assert!([401, 404].contains(&nobody.status), "{path}");
        assert_eq!(world.get(path).expect(404).code(), "not_found", "{path}");
    }
    let nobody = world.send("GET", &format!("{}/admin/v1/nothing", world.admin), &[], None);
    assert_eq!(nobody.expect(401).code(), "credentials_required");
    let wrong_method = world.ask("DELETE", "/admin/v1/users").expect(405);
    assert!(wrong_method.header("allow").is_some_and(|allow| allow.contains("POST")));
    assert_eq!(wrong_method.code(), "method_not_allowed");
}

#[test]
fn l5_a_key_counts_in_the_authorization_header_only() {
    let world = AdminWorld::new();
    let key = world.key.clone();
    let basic = |user: &str, password: &str| {
        use base64::Engine as _;
        let pair = format!("{user}:{password}");
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    let url = format!("{}/admin/v1/users", world.admin);
    let cookie = format!("session={key}; __Host-session={key}; api_key={key}");
    for headers in [
        vec![("cookie", cookie)],
        vec![("x-api-key", key.clone())],
        vec![("authorization", basic(&key, ""))],
        vec![("authorization", basic("x", &key))],
        vec![("authorization", key.clone())],
        vec![("authorization", format!("Bearer {key}x"))],
        vec![("authorization", format!("Bearer {}", &key[..key.len() - 1]))],
        vec![("authorization", "Bearer ".to_owned())],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = world.send("GET", &url, &headers, None);
        assert_eq!(answer.status, 401, "{headers:?}");
        assert!(!answer.text.contains(&key), "{}", answer.text);
    }
    for query in ["api_key", "access_token", "key"] {
        let answer = world.send("GET", &format!("{url}?{query}={key}"), &[], None);
        assert_eq!(answer.status, 401, "{query}");
    }
    // Basic with the key for a password is for the standard endpoints.
    let url = format!("{}/oauth2/introspect", world.admin);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let password = basic("x", &key);
    let good = world.send("POST", &url, &[("authorization", &password), form], Some(b"token=x"));
    assert_eq!(good.expect(200).body, json!({"active": false}));
    let user = basic(&key, "");
    world.send("POST", &url, &[("authorization", &user), form], Some(b"token=x")).expect(401);
    world.get("/admin/v1/users").expect(200);
}

/// Sends bytes and reads what comes back until the connection closes.
fn raw(world: &AdminWorld, head: &str) -> String {
    let address = world.admin.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn l6_a_browser_of_another_site_gets_nowhere() {
    let world = AdminWorld::with(&[("SERVER__ADMIN_HOSTS", "cloakroom.internal")]);
    let bearer = format!("Bearer {}", world.key);
    let port = world.admin.rsplit(':').next().expect("a port").to_owned();
    let status = |host: &str, more: &str| {
        let head = format!(
            "GET /admin/v1/users HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             authorization: {bearer}\r\n{more}\r\n"
        );
        let answer = raw(&world, &head);
        assert!(!answer.to_ascii_lowercase().contains("access-control-"), "{answer}");
        answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).unwrap_or(0)
    };
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        "localhost".to_owned(),
        "cloakroom.internal:7401".to_owned(),
    ] {
        assert_eq!(status(&host, ""), 200, "{host}");
    }
    let own = format!("127.0.0.1:{port}");
    assert_eq!(status(&own, &format!("origin: http://{own}\r\n")), 200);
    for host in [
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        "evil.example".to_owned(),
        "10.0.0.1".to_owned(),
        String::new(),
    ] {
        assert!([400, 403].contains(&status(&host, "")), "{host}");
    }
    for origin in [
        "http://evil.example",
        "null",
        "http://localhost",
        &format!("https://{own}"),
        &format!("http://localhost:{port}"),
    ] {
        assert_eq!(status(&own, &format!("origin: {origin}\r\n")), 403, "{origin}");
    }
    let own_origin = format!("origin: http://{own}\r\n");
    assert_eq!(status(&own, &format!("{own_origin}{own_origin}")), 403);
    let preflight = format!(
        "OPTIONS /admin/v1/users HTTP/1.1\r\nhost: {own}\r\nconnection: close\r\n\
         origin: http://evil.example\r\naccess-control-request-method: GET\r\n\
         access-control-request-headers: authorization\r\n\r\n"
    );
    let answer = raw(&world, &preflight);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("access-control-allow"), "{answer}");
}

#[test]
fn a13_get_and_overridden_methods_change_nothing_here() {
    let world = AdminWorld::new();
    let opened = world.open("ada", "cookie");
    let before = world.events().len();
    let bearer = format!("Bearer {}", world.key);
    for (method, path, _) in routes() {
        if method == "GET" {
            continue;
        }
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-http-method-override", method.as_str()),
            ("x-method-override", method.as_str()),
        ];
        for asked in ["GET", "HEAD"] {
            let url = format!("{}{path}?_method={method}", world.admin);
            let answer = world.send(asked, &url, &headers, None);
            assert!([200, 404, 405, 422].contains(&answer.status), "{asked} {path}");
        }
    }
    assert_eq!(world.events().len(), before);
    assert!(world.is_alive(text(&opened["session_token"])));
}

/// Every endpoint that takes a JSON body, on things that exist.
fn bodies(world: &AdminWorld) -> Vec<(&'static str, String, bool)> {
    let user = world.add_user("k@example.com");
    let sid = text(&world.open("k", "cookie")["session"]["id"]).to_owned();
    let user = text(&user["id"]).to_owned();
    vec![
        ("POST", "/admin/v1/sessions".to_owned(), true),
        ("POST", "/admin/v1/sessions/verify".to_owned(), true),
        ("POST", "/admin/v1/sessions/touch".to_owned(), true),
        ("PATCH", format!("/admin/v1/sessions/{sid}"), true),
        ("PUT", format!("/admin/v1/sessions/{sid}/data"), false),
        ("PATCH", format!("/admin/v1/sessions/{sid}/data"), false),
        ("PATCH", "/admin/v1/subjects/k".to_owned(), true),
        ("POST", "/admin/v1/tokens/revoke".to_owned(), true),
        ("POST", "/admin/v1/users".to_owned(), true),
        ("PATCH", format!("/admin/v1/users/{user}"), true),
    ]
}

#[test]
fn k1_what_is_no_json_object_is_refused_by_every_endpoint() {
    let world = AdminWorld::new();
    let bodies = bodies(&world);
    let before = world.events().len();
    let deep = format!("{{\"claims\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    let brackets = "[".repeat(60 * 1024);
    let broken: [&[u8]; 17] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\"x\"",
        b"{} {}",
        b"{\"a\":1,}",
        b"{'a':1}",
        b"\xEF\xBB\xBF{}",
        b"{\x00\"a\x00\"\x00:\x001\x00}\x00",
        b"{\"a\":1,\"a\":1}",
        b"{\"a\":NaN}",
        b"{\"a\":1e400}",
        br#"{"a":"\uD800"}"#,
        b"{\"a\":\"\xFF\"}",
        deep.as_bytes(),
        brackets.as_bytes(),
    ];
    for (method, path, _) in &bodies {
        for body in broken {
            let answer = world.raw(method, path, body);
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            assert_eq!(answer.status, 400, "{method} {path} {shown}: {}", answer.text);
            assert_eq!(answer.code(), "malformed_request");
        }
    }
    assert_eq!(world.events().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_odd_text_and_numbers_come_back_as_they_went_in() {
    let odd: Value = serde_json::from_str(
        r#"{"nul":"a\u0000b","last":"\uFFFF","astral":"😀","big":9223372036854775807,
            "low":-9223372036854775808,"huge":18446744073709551615,"max":1e308,"tiny":5e-324,
            "tenth":0.1,"zero":-0.0,"empty":{},"list":[],"\u0000":"nul's name",
            "mark":"\u202e\ufeff","quote":"\"\\'$1;--","deep":[[[[{"a":[null,true]}]]]]}"#,
    )
    .expect("JSON");
    on_each_store(&[], async |world| {
        // Compared as text: -0.0 and 0.0 are the same number.
        let same = |found: Value, place: &str| {
            assert_eq!(found.to_string(), odd.to_string(), "{place}");
        };
        let body = json!({"subject": "odd", "claims": odd, "data": odd});
        let opened = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
        let session = format!("/admin/v1/sessions/{}", opened.is(201).text("session.id"));
        let data = format!("{session}/data");
        same(world.admin(Ask::get(&session)).await.ok().at("session.claims"), "claims");
        same(world.admin(Ask::get(&data)).await.ok().json(), "data");
        let whole = Ask::new("PUT", &data).json(&json!({"again": odd}));
        world.admin(whole).await.ok();
        let merged = Ask::new("PATCH", &data).json(&json!({"merged": {"in": odd}}));
        world.admin(merged).await.ok();
        let read = world.admin(Ask::get(&data)).await;
        same(read.ok().at("again"), "data that was replaced");
        // A merge patch (RFC 7396) of nothing keeps all but a null, and here is none at the top.
        same(read.at("merged.in"), "data that was merged");
        let user = json!({"identifier": "odd@example.com", "password": PASSWORD, "claims": odd});
        let made = world.admin(Ask::post("/admin/v1/users").json(&user)).await;
        let user = format!("/admin/v1/users/{}", made.is(201).text("user.id"));
        same(world.admin(Ask::get(&user)).await.ok().at("user.claims"), "claims of a user");
    })
    .await;
}

#[test]
fn k3_numbers_that_are_no_times_are_refused() {
    let world = AdminWorld::new();
    let before = world.events().len();
    for name in ["idle_timeout", "lifetime"] {
        for bad in [
            "0",
            "-1",
            "2147483648",
            "9007199254740993",
            "9223372036854775808",
            "1e308",
            "\"1\"",
            "1.5",
            "null",
            "true",
            "[]",
            "18446744073709551616",
        ] {
            let body = format!("{{\"subject\":\"ada\",\"{name}\":{bad}}}");
            let answer = world.raw("POST", "/admin/v1/sessions", body.as_bytes());
            assert_eq!(answer.status, 422, "{name} {bad} {}", answer.text);
            assert_eq!(answer.member(), name);
        }
    }
    for bad in ["-1", "1.5", "\"1\"", "1e308", "null"] {
        let body = format!("{{\"subject\":\"ada\",\"epoch\":{bad}}}");
        let answer = world.raw("POST", "/admin/v1/sessions", body.as_bytes()).expect(422);
        assert_eq!(answer.member(), "epoch");
    }
    for path in ["sessions", "users", "events"] {
        for bad in
            ["0", "-1", "201", "2147483648", "9223372036854775808", "1e308", "1.5", "%221%22"]
        {
            let answer = world.get(&format!("/admin/v1/{path}?limit={bad}")).expect(422);
            assert_eq!(answer.member(), "limit", "{path} {bad}");
        }
        world.get(&format!("/admin/v1/{path}?limit=200")).expect(200);
        let unknown = world.get(&format!("/admin/v1/{path}?colour=red")).expect(422);
        assert_eq!((unknown.code(), unknown.member()), ("unknown_member", "colour"));
        let twice = world.get(&format!("/admin/v1/{path}?limit=1&limit=2")).expect(400);
        assert_eq!(twice.code(), "malformed_request");
    }
    assert_eq!(world.events().len(), before);
}

#[test]
fn k4_unknown_members_are_named_and_limits_come_first() {
    let world = AdminWorld::new();
    let bodies = bodies(&world);
    let before = world.events().len();
    for (method, path, strict) in &bodies {
        let extra = json!({
            "subject": "x", "token": "x", "claims": {}, "sids": [], "identifier": "x@example.com",
            "is_admin": "secret-value", "jti": "x", "expires_at": "2030-01-01T00:00:00Z",
        });
        if *strict {
            let answer = world.put(method, path, &extra);
            assert_eq!(answer.status, 422, "{method} {path}: {}", answer.text);
            assert_eq!(answer.code(), "unknown_member", "{method} {path}");
            assert!(!answer.text.contains("secret-value"), "{}", answer.text);
        }
        let bearer = format!("Bearer {}", world.key);
        let url = format!("{}{path}", world.admin);
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
            let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
            let answer = world.send(method, &url, &headers, Some(b"{}"));
            assert_eq!(answer.status, 415, "{method} {path} {kind}");
        }
        let packed = [("content-encoding", "gzip")];
        let answer = world.raw_with(method, path, b"{}", &packed);
        assert_eq!(answer.status, 415, "{method} {path}");
    }
    assert_eq!(world.events().len(), before);
}

#[test]
fn k4_a_body_over_64_kib_is_refused_unread() {
    let world = AdminWorld::new();
    let bodies = bodies(&world);
    let address = world.admin.trim_start_matches("http://").to_owned();
    for (method, path, _) in &bodies {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{{",
            world.key,
            64 * 1024 + 1
        );
        let answer = raw(&world, &head);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{method} {path}: {answer}");
        assert!(answer.contains("body_too_large"), "{answer}");
    }
}

#[test]
fn l4_guesses_are_counted_for_their_network() {
    let world = AdminWorld::with(&[("LIMIT__NETWORK", "5/1m")]);
    let url = format!("{}/admin/v1/users", world.admin);
    let guess = || {
        let headers = [("authorization", "Bearer cka_guess")];
        world.send("GET", &url, &headers, None)
    };
    let statuses: Vec<u16> = (0..8).map(|_| guess().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 5, "{statuses:?}");
    let refused = guess().expect(429);
    assert_eq!(refused.code(), "rate_limited");
    assert!(refused.header("retry-after").is_some());
    // Whoever has a key isn't stopped by those who guess.
    world.get("/admin/v1/users").expect(200);
}

#[test]
fn an_answer_to_an_unread_body_says_that_the_connection_closes() {
    let world = AdminWorld::new();
    let address = world.admin.trim_start_matches("http://").to_owned();
    // The body never comes: who waits for it, or asks again here, would wait in vain.
    let head = format!(
        "POST /admin/v1/users HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: 2\r\n\r\n"
    );
    let answer = raw(&world, &head).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 401 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}
