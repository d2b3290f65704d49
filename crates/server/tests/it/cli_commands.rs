//! The commands against a running authority: what they print, and their exit codes.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::admin_world::{AdminWorld, PASSWORD, text};
use crate::cli_world::{Ended, program, run};

/// A command that finds this node as it would on its own machine.
fn command(world: &AdminWorld, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(arguments).args(["--admin-url", &world.admin]);
    command.arg("--data").arg(world.dir.path());
    command
}

fn ask(world: &AdminWorld, arguments: &[&str]) -> Ended {
    run(&mut command(world, arguments), "")
}

#[test]
fn users_are_added_listed_disabled_and_deleted() {
    let world = AdminWorld::new();
    let arguments = ["users", "add", "ada@example.com", "--claim", "role=admin", "--claim", "n=5"];
    let added = run(&mut command(&world, &arguments), &format!("{PASSWORD}\n")).expect(0);
    assert!(
        added.out.contains("ada@example.com") && added.out.contains("enabled"),
        "{}",
        added.out
    );
    assert!(!added.out.contains(PASSWORD) && !added.err.contains(PASSWORD));
    ask(&world, &["users", "add", "bob@example.com", "--no-password"]).expect(0);
    let listed = ask(&world, &["users", "list", "--json"]).expect(0).json();
    let users = listed["users"].as_array().expect("a list");
    assert_eq!(users.len(), 2);
    let ada = users.iter().find(|user| user["identifier"] == "ada@example.com").expect("ada");
    assert_eq!(ada["claims"], json!({"role": "admin", "n": 5}));
    let table = ask(&world, &["users", "list"]).expect(0).out;
    assert!(table.starts_with("ID "), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    let disabled = ask(&world, &["users", "disable", "ada@example.com", "--json"]).expect(0).json();
    assert_eq!(disabled["user"]["disabled"], true);
    let enabled = ask(&world, &["users", "enable", text(&ada["id"]), "--json"]).expect(0).json();
    assert_eq!(enabled["user"]["disabled"], false);
    let set = ["users", "set-password", "bob@example.com"];
    run(&mut command(&world, &set), "another sight umbrella").expect(0);
    let taken = run(&mut command(&world, &["users", "add", "bob@example.com"]), PASSWORD).expect(1);
    assert!(taken.err.starts_with("error: ") && taken.err.contains("(conflict)"), "{}", taken.err);
    let weak = run(&mut command(&world, &["users", "add", "eve"]), "short").expect(1);
    assert!(
        weak.err.contains("password_rejected") && !weak.err.contains("short\n"),
        "{}",
        weak.err
    );
    ask(&world, &["users", "delete", "ada@example.com"]).expect(0);
    let gone = ask(&world, &["users", "delete", "ada@example.com"]).expect(4);
    assert_eq!(gone.out, "");
    ask(&world, &["users", "disable", "usr_unknown"]).expect(4);
    let first = ask(&world, &["users", "list", "--limit", "1"]).expect(0);
    assert_eq!(first.out.lines().count(), 2);
}

#[test]
fn listings_say_how_to_go_on() {
    let world = AdminWorld::new();
    for n in 0..3 {
        world.open(&format!("s{n}"), "cookie");
    }
    let first = ask(&world, &["sessions", "list", "--limit", "2"]).expect(0);
    let cursor = first.err.trim().strip_prefix("more: add --after ").expect("a hint").to_owned();
    let rest = ask(&world, &["sessions", "list", "--after", &cursor, "--json"]).expect(0).json();
    assert_eq!(rest["sessions"].as_array().map(Vec::len), Some(1));
    assert_eq!(rest["next"], Value::Null);
}

#[test]
fn sessions_are_listed_shown_and_revoked() {
    let world = AdminWorld::new();
    let opened = world.open("ada", "cookie");
    let sid = text(&opened["session"]["id"]);
    let table = ask(&world, &["sessions", "list", "--subject", "ada"]).expect(0).out;
    assert!(table.contains(sid) && table.lines().count() == 2, "{table}");
    let shown = ask(&world, &["sessions", "show", sid]).expect(0).out;
    assert!(shown.contains("live") && shown.contains("cookie"), "{shown}");
    let shown = ask(&world, &["sessions", "show", sid, "--json"]).expect(0);
    assert_eq!(shown.json()["session"]["id"], sid);
    assert!(!shown.out.contains("csrf_key"));
    ask(&world, &["sessions", "revoke", sid, "--reason", "lost phone"]).expect(0);
    let shown = ask(&world, &["sessions", "show", sid]).expect(0).out;
    assert!(shown.contains("ended_by_operator"), "{shown}");
    world.open("ada", "bearer");
    let revoked = ask(&world, &["sessions", "revoke-subject", "ada", "--json"]).expect(0).json();
    assert_eq!(revoked, json!({"revoked": 1}));
    ask(&world, &["sessions", "show", "01JZZZZZZZZZZZZZZZZZZZZZZZ"]).expect(4);
    ask(&world, &["sessions", "revoke", "nonsense"]).expect(4);
    let tail = ask(&world, &["events", "tail", "--type", "session.ended", "--json"]).expect(0);
    assert!(tail.json()["events"].as_array().is_some_and(|events| !events.is_empty()));
    let wrong = ask(&world, &["events", "tail", "--type", "nonsense"]).expect(2);
    assert!(wrong.err.contains("session.rollback_seen"), "{}", wrong.err);
}

#[test]
fn m2_a_hostile_agent_moves_no_cursor() {
    let world = AdminWorld::new();
    let body = json!({"subject": "a\u{202e}b", "claims": {"x": "\u{1b}[2J"},
        "client": {"label": "\u{2028}\u{202e}x"}});
    let opened = world.post("/admin/v1/sessions", &body).expect(201).body;
    let sid = text(&opened["session"]["id"]);
    for arguments in
        [vec!["sessions", "list"], vec!["sessions", "show", sid], vec!["events", "tail"]]
    {
        let shown = ask(&world, &arguments).expect(0).out;
        let odd = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{2028}' | '\u{202e}');
        assert!(!shown.contains(odd), "{shown:?}");
    }
}

#[test]
fn keys_sweep_and_health() {
    let world = AdminWorld::new();
    let keys = ask(&world, &["keys", "list", "--json"]).expect(0).json();
    let active = |keys: &Value| {
        let all = keys["keys"].as_array().cloned().unwrap_or_default();
        let active = all.into_iter().find(|key| key["state"] == "active").expect("one");
        text(&active["kid"]).to_owned()
    };
    let kid = active(&keys);
    assert!(ask(&world, &["keys", "list"]).expect(0).out.contains(&kid));
    ask(&world, &["keys", "revoke", &kid]).expect(0);
    assert_ne!(active(&ask(&world, &["keys", "list", "--json"]).expect(0).json()), kid);
    ask(&world, &["keys", "revoke", "unknown"]).expect(4);
    let rotated = ask(&world, &["keys", "rotate"]);
    assert!([0, 1].contains(&rotated.code), "{}", rotated.err);
    assert!(ask(&world, &["sweep"]).expect(0).out.starts_with("removed "));
    assert!(ask(&world, &["sweep", "--json"]).expect(0).json()["removed"].is_u64());
    assert_eq!(ask(&world, &["health"]).expect(0).out, "ok\n");
    assert_eq!(ask(&world, &["health", "--ready", "--json"]).expect(0).json()["ok"], true);
}

#[test]
fn exit_codes_tell_usage_reach_and_permission_apart() {
    let world = AdminWorld::new();
    run(program().args(["nonsense"]), "").expect(2);
    run(program().args(["users", "list", "--limit", "0"]), "").expect(2);
    run(program().args(["users", "add"]), "").expect(2);
    ask(&world, &["users", "add", "x", "--no-password", "--claim", "nonsense"]).expect(2);
    // Nobody listens there.
    let nobody = ["users", "list", "--admin-url", "http://127.0.0.1:9"];
    let ended = run(program().args(nobody).env("CLOAKROOM_API_KEY", "cka_x"), "").expect(3);
    assert!(ended.err.contains("http://127.0.0.1:9"), "{}", ended.err);
    run(program().args(["health", "--admin-url", "http://127.0.0.1:9"]), "").expect(1);
    // The key would go in clear over the network.
    let elsewhere = ["users", "list", "--admin-url", "http://cloakroom.example"];
    run(program().args(elsewhere).env("CLOAKROOM_API_KEY", "cka_x"), "").expect(2);
    // A wrong key, no key, and a key without the scope.
    let wrong = ["users", "list", "--admin-url", &world.admin];
    run(program().args(wrong).env("CLOAKROOM_API_KEY", "cka_x"), "").expect(5);
    let empty = tempfile::TempDir::new().expect("a directory");
    let none = run(program().args(wrong).arg("--data").arg(empty.path()), "").expect(5);
    assert!(none.err.contains("--api-key-file"), "{}", none.err);
    let body = json!({"name": "reader", "scopes": ["sessions:read"]});
    let key = world.post("/admin/v1/api-keys", &body).expect(201).body;
    let file = empty.path().join("reader.key");
    std::fs::write(&file, format!("{}\n", text(&key["secret"]))).expect("written");
    let by_file = |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).args(["--admin-url", &world.admin, "--api-key-file"]);
        run(command.arg(&file), "")
    };
    by_file(&["sessions", "list"]).expect(0);
    let refused = by_file(&["users", "list"]).expect(5);
    assert!(refused.err.contains("users:read"), "{}", refused.err);
}

