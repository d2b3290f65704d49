//! `cloakroom store copy` and `check`, and `serve --restored`, on each store.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloakroom_server::serve::start_restored;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli_world::{Ended, Node, program};
use crate::http::{Ask, send};
use crate::servers::{Server, each};
use crate::world::{ADA, World, config, login};

/// Settings of a node, by their names in the configuration.
type Settings = Vec<(&'static str, String)>;

fn started_with(settings: &Settings) -> Vec<(&str, &str)> {
    settings.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

fn with(settings: &Settings, key: &'static str, value: &str) -> Settings {
    let others = settings.iter().filter(|(other, _)| *other != key).cloned();
    others.chain([(key, value.to_owned())]).collect()
}

/// `cloakroom store …` as a node with these settings would run it.
fn store(arguments: &[&str], settings: &Settings, data: &Path) -> Command {
    let mut command = program();
    command.arg("store").args(arguments).arg("--data").arg(data);
    for (key, value) in settings {
        let name = key.to_ascii_uppercase().replace('.', "__");
        command.env(format!("CLOAKROOM_{name}"), value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().expect("ended");
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn done(command: &mut Command) -> Ended {
    ended(command.spawn().expect("the program"))
}

fn refresh(token: &str) -> Ask {
    Ask::post("/auth/refresh").json(&json!({"refresh_token": token}))
}

/// Opens so many sessions of backends; their access tokens.
async fn many(world: &World, count: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    for number in 0..count {
        let subject = format!("subject-{}", number % 50);
        let body = json!({"subject": subject, "delivery": "bearer", "data": {"n": number}});
        let opened = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
        tokens.push(opened.is(201).text("access_token"));
    }
    tokens
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_store_is_copied_its_nodes_verify_and_refuse_writes() {
    for server in each().await {
        let settings = with(&server.settings(), "store.timeout", "1s");
        let world = World::start(&started_with(&settings)).await;
        world.user(ADA).await;
        let tokens = world.tokens(ADA).await;
        let (access, token) = (tokens.text("access_token"), tokens.text("refresh_token"));
        many(&world, 40).await;
        let target = TempDir::new().expect("a directory");
        let to = format!("file:{}", target.path().join("data").display());
        let mut command = store(&["copy", "--to", &to], &settings, &target.path().join("own"));
        let mut child = command.spawn().expect("the program");
        let mut refused = 0;
        while child.try_wait().expect("a child").is_none() {
            assert_eq!(world.alive(&access).await, Ok(()));
            let asks =
                [login(ADA, "bearer"), refresh(&token), Ask::post("/auth/logout").bearer(&access)];
            // Before the node has noticed, a refresh or a logout would still be done.
            let asks = if refused > 0 { &asks[..] } else { &asks[..1] };
            for ask in asks {
                let answer = world.send(ask.clone()).await;
                if answer.status == 503 {
                    assert!(answer.header("retry-after").is_some());
                    assert_eq!(answer.all("set-cookie"), [""; 0]);
                    refused += 1;
                } else if child.try_wait().expect("a child").is_none() {
                    assert_eq!((answer.status, refused), (200, 0), "a write during a copy");
                }
            }
            world.send(Ask::get("/readyz")).await.ok();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let said = ended(child).expect(0);
        assert!(said.out.contains("copied and compared"), "{}", said.out);
        assert!(said.err.contains("4 of 4 partitions"), "plain lines: {}", said.err);
        assert!(refused > 3, "{refused}");
        // Then everything is taken again.
        let began_at = Instant::now();
        while world.send(login(ADA, "bearer")).await.status != 200 {
            assert!(began_at.elapsed() < Duration::from_secs(3), "writes stay refused");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_killed_goes_on_and_is_whole() {
    let servers = each().await;
    for (number, server) in servers.iter().enumerate() {
        let settings = with(&server.settings(), "store.timeout", "1s");
        let world = World::start(&started_with(&settings)).await;
        let tokens = many(&world, 1200).await;
        let directory = world.stop().await;
        let scratch = TempDir::new().expect("a directory");
        // To the next server, and from the last one into a file.
        let to = match servers.get(number + 1) {
            Some(next) => next.url(),
            None => format!("file:{}", directory.path().join("data").display()),
        };
        let copy = || store(&["copy", "--to", &to], &settings, &scratch.path().join("own"));
        let mut killed = 0;
        for wait in [2100, 2300, 2600, 3000, 3500] {
            let mut child = copy().spawn().expect("the program");
            std::thread::sleep(Duration::from_millis(wait));
            if child.try_wait().expect("a child").is_none() {
                child.kill().expect("killed");
                killed += 1;
                child.wait().expect("gone");
            } else {
                break;
            }
        }
        assert!(killed > 0, "the copy was too fast to be killed");
        let last = done(&mut copy());
        if last.code != 0 {
            // The run that wasn't killed had finished it.
            assert!(last.err.contains("holds a whole store already"), "{}", last.err);
        }
        let elsewhere = with(&settings, "store.url", &to);
        let world = if to.starts_with("file:") {
            let embedded = elsewhere.iter().filter(|(key, _)| *key != "store.url").cloned();
            World::start_in(directory, &started_with(&embedded.collect())).await
        } else {
            World::start(&started_with(&elsewhere)).await
        };
        for access in tokens.iter().step_by(37) {
            assert_eq!(world.alive(access).await, Ok(()), "{to}");
        }
        let shown = world.admin(Ask::get("/admin/v1/sessions?limit=200")).await;
        assert_eq!(shown.ok().at("sessions").as_array().map(Vec::len), Some(200));
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_in_a_restored_store_nothing_lives_that_ended_since() {
    for server in each().await {
        let settings = with(&server.settings(), "store.timeout", "1s");
        let world = World::start(&started_with(&settings)).await;
        let ada = world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let tokens = world.tokens(ADA).await;
        let (access, token) = (tokens.text("access_token"), tokens.text("refresh_token"));
        let keys = async |address| {
            let set = send(address, &Ask::get("/.well-known/jwks.json")).await.at("keys");
            let kids = set.as_array().expect("an array").iter().map(|key| key["kid"].clone());
            kids.collect::<Vec<Value>>()
        };
        let old_keys = keys(world.public).await;
        // The backup, and then what its users were told after it.
        let backup = TempDir::new().expect("a directory");
        let to = format!("file:{}", backup.path().join("data").display());
        done(&mut store(&["copy", "--to", &to], &settings, &backup.path().join("own"))).expect(0);
        let out = async || {
            let path = format!("/admin/v1/subjects/{}/sessions", ada.id.as_str());
            world.admin(Ask::delete(&path)).await.status
        };
        while out().await != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(world.alive(&access).await, Err("session_ended".into()));
        world.stop().await;
        let embedded: Settings =
            settings.iter().filter(|(key, _)| *key != "store.url").cloned().collect();
        let running = start_restored(config(&backup, &started_with(&embedded)));
        let running = running.await.unwrap_or_else(|error| panic!("{error}"));
        let public = running.public.socket().expect("a TCP listener");
        let by_token = send(public, &Ask::get("/auth/session").bearer(&access)).await;
        assert_eq!(by_token.status, 401, "{by_token:?}");
        let cookie = Ask::get("/auth/session").cookie(&browser.cookie_line());
        send(public, &cookie).await.refused(401, "session_ended");
        send(public, &refresh(&token)).await.refused(401, "session_ended");
        let new_keys = keys(public).await;
        assert!(!new_keys.is_empty() && old_keys.iter().all(|key| !new_keys.contains(key)));
        // She signs in again, and that lives on in a start like any other.
        let again = send(public, &login(ADA, "bearer")).await.ok().text("access_token");
        running.stop().await;
        let world = World::start_in(backup, &started_with(&embedded)).await;
        assert_eq!(world.alive(&again).await, Ok(()));
        assert_ne!(world.alive(&access).await, Ok(()));
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_store_is_copied_when_its_node_is_stopped() {
    let world = World::start(&[]).await;
    world.user(ADA).await;
    let access = world.tokens(ADA).await.text("access_token");
    let target = TempDir::new().expect("a directory");
    let to = format!("file:{}", target.path().join("data").display());
    let data = world.directory.path().join("data");
    let from = format!("file:{}", data.display());
    let copy = |from: &str| {
        let own = target.path().join("own");
        done(&mut store(&["copy", "--from", from, "--to", &to], &Vec::new(), &own))
    };
    // The directory is its node's, whose process is named.
    let refused = copy(&from).expect(2);
    assert!(refused.err.contains(&std::process::id().to_string()), "{}", refused.err);
    let directory = world.stop().await;
    copy(&from).expect(0);
    std::fs::copy(data.join("master.key"), target.path().join("data/master.key")).expect("a key");
    drop(directory);
    let world = World::start_in(target, &[]).await;
    assert_eq!(world.alive(&access).await, Ok(()));
    let target = world.stop().await;
    // The first start on a backup, as an operator does it.
    let mut command = program();
    command.args(["serve", "--restored", "--json", "--data"]).arg(target.path().join("data"));
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    assert_eq!(Node::start(&mut command, "}").stop("-TERM").0, 0);
    let world = World::start_in(target, &[]).await;
    assert_ne!(world.alive(&access).await, Ok(()));
    world.send(login(ADA, "bearer")).await.ok();
    world.stop().await;
}

/// What a check says, as JSON.
fn found(settings: &Settings, data: &Path, repair: bool, code: i32) -> Vec<(String, bool)> {
    let arguments = ["check", "--json", "--repair"];
    let arguments = if repair { &arguments[..] } else { &arguments[..2] };
    let said = done(&mut store(arguments, settings, data)).expect(code).json();
    assert!(said["sessions"].as_u64().expect("a count") >= 4, "{said}");
    let found = said["found"].as_array().expect("an array").iter();
    let mut found: Vec<_> = found
        .map(|one| {
            let fault = one["fault"].as_str().expect("a name").to_owned();
            (fault, one["repaired"].as_bool().expect("a bool"))
        })
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_each_fault_in_each_store_and_repairs_it() {
    let on_disk = None;
    for server in each().await.into_iter().map(Some).chain([on_disk]) {
        let settings: Settings = server.as_ref().map(Server::settings).unwrap_or_default();
        let world = World::start(&started_with(&settings)).await;
        let ada = world.user(ADA).await;
        let mut sids = Vec::new();
        for _ in 0..4 {
            sids.push(world.tokens(ADA).await.text("session.id"));
        }
        let directory = world.stop().await;
        let data = directory.path().join("data");
        assert_eq!(found(&settings, &data, false, 0), []);
        let plan = crate::planted::Plan { subject: ada.id.clone(), sids: sids.clone() };
        let mut expected = plan.plant(server.as_ref(), &settings, &data).await;
        expected.sort();
        let seen = found(&settings, &data, false, 1);
        let names = |found: &[(String, bool)]| -> Vec<String> {
            found.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&seen), expected);
        assert!(seen.iter().all(|(_, repaired)| !repaired));
        let mended = found(&settings, &data, true, 0);
        assert_eq!(names(&mended), expected);
        assert!(mended.iter().all(|(_, repaired)| *repaired));
        assert_eq!(found(&settings, &data, false, 0), []);
        // What can't be known can't be put right.
        plan.plant_a_stranger(server.as_ref(), &settings, &data).await;
        let left = found(&settings, &data, true, 1);
        assert!(left.contains(&("session_without_subject".to_owned(), false)), "{left:?}");
        let world = World::start_in(directory, &started_with(&settings)).await;
        assert_eq!(world.sessions_of(&ada).await.len(), 5);
        world.stop().await;
    }
}

/// What a server's database holds, to see whether somebody wrote.
async fn contents(server: &Server) -> String {
    match server {
        Server::Redis(process) => process.cli(&["DBSIZE"]),
        Server::Postgres(server) => {
            let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'test_%'";
            let row = server.client().await.query_one(schemas, &[]).await.expect("a count");
            row.get::<_, i64>(0).to_string()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_looks_makes_no_store_and_says_that_there_is_none() {
    for server in each().await {
        let settings = server.settings();
        let data = TempDir::new().expect("a directory");
        let before = contents(&server).await;
        for command in ["info", "check"] {
            let none = done(&mut store(&[command], &settings, data.path())).expect(4);
            assert!(none.err.contains("there is no store"), "{}", none.err);
        }
        assert_eq!(contents(&server).await, before, "{}", server.name());
        let world = World::start(&started_with(&settings)).await;
        world.stop().await;
        done(&mut store(&["info"], &settings, data.path())).expect(0);
        let checked = done(&mut store(&["check"], &settings, data.path())).expect(0);
        assert!(checked.out.contains("0 faults, 0 repaired"), "{}", checked.out);
        if let Server::Postgres(_) = server {
            // A schema that was made, and that no node has run on yet.
            let settings = server.settings();
            done(&mut store(&["migrate"], &settings, data.path())).expect(0);
            let checked = done(&mut store(&["check"], &settings, data.path())).expect(0);
            assert_eq!(checked.out, "nothing to check yet: no node has run on it\n");
            let info = done(&mut store(&["info"], &settings, data.path())).expect(0);
            assert!(info.out.contains("not yet: no node has run on it"), "{}", info.out);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_made_holds_nobodys_writes() {
    for server in each().await {
        let settings = with(&server.settings(), "store.timeout", "1s");
        let world = World::start(&started_with(&settings)).await;
        world.user(ADA).await;
        let data = TempDir::new().expect("a directory");
        let mut command = store(&["copy", "--to", &server.url()], &settings, data.path());
        let mut child = command.spawn().expect("the program");
        while child.try_wait().expect("a child").is_none() {
            world.send(login(ADA, "bearer")).await.ok();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let refused = ended(child).expect(2);
        assert!(refused.err.contains("holds a whole store already"), "{}", refused.err);
        assert!(!refused.err.contains("nodes refuse writes"), "{}", refused.err);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_copy_is_not_served_and_can_still_be_finished() {
    let world = World::start(&[]).await;
    world.user(ADA).await;
    let access = many(&world, 3).await;
    let source = world.stop().await;
    let target = TempDir::new().expect("a directory");
    let (from, to) = (source.path().join("data"), target.path().join("data"));
    let url = |path: &Path| format!("file:{}", path.display());
    let copy = || {
        let arguments = ["copy", "--from", &url(&from), "--to", &url(&to)];
        done(&mut store(&arguments, &Vec::new(), &target.path().join("own")))
    };
    copy().expect(0);
    crate::planted::halve(&to).await;
    std::fs::copy(from.join("master.key"), to.join("master.key")).expect("a key");
    let mut serve = program();
    serve.args(["serve", "--data"]).arg(&to);
    serve.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    serve.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let refused = done(&mut serve).expect(2);
    assert!(refused.err.contains("isn't finished"), "{}", refused.err);
    let checked = done(&mut store(&["check"], &Vec::new(), &to)).expect(1);
    assert!(checked.err.contains("isn't finished"), "{}", checked.err);
    copy().expect(0);
    let world = World::start_in(target, &[]).await;
    assert_eq!(world.alive(&access[0]).await, Ok(()));
    world.stop().await;
}
