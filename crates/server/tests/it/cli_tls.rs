//! Commands and exports over TLS: the program is the client of its own listener and of a
//! collector.

use std::path::Path;
use std::process::Command;

use rcgen::CertifiedKey;
use serde_json::Value;
use tempfile::TempDir;

use crate::cli_world::{Ended, Node, program, run};

/// Writes a certificate of the loopback and its key, `tls.pem` and `tls.key`.
pub fn certificate(dir: &Path) {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).expect("a certificate");
    std::fs::write(dir.join("tls.pem"), cert.pem()).expect("written");
    std::fs::write(dir.join("tls.key"), signing_key.serialize_pem()).expect("written");
}

/// A node whose admin listener speaks TLS, and its URL.
fn node(dir: &Path) -> (Node, String) {
    certificate(dir);
    let mut command = program();
    command.args(["serve", "--json", "--data"]).arg(dir.join("data"));
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN_TLS__CERT_FILE", dir.join("tls.pem"));
    command.env("CLOAKROOM_SERVER__ADMIN_TLS__KEY_FILE", dir.join("tls.key"));
    command.env("CLOAKROOM_STORE__PARTITIONS", "8");
    let node = Node::start(&mut command, "}");
    let said: Value = serde_json::from_str(&node.greeting).expect("JSON");
    let admin = said["admin"].as_str().expect("a URL").to_owned();
    assert!(admin.starts_with("https://"), "{admin}");
    (node, admin)
}

/// A command that finds this node.
fn command(dir: &Path, admin: &str, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(arguments).args(["--admin-url", admin, "--data"]).arg(dir.join("data"));
    command
}

#[test]
fn every_family_of_commands_speaks_tls_to_the_admin_listener() {
    let dir = TempDir::new().expect("a directory");
    let (node, admin) = node(dir.path());
    let export = dir.path().join("events.jsonl").display().to_string();
    let users = dir.path().join("users.jsonl");
    std::fs::write(&users, "{\"identifier\": \"bob\"}\n").expect("written");
    let users = users.display().to_string();
    let families: [&[&str]; 16] = [
        &["users", "add", "ada", "--no-password"],
        &["users", "list"],
        &["users", "disable", "ada"],
        &["users", "import", &users],
        &["sessions", "list"],
        &["sessions", "revoke-subject", "ada"],
        &["keys", "list"],
        &["keys", "rewrap"],
        &["api-keys", "create", "--name", "shop", "--scope", "sessions:read,events"],
        &["api-keys", "list"],
        &["events", "tail"],
        &["events", "export", "--out", &export],
        &["events", "verify"],
        &["sweep"],
        &["health"],
        &["health", "--ready"],
    ];
    let ca = dir.path().join("tls.pem");
    for family in families {
        let ended =
            run(command(dir.path(), &admin, family).arg("--admin-ca").arg(&ca), "").expect(0);
        assert!(!ended.err.contains("panicked"), "{family:?}: {}", ended.err);
    }
    let by_variable =
        run(command(dir.path(), &admin, &["users", "list"]).env("CLOAKROOM_ADMIN_CA", &ca), "");
    by_variable.expect(0);
    let key = std::fs::read_to_string(dir.path().join("data/root-api.key")).expect("a key");
    let mut inspect = command(dir.path(), &admin, &["token", "inspect"]);
    let judged = run(inspect.arg("--admin-ca").arg(&ca), &key).expect(0);
    assert!(judged.out.contains("valid: the authority takes it"), "{}", judged.out);
    let mut doctor = command(dir.path(), &admin, &["doctor", "--json"]);
    let findings = run(doctor.arg("--admin-ca").arg(&ca), "").json();
    let about = |name: &str| {
        let found = findings["findings"].as_array().expect("a list").iter();
        found.filter(|finding| finding["about"] == name).cloned().collect::<Vec<_>>()
    };
    assert_eq!(about("authority")[0]["says"], "ready", "{findings}");
    // Whom nobody vouches for is told nothing, and the command says why.
    let doubtful = |family: &[&str]| -> Ended { run(&mut command(dir.path(), &admin, family), "") };
    let refused = doubtful(&["users", "list"]).expect(3);
    assert!(refused.err.starts_with("error: can't reach the authority"), "{}", refused.err);
    assert!(refused.err.to_ascii_lowercase().contains("certificate"), "{}", refused.err);
    doubtful(&["health"]).expect(1);
    doubtful(&["doctor"]).expect(1);
    assert_eq!(node.stop("-TERM").0, 0);
}

#[test]
fn a_certificate_that_stops_the_start_is_found_by_config_check() {
    let dir = TempDir::new().expect("a directory");
    certificate(dir.path());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let check = |cert: &str| {
        let file = dir.path().join("cloakroom.toml");
        let text = format!(
            "[server.tls]\ncert_file = {:?}\nkey_file = {:?}\n",
            path(cert),
            path("tls.key")
        );
        std::fs::write(&file, text).expect("written");
        run(program().args(["config", "check", "--config"]).arg(&file), "")
    };
    check("tls.pem").expect(0);
    let missing = check("nowhere.pem").expect(2);
    assert!(missing.err.contains("cloakroom.toml:2: `server.tls.cert_file`"), "{}", missing.err);
    std::fs::write(dir.path().join("junk.pem"), "no certificate").expect("written");
    assert!(check("junk.pem").expect(2).err.contains("holds no certificate"));
}
