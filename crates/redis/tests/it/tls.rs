//! TLS with an authority of one's own and a certificate for the client.

use std::path::Path;
use std::process::{Command, Stdio};

use cloakroom_core::types::Secret;
use cloakroom_redis::{RedisError, RedisSettings, RedisStore, TlsFiles};
use cloakroom_store::Version;

use crate::servers::{Process, free_port, redis};
use crate::world::{HERE, connect, count, counter, done, put, refusal, settings};

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split_whitespace()).current_dir(dir);
    let output = command.stdin(Stdio::null()).output().expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and certificates of it for a server on the loopback and for a client.
fn certificates(dir: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(dir, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ours"));
    for name in ["server", "client"] {
        let files = format!("-keyout {name}.key -out {name}.csr");
        openssl(dir, &format!("req {key} {files} -subj /CN={name}"));
        let extensions = "subjectAltName=IP:127.0.0.1,DNS:localhost\n";
        std::fs::write(dir.join("extensions"), extensions).expect("a file");
        let files = format!("-in {name}.csr -out {name}.pem -extfile extensions");
        openssl(
            dir,
            &format!("x509 -req {files} -CA ca.pem -CAkey ca.key -CAcreateserial -days 2"),
        );
    }
}

fn server(dir: &Path, port: u16) -> Process {
    let path = |name: &str| dir.join(name).display().to_string();
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let port_text = port.to_string();
    let options = [
        "--port",
        "0",
        "--tls-port",
        &port_text,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
    ];
    Process::start_on(redis(), port, &options)
}

#[tokio::test]
async fn a_server_is_believed_only_by_its_certificate_and_believes_us_by_ours() {
    let (dir, port) = (tempfile::tempdir().expect("a directory"), free_port());
    certificates(dir.path());
    let _server = server(dir.path(), port);
    let file = |name: &str| Some(dir.path().join(name));
    let all = TlsFiles { ca: file("ca.pem"), cert: file("client.pem"), key: file("client.key") };
    let url = format!("rediss://127.0.0.1:{port}");
    let with = |tls| RedisSettings { tls, ..settings(&url) };

    let store = connect(&with(all.clone())).await;
    done(&store, HERE, put(counter(1), Version::ZERO, 1)).await;
    assert_eq!(count(&store, HERE, &counter(1)).await, Some(1));

    for tls in [
        TlsFiles { ca: None, ..all.clone() },
        TlsFiles { ca: all.ca.clone(), ..TlsFiles::default() },
    ] {
        let refusal = RedisStore::connect(&with(tls)).await.expect_err("a stranger");
        assert!(matches!(refusal, RedisError::Unreachable { .. }), "{refusal:?}");
    }
    let plain = Secret::new(format!("redis://127.0.0.1:{port}"));
    let settings = RedisSettings { url: plain, ..with(all.clone()) };
    assert!(RedisStore::connect(&settings).await.is_err());
    let elsewhere =
        RedisSettings { url: Secret::new(format!("rediss://127.0.0.2:{port}")), ..with(all) };
    assert!(RedisStore::connect(&elsewhere).await.is_err());
}

#[tokio::test]
async fn a_file_that_is_missing_or_alone_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = Some(dir.path().join("nowhere.pem"));
    let tls = TlsFiles { ca: missing.clone(), ..TlsFiles::default() };
    let refused = refusal(&RedisSettings { tls, ..settings("rediss://127.0.0.1") }).await;
    assert!(matches!(refused, RedisError::Tls(_)) && refused.to_string().contains("nowhere.pem"));
    let tls = TlsFiles { cert: missing, ..TlsFiles::default() };
    let refused = refusal(&RedisSettings { tls, ..settings("rediss://127.0.0.1") }).await;
    assert!(matches!(refused, RedisError::Tls(_)), "{refused:?}");
}
