//! TLS: a server is verified before anything is said to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cloakroom_core::types::Secret;
use cloakroom_postgres::{PostgresSettings, TlsFiles};
use cloakroom_store::Version;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::server::{PASSWORD, Server, shared};
use crate::world::{connect, counter, done, put, refusal};

/// Writes an authority, and certificates of it for the name `localhost` and for the user `ada`.
fn write_certificates(dir: &Path) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("an authority");
    write(dir, "ca.pem", &authority.pem());
    let issuer = Issuer::from_params(&params, &key);
    for (file, name) in [("server", "localhost"), ("client", "ada")] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let signed = params.signed_by(&key, &issuer).expect("a certificate");
        write(dir, &format!("{file}.pem"), &signed.pem());
        write(dir, &format!("{file}.key"), &key.serialize_pem());
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file");
}

/// A server that talks to Ada only by her certificate, and to others only under TLS.
async fn start(certificates: &Path) -> Server {
    let settings =
        ["ssl=on", "ssl_cert_file=server.pem", "ssl_key_file=server.key", "ssl_ca_file=ca.pem"];
    Server::start_with(&settings, |data| {
        for name in ["ca.pem", "server.pem", "server.key"] {
            fs::copy(certificates.join(name), data.join(name)).expect("a copy");
        }
        let rules = "hostssl all ada all cert\nhostssl all all all scram-sha-256\n\
                     host all postgres 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("a file");
    })
    .await
}

fn settings(
    server: &Server,
    user: &str,
    host: &str,
    mode: &str,
    ca_file: Option<PathBuf>,
) -> PostgresSettings {
    let port = server.port;
    let url = format!("postgres://{user}:{PASSWORD}@{host}:{port}/postgres?sslmode={mode}");
    let tls = TlsFiles { ca_file, ..TlsFiles::default() };
    PostgresSettings { url: Secret::new(url), tls, ..server.settings() }
}

#[tokio::test]
async fn a_server_is_believed_only_by_its_certificate_and_believes_us_by_ours() {
    let (dir, other) = (tempfile::tempdir().expect("a dir"), tempfile::tempdir().expect("a dir"));
    write_certificates(dir.path());
    write_certificates(other.path());
    let server = start(dir.path()).await;
    let ca = || Some(dir.path().join("ca.pem"));
    let by = |host, mode, ca_file| settings(&server, "postgres", host, mode, ca_file);

    for mode in ["verify-full", "require", "verify-ca"] {
        let store = connect(&by("localhost", mode, ca())).await;
        done(&store, put(counter(1), Version::ZERO, 1)).await;
    }
    // The certificate names another host: only the laxer mode takes it.
    connect(&by("127.0.0.1", "verify-ca", ca())).await;
    let told = refusal(&by("127.0.0.1", "verify-full", ca())).await;
    assert!(told.starts_with("TLS can't be set up"), "{told}");
    // Nobody that we trust vouches for it: no mode takes it.
    for mode in ["verify-ca", "verify-full", "require"] {
        let told = refusal(&by("localhost", mode, Some(other.path().join("ca.pem")))).await;
        assert!(told.starts_with("TLS can't be set up"), "{told}");
    }

    server.client().await.batch_execute("CREATE ROLE ada SUPERUSER LOGIN").await.expect("a role");
    let mut ada = settings(&server, "ada", "localhost", "verify-full", ca());
    let told = refusal(&ada).await;
    assert!(told.starts_with("the server refuses the user"), "{told}");
    ada.tls.cert_file = Some(dir.path().join("client.pem"));
    assert!(refusal(&ada).await.starts_with("a client certificate needs both"));
    ada.tls.key_file = Some(dir.path().join("client.key"));
    connect(&ada).await;
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_in_plain_text_instead() {
    let server = shared().await;
    let dir = tempfile::tempdir().expect("a dir");
    write_certificates(dir.path());
    let by =
        |mode| settings(server, "postgres", "localhost", mode, Some(dir.path().join("ca.pem")));
    let told = refusal(&by("verify-full")).await;
    assert!(told.contains("does not support TLS"), "{told}");
    connect(&by("disable")).await;
}

#[tokio::test]
async fn a_file_that_cant_be_used_is_named() {
    let server = shared().await;
    let dir = tempfile::tempdir().expect("a dir");
    fs::write(dir.path().join("empty.pem"), "").expect("a file");
    for name in ["missing.pem", "empty.pem"] {
        let ca_file = Some(dir.path().join(name));
        let told = refusal(&settings(server, "postgres", "localhost", "require", ca_file)).await;
        assert!(told.contains(name), "{told}");
    }
}
