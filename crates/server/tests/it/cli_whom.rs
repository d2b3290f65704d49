//! Whom the commands mean: never another one than was named, and an error where it is nobody.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin_world::{AdminWorld, PASSWORD, text};
use crate::cli_world::{Ended, Node, program, run, serve};
use crate::servers::MASTER_KEY;

fn ask(world: &AdminWorld, arguments: &[&str], input: &str) -> Ended {
    let mut command = program();
    command.args(arguments).args(["--admin-url", &world.admin, "--data"]).arg(world.dir.path());
    run(&mut command, input)
}

/// Identifiers of the users that there are, and whether they are disabled.
fn users(world: &AdminWorld) -> Vec<(String, bool)> {
    let listed = world.get("/admin/v1/users").expect(200).body;
    let users = listed["users"].as_array().expect("a list").iter();
    let mut users: Vec<_> = users
        .map(|user| (text(&user["identifier"]).to_owned(), user["disabled"] == true))
        .collect();
    users.sort();
    users
}

#[test]
fn an_empty_name_is_wrong_usage_and_meets_nobody() {
    let world = AdminWorld::new();
    for name in ["ada", "bob", "eve"] {
        world.add_user(name);
    }
    let before = users(&world);
    for command in ["delete", "disable", "enable", "set-password", "add"] {
        let ended = ask(&world, &["users", command, ""], &format!("{PASSWORD} anew\n")).expect(2);
        assert_eq!(ended.out, "", "{command}");
    }
    for command in [
        ["sessions", "revoke"],
        ["sessions", "revoke-subject"],
        ["keys", "revoke"],
        ["api-keys", "delete"],
    ] {
        ask(&world, &[command[0], command[1], ""], "").expect(2);
    }
    // Blanks are no identifier either, and a part of one isn't the whole.
    ask(&world, &["users", "delete", "  "], "").expect(2);
    let part = ask(&world, &["users", "delete", "ad"], "").expect(4);
    assert!(part.err.contains("\"ad\""), "{}", part.err);
    let unknown = ask(&world, &["users", "delete", "usr_nobody"], "").expect(4);
    assert_eq!(unknown.err, "error: there is no user \"usr_nobody\"\n");
    assert_eq!(users(&world), before);
    assert_eq!(world.get("/admin/v1/users?identifier=").expect(422).code(), "invalid_member");
    assert_eq!(world.get("/admin/v1/sessions?subject=").expect(422).code(), "invalid_member");
    // The same name in other letters is the same user.
    ask(&world, &["users", "disable", " ADA "], "").expect(0);
    let disabled: Vec<_> = users(&world).into_iter().filter(|(_, disabled)| *disabled).collect();
    assert_eq!(disabled, [("ada".to_owned(), true)]);
}

#[test]
fn a_subject_is_revoked_by_identifier_and_a_name_of_nobody_is_an_error() {
    let world = AdminWorld::new();
    let ada = world.add_user("ada@example.com");
    world.open(text(&ada["id"]), "cookie");
    world.open("a backend's own", "bearer");
    let listed = ask(&world, &["sessions", "list", "--subject", "ada@example.com"], "").expect(0);
    assert_eq!(listed.out.lines().count(), 2, "{}", listed.out);
    let revoked = ask(&world, &["sessions", "revoke-subject", "ada@example.com"], "").expect(0);
    assert_eq!(revoked.out, format!("revoked 1 session of {}\n", text(&ada["id"])));
    let revoked = ask(&world, &["sessions", "revoke-subject", "a backend's own"], "").expect(0);
    assert!(revoked.out.starts_with("revoked 1 session "), "{}", revoked.out);
    let events = |world: &AdminWorld| {
        let listed = world.get("/admin/v1/events").expect(200).body;
        listed["events"].as_array().map_or(0, Vec::len)
    };
    let before = events(&world);
    for name in ["ada@example.con", "usr"] {
        let nobody = ask(&world, &["sessions", "revoke-subject", name], "").expect(4);
        assert!(nobody.err.contains(name), "{}", nobody.err);
        ask(&world, &["sessions", "list", "--subject", name], "").expect(4);
    }
    assert_eq!(events(&world), before, "nothing is written of a name of nobody");
}

