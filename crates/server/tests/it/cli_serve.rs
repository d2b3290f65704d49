//! `cloakroom serve`: with no configuration at all, its files, and how it stops.

use std::fs;
#[cfg(unix)]
use std::net::SocketAddr;

use crate::cli_world::{program, run, serve};
#[cfg(unix)]
use crate::http::{Ask, send};

#[cfg(unix)]
fn mode(path: &std::path::Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
#[cfg(unix)]
fn serve_makes_its_keys_once_for_its_owner_alone() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let data = dir.path().join("data");
    let (node, _, admin) = serve(&data);
    for name in ["master.key", "root-api.key"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&data), 0o700);
    let key = fs::read_to_string(data.join("root-api.key")).expect("a key");
    let add = ["users", "add", "ada", "--no-password", "--admin-url", &admin, "--data"];
    run(program().args(add).arg(&data), "").expect(0);
    let (code, err) = node.stop("-TERM");
    assert_eq!(code, 0, "{err}");
    assert!(!err.contains(key.trim()), "{err}");
    let (node, _, admin) = serve(&data);
    assert_eq!(fs::read_to_string(data.join("root-api.key")).expect("a key"), key);
    let list = ["users", "list", "--json", "--admin-url", &admin, "--data"];
    let users = run(program().args(list).arg(&data), "").expect(0).json();
    assert_eq!(users["users"][0]["identifier"], "ada");
    assert_eq!(node.stop("-INT").0, 0);
}

#[test]
#[cfg(unix)]
fn serve_refuses_keys_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::TempDir::new().expect("a directory");
    let (node, ..) = serve(dir.path());
    assert_eq!(node.stop("-TERM").0, 0);
    for name in ["master.key", "root-api.key"] {
        let path = dir.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("own file");
        let ended = run(program().args(["serve", "--data"]).arg(dir.path()), "").expect(2);
        assert!(ended.err.contains("chmod 600"), "{}", ended.err);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("own file");
    }
    fs::remove_file(dir.path().join("master.key")).expect("removed");
    let lost = run(program().args(["serve", "--data"]).arg(dir.path()), "").expect(2);
    assert!(lost.err.contains("master.key: missing"), "{}", lost.err);
    assert!(!dir.path().join("master.key").exists());
}

#[test]
fn a_second_process_on_the_same_directory_names_the_first() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (node, ..) = serve(dir.path());
    let mut second = program();
    second.args(["serve", "--data"]).arg(dir.path());
    second.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    second.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    second.env("CLOAKROOM_STORE__PARTITIONS", "8");
    let ended = run(&mut second, "").expect(2);
    assert!(ended.err.contains(&node.id().to_string()), "{}", ended.err);
    assert_eq!(node.stop("-TERM").0, 0);
}

#[test]
fn a_wrong_configuration_is_told_with_all_its_errors() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let file = dir.path().join("c.toml");
    fs::write(&file, "store.timeout = \"0\"\nsessions.idle = \"1h\"\n").expect("written");
    let ended = run(program().args(["serve", "--config"]).arg(&file), "").expect(2);
    assert!(ended.err.contains("c.toml:1") && ended.err.contains("c.toml:2"), "{}", ended.err);
    assert_eq!(ended.out, "");
}

#[test]
#[cfg(unix)]
fn the_admin_listener_may_be_a_socket() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let socket = format!("unix:{}/admin.sock", dir.path().display());
    let mut command = program();
    command.args(["serve", "--data"]).arg(dir.path().join("data"));
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", &socket);
    command.env("CLOAKROOM_STORE__URL", "memory:");
    let node = crate::cli_world::Node::start(&mut command, "  curl ");
    assert!(node.greeting.contains("--unix-socket"), "{}", node.greeting);
    let add = ["users", "add", "ada", "--no-password", "--json", "--admin-url", &socket, "--data"];
    let data = dir.path().join("data");
    let added = run(program().args(add).arg(&data), "").expect(0).json();
    assert_eq!(added["user"]["identifier"], "ada");
    let path = ["users", "disable", "nobody", "--admin-url", &socket, "--data"];
    run(program().args(path).arg(&data), "").expect(4);
    // The command that it printed works as it stands.
    let line = node.greeting.lines().find(|line| line.starts_with("  curl ")).expect("a command");
    let ended = run(std::process::Command::new("bash").args(["-c", line]), "").expect(0);
    assert!(ended.out.contains("\"ada\""), "{}", ended.out);
    run(program().args(["health", "--ready", "--admin-url", &socket]), "").expect(0);
    assert_eq!(node.stop("-TERM").0, 0);
}

