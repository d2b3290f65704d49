//! Section 8: sessions, opened, read, changed and ended by a backend.

use cloakroom_core::limits::REASON_CHARS_MAX;
use serde_json::{Value, json};

use crate::admin_world::{AdminWorld, text};

#[test]
fn a_cookie_session_comes_with_its_ready_line() {
    let world = AdminWorld::new();
    let body = json!({
        "subject": "customer-1", "claims": {"role": "admin"}, "data": {"cart": [1, 2]},
        "amr": ["pwd", "otp"], "acr": "aal2", "idle_timeout": 600, "lifetime": 3600,
        "client": {"ip": "203.0.113.9", "user_agent": "Firefox/141.0", "label": "Office"},
    });
    let answer = world.post("/admin/v1/sessions", &body).expect(201);
    let session = &answer.body["session"];
    let sid = text(&session["id"]);
    assert_eq!(answer.header("location"), Some(format!("/admin/v1/sessions/{sid}").as_str()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(session["subject"], "customer-1");
    assert_eq!(session["claims"], json!({"role": "admin"}));
    assert_eq!(session["amr"], json!(["pwd", "otp"]));
    assert_eq!(session["acr"], "aal2");
    assert_eq!(session["delivery"], "cookie");
    assert_eq!(session["client"]["label"], "Office");
    assert_eq!(session["client"]["ip"], "203.0.113.9");
    assert_eq!(session["ended"], Value::Null);
    assert_eq!(text(&session["csrf_key"]).len(), 43);
    let token = text(&answer.body["session_token"]);
    assert!(token.starts_with("cks_"));
    let line = format!("session={token}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!(answer.body["set_cookie"], json!([line]));
    assert!(answer.body.get("access_token").is_none() && answer.body.get("token_type").is_none());
    assert!(world.is_alive(token));
    let data = world.get(&format!("/admin/v1/sessions/{sid}/data")).expect(200);
    assert_eq!(data.body, json!({"cart": [1, 2]}));
    // The public listener takes the cookie and the CSRF token that came with it.
    let url = format!("{}/auth/logout", world.public);
    let cookie = format!("session={token}");
    let csrf = text(&answer.body["csrf_token"]);
    let refused = world.send("POST", &url, &[("cookie", &cookie)], None);
    assert_eq!(refused.code(), "csrf_failed");
    let headers = [("cookie", cookie.as_str()), ("x-csrf-token", csrf)];
    world.send("POST", &url, &headers, None).expect(204);
    assert!(!world.is_alive(token));
}

#[test]
fn bearer_and_split_have_the_shapes_of_the_contract() {
    let world = AdminWorld::new();
    let bearer = world.open("customer-1", "bearer");
    assert_eq!(bearer["token_type"], "Bearer");
    assert_eq!(bearer["expires_in"], 900);
    // Whole seconds left, a moment after the opening.
    let left = bearer["refresh_expires_in"].as_u64().expect("seconds");
    assert!((604_790..=604_800).contains(&left), "{left}");
    assert!(text(&bearer["refresh_token"]).starts_with("ckr_"));
    assert!(bearer.get("csrf_token").is_none() && bearer.get("set_cookie").is_none());
    assert!(world.is_alive(text(&bearer["access_token"])));
    let split = world.open("customer-1", "split");
    assert!(split.get("refresh_token").is_none() && split.get("session_token").is_none());
    assert!(text(&split["set_cookie"][0]).starts_with("refresh=ckr_"));
    assert!(text(&split["set_cookie"][0]).contains("; Path=/auth; "));
    assert!(split["csrf_token"].is_string());
    assert!(world.is_alive(text(&split["access_token"])));
    // A refresh token is none of the two that `verify` takes.
    let body = json!({"token": bearer["refresh_token"]});
    let refused = world.post("/admin/v1/sessions/verify", &body).expect(401);
    assert_eq!(refused.code(), "token_wrong_type");
}

#[test]
fn an_anonymous_session_is_nobodys_and_is_succeeded_with_its_data() {
    let world = AdminWorld::new();
    let body = json!({"subject": null, "data": {"cart": 3}});
    let anonymous = world.post("/admin/v1/sessions", &body).expect(201).body;
    assert_eq!(anonymous["session"]["subject"], Value::Null);
    let old = text(&anonymous["session_token"]);
    let body = json!({"subject": "ada", "replaces": old, "carry_data": true, "data": {"x": 1}});
    let answer = world.post("/admin/v1/sessions", &body).expect(201);
    assert_eq!(answer.header("cloakroom-durability"), Some("local"));
    let sid = text(&answer.body["session"]["id"]);
    let data = world.get(&format!("/admin/v1/sessions/{sid}/data")).expect(200).body;
    assert_eq!(data, json!({"cart": 3, "x": 1}));
    assert!(!world.is_alive(old));
    let old = text(&anonymous["session"]["id"]);
    let ended = world.get(&format!("/admin/v1/sessions/{old}")).expect(200);
    assert_eq!(ended.body["session"]["ended"]["reason"], "replaced");
}

#[test]
fn an_epoch_read_before_a_sign_out_everywhere_opens_nothing() {
    let world = AdminWorld::new();
    world.open("ada", "cookie");
    let subject = world.get("/admin/v1/subjects/ada").expect(200).body["subject"].clone();
    assert_eq!((&subject["epoch"], &subject["live_sessions"]), (&json!(0), &json!(1)));
    let done = world.ask("DELETE", "/admin/v1/subjects/ada/sessions").expect(200);
    assert_eq!(done.body, json!({"revoked": 1}));
    assert_eq!(done.header("cloakroom-durability"), Some("local"));
    let body = json!({"subject": "ada", "epoch": 0});
    let refused = world.post("/admin/v1/sessions", &body).expect(409);
    assert_eq!(refused.code(), "conflict");
    world.post("/admin/v1/sessions", &json!({"subject": "ada", "epoch": 1})).expect(201);
}

#[test]
fn an_impersonated_session_says_who_acts_and_is_short() {
    let world = AdminWorld::new();
    let body = json!({"subject": "ada", "actor": "support-7", "delivery": "bearer"});
    let opened = world.post("/admin/v1/sessions", &body).expect(201).body;
    assert!(opened["refresh_expires_in"].as_u64().is_some_and(|secs| secs <= 3600));
    assert!(world.is_alive(text(&opened["access_token"])));
    assert_eq!(opened["session"]["actor"], "support-7");
    let sid = text(&opened["session"]["id"]);
    let seen = world.get(&format!("/admin/v1/sessions/{sid}")).expect(200).body;
    assert_eq!(seen["session"]["actor"], "support-7");
    let of_their_own = world.open("ada", "cookie");
    assert!(of_their_own["session"].get("actor").is_none());
}

#[test]
fn sessions_are_paged_and_filtered() {
    let world = AdminWorld::new();
    let mut opened: Vec<String> = (0..5)
        .map(|n| text(&world.open(&format!("s{}", n % 2), "cookie")["session"]["id"]).to_owned())
        .collect();
    let mut seen = Vec::new();
    let mut path = "/admin/v1/sessions?limit=2".to_owned();
    for _ in 0..5 {
        let page = world.get(&path).expect(200).body;
        let sessions = page["sessions"].as_array().expect("a list").clone();
        assert!(sessions.len() <= 2);
        seen.extend(sessions.iter().map(|session| text(&session["id"]).to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/admin/v1/sessions?limit=2&after={next}");
    }
    opened.sort();
    seen.sort();
    assert_eq!(seen, opened);
    let of_one = world.get("/admin/v1/sessions?subject=s0").expect(200).body;
    assert_eq!(of_one["sessions"].as_array().map(Vec::len), Some(3));
    assert_eq!(of_one["next"], Value::Null);
    let listed = world.get("/admin/v1/subjects/s1/sessions").expect(200).body;
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(2));
}

#[test]
fn l9_cursors_and_filters_are_data() {
    let world = AdminWorld::new();
    world.open("a}:{b", "cookie");
    world.open("*", "cookie");
    world.open("../x", "cookie");
    for (subject, count) in
        [("a%7D%3A%7Bb", 1), ("*", 1), ("..%2Fx", 1), ("%25", 0), ("'%20OR%201", 0)]
    {
        let answer = world.get(&format!("/admin/v1/sessions?subject={subject}")).expect(200);
        let found = answer.body["sessions"].as_array().map(Vec::len);
        assert_eq!(found, Some(count), "{subject}");
    }
    let listed = world.get("/admin/v1/subjects/..%2Fx/sessions").expect(200).body;
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(1));
    let long = "x".repeat(2000);
    for after in ["../", "*", "'", "%7B", "01J", "AAAA", &long] {
        for path in ["sessions", "users", "events"] {
            let answer = world.get(&format!("/admin/v1/{path}?after={after}"));
            let nothing = answer.status == 200 && answer.body["users"] == json!([]);
            let refused = answer.status == 422 && answer.member() == "after";
            assert!(nothing || refused, "{path} {after} {}", answer.text);
        }
    }
}

#[test]
fn claims_are_changed_by_a_merge_patch() {
    let world = AdminWorld::new();
    let body = json!({"subject": "ada", "claims": {"role": "user", "team": "a"}});
    let opened = world.post("/admin/v1/sessions", &body).expect(201).body;
    let path = format!("/admin/v1/sessions/{}", text(&opened["session"]["id"]));
    let patch = json!({"claims": {"role": "admin", "team": null}});
    let changed = world.put("PATCH", &path, &patch).expect(200).body;
    assert_eq!(changed["session"]["claims"], json!({"role": "admin"}));
    for name in [
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "sid",
        "auth_time",
        "amr",
        "acr",
        "epoch",
        "cnf",
        "act",
        "scope",
        "client_id",
        "__proto__",
    ] {
        let refused = world.put("PATCH", &path, &json!({"claims": {name: "x"}})).expect(422);
        assert_eq!(refused.code(), "invalid_member", "{name}");
        let body = json!({"subject": "ada", "claims": {name: "x"}});
        let refused = world.post("/admin/v1/sessions", &body).expect(422);
        assert_eq!(refused.member(), format!("claims.{name}"));
    }
    assert_eq!(world.get(&path).body["session"]["claims"], json!({"role": "admin"}));
    let refused = world.put("PATCH", &path, &json!({})).expect(422);
    assert_eq!(refused.member(), "claims");
}

#[test]
fn b3_a_level_of_assurance_that_is_misspelt_is_refused() {
    let world = AdminWorld::new();
    let open = |acr: &str| world.post("/admin/v1/sessions", &json!({"subject": "ada", "acr": acr}));
    // Each would have escaped the level's caps and met no policy.
    for acr in ["AAL3", "Aal2", "aal4", "aal03", "aal255"] {
        assert_eq!(open(acr).expect(422).member(), "acr", "{acr}");
    }
    for acr in ["aal1", "aal3", "aal", "aal3+", "aalto", "phr", "urn:example:aal3"] {
        assert_eq!(open(acr).expect(201).body["session"]["acr"], acr);
    }
}

#[test]
fn k9_claims_and_data_are_bounded_and_the_largest_member_is_named() {
    let world = AdminWorld::new();
    let opened = world.open("ada", "cookie");
    let path = format!("/admin/v1/sessions/{}", text(&opened["session"]["id"]));
    let claims = json!({"claims": {"small": 1, "big": "x".repeat(4096)}});
    let refused = world.put("PATCH", &path, &claims).expect(413);
    assert_eq!((refused.code(), refused.member()), ("body_too_large", "big"));
    let data = json!({"small": 1, "big": "x".repeat(16 * 1024)});
    let refused = world.put("PUT", &format!("{path}/data"), &data).expect(413);
    assert_eq!((refused.code(), refused.member()), ("body_too_large", "big"));
    // The bound holds for what a patch results in.
    let half = json!({"a": "x".repeat(9000)});
    world.put("PUT", &format!("{path}/data"), &half).expect(200);
    let other = json!({"b": "x".repeat(9000)});
    world.put("PATCH", &format!("{path}/data"), &other).expect(413);
    assert_eq!(world.get(&format!("{path}/data")).body, half);
    let label = json!({"subject": "ada", "client": {"label": "x".repeat(10_240)}});
    assert_eq!(world.post("/admin/v1/sessions", &label).expect(422).member(), "client.label");
    let agent = json!({"subject": "ada", "client": {"user_agent": "x".repeat(60_000)}});
    let opened = world.post("/admin/v1/sessions", &agent).expect(201).body;
    assert_eq!(text(&opened["session"]["client"]["user_agent"]).len(), 512);
    let amr = json!({"subject": "ada", "amr": vec!["x"; 17]});
    assert_eq!(world.post("/admin/v1/sessions", &amr).expect(422).member(), "amr");
}

#[test]
fn an_operators_words_are_cut_where_the_engine_cuts_them() {
    let world = AdminWorld::new();
    let opened = world.open("ada", "cookie");
    let path = format!("/admin/v1/sessions/{}", text(&opened["session"]["id"]));
    world.ask("DELETE", &format!("{path}?reason={}", "w".repeat(300))).expect(204);
    let events = world.get("/admin/v1/events?type=session.ended").expect(200).body;
    let kept = format!("ended_by_operator: {}", "w".repeat(REASON_CHARS_MAX));
    assert_eq!(events["events"][0]["reason"], kept);
}

#[test]
fn an_ended_session_is_shown_with_its_reason_and_ends_once() {
    let world = AdminWorld::new();
    let opened = world.open("ada", "cookie");
    let path = format!("/admin/v1/sessions/{}", text(&opened["session"]["id"]));
    let words = "lost%20phone%1b%5b31m";
    let done = world.ask("DELETE", &format!("{path}?reason={words}")).expect(204);
    assert_eq!(done.header("cloakroom-durability"), Some("local"));
    assert!(!world.is_alive(text(&opened["session_token"])));
    let ended = world.get(&path).expect(200).body["session"]["ended"].clone();
    assert_eq!(ended["reason"], "ended_by_operator");
    assert!(text(&ended["at"]).ends_with('Z'));
    world.ask("DELETE", &path).expect(204);
    let patch = json!({"claims": {"a": 1}});
    let refused = world.put("PATCH", &path, &patch).expect(401);
    assert_eq!(
        (refused.code(), &refused.body["reason"]),
        ("session_ended", &json!("ended_by_operator"))
    );
    let refused = world.put("PUT", &format!("{path}/data"), &json!({})).expect(401);
    assert_eq!(refused.code(), "session_ended");
    let events = world.get("/admin/v1/events?type=session.ended").expect(200).body;
    let events = events["events"].as_array().expect("a list").clone();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["actor"]["type"], "operator");
    assert!(!text(&events[0]["reason"]).contains('\u{1b}'), "{}", events[0]);
}

#[test]
fn a_backend_says_that_its_user_has_signed_out() {
    let world = AdminWorld::new();
    let opened = world.open("ada", "cookie");
    let path = format!("/admin/v1/sessions/{}", text(&opened["session"]["id"]));
    world.ask("DELETE", &format!("{path}?reason=signed_out")).expect(204);
    assert_eq!(world.get(&path).expect(200).body["session"]["ended"]["reason"], "signed_out");
}

#[test]
fn g4_data_is_versioned_and_no_update_is_lost() {
    let world = AdminWorld::new();
    let opened = world.open("ada", "cookie");
    let path = format!("/admin/v1/sessions/{}/data", text(&opened["session"]["id"]));
    let empty = world.get(&path).expect(200);
    assert_eq!(empty.body, json!({}));
    let first = world.put("PUT", &path, &json!({"a": 1})).expect(200);
    let tag = first.header("etag").expect("a tag").to_owned();
    assert_ne!(empty.header("etag"), Some(tag.as_str()));
    assert_eq!(world.get(&path).header("etag"), Some(tag.as_str()));
    let with =
        |tag: &str, body: &str| world.raw_with("PUT", &path, body.as_bytes(), &[("if-match", tag)]);
    let second = with(&tag, r#"{"a":2}"#).expect(200);
    let newer = second.header("etag").expect("a tag").to_owned();
    for lost in [tag.as_str(), "\"0\"", "\"x\"", &format!("W/{newer}"), "\"1\", \"2\""] {
        assert_eq!(with(lost, r#"{"a":3}"#).expect(412).code(), "precondition_failed", "{lost}");
    }
    assert_eq!(with("7", "{}").expect(400).code(), "malformed_request");
    assert_eq!(world.get(&path).body, json!({"a": 2}));
    with("*", r#"{"a":4}"#).expect(200);
    let current = world.get(&path).header("etag").expect("a tag").to_owned();
    let list = format!("\"1\", {current}");
    with(&list, r#"{"a":5,"b":{"c":1,"d":2}}"#).expect(200);
    let patch = br#"{"a":null,"b":{"c":9}}"#;
    let merged = world.raw("PATCH", &path, patch).expect(200);
    assert_eq!(merged.body, json!({"b": {"c": 9, "d": 2}}));
    let fresh = world.open("eve", "cookie");
    let fresh = format!("/admin/v1/sessions/{}/data", text(&fresh["session"]["id"]));
    let nothing_yet = world.raw_with("PUT", &fresh, b"{}", &[("if-match", "*")]);
    assert_eq!(nothing_yet.expect(412).code(), "precondition_failed");
}

#[test]
fn g4_of_many_writers_with_one_version_one_wins_and_all_patches_stay() {
    let world = AdminWorld::new();
    let opened = world.open("ada", "cookie");
    let path = format!("/admin/v1/sessions/{}/data", text(&opened["session"]["id"]));
    let tag = world.put("PUT", &path, &json!({"n": -1})).header("etag").expect("a tag").to_owned();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|n| {
                let (world, path, tag) = (&world, &path, &tag);
                scope.spawn(move || {
                    let body = format!("{{\"n\":{n}}}");
                    world.raw_with("PUT", path, body.as_bytes(), &[("if-match", tag)]).status
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 15, "{statuses:?}");
    std::thread::scope(|scope| {
        for n in 0..16 {
            let (world, path) = (&world, &path);
            scope.spawn(move || {
                world.put("PATCH", path, &json!({format!("m{n}"): n})).expect(200);
            });
        }
    });
    let data = world.get(&path).body;
    assert!((0..16).all(|n| data[format!("m{n}")] == n), "{data}");
}

#[test]
fn touching_slides_a_session_without_its_credential() {
    let world = AdminWorld::with(&[("SESSION__IDLE", "2s")]);
    let opened = world.open("ada", "cookie");
    let sid = text(&opened["session"]["id"]);
    let seen = |world: &AdminWorld| {
        let session = world.get(&format!("/admin/v1/sessions/{sid}")).body;
        text(&session["session"]["last_seen_at"]).to_owned()
    };
    let before = seen(&world);
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(900));
        world.post("/admin/v1/sessions/touch", &json!({"sids": [sid]})).expect(204);
    }
    assert!(seen(&world) > before);
    assert!(world.is_alive(text(&opened["session_token"])));
    for (bad, member) in [
        (json!({"sids": ["x"]}), "sids"),
        (json!({"sids": "x"}), "sids"),
        (json!({"sids": [1]}), "sids"),
        (json!({"other": []}), "other"),
    ] {
        assert_eq!(world.post("/admin/v1/sessions/touch", &bad).expect(422).member(), member);
    }
    let unknown = json!({"sids": ["01JZZZZZZZZZZZZZZZZZZZZZZZ"]});
    world.post("/admin/v1/sessions/touch", &unknown).expect(204);
}

#[test]
fn end_all_ends_everything_and_sweep_says_what_it_removed() {
    let world = AdminWorld::new();
    let tokens: Vec<String> = (0..6)
        .map(|n| text(&world.open(&format!("s{n}"), "cookie")["session_token"]).to_owned())
        .collect();
    let done = world.ask("POST", "/admin/v1/sessions/end-all").expect(200);
    assert!(text(&done.body["ended_before"]).ends_with('Z'));
    assert_eq!(done.header("cloakroom-durability"), Some("local"));
    assert!(tokens.iter().all(|token| !world.is_alive(token)));
    assert!(world.is_alive(text(&world.open("s1", "cookie")["session_token"])));
    let swept = world.ask("POST", "/admin/v1/sweep").expect(200).body;
    assert!(swept["removed"].is_u64(), "{swept}");
}

#[test]
fn one_access_token_is_denied_and_its_session_lives_on() {
    let world = AdminWorld::new();
    let opened = world.open("ada", "bearer");
    let access = text(&opened["access_token"]);
    let revoked = world.post("/admin/v1/tokens/revoke", &json!({"token": access})).expect(204);
    assert_eq!(revoked.header("cloakroom-durability"), Some("local"));
    assert!(!world.is_alive(access));
    let body = json!({"refresh_token": opened["refresh_token"]});
    let url = format!("{}/auth/refresh", world.public);
    let headers = [("content-type", "application/json")];
    let fresh = world.send("POST", &url, &headers, Some(body.to_string().as_bytes())).expect(200);
    let access = text(&fresh.body["access_token"]);
    assert!(world.is_alive(access));
    let claims = access.split('.').nth(1).expect("a payload");
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims);
    let claims: Value = serde_json::from_slice(&claims.expect("base64url")).expect("JSON");
    let named = json!({"jti": claims["jti"], "expires_at": "9999-12-31T23:59:59Z"});
    world.post("/admin/v1/tokens/revoke", &named).expect(204);
    assert!(!world.is_alive(access));
    for (bad, member) in [
        (json!({}), "jti"),
        (json!({"jti": "x"}), "expires_at"),
        (json!({"expires_at": "2030-01-01T00:00:00Z"}), "jti"),
        (json!({"jti": "x", "expires_at": "2030-01-01T00:00:00Z"}), "jti"),
        (json!({"jti": claims["jti"], "expires_at": "soon"}), "expires_at"),
        (json!({"jti": claims["jti"], "expires_at": 1e308}), "expires_at"),
        (json!({"jti": claims["jti"], "expires_at": -1}), "expires_at"),
        (json!({"token": "cks_x"}), "token"),
        (json!({"token": access, "jti": "x"}), "token"),
        (json!({"token": access, "x": 1}), "x"),
    ] {
        let refused = world.post("/admin/v1/tokens/revoke", &bad).expect(422);
        assert_eq!(refused.member(), member, "{bad}");
    }
}
