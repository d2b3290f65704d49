//! Section 8: users, subjects, signing keys and the audit log.

use serde_json::{Value, json};

use crate::admin_world::{AdminWorld, PASSWORD, text};

/// Signs a user in by password; the answer's status.
fn sign_in(world: &AdminWorld, identifier: &str, password: &str) -> u16 {
    let body = json!({"identifier": identifier, "password": password, "delivery": "bearer"});
    let headers = [("content-type", "application/json")];
    let url = format!("{}/auth/login", world.public);
    world.send("POST", &url, &headers, Some(body.to_string().as_bytes())).status
}

#[test]
fn a_user_is_made_found_changed_and_deleted() {
    let world = AdminWorld::new();
    let body = json!({"identifier": "Ada@Example.com", "password": PASSWORD,
        "claims": {"role": "user"}});
    let made = world.post("/admin/v1/users", &body).expect(201);
    let user = made.body["user"].clone();
    let path = format!("/admin/v1/users/{}", text(&user["id"]));
    assert_eq!(made.header("location"), Some(path.as_str()));
    assert!(text(&user["id"]).starts_with("usr_"));
    assert_eq!(user["disabled"], false);
    assert_eq!(user["claims"], json!({"role": "user"}));
    assert!(user["password_changed_at"].is_string() || user["password_changed_at"].is_null());
    assert!(!made.text.contains("argon2") && !made.text.contains(PASSWORD));
    assert_eq!(world.get(&path).expect(200).body["user"], user);
    let found = world.get("/admin/v1/users?identifier=ada%40example.com").expect(200).body;
    assert_eq!(found, json!({"users": [user], "next": null}));
    let nobody = world.get("/admin/v1/users?identifier=eve%40example.com").expect(200).body;
    assert_eq!(nobody, json!({"users": [], "next": null}));
    let taken = world.post("/admin/v1/users", &json!({"identifier": "ADA@example.com"}));
    assert_eq!(taken.expect(409).code(), "conflict");
    let patch = json!({"identifier": "countess@example.com", "claims": {"role": null, "x": 1}});
    let changed = world.put("PATCH", &path, &patch).expect(200).body["user"].clone();
    assert_eq!(changed["identifier"], "countess@example.com");
    assert_eq!(changed["claims"], json!({"x": 1}));
    assert_eq!(sign_in(&world, "countess@example.com", PASSWORD), 200);
    assert_eq!(sign_in(&world, "ada@example.com", PASSWORD), 401);
    let done = world.ask("DELETE", &path).expect(204);
    assert_eq!(done.header("cloakroom-durability"), Some("local"));
    assert_eq!(world.get(&path).expect(404).code(), "not_found");
    assert_eq!(sign_in(&world, "countess@example.com", PASSWORD), 401);
    world.ask("DELETE", &path).expect(404);
}

#[test]
fn a7_disabling_ends_sessions_and_enabling_revives_none() {
    let world = AdminWorld::new();
    let user = world.add_user("ada@example.com");
    let id = text(&user["id"]);
    let path = format!("/admin/v1/users/{id}");
    let tokens = ["cookie", "bearer", "split"].map(|delivery| {
        let opened = world.open(id, delivery);
        let token = opened.get("session_token").or(opened.get("access_token"));
        text(token.expect("a token")).to_owned()
    });
    assert!(tokens.iter().all(|token| world.is_alive(token)));
    let disabled = world.put("PATCH", &path, &json!({"disabled": true})).expect(200);
    assert_eq!(disabled.body["user"]["disabled"], true);
    assert_eq!(disabled.header("cloakroom-durability"), Some("local"));
    assert!(tokens.iter().all(|token| !world.is_alive(token)));
    // What was over already rests on an earlier commit; what ends nothing promises nothing.
    let again = world.put("PATCH", &path, &json!({"disabled": true})).expect(200);
    assert_eq!(again.header("cloakroom-durability"), Some("local"));
    let claims = json!({"claims": {"role": "editor"}});
    let changed = world.put("PATCH", &path, &claims).expect(200);
    assert_eq!(changed.header("cloakroom-durability"), None);
    assert_eq!(sign_in(&world, "ada@example.com", PASSWORD), 401);
    let refused = world.post("/admin/v1/sessions", &json!({"subject": id})).expect(409);
    assert_eq!(refused.code(), "conflict");
    world.put("PATCH", &path, &json!({"disabled": false})).expect(200);
    assert!(tokens.iter().all(|token| !world.is_alive(token)));
    assert_eq!(sign_in(&world, "ada@example.com", PASSWORD), 200);
    let token = text(&world.open(id, "cookie")["session_token"]).to_owned();
    let password = json!({"password": "another sight umbrella"});
    world.put("PATCH", &path, &password).expect(200);
    assert!(!world.is_alive(&token));
    assert_eq!(sign_in(&world, "ada@example.com", PASSWORD), 401);
    assert_eq!(sign_in(&world, "ada@example.com", "another sight umbrella"), 200);
}