/// Waits until a log says so, for ten seconds.
fn wait_for(log: &std::path::Path, said: &str) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        if text.contains(said) {
            return text;
        }
        assert!(std::time::Instant::now() < deadline, "{said:?} is not in {text}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
#[cfg(unix)]
fn sighup_reads_the_log_level_again_and_a_wrong_one_leaves_the_former() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (file, log) = (dir.path().join("c.toml"), dir.path().join("log"));
    let level = |level: &str| {
        fs::write(&file, format!("log.level = {level:?}\n")).expect("written");
    };
    level("error");
    // The shell gives the node a file as its standard error, and becomes it.
    let mut command = std::process::Command::new("sh");
    let node = program();
    command.args(["-c", "exec \"$0\" \"$@\" 2>\"$LOG\""]).arg(node.get_program());
    command.args(["serve", "--json", "--config"]).arg(&file);
    command.arg("--data").arg(dir.path().join("data")).env("LOG", &log);
    for (name, value) in node.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    command.env("CLOAKROOM_STORE__URL", "memory:");
    let node = crate::cli_world::Node::start(&mut command, "}");
    let hangup = || {
        let id = node.id().to_string();
        let sent = std::process::Command::new("kill").args(["-HUP", &id]).status();
        assert!(sent.expect("kill").success());
    };
    assert_eq!(fs::read_to_string(&log).expect("a log"), "", "nothing was worth an error");
    level("loud");
    hangup();
    let text = wait_for(&log, "the former log.level stays in use");
    assert!(text.contains("c.toml:1") && text.contains("`log.level`"), "{text}");
    level("info");
    hangup();
    wait_for(&log, "configuration read again");
    assert_eq!(node.stop("-TERM").0, 0);
    let text = fs::read_to_string(&log).expect("a log");
    assert!(text.contains("draining") && text.contains("\"stopped\""), "{text}");
}

#[test]
#[cfg(unix)]
fn a_log_in_a_file_has_no_colours_and_begins_with_the_configuration() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let mut command = program();
    command.args(["serve", "--json", "--data"]).arg(dir.path().join("data"));
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    command.env("CLOAKROOM_STORE__URL", "memory:");
    command.env("CLOAKROOM_LOG__FORMAT", "text");
    let node = crate::cli_world::Node::start(&mut command, "}");
    let (code, err) = node.stop("-TERM");
    assert_eq!(code, 0, "{err}");
    assert!(!err.contains('\u{1b}'), "{err:?}");
    let first = err.lines().next().unwrap_or_default();
    assert!(first.contains("no configuration file: defaults and environment"), "{err}");
    assert!(err.lines().last().unwrap_or_default().ends_with("stopped"), "{err}");
}

#[test]
#[cfg(unix)]
fn g7_what_was_answered_right_before_a_kill_holds_after_the_restart() {
    const TRIALS: usize = 10;
    let dir = tempfile::TempDir::new().expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let address = |url: &str| -> SocketAddr {
        url.trim_start_matches("http://").parse().expect("an address")
    };
    let refresh =
        |token: &str| Ask::post("/auth/refresh").json(&serde_json::json!({"refresh_token": token}));
    let is_ended = async |public: SocketAddr, access: &str| {
        let answer = send(public, &Ask::get("/auth/session").bearer(access)).await;
        answer.refused(401, "session_ended");
    };
    // An access token of what was ended; tokens of what was rotated, before and after.
    let (mut ended, mut rotated): (Vec<String>, Vec<(String, String)>) = (Vec::new(), Vec::new());
    for trial in 0..=TRIALS {
        let (node, public, admin) = serve(dir.path());
        let (public, admin) = (address(&public), address(&admin));
        let key = fs::read_to_string(dir.path().join("root-api.key")).expect("a root key");
        runtime.block_on(async {
            for access in &ended {
                is_ended(public, access).await;
            }
            for (former, next) in rotated.drain(..) {
                // Within its grace the predecessor is a retry: the same successor.
                let again = send(public, &refresh(&former)).await;
                assert_eq!(again.ok().text("refresh_token"), next);
                let goes_on = send(public, &refresh(&next)).await;
                assert_ne!(goes_on.ok().text("refresh_token"), next);
            }
            if trial == TRIALS {
                return;
            }
            let open = Ask::post("/admin/v1/sessions").bearer(key.trim());
            let body = serde_json::json!({"subject": format!("ada{trial}"), "delivery": "bearer"});
            let opened = send(admin, &open.json(&body)).await;
            let (access, token) = (opened.text("access_token"), opened.text("refresh_token"));
            // The answer and the kill: nothing is between them but the way to the process.
            if trial % 2 == 0 {
                let logout = Ask::post("/auth/logout").bearer(&access);
                send(public, &logout).await.is(204);
                ended.push(access);
            } else {
                let next = send(public, &refresh(&token)).await.ok().text("refresh_token");
                rotated.push((token, next));
            }
        });
        // Dropped, it is killed: nobody is asked to stop.
        drop(node);
    }
    assert_eq!(ended.len(), TRIALS / 2);
}