#[test]
fn token_inspect_says_what_a_token_is_and_never_echoes_its_secret() {
    let world = AdminWorld::new();
    let cookie = world.open("ada", "cookie");
    let bearer = world.open("ada", "bearer");
    let inspect = |token: &str, json: bool| {
        let mut arguments = vec!["token", "inspect"];
        if json {
            arguments.push("--json");
        }
        let ended = run(&mut command(&world, &arguments), &format!("{token}\n"));
        let secret = &token[token.len().saturating_sub(30)..];
        assert!(!ended.out.contains(secret) && !ended.err.contains(secret), "{ended:?}");
        ended
    };
    let session = text(&cookie["session_token"]);
    let good = inspect(session, true).expect(0).json();
    assert_eq!((&good["kind"], &good["valid"]), (&json!("session cookie"), &json!(true)));
    assert_eq!(good["session"]["subject"], "ada");
    assert!(inspect(session, false).expect(0).out.contains("valid: its session is live"));
    let access = text(&bearer["access_token"]);
    let good = inspect(access, true).expect(0).json();
    assert_eq!((&good["kind"], &good["claims"]["sub"]), (&json!("access token"), &json!("ada")));
    let good = inspect(text(&bearer["refresh_token"]), true).expect(0).json();
    assert_eq!((&good["kind"], &good["generation"]), (&json!("refresh token"), &json!(0)));
    let good = inspect(&world.key, true).expect(0).json();
    assert_eq!((&good["kind"], &good["valid"]), (&json!("API key"), &json!(true)));
    // Inspecting is no use of the session.
    let sid = text(&cookie["session"]["id"]);
    let path = format!("/admin/v1/sessions/{sid}");
    let seen = world.get(&path).body["session"]["last_seen_at"].clone();
    assert_eq!(seen, cookie["session"]["last_seen_at"]);
    world.ask("DELETE", &path).expect(204);
    let ended = inspect(session, true).expect(1).json();
    assert_eq!((&ended["valid"], &ended["code"]), (&json!(false), &json!("session_ended")));
    assert_eq!(ended["reason"], "ended_by_operator");
    let forged = format!("{}{}", &session[..session.len() - 30], "A".repeat(30));
    let forged = inspect(&forged, true).expect(1).json();
    assert_eq!(forged["code"], "token_invalid");
    let good = inspect(&format!("Bearer {access}"), true).expect(0).json();
    assert_eq!(good["kind"], "access token");
    // No key is needed to say of junk that it is junk.
    let inspect = ["token", "inspect", "--admin-url", "http://127.0.0.1:9"];
    let junk = "this is certainly no credential of ours";
    let junk = run(program().args(inspect).env_remove("CLOAKROOM_API_KEY"), junk).expect(1);
    assert!(junk.out.contains("nothing known"), "{}", junk.out);
    run(&mut command(&world, &["token", "inspect"]), "").expect(2);
    // Without an authority it still says what can be read.
    let alone = ["token", "inspect", "--admin-url", "http://127.0.0.1:9"];
    let ended = run(program().args(alone).env("CLOAKROOM_API_KEY", "cka_x"), access).expect(3);
    assert!(ended.out.contains("access token") && ended.out.contains("\"ada\""), "{}", ended.out);
}

