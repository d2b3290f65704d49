//! TLS and HTTP/2 by the listeners themselves.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedKey, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http::{Answer, Ask, parse};
use crate::world::{ADA, World};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Writes a fresh certificate and its key; gives back what a client trusts then.
fn certificate(cert_file: &Path, key_file: &Path) -> String {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(cert_file, cert.pem()).expect("written");
    std::fs::write(key_file, signing_key.serialize_pem()).expect("written");
    cert.pem()
}

fn client(trusted: &str, identity: Option<(String, String)>, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(trusted.as_bytes()).expect("a certificate");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![cert], key).expect("an identity")
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn connect(
    address: SocketAddr,
    client: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    client.connect(ServerName::try_from("localhost").expect("a name"), stream).await
}

async fn health(address: SocketAddr, client: &TlsConnector) -> std::io::Result<Answer> {
    let mut stream = connect(address, client).await?;
    stream.write_all(HEALTH).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    parse(&answer).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again_and_a_bad_one_leaves_the_former() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let (cert, key) = (directory.path().join("tls.pem"), directory.path().join("tls.key"));
    let first = certificate(&cert, &key);
    let (cert_text, key_text) = (cert.display().to_string(), key.display().to_string());
    let settings = [
        ("store.url", "memory:"),
        ("server.tls.cert_file", &*cert_text),
        ("server.tls.key_file", &*key_text),
    ];
    let world = World::start(&settings).await;
    let trusts_first = client(&first, None, &[]);
    health(world.public, &trusts_first).await.expect("trusted").ok();
    let second = certificate(&cert, &key);
    world.running().reload();
    assert!(health(world.public, &trusts_first).await.is_err());
    let trusts_second = client(&second, None, &[]);
    health(world.public, &trusts_second).await.expect("trusted").ok();
    std::fs::write(&cert, "no certificate").expect("written");
    world.running().reload();
    health(world.public, &trusts_second).await.expect("trusted").ok();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_may_ask_for_a_clients_certificate() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let server = certificate(Path::new(&path("a.pem")), Path::new(&path("a.key")));
    let ca_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("a certificate");
    std::fs::write(path("ca.pem"), ca.pem()).expect("written");
    let issuer = Issuer::new(params, ca_key);
    let own_key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["backend".to_owned()])
        .and_then(|params| params.signed_by(&own_key, &issuer))
        .expect("a certificate");
    let settings = [
        ("store.url", "memory:"),
        ("server.admin_tls.cert_file", &*path("a.pem")),
        ("server.admin_tls.key_file", &*path("a.key")),
        ("server.admin_tls.client_ca_file", &*path("ca.pem")),
    ]
    .map(|(key, value)| (key, value.to_owned()));
    let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, &**v)).collect();
    let world = World::start(&settings).await;
    assert!(health(world.admin, &client(&server, None, &[])).await.is_err());
    let identity = Some((own.pem(), own_key.serialize_pem()));
    health(world.admin, &client(&server, identity, &[])).await.expect("trusted").ok();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_cookies_that_http_2_split_are_joined_and_doubled_ones_still_refused() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let (cert, key) = (directory.path().join("tls.pem"), directory.path().join("tls.key"));
    let trusted = certificate(&cert, &key);
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let settings = [
        ("store.url", "memory:"),
        ("server.tls.cert_file", &*cert),
        ("server.tls.key_file", &*key),
    ];
    let world = World::start(&settings).await;
    let user = world.user(ADA).await;
    let body = serde_json::json!({"subject": user.id.as_str(), "delivery": "cookie"});
    let opened = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
    let token = opened.is(201).text("session_token");
    let stream = connect(world.public, &client(&trusted, None, &[b"h2"])).await.expect("trusted");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    let driver = tokio::spawn(connection);
    for (cookies, status) in [
        (vec!["theme=dark".to_owned(), format!("session={token}")], 200),
        (vec![format!("session={token}"), format!("session={token}")], 401),
    ] {
        let mut request = Request::get("https://localhost/auth/session");
        for cookie in cookies {
            request = request.header("cookie", cookie);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), status);
        answer.into_body().collect().await.expect("a body");
    }
    drop(sender);
    let _ = driver.await;
    world.stop().await;
}
