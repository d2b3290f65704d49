//! The embedded store on a disk that is full: the process ends, and all that it acknowledged is
//! there when it is started again.

#![cfg(unix)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli_world::{Node, program, serve};
use crate::world::{ADA, PASSWORD};

/// More sign-ins than a file of 100 KiB has room for.
const SIGN_INS_MAX: usize = 400;

/// Sends a request; status and body, or nothing where the node is gone.
fn ask(url: &str, bearer: &str, body: Option<&Value>) -> Option<(u16, Value)> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    let agent = config.timeout_global(Some(Duration::from_secs(20))).build().new_agent();
    let bearer = format!("Bearer {bearer}");
    let answer = match body {
        Some(body) => agent
            .post(url)
            .header("authorization", bearer)
            .header("content-type", "application/json")
            .send(body.to_string()),
        None => agent.get(url).header("authorization", bearer).call(),
    };
    let mut answer = answer.ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    Some((answer.status().as_u16(), serde_json::from_str(&text).ok()?))
}

/// The same node with files of 100 KiB at most: a write beyond that fails as on a full disk.
fn serve_with_little_room(dir: &Path) -> (Node, String) {
    let plain = program();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$0\" \"$@\""]);
    command.arg(plain.get_program()).args(["serve", "--json", "--data"]).arg(dir);
    for (name, _) in plain.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(name);
    }
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    command.env("CLOAKROOM_PASSWORD__ARGON2", "m=7168,t=5,p=1");
    command.env("CLOAKROOM_LIMIT__NETWORK", "100000/1m");
    let node = Node::start(&mut command, "}");
    let said: Value = serde_json::from_str(&node.greeting).expect("JSON");
    let public = said["public"].as_str().expect("a URL").to_owned();
    (node, public)
}

#[test]
fn g5_a_full_disk_ends_the_embedded_store_and_loses_nothing_acknowledged() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (node, _, admin) = serve(dir.path());
    let root = std::fs::read_to_string(dir.path().join("root-api.key")).expect("a key");
    let user = json!({"identifier": ADA, "password": PASSWORD});
    let made = ask(&format!("{admin}/admin/v1/users"), root.trim(), Some(&user));
    assert_eq!(made.expect("an answer").0, 201);
    assert_eq!(node.stop("-TERM").0, 0);

    let (node, public) = serve_with_little_room(dir.path());
    let login = json!({"identifier": ADA, "password": PASSWORD, "delivery": "bearer"});
    let mut acknowledged = Vec::new();
    while let Some((status, said)) = ask(&format!("{public}/auth/login"), "", Some(&login)) {
        assert_eq!(status, 200, "it answers right or not at all: {said}");
        acknowledged.push(said["access_token"].as_str().expect("a token").to_owned());
        assert!(acknowledged.len() < SIGN_INS_MAX, "the disk is never full");
    }
    assert!(!acknowledged.is_empty(), "nothing was ever acknowledged");
    // The signal finds nobody: a node that stops in order would exit with 0.
    let (code, log) = node.stop("-TERM");
    assert_eq!(code, -1, "{log}");
    assert!(log.contains("the process ends here"), "{log}");

    let (node, public, _) = serve(dir.path());
    for access in &acknowledged {
        let seen = ask(&format!("{public}/auth/session"), access, None);
        assert_eq!(seen.expect("an answer").0, 200);
    }
    assert_eq!(node.stop("-TERM").0, 0);
}
