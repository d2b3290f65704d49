//! Connections that say nothing: they hold no place for longer than a request may take.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{Ask, send};
use crate::world::World;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// More than any of them may have; an idle connection over HTTP/2 would have six times as much.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is said before the silence: nothing, the first letter of either version of HTTP, half a
/// header, and all of the greeting of HTTP/2 but a request.
const WORDS: [&[u8]; 4] = [
    b"",
    b"P",
    b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
];

async fn is_closed_in_time(world: &World, words: &[u8]) {
    let began_at = Instant::now();
    let mut stream = TcpStream::connect(world.public).await.expect("accepted");
    stream.write_all(words).await.expect("sent");
    let mut heard = Vec::new();
    // An end and a reset are both the server's going.
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "open after {:?}: {words:?}", began_at.elapsed());
    let least = REQUEST_TIMEOUT - Duration::from_millis(100);
    assert!(began_at.elapsed() >= least, "it had no time to speak: {words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_a_connection_that_asks_nothing_is_closed() {
    let world = World::start(&[("store.url", "memory:"), ("server.request_timeout", "1s")]).await;
    let [a, b, c, d] = WORDS.map(|words| is_closed_in_time(&world, words));
    tokio::join!(a, b, c, d);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_whoever_takes_all_connections_without_a_word_keeps_others_out_for_moments() {
    let settings = [
        ("store.url", "memory:"),
        ("server.request_timeout", "1s"),
        ("server.max_connections", "2"),
    ];
    let world = World::start(&settings).await;
    let began_at = Instant::now();
    let _silent = [
        TcpStream::connect(world.public).await.expect("accepted"),
        TcpStream::connect(world.public).await.expect("accepted"),
    ];
    let ask = Ask::get("/healthz");
    let answer = tokio::time::timeout(PATIENCE, send(world.public, &ask)).await;
    answer.expect("let in").ok();
    let waited = began_at.elapsed();
    assert!(waited >= Duration::from_millis(500), "the cap lets a third in: {waited:?}");
    world.stop().await;
}
