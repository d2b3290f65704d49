//! Section 7: health, keys and metadata, on both listeners; stopping.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http::{Ask, parse, send};
use crate::world::{ADA, PASSWORD, World, login, on_each_store};

#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_say_that_they_are_well() {
    on_each_store(&[], async |world| {
        for address in [world.public, world.admin] {
            send(address, &Ask::get("/healthz")).await.ok();
            let ready = send(address, &Ask::get("/readyz")).await;
            assert_eq!(ready.ok().text("status"), "ready");
            assert!(["durable", "local"].contains(&&*ready.text("durability")));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e9_the_key_set_is_public_and_cacheable() {
    on_each_store(&[], async |world| {
        for address in [world.public, world.admin] {
            let answer = send(address, &Ask::get("/.well-known/jwks.json")).await;
            assert_eq!(answer.ok().header("cache-control"), Some("public, max-age=300"));
            let keys = answer.at("keys");
            let keys = keys.as_array().expect("an array");
            assert!(!keys.is_empty());
            for key in keys {
                for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                    assert!(key.get(private).is_none());
                }
            }
        }
    })
    .await;
    let secret = [
        ("token.algorithm", "HS256"),
        ("token.hs256_secret", "q3tWJv0Zy8rLk2NfX7mBdC5hG1sAeUoP4iTzRxYw"),
    ];
    on_each_store(&secret, async |world| {
        let answer = world.send(Ask::get("/.well-known/jwks.json")).await;
        assert_eq!(answer.ok().json(), json!({"keys": []}));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h8_metadata_is_the_settings_and_not_the_requests() {
    on_each_store(&[], async |world| {
        let path = "/.well-known/oauth-authorization-server";
        let plain = world.send(Ask::get(path)).await;
        let forged = Ask::get(path).header("host", "evil").header("x-forwarded-host", "evil");
        assert_eq!(world.send(forged).await.ok().json(), plain.ok().json());
        assert_eq!(plain.text("issuer"), "http://localhost:7400");
        for member in ["token_endpoint", "introspection_endpoint", "revocation_endpoint"] {
            let url = plain.text(member);
            let path = url.strip_prefix("http://localhost:7400").expect("the own origin");
            assert_ne!(world.send(Ask::post(path)).await.status, 404, "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i14_the_public_listener_has_nothing_of_the_operators() {
    on_each_store(&[], async |world| {
        for path in [
            "/admin/v1/sessions",
            "//admin/v1/sessions",
            "/%61dmin/v1/sessions",
            "/auth/../admin/v1/sessions",
            "/metrics",
            "/console/",
            "/openapi.json",
        ] {
            let ask = Ask::get(path).bearer(&world.root_key);
            world.send(ask).await.refused(404, "not_found");
        }
        world.admin(Ask::get("/admin/v1/sessions")).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_finishes_what_it_took_and_is_no_longer_ready() {
    let mut world = World::start(&[("server.drain", "5s")]).await;
    world.user(ADA).await;
    let body = json!({"identifier": ADA, "password": PASSWORD}).to_string();
    let head = format!(
        "POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut slow = tokio::net::TcpStream::connect(world.public).await.expect("accepted");
    slow.write_all(head.as_bytes()).await.expect("taken");
    let idle = tokio::net::TcpStream::connect(world.public).await.expect("accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopping = tokio::spawn(world.take_running().stop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    send(world.admin, &Ask::get("/readyz")).await.refused(503, "overloaded");
    send(world.admin, &Ask::get("/healthz")).await.ok();
    assert!(tokio::net::TcpStream::connect(world.public).await.is_err());
    slow.write_all(body.as_bytes()).await.expect("taken");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.expect("an answer");
    parse(&answer).expect("an answer").ok();
    drop(idle);
    tokio::time::timeout(Duration::from_secs(3), stopping).await.expect("in time").expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_and_is_removed() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = directory.path().join("public.sock");
    let listener = format!("unix:{}", path.display());
    let config =
        crate::world::config(&directory, &[("store.url", "memory:"), ("server.public", &listener)]);
    let running = cloakroom_server::serve::start(config).await.expect("starts");
    let mut stream = tokio::net::UnixStream::connect(&path).await.expect("accepted");
    let ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(ask).await.expect("taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    parse(&answer).expect("an answer").ok();
    running.stop().await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_directory_is_told_who_has_it() {
    let world = World::start(&[]).await;
    world.user(ADA).await;
    let config = crate::world::config(&world.directory, &[]);
    let refused = cloakroom_server::serve::start(config).await.err().expect("refused");
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    world.send(login(ADA, "cookie")).await.ok();
    world.stop().await;
}
