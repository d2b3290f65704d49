//! What a node says when it can't use its store, and stores that it reaches over TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::cli_world::program;
use crate::http::Ask;
use crate::servers::redis_servers::free_port;
use crate::servers::{MASTER_KEY, Server, each, postgres_prepared, redis_tls, redis_with};
use crate::world::{ADA, World};

mod old;

/// The one sentence with which a node gives up, with exit code 3.
#[track_caller]
fn refused(settings: &[(&str, &str)]) -> String {
    let directory = TempDir::new().expect("a directory");
    let mut command = program();
    command.args(["serve", "--data"]).arg(directory.path());
    command.env("CLOAKROOM_MASTER_KEY", MASTER_KEY);
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    for (key, value) in settings {
        let name = key.to_ascii_uppercase().replace('.', "__");
        command.env(format!("CLOAKROOM_{name}"), value);
    }
    let output = command.stdin(Stdio::null()).output().expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("error: store: "), "{said}");
    assert!(!said.contains("hush"), "a password is told: {said}");
    errors[0].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lacks_something_is_one_plain_sentence_and_exit_code_3() {
    let Some(server) = redis_with(&["--appendonly", "yes"]).await else { return };
    let Server::Redis(process) = &server else { panic!("not Redis") };
    let url = server.url();
    // What a node needs but for the scripts.
    let rules = "ACL SETUSER poor on >hush ~* -@all +hello +auth +select +ping +info +time +get";
    assert_eq!(process.cli(&rules.split(' ').collect::<Vec<_>>()), "OK");
    let poor = url.replace("//", "//poor:hush@");
    assert!(refused(&[("store.url", &poor)]).contains("lacks a privilege"));
    let cluster = url.replace("redis:", "redis+cluster:");
    assert!(refused(&[("store.url", &cluster)]).contains("cluster"));
    assert_eq!(process.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
    assert!(refused(&[("store.url", &url)]).contains("noeviction"));
    assert_eq!(process.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]), "OK");
    process.cli(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    assert!(refused(&[("store.url", &url)]).contains("replica"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_lacks_something_is_one_plain_sentence_and_exit_code_3() {
    for server in each().await {
        let Server::Postgres(postgres) = &server else { continue };
        let poor = "CREATE ROLE poor LOGIN PASSWORD 'hush'; \
                    REVOKE CREATE ON DATABASE postgres FROM PUBLIC";
        postgres.client().await.batch_execute(poor).await.expect("a role");
        let url = server.url().replacen("postgres:hush-hush@", "poor:hush@", 1);
        let said = refused(&[("store.url", &url)]);
        assert!(said.contains("lacks a privilege"), "{said}");
        let said = refused(&[("store.url", &server.url()), ("store.migrate", "false")]);
        assert!(said.contains("cloakroom store migrate"), "{said}");
    }
}

/// An authority, and certificates of it for the loopback and for a node.
fn certificates(dir: &Path) {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file");
    };
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.pem", &params.self_signed(&key).expect("an authority").pem());
    let issuer = Issuer::from_params(&params, &key);
    for (file, names) in [("server", vec!["127.0.0.1", "localhost"]), ("client", vec!["node"])] {
        let key = KeyPair::generate().expect("a key");
        let names = names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("names");
        // With the authority's own name it would be taken for one.
        params.distinguished_name.push(DnType::CommonName, file);
        let signed = params.signed_by(&key, &issuer).expect("a certificate");
        write(&format!("{file}.pem"), &signed.pem());
        write(&format!("{file}.key"), &key.serialize_pem());
    }
}

/// A node signs in, verifies and signs out on a store that asks for its certificate.
async fn works(url: &str, dir: &Path) {
    let path = |name: &str| dir.join(name).display().to_string();
    let (ca, cert, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let settings = [
        ("store.url", url),
        ("master_key", MASTER_KEY),
        ("store.tls.ca_file", &ca),
        ("store.tls.cert_file", &cert),
        ("store.tls.key_file", &key),
    ];
    let world = World::start(&settings).await;
    world.user(ADA).await;
    let access = world.tokens(ADA).await.text("access_token");
    assert_eq!(world.alive(&access).await, Ok(()));
    world.send(Ask::post("/auth/logout").bearer(&access)).await.is(204);
    assert_eq!(world.alive(&access).await, Err("session_ended".into()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_over_tls_is_used_with_an_authority_and_a_certificate_of_our_own() {
    let dir = TempDir::new().expect("a directory");
    certificates(dir.path());
    if let Some(server) = redis_tls(dir.path()).await {
        works(&format!("rediss://127.0.0.1:{}", server.port()), dir.path()).await;
    }
    let settings =
        ["ssl=on", "ssl_cert_file=server.pem", "ssl_key_file=server.key", "ssl_ca_file=ca.pem"];
    let prepare = |data: &Path| {
        for name in ["ca.pem", "server.pem", "server.key"] {
            fs::copy(dir.path().join(name), data.join(name)).expect("a copy");
        }
        // Over TLS nobody comes in without a certificate; the test itself comes without TLS.
        let rules = "hostssl all all all scram-sha-256 clientcert=verify-ca\n\
                     hostnossl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("a file");
    };
    if let Some(server) = postgres_prepared(&settings, prepare).await {
        works(&format!("{}?sslmode=verify-full", server.url()), dir.path()).await;
    }
}