#[test]
fn bad_users_are_refused_by_the_member() {
    let world = AdminWorld::new();
    let user = world.add_user("ada@example.com");
    let path = format!("/admin/v1/users/{}", text(&user["id"]));
    let before = world.events().len();
    for (body, code, member) in [
        (json!({}), "invalid_member", "identifier"),
        (json!({"identifier": 1}), "invalid_member", "identifier"),
        (json!({"identifier": ""}), "invalid_member", "identifier"),
        (json!({"identifier": "x".repeat(400)}), "invalid_member", "identifier"),
        (json!({"identifier": "b", "password": 1}), "invalid_member", "password"),
        (json!({"identifier": "b", "password": "short"}), "password_rejected", "password"),
        (
            json!({"identifier": "b", "password": "passwordpassword"}),
            "password_rejected",
            "password",
        ),
        (json!({"identifier": "b", "claims": []}), "invalid_member", "claims"),
        (json!({"identifier": "b", "claims": {"sub": "x"}}), "invalid_member", "claims.sub"),
        (json!({"identifier": "b", "disabled": "no"}), "invalid_member", "disabled"),
        (json!({"identifier": "b", "admin": true}), "unknown_member", "admin"),
        (json!({"identifier": "b", "password_hash": "x"}), "invalid_member", "password_hash"),
        (
            json!({"identifier": "b", "password": PASSWORD, "password_hash": "x"}),
            "invalid_member",
            "password_hash",
        ),
    ] {
        let refused = world.post("/admin/v1/users", &body);
        assert_eq!(refused.status, 422, "{body}: {}", refused.text);
        assert_eq!((refused.code(), refused.member()), (code, member), "{body}");
    }
    for (body, member) in [
        (json!({"disabled": "yes"}), "disabled"),
        (json!({"disabled": null}), "disabled"),
        (json!({"password": null}), "password"),
        (json!({"identifier": null}), "identifier"),
        (json!({"claims": {"acr": "aal3"}}), "claims.acr"),
        (json!({"id": "usr_x"}), "id"),
    ] {
        let refused = world.put("PATCH", &path, &body).expect(422);
        assert_eq!(refused.member(), member, "{body}");
    }
    assert_eq!(world.get(&path).body["user"], user);
    assert_eq!(world.events().len(), before);
    for id in ["usr_unknown", "x", "..%2F..", "%00"] {
        world.get(&format!("/admin/v1/users/{id}")).expect(404);
        world.put("PATCH", &format!("/admin/v1/users/{id}"), &json!({})).expect(404);
        world.ask("DELETE", &format!("/admin/v1/users/{id}")).expect(404);
    }
    world.get("/admin/v1/users/%FF").expect(400);
}