#[test]
fn a_forgotten_password_is_reset_by_a_token() {
    let world = AdminWorld::new();
    let add = run(&mut command(&world, &["users", "add", "ada", "--json"]), PASSWORD).expect(0);
    let id = text(&add.json()["user"]["id"]).to_owned();
    let made = ask(&world, &["users", "reset", "ada", "--json"]).expect(0).json();
    let token = text(&made["token"]).to_owned();
    assert!(token.starts_with("ckp_") && made["expires_at"].is_string(), "{made}");
    let shown = ask(&world, &["users", "reset", &id]).expect(0).out;
    assert!(shown.contains("ckp_") && shown.contains("POST /auth/password"), "{shown}");
    let told = run(&mut command(&world, &["token", "inspect"]), &token).expect(1);
    assert!(told.out.contains("password reset token") && told.out.contains(&id), "{told:?}");
    assert!(told.err.contains("only by using it") && !told.err.contains(&token), "{told:?}");
    ask(&world, &["users", "reset", "nobody"]).expect(4);
    let none = run(&mut command(&world, &["users", "set-password", "ada"]), "").expect(2);
    assert!(none.err.contains("no password given"), "{}", none.err);
}

#[test]
fn completions_into_a_closed_pipe_are_no_panic() {
    let mut command = program();
    command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("ended");
    let err = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() != Some(101) && !err.contains("panic"), "{err}");
}