#[test]
fn failures_are_json_for_programs_and_name_what_is_missing() {
    let world = AdminWorld::new();
    let failed = ask(&world, &["--json", "users", "add", "ada"], "short").expect(1);
    assert_eq!(failed.out, "");
    let said: Value = serde_json::from_str(&failed.err).expect("JSON");
    assert_eq!(said["error"]["exit_code"], 1);
    assert_eq!(said["error"]["problem"]["code"], "password_rejected");
    assert!(said["error"]["problem"]["request_id"].is_string(), "{said}");
    let missing = ask(&world, &["--json", "users", "disable", "nobody"], "").expect(4);
    let said: Value = serde_json::from_str(&missing.err).expect("JSON");
    assert_eq!(
        said["error"],
        json!({"message": "no user has the identifier \"nobody\"",
        "exit_code": 4, "problem": null})
    );
    for (command, said) in [
        (["sessions", "show", "nope"], "there is no session \"nope\""),
        (["api-keys", "delete", "nope"], "there is no API key \"nope\""),
        (["keys", "revoke", "nope"], "there is no signing key \"nope\""),
    ] {
        assert_eq!(ask(&world, &command, "").expect(4).err, format!("error: {said}\n"));
    }
    let early = ask(&world, &["keys", "rotate"], "").expect(1);
    assert!(early.err.contains("it may sign from 20"), "{}", early.err);
    let scope = ask(&world, &["api-keys", "create", "--name", "x", "--scope", "bogus"], "");
    assert!(scope.expect(2).err.contains("sessions:read"));
    // A key that may do nothing here is a good one for all that, and another node's is not.
    let body = json!({"name": "monitor", "scopes": ["events"]});
    let key = world.post("/admin/v1/api-keys", &body).expect(201).body;
    let judged = ask(&world, &["token", "inspect"], text(&key["secret"])).expect(0);
    assert!(judged.out.contains("valid: the authority takes it"), "{}", judged.out);
    let other = AdminWorld::new();
    let mut command = program();
    command.args(["users", "list", "--admin-url", &world.admin, "--data"]).arg(other.dir.path());
    let refused = run(&mut command, "").expect(5);
    assert!(refused.err.contains("root-api.key") && refused.err.contains("--data"));
}

#[test]
fn an_access_token_that_is_refused_is_told_why() {
    let (world, other) = (AdminWorld::new(), AdminWorld::new());
    let token = |world: &AdminWorld| text(&world.open("ada", "bearer")["access_token"]).to_owned();
    let inspect =
        |token: &str| ask(&world, &["token", "inspect", "--json"], token).expect(1).json();
    let foreign = inspect(&token(&other));
    assert!(text(&foreign["detail"]).contains("its key (kid) is none of"), "{foreign}");
    let own = token(&world);
    let (signed, _) = own.rsplit_once('.').expect("a JWT");
    let forged = inspect(&format!("{signed}.{}", "A".repeat(86)));
    assert!(text(&forged["detail"]).contains("its signature is wrong"), "{forged}");
    // The public listener is no place for commands.
    let mut command = program();
    command.args(["users", "list", "--admin-url", &world.public, "--data"]);
    let elsewhere = run(command.arg(world.dir.path()), "").expect(4);
    assert!(elsewhere.err.contains("is that the admin listener?"), "{}", elsewhere.err);
}