#[test]
fn users_are_paged() {
    let world = AdminWorld::new();
    for n in 0..5 {
        world.post("/admin/v1/users", &json!({"identifier": format!("u{n}")})).expect(201);
    }
    let mut seen = Vec::new();
    let mut path = "/admin/v1/users?limit=2".to_owned();
    loop {
        let page = world.get(&path).expect(200).body;
        let users = page["users"].as_array().expect("a list").clone();
        seen.extend(users.iter().map(|user| text(&user["identifier"]).to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/admin/v1/users?limit=2&after={next}");
    }
    seen.sort();
    assert_eq!(seen, ["u0", "u1", "u2", "u3", "u4"]);
}

#[test]
fn a_subjects_claims_reach_its_sessions_and_erasing_leaves_nothing() {
    let world = AdminWorld::new();
    let user = world.add_user("ada@example.com");
    let id = text(&user["id"]);
    let path = format!("/admin/v1/subjects/{id}");
    let opened = world.open(id, "cookie");
    let sid = text(&opened["session"]["id"]);
    let patch = json!({"claims": {"role": "admin"}});
    let changed = world.put("PATCH", &path, &patch).expect(200).body["subject"].clone();
    assert_eq!((&changed["id"], &changed["live_sessions"]), (&json!(id), &json!(1)));
    assert_eq!(changed["claims"], json!({"role": "admin"}));
    let session = world.get(&format!("/admin/v1/sessions/{sid}")).body["session"].clone();
    assert_eq!(session["claims"], json!({"role": "admin"}));
    for (bad, member) in [
        (json!({"claims": {"sid": 1}}), "claims.sid"),
        (json!({"claims": 1}), "claims"),
        (json!({"epoch": 9}), "epoch"),
        (json!({"disabled": 1}), "disabled"),
    ] {
        assert_eq!(world.put("PATCH", &path, &bad).expect(422).member(), member, "{bad}");
    }
    let done = world.ask("DELETE", &path).expect(204);
    assert_eq!(done.header("cloakroom-durability"), Some("local"));
    assert!(!world.is_alive(text(&opened["session_token"])));
    world.get(&format!("/admin/v1/users/{id}")).expect(404);
    assert_eq!(sign_in(&world, "ada@example.com", PASSWORD), 401);
}

#[test]
fn keys_are_listed_without_their_private_part_and_revoked_at_once() {
    let world = AdminWorld::new();
    let token = text(&world.open("ada", "bearer")["access_token"]).to_owned();
    let listed = world.get("/admin/v1/keys").expect(200);
    assert_eq!(listed.body["next"], Value::Null);
    let keys = listed.body["keys"].as_array().expect("a list").clone();
    let names = ["activates_at", "alg", "created_at", "kid", "removed_at", "retires_at", "state"];
    for key in &keys {
        let members: Vec<&String> = key.as_object().expect("an object").keys().collect();
        assert_eq!(members, names);
    }
    let active = keys.iter().find(|key| key["state"] == "active").expect("one");
    let kid = text(&active["kid"]);
    // The next key was published a moment ago, too late for verifiers to know it.
    let early = world.ask("POST", "/admin/v1/keys/rotate");
    assert!([200, 409].contains(&early.status), "{}", early.text);
    assert!(world.is_alive(&token));
    world.ask("POST", "/admin/v1/keys/unknown/revoke").expect(404);
    let revoked = world.ask("POST", &format!("/admin/v1/keys/{kid}/revoke")).expect(200);
    let states = revoked.body["keys"].as_array().expect("a list").clone();
    let state = |wanted: &str| states.iter().any(|key| key["state"] == wanted);
    assert!(state("active"), "{}", revoked.text);
    assert!(states.iter().all(|key| key["kid"] != kid || key["state"] == "revoked"));
    assert!(!world.is_alive(&token));
    assert!(world.is_alive(text(&world.open("ada", "bearer")["access_token"])));
    let jwks = world.send("GET", &format!("{}/.well-known/jwks.json", world.admin), &[], None);
    assert!(!jwks.expect(200).text.contains(kid));
}

#[test]
fn m4_events_tell_who_did_what_and_are_filtered_and_paged() {
    let world = AdminWorld::new();
    let user = world.add_user("ada@example.com");
    let id = text(&user["id"]);
    let opened = world.open(id, "cookie");
    let sid = text(&opened["session"]["id"]);
    world.ask("DELETE", &format!("/admin/v1/sessions/{sid}?reason=lost")).expect(204);
    let of = |query: &str| {
        let answer = world.get(&format!("/admin/v1/events?{query}")).expect(200);
        answer.body["events"].as_array().expect("a list").clone()
    };
    let kinds: Vec<String> =
        of(&format!("subject={id}")).iter().map(|event| text(&event["type"]).to_owned()).collect();
    let position = |kind: &str| kinds.iter().position(|known| known == kind);
    assert!(position("user.created") < position("session.opened"), "{kinds:?}");
    assert!(position("session.opened") < position("session.ended"), "{kinds:?}");
    let event = of("type=session.ended")[0].clone();
    assert_eq!((&event["sid"], &event["subject"]), (&json!(sid), &json!(id)));
    assert_eq!(event["actor"], json!({"type": "operator", "id": null}));
    assert_eq!(event["client"]["ip"], "127.0.0.1");
    assert!(text(&event["time"]).ends_with('Z') && event["request_id"].is_string());
    assert_eq!(of(&format!("sid={sid}&order=desc"))[0]["type"], "session.ended");
    let first = world.get("/admin/v1/events?limit=1").expect(200).body;
    let next = text(&first["next"]).to_owned();
    let second = of(&format!("limit=1&after={next}"));
    assert_ne!(first["events"][0]["id"], second[0]["id"]);
    // The reference shows a cursor like it.
    let document = world.get("/openapi.json").expect(200).body;
    let shown = text(&document["components"]["schemas"]["Cursor"]["examples"][1]).to_owned();
    let is_hex = |text: &str| text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
    assert!(shown.len() == next.len() && is_hex(&shown) && is_hex(&next), "{shown} {next}");
    for (query, member) in
        [("type=x", "type"), ("order=up", "order"), ("sid=x", "sid"), ("after=x", "after")]
    {
        let refused = world.get(&format!("/admin/v1/events?{query}")).expect(422);
        assert_eq!(refused.member(), member, "{query}");
    }
}

#[test]
fn m8_bodies_can_not_set_what_events_say_of_the_actor() {
    let world = AdminWorld::new();
    let body = json!({
        "subject": "ada", "client": {"user_agent": "x\r\nevent: forged", "label": "<b>\u{202e}"},
    });
    let opened = world.post("/admin/v1/sessions", &body).expect(201).body;
    assert!(!text(&opened["session"]["client"]["user_agent"]).contains('\n'));
    for name in ["actor", "type", "time"] {
        let body = json!({"subject": "ada", "client": {name: "x"}});
        let refused = world.post("/admin/v1/sessions", &body).expect(422);
        assert_eq!(refused.member(), format!("client.{name}"));
    }
    let events = world.get("/admin/v1/events?type=session.opened").expect(200).body;
    assert_eq!(events["events"][0]["actor"], json!({"type": "operator", "id": null}));
}

#[test]
fn the_standard_endpoints_are_served_here_too() {
    let world = AdminWorld::new();
    for path in
        ["/healthz", "/readyz", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server"]
    {
        world.send("GET", &format!("{}{path}", world.admin), &[], None).expect(200);
    }
    let login = format!("{}/auth/login", world.admin);
    world.send("POST", &login, &[("content-type", "application/json")], Some(b"{}")).expect(404);
}

#[test]
fn a_cursor_that_was_never_given_out_is_refused() {
    let world = AdminWorld::new();
    for after in ["x", "usr_x", "ada@example.com", "usr_01ARZ3NDEKTSV4RRFFQ69G5FAVX"] {
        let refused = world.get(&format!("/admin/v1/users?after={after}")).expect(422);
        assert_eq!((refused.code(), refused.member()), ("invalid_member", "after"), "{after}");
    }
    world.get("/admin/v1/users?after=usr_01ARZ3NDEKTSV4RRFFQ69G5FAV").expect(200);
}