#[test]
fn completions_and_help_need_nothing() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(program().args(["completions", shell]), "").expect(0).out;
        assert!(script.contains("cloakroom") && script.len() > 1000, "{shell}");
    }
    let help = run(program().args(["users", "add", "--help"]), "").expect(0).out;
    assert!(help.contains("Examples:") && help.contains("CLOAKROOM_ADMIN_URL"), "{help}");
    assert!(help.contains("Authority:"), "{help}");
    let version = run(program().arg("--version"), "").expect(0).out;
    assert!(version.starts_with("cloakroom "), "{version}");
    run(program().args(["config", "reference"]), "").expect(0);
    let path = "/nonexistent/cloakroom.toml";
    run(program().args(["config", "--config", path, "check"]), "").expect(2);
    run(program().args(["config", "check", "--config", path]), "").expect(2);
}

#[test]
fn no_colour_reaches_a_pipe() {
    let world = AdminWorld::new();
    for arguments in [&["users", "list"][..], &["keys", "list"], &["--help"]] {
        let ended = run(&mut command(&world, arguments), "");
        assert!(!ended.out.contains('\u{1b}'), "{}", ended.out);
    }
}

/// A file of users, as another directory would give them away.
fn users_file(world: &AdminWorld, rows: &[&str]) -> String {
    let path = world.dir.path().join("users.jsonl");
    std::fs::write(&path, rows.join("\n")).expect("a file");
    path.display().to_string()
}

const BCRYPT: &str = "$2b$05$VpiMEP5eff9pCulVd/NvTehka5ImI0L2BPobvwhb9XIgKJQYt4aRa";