#[test]
fn a_throttled_sign_in_reports_the_limit_that_it_met() {
    let world = AdminWorld::with(&[("LIMIT__LOGIN", "2/15m")]);
    world.add_user("ada");
    let body = json!({"identifier": "ada", "password": "wrong all the time", "delivery": "bearer"});
    let url = format!("{}/auth/login", world.public);
    let headers = [("content-type", "application/json")];
    let ask = || world.send("POST", &url, &headers, Some(body.to_string().as_bytes()));
    ask().expect(401);
    ask().expect(401);
    let throttled = ask().expect(429);
    assert_eq!(throttled.code(), "login_throttled");
    let retry = throttled.header("retry-after").expect("seconds");
    assert_eq!(throttled.header("ratelimit"), Some(format!("\"login\";r=0;t={retry}").as_str()));
    assert_eq!(throttled.header("ratelimit-policy"), Some("\"login\";q=2;w=900"));
}

#[test]
fn the_first_signing_key_is_created_and_activated() {
    let world = AdminWorld::new();
    let events = world.get("/admin/v1/events").expect(200).body;
    let events = events["events"].as_array().expect("a list").iter();
    let mut keys: Vec<_> =
        events.map(|event| text(&event["type"])).filter(|kind| kind.starts_with("key.")).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["key.activated", "key.created", "key.created"]);
}

/// A configuration as on a machine where systemd hands the master key to the node alone.
fn without_master_key(dir: &Path, admin: &str) -> String {
    let file = dir.join("cloakroom.toml");
    let text = format!(
        "root_api_key_file = {:?}\n[server]\nadmin = {admin:?}\n[store]\n\
         url = \"redis://127.0.0.1:9\"\n",
        dir.join("data/root-api.key").display().to_string()
    );
    std::fs::write(&file, text).expect("written");
    file.display().to_string()
}

#[test]
fn commands_need_no_master_key() {
    let dir = TempDir::new().expect("a directory");
    let (node, _, admin) = serve(&dir.path().join("data"));
    let file = without_master_key(dir.path(), admin.trim_start_matches("http://"));
    let with = |arguments: &[&str]| run(program().args(arguments).args(["--config", &file]), "");
    let commands: [&[&str]; 7] = [
        &["users", "list"],
        &["sessions", "list"],
        &["keys", "list"],
        &["api-keys", "list"],
        &["events", "tail"],
        &["health", "--ready"],
        &["sweep"],
    ];
    for command in commands {
        let ended = with(command).expect(0);
        assert_eq!(ended.err, "", "{command:?}");
    }
    let checked = with(&["config", "check"]).expect(0);
    assert!(checked.out.ends_with("ok, 1 warning\n"), "{}", checked.out);
    assert!(checked.err.contains("Only `cloakroom serve` needs it"), "{}", checked.err);
    let looked: Value = with(&["doctor", "--json"]).json();
    let states = looked["findings"].as_array().expect("a list").iter();
    let of_authority = states.filter(|finding| finding["about"] == "authority");
    assert!(
        of_authority.clone().count() > 0 && of_authority.clone().all(|one| one["state"] == "ok")
    );
    // These open the store, which isn't there: they say so at once, and ask for no key.
    for command in [&["store", "info"][..], &["store", "check"]] {
        let began_at = std::time::Instant::now();
        let away = with(command).expect(3);
        assert!(away.err.contains("can't be reached"), "{}", away.err);
        assert!(began_at.elapsed() < std::time::Duration::from_secs(10), "it waited");
    }
    let refused = with(&["serve"]).expect(2);
    assert!(refused.err.contains("`master_key` is needed"), "{}", refused.err);
    assert_eq!(node.stop("-TERM").0, 0);
}

#[test]
fn a_node_takes_the_master_key_that_systemd_hands_over() {
    let credentials = TempDir::new().expect("a directory");
    std::fs::write(credentials.path().join("master_key"), format!("{MASTER_KEY}\n")).expect("key");
    let data = TempDir::new().expect("a directory");
    let mut command = program();
    command.args(["serve", "--json", "--data"]).arg(data.path());
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    command.env("CREDENTIALS_DIRECTORY", credentials.path());
    let node = Node::start(&mut command, "}");
    assert!(!data.path().join("master.key").exists());
    assert_eq!(node.stop("-TERM").0, 0);
}
