//! Commands and exports over TLS: the program is the client of its own listener and of a
//! collector.

use std::path::Path;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedKey, DistinguishedName, IsCa, Issuer, KeyPair,
};
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
    node_with(dir, &[])
}

/// The same with more files of `server.admin_tls`.
fn node_with(dir: &Path, files: &[(&str, &str)]) -> (Node, String) {
    certificate(dir);
    let mut command = program();
    command.args(["serve", "--json", "--data"]).arg(dir.join("data"));
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN_TLS__CERT_FILE", dir.join("tls.pem"));
    command.env("CLOAKROOM_SERVER__ADMIN_TLS__KEY_FILE", dir.join("tls.key"));
    command.env("CLOAKROOM_STORE__PARTITIONS", "8");
    for (key, file) in files {
        command.env(format!("CLOAKROOM_SERVER__ADMIN_TLS__{key}"), dir.join(file));
    }
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

/// An authority of clients, `NAME-ca.pem`, and a client that it vouches for, `NAME.pem` and
/// `NAME.key`.
fn client(dir: &Path, name: &str) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Told apart by their names, as a listener names those that it takes.
    let mut subject = DistinguishedName::new();
    subject.push(rcgen::DnType::CommonName, name);
    params.distinguished_name = subject;
    let ca = params.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["operator".to_owned()])
        .and_then(|params| params.signed_by(&key, &issuer))
        .expect("a certificate");
    std::fs::write(dir.join(format!("{name}-ca.pem")), ca.pem()).expect("written");
    std::fs::write(dir.join(format!("{name}.pem")), own.pem()).expect("written");
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("written");
}

#[test]
fn commands_show_a_certificate_where_the_admin_listener_asks_for_one() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    client(dir, "ops");
    client(dir, "foreign");
    let (node, admin) = node_with(dir, &[("CLIENT_CA_FILE", "ops-ca.pem")]);
    let asked = |cert: &str, key: &str| {
        let mut command = command(dir, &admin, &["users", "list"]);
        command.arg("--admin-ca").arg(dir.join("tls.pem"));
        for (flag, file) in [("--client-cert", cert), ("--client-key", key)] {
            if !file.is_empty() {
                command.arg(flag).arg(dir.join(file));
            }
        }
        run(&mut command, "")
    };
    asked("ops.pem", "ops.key").expect(0);
    let mut by_variables = command(dir, &admin, &["health", "--ready"]);
    by_variables.arg("--admin-ca").arg(dir.join("tls.pem"));
    by_variables.env("CLOAKROOM_CLIENT_CERT", dir.join("ops.pem"));
    by_variables.env("CLOAKROOM_CLIENT_KEY", dir.join("ops.key"));
    run(&mut by_variables, "").expect(0);
    let none = asked("", "").expect(3);
    assert!(none.err.contains("asks for a certificate: --client-cert FILE"), "{}", none.err);
    let foreign = asked("foreign.pem", "foreign.key").expect(3);
    assert!(foreign.err.contains("it doesn't take "), "{}", foreign.err);
    assert!(foreign.err.contains("client_ca_file"), "{}", foreign.err);
    // What can't be shown is told before anything is asked, and ends in no panic.
    let other = asked("ops.pem", "foreign.key").expect(2);
    assert!(other.err.contains("doesn't go with"), "{}", other.err);
    assert!(asked("ops.pem", "").expect(2).err.contains("needs --client-key"));
    assert!(asked("", "ops.key").expect(2).err.contains("needs --client-cert"));
    assert!(asked("ops.pem", "ops.pem").expect(2).err.starts_with("error: "));
    asked("ops.key", "ops.key").expect(2);
    asked("nowhere.pem", "ops.key").expect(2);
    assert_eq!(node.stop("-TERM").0, 0);
}

/// A certificate of the loopback that is valid from one day to another, counted from today, with
/// its key: `NAME.pem`, `NAME.key`.
fn valid(dir: &Path, name: &str, days: [i64; 2]) {
    let day = |days: i64| {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        let text = at.strftime("%Y %m %d").to_string();
        let parts: Vec<u16> = text.split(' ').map(|part| part.parse().expect("digits")).collect();
        let part = |at: usize| u8::try_from(parts[at]).expect("a date");
        rcgen::date_time_ymd(parts[0].into(), part(1), part(2))
    };
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    (params.not_before, params.not_after) = (day(days[0]), day(days[1]));
    let key = KeyPair::generate().expect("a key");
    let own = params.self_signed(&key).expect("a certificate");
    std::fs::write(dir.join(format!("{name}.pem")), own.pem()).expect("written");
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("written");
}

#[test]
fn doctor_tells_of_certificates_that_expire_and_of_keys_that_are_not_theirs() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    for (name, days) in
        [("good", [-2, 90]), ("short", [-2, 20]), ("old", [-9, -2]), ("early", [3, 90])]
    {
        valid(dir, name, days);
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let findings = |settings: &[(&str, &str)]| {
        let mut doctor = program();
        doctor.args(["doctor", "--json", "--admin-url", "http://127.0.0.1:9", "--data"]);
        doctor.arg(dir.join("data"));
        for (key, file) in settings {
            doctor.env(format!("CLOAKROOM_{key}"), path(file));
        }
        let found = run(&mut doctor, "").expect(1).json();
        let found = found["findings"].as_array().expect("a list").iter();
        let found = found.filter(|finding| finding["about"] == "certificates");
        let told = |finding: &Value| {
            let member = |name: &str| finding[name].as_str().expect("text").to_owned();
            (member("state"), member("says"))
        };
        found.map(told).collect::<Vec<_>>()
    };
    let [public, admin] = ["SERVER__TLS", "SERVER__ADMIN_TLS"];
    for listener in [public, admin] {
        let (cert, key) = (format!("{listener}__CERT_FILE"), format!("{listener}__KEY_FILE"));
        for (name, state, says) in [
            ("good", "ok", "is valid until "),
            ("short", "look", "is valid until "),
            ("old", "wrong", " expired on "),
            ("early", "wrong", " isn't valid before "),
        ] {
            let pair = (format!("{name}.pem"), format!("{name}.key"));
            let found = findings(&[(&cert, &pair.0), (&key, &pair.1)]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].0 == state && found[0].1.contains(says), "{found:?}");
        }
        let found = findings(&[(&cert, "good.pem"), (&key, "short.key")]);
        assert!(found.iter().any(|(state, _)| state == "wrong"), "{found:?}");
    }
    let admin_tls = [
        ("SERVER__ADMIN_TLS__CERT_FILE", "good.pem"),
        ("SERVER__ADMIN_TLS__KEY_FILE", "good.key"),
        ("SERVER__ADMIN_TLS__CLIENT_CA_FILE", "old.pem"),
    ];
    let found = findings(&admin_tls);
    assert!(found[1].0 == "wrong" && found[1].1.contains("client_ca_file` expired"), "{found:?}");
    let found = findings(&[("STORE__TLS__CA_FILE", "short.pem")]);
    assert!(found[0].0 == "look" && found[0].1.contains("`store.tls.ca_file`"), "{found:?}");
    let found = findings(&[("STORE__TLS__CA_FILE", "nowhere.pem")]);
    assert!(found[0].0 == "wrong" && found[0].1.contains("can't be used"), "{found:?}");
    let pair = [("STORE__TLS__CERT_FILE", "good.pem"), ("STORE__TLS__KEY_FILE", "old.key")];
    let found = findings(&pair);
    assert!(found[1].0 == "wrong" && found[1].1.contains("doesn't go with"), "{found:?}");
}