#[test]
fn users_are_imported_with_their_hashes() {
    let world = AdminWorld::new();
    let bob = format!(
        r#"{{"identifier": "Bob@Example.com", "password_hash": "{BCRYPT}",
            "claims": {{"role": "admin"}}, "disabled": true}}"#
    )
    .replace('\n', " ");
    let eve = format!(r#"{{"identifier": "eve@example.com", "password_hash": "{BCRYPT}"}}"#);
    let file = users_file(&world, &[&bob, "", &eve, r#"{"identifier": "mallory"}"#, ""]);
    let dry = ask(&world, &["users", "import", &file, "--dry-run"]).expect(0);
    assert_eq!(dry.out, "3 users would be imported\n");
    let listed = |world| ask(world, &["users", "list", "--json"]).expect(0).json()["users"].clone();
    assert_eq!(listed(&world), json!([]));
    assert_eq!(ask(&world, &["users", "import", &file]).expect(0).out, "3 users imported\n");
    let users = listed(&world);
    let of = |name: &str| {
        let found = users.as_array().and_then(|all| all.iter().find(|u| u["identifier"] == name));
        found.unwrap_or_else(|| panic!("{name} in {users}")).clone()
    };
    assert_eq!(of("Bob@Example.com")["claims"], json!({"role": "admin"}));
    assert_eq!(of("Bob@Example.com")["disabled"], true);
    assert_eq!(of("mallory")["password_changed_at"], Value::Null);
    let login = json!({"identifier": "eve@example.com", "password": "correct horse",
        "delivery": "bearer"});
    let url = format!("{}/auth/login", world.public);
    let signed_in = ureq::post(&url).content_type("application/json").send(login.to_string());
    assert_eq!(signed_in.expect("an answer").status(), 200);
}

/// How many users there are, counted page by page.
fn count_users(world: &AdminWorld) -> usize {
    let (mut count, mut after) = (0, String::new());
    loop {
        let page = world.get(&format!("/admin/v1/users?after={after}")).expect(200).body;
        count += page["users"].as_array().map_or(0, Vec::len);
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return count,
        }
    }
}

#[test]
fn an_import_that_was_killed_goes_on_where_it_was() {
    const ROWS: usize = 600;
    let world = AdminWorld::new();
    let row = |number| {
        format!(
            r#"{{"identifier": "u{number}@example.com", "password_hash": "{BCRYPT}",
                "claims": {{"n": {number}}}, "disabled": {}}}"#,
            number % 2 == 0
        )
        .replace('\n', " ")
    };
    let rows: Vec<String> = (0..ROWS).map(row).collect();
    let file = users_file(&world, &rows.iter().map(String::as_str).collect::<Vec<_>>());
    let mut import = command(&world, &["users", "import", &file]);
    let mut import = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    while world.get("/admin/v1/users?limit=1").expect(200).body["users"] == json!([]) {
        assert_eq!(import.try_wait().expect("a child"), None, "it made nobody");
    }
    // SIGKILL: it can't clean up.
    import.kill().expect("killed");
    import.wait().expect("ended");
    let made = count_users(&world);
    assert!((1..ROWS).contains(&made), "{made}");
    let told = ask(&world, &["users", "import", &file, "--json"]).expect(0).json();
    let expected = json!({"imported": ROWS - made, "already_there": made, "refused": []});
    assert_eq!((told, count_users(&world)), (expected, ROWS));
    let again = ask(&world, &["users", "import", &file]).expect(0);
    assert_eq!(again.out, format!("0 users imported, {ROWS} were there already\n"));
    // Whoever is otherwise than the row says isn't taken for the row's.
    for changed in [row(7).replace("Vd/", "Vd."), row(7).replace("false", "true")] {
        let file = users_file(&world, &[&changed, &row(8)]);
        let refused = ask(&world, &["users", "import", &file]).expect(1);
        assert!(refused.err.starts_with("line 1: "), "{}", refused.err);
        assert!(refused.err.contains("there already: 1; --skip-existing"), "{}", refused.err);
    }
    assert_eq!(count_users(&world), ROWS);
    // Someone signed in meanwhile and has another hash, someone's role was changed: neither is
    // touched, and the import goes on.
    let login = json!({"identifier": "u7@example.com", "password": "correct horse",
        "delivery": "bearer"});
    let url = format!("{}/auth/login", world.public);
    let signed_in = ureq::post(&url).content_type("application/json").send(login.to_string());
    assert_eq!(signed_in.expect("an answer").status(), 200);
    let named = |name: &str| {
        let found = world.get(&format!("/admin/v1/users?identifier={name}")).expect(200);
        found.body["users"][0].clone()
    };
    let nine = named("u9@example.com");
    let path = format!("/admin/v1/users/{}", nine["id"].as_str().expect("an id"));
    let patch = world.put("PATCH", &path, &json!({"claims": {"n": "changed"}}));
    patch.expect(200);
    let (seven, nine) = (named("u7@example.com"), named("u9@example.com"));
    let more: Vec<String> = rows.iter().cloned().chain([row(ROWS + 1)]).collect();
    let file = users_file(&world, &more.iter().map(String::as_str).collect::<Vec<_>>());
    let refused = ask(&world, &["users", "import", &file]).expect(1);
    assert!(refused.err.contains("line 8: ") && refused.err.contains("line 10: "));
    assert!(refused.err.contains("there already: 2; "), "{}", refused.err);
    let skipped = ask(&world, &["users", "import", &file, "--skip-existing"]).expect(0);
    assert_eq!(skipped.out, format!("1 user imported, {ROWS} were there already\n"));
    assert_eq!((named("u7@example.com"), named("u9@example.com")), (seven, nine));
}

