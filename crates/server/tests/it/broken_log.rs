//! A process whose log can't be written: it answers, and stops in order.

#![cfg(unix)]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli_world::program;

/// A node that was told to log much.
struct Talkative {
    child: Child,
    public: String,
    admin: String,
}

/// The command of such a node.
fn command(dir: &Path, level: &str) -> Command {
    let mut command = program();
    command.args(["serve", "--json", "--data"]).arg(dir).stdin(Stdio::null());
    for (name, value) in [
        ("SERVER__PUBLIC", "127.0.0.1:0"),
        ("SERVER__ADMIN", "127.0.0.1:0"),
        ("STORE__PARTITIONS", "2"),
        ("LOG__LEVEL", level),
        ("PASSWORD__ARGON2", "m=7168,t=5,p=1"),
    ] {
        command.env(format!("CLOAKROOM_{name}"), value);
    }
    command
}

impl Talkative {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut greeting = String::new();
        while !greeting.ends_with("\n}\n") {
            assert!(lines.read_line(&mut greeting).expect("readable") > 0, "{greeting:?}");
        }
        let said: Value = serde_json::from_str(&greeting).expect("JSON");
        let url = |name: &str| said[name].as_str().expect("a URL").to_owned();
        Self { child, public: url("public"), admin: url("admin") }
    }

    /// Both listeners answer, a refusal as well as what is well; and a change is made.
    fn answers(&self, root: &str) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        let agent = agent.new_agent();
        let health = agent.get(format!("{}/healthz", self.public)).call().expect("an answer");
        assert_eq!(health.status(), 200);
        let wrong = r#"{"identifier": "nobody", "password": "eleven geese under a bridge"}"#;
        let login = agent.post(format!("{}/auth/login", self.public));
        let login = login.header("content-type", "application/json").send(wrong);
        assert_eq!(login.expect("an answer").status(), 401);
        let user = format!(r#"{{"identifier": "user-{}"}}"#, self.child.id());
        let made = agent.post(format!("{}/admin/v1/users", self.admin));
        let made = made.header("authorization", format!("Bearer {root}"));
        let made = made.header("content-type", "application/json").send(user);
        assert_eq!(made.expect("an answer").status(), 201);
    }

    /// Asks it to stop; it has to end as if all were well.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < deadline, "it doesn't stop");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.child.wait().expect("a child").code(), Some(0));
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        // Only where the test failed before it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root_key(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("root-api.key")).expect("a key").trim().to_owned()
}

#[test]
fn m5_a_node_whose_log_lies_on_a_full_disk_starts_answers_and_stops() {
    if !Path::new("/dev/full").exists() {
        crate::skips::tell("a log on a full disk: no /dev/full here");
        return;
    }
    for level in ["info", "debug"] {
        let dir = tempfile::TempDir::new().expect("a directory");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("writable");
        let mut command = command(dir.path(), level);
        // A warning is told before the log begins.
        command.env("CLOAKROOM_VERIFY__CACHE", "true");
        let node = Talkative::start(command.stderr(full));
        node.answers(&root_key(dir.path()));
        node.stop();
    }
}

#[test]
fn m5_a_node_whose_log_is_read_by_nobody_any_more_answers_and_stops() {
    for level in ["info", "debug"] {
        let dir = tempfile::TempDir::new().expect("a directory");
        let mut command = command(dir.path(), level);
        let mut node = Talkative::start(command.stderr(Stdio::piped()));
        let mut log = node.child.stderr.take().expect("a pipe");
        let mut first = [0; 16];
        log.read_exact(&mut first).expect("the control: it has a log");
        drop(log);
        node.answers(&root_key(dir.path()));
        node.stop();
    }
}