#[test]
fn of_a_file_with_refused_rows_nothing_is_imported_and_each_is_named() {
    let world = AdminWorld::new();
    ask(&world, &["users", "add", "taken@example.com", "--no-password"]).expect(0);
    let long = format!(r#"{{"identifier": "long", "claims": {{"x": "{}"}}}}"#, "y".repeat(70_000));
    let rows = [
        r#"{"identifier": "fine@example.com"}"#,
        r#"{"identifier": "TAKEN@example.com"}"#,
        r#"{"identifier": "Fine@Example.com"}"#,
        r#"{"identifier": "hash@example.com", "password_hash": "5f4dcc3b5aa765d61d8327de"}"#,
        r#"{"identifier": "odd@example.com", "passwd": "x"}"#,
        "not json",
        r#"{"identifier": "", "disabled": false}"#,
        r#"{"identifier": "claims@example.com", "claims": {"sub": "x"}}"#,
        &long,
        r#"{"identifier": "last@example.com", "disabled": "no"}"#,
    ];
    let file = users_file(&world, &rows);
    let refused = ask(&world, &["users", "import", &file]).expect(1);
    assert_eq!(refused.out, "");
    let lines: Vec<_> =
        refused.err.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    let numbers = ["2", "3", "4", "5", "6", "7", "8", "9", "10"].map(|n| format!("line {n}"));
    assert_eq!(lines[..9], numbers, "{}", refused.err);
    assert!(refused.err.ends_with("nothing was imported: 9 of 10 rows are refused\n"));
    assert!(refused.err.contains("line 3: identifier: the same as in line 1"), "{}", refused.err);
    let told = ask(&world, &["users", "import", &file, "--json"]).expect(1).json();
    assert_eq!(told["refused"].as_array().map(Vec::len), Some(9));
    let users = ask(&world, &["users", "list", "--json"]).expect(0).json();
    assert_eq!(users["users"].as_array().map(Vec::len), Some(1));
    ask(&world, &["users", "import", "/no/such/file"]).expect(2);
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let page = run(program().arg("man"), "").expect(0);
    assert!(page.out.contains(".TH cloakroom 1"), "{}", page.out);
    run(program().arg("man").arg("--dir").arg(dir.path()), "").expect(0);
    for name in ["cloakroom.1", "cloakroom-serve.1", "cloakroom-users-import.1"] {
        assert!(dir.path().join(name).is_file(), "{name}");
    }
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_new_authority_and_names_what_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (node, public, admin) = crate::cli_world::serve(dir.path());
    let ask = |more: &[(&str, &str)]| {
        let mut command = program();
        command.args(["doctor", "--json", "--data"]).arg(dir.path());
        let address = |url: &str| url.trim_start_matches("http://").to_owned();
        command.env("CLOAKROOM_SERVER__PUBLIC", address(&public));
        command.env("CLOAKROOM_SERVER__ADMIN", address(&admin));
        command.envs(more.iter().copied());
        run(&mut command, "")
    };
    let well = ask(&[]).expect(0).json();
    let findings = well["findings"].as_array().expect("a list").clone();
    let about: Vec<_> = findings.iter().filter_map(|found| found["about"].as_str()).collect();
    let whole =
        ["configuration", "key files", "proxies", "authority", "store", "signing keys", "cookies"];
    assert_eq!(about, whole, "{well}");
    let not_ok: Vec<_> = findings.iter().filter(|found| found["state"] != "ok").collect();
    assert_eq!(not_ok.len(), 0, "{not_ok:?}");
    // The same node, as if browsers came by https.
    let wrong = ask(&[("CLOAKROOM_SERVER__ORIGIN", "https://app.example.com")]).expect(1).json();
    let cookies = wrong["findings"].as_array().expect("a list").iter();
    let mut cookies = cookies.filter(|found| found["about"] == "cookies");
    assert_eq!(cookies.next().expect("looked at")["state"], "wrong", "{wrong}");
    let unknown = ask(&[("CLOAKROOM_SERVER__ORIGNI", "x")]).expect(1).json();
    let says = unknown["findings"][0]["says"].as_str().expect("text");
    assert!(says.contains("SERVER__ORIGIN"), "{says}");
    assert_eq!(node.stop("-TERM").0, 0);
    let gone = ask(&[]).expect(1).json();
    let gone = gone["findings"].as_array().expect("a list").iter();
    let authority = gone.clone().find(|found| found["about"] == "authority").expect("looked at");
    assert_eq!(authority["state"], "wrong");
    assert!(authority["mend"].as_str().expect("text").contains("cloakroom serve"));
}
