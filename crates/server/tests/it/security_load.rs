//! Floods: what is too much is refused, and everybody else is served.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{Ask, parse, send};
use crate::world::{ADA, World, login, on_each_store};

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn j7_too_many_sign_ins_are_turned_away_and_others_served() {
    let settings = [
        ("password.pool", "1"),
        ("limit.login", "100000/1m"),
        ("limit.login_identifier", "100000/1m"),
        ("limit.login_network", "100000/1m"),
    ];
    on_each_store(&settings, async |world| {
        world.user(ADA).await;
        let access = world.tokens(ADA).await.text("access_token");
        let before = world.running().site().authority.password_load().hashed;
        let public = world.public;
        let tries: Vec<_> = (0..60)
            .map(|n| {
                let wrong = json!({"identifier": ADA, "password": "not the right password"});
                let wrong = Ask::post("/auth/login").json(&wrong);
                let ask = if n % 2 == 0 { login(ADA, "bearer") } else { wrong };
                tokio::spawn(async move { (n % 2 == 0, send(public, &ask).await) })
            })
            .collect();
        // Some go away before they are answered; their work still counts.
        for _ in 0..20 {
            sign_in_and_leave(public).await;
            assert_eq!(world.alive(&access).await, Ok(()));
        }
        let (mut signed_in, mut refused, mut turned_away) = (0, 0, 0);
        for one in tries {
            let (right, answer) = one.await.expect("no panic");
            match answer.status {
                200 => {
                    assert!(right);
                    signed_in += 1;
                }
                401 => {
                    assert!(!right);
                    refused += 1;
                }
                _ => {
                    answer.refused(503, "overloaded");
                    let wait = answer.header("retry-after").expect("said").parse::<u64>();
                    assert!(wait.expect("seconds") >= 1);
                    assert!(answer.all("set-cookie").is_empty());
                    turned_away += 1;
                }
            }
        }
        assert!(turned_away > 0, "{signed_in} signed in, {refused} refused");
        assert!(signed_in > 0);
        let load = world.running().site().authority.password_load();
        assert!(load.hashed - before >= signed_in + refused, "{load:?}");
        assert_eq!(world.alive(&access).await, Ok(()));
        let settled = async {
            loop {
                let load = world.running().site().authority.password_load();
                if (load.running, load.waiting) == (0, 0) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.expect("every turn is given back");
        world.send(login(ADA, "bearer")).await.ok();
    })
    .await;
}

/// A sign-in whose client goes away before it is answered.
async fn sign_in_and_leave(public: SocketAddr) {
    let mut stream = TcpStream::connect(public).await.expect("accepted");
    let head = "POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let body = json!({"identifier": ADA, "password": "not the right password"}).to_string();
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(request.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_whoever_guesses_keys_is_slowed_down_and_learns_nothing() {
    on_each_store(&[("limit.network", "12/1m")], async |world| {
        let key = &world.root_key;
        let mut answers = Vec::new();
        for at in [4, 10, 50, key.len() - 6, key.len() - 2] {
            let mut wrong = key.clone().into_bytes();
            wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
            let wrong = String::from_utf8(wrong).expect("ASCII");
            let answer = send(world.admin, &Ask::get("/admin/v1/users").bearer(&wrong)).await;
            let mut body = answer.refused(401, "token_invalid").json();
            body["request_id"] = json!(null);
            answers.push((body, answer.header("www-authenticate").map(str::to_owned)));
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
        let mut slowed = false;
        for _ in 0..12 {
            let answer = send(world.admin, &Ask::get("/admin/v1/users").bearer("cka_x")).await;
            slowed |= answer.status == 429 && answer.header("retry-after").is_some();
        }
        assert!(slowed);
        // A good key is not slowed by others' guesses.
        world.admin(Ask::get("/admin/v1/users")).await.ok();
    })
    .await;
}

/// Asks on a connection that is kept; whether it was answered with 200 in this time.
async fn is_healthy(stream: &mut TcpStream, within: Duration) -> bool {
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    asked.expect("sent");
    read_health(stream, within).await
}

/// Reads one answer to its end.
async fn read_health(stream: &mut TcpStream, within: Duration) -> bool {
    let mut bytes = Vec::new();
    let whole = async {
        loop {
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
            let Some(answer) = parse(&bytes) else { continue };
            let length = answer.header("content-length").and_then(|text| text.parse().ok());
            if length == Some(answer.body.len()) {
                return answer.status == 200;
            }
        }
    };
    tokio::time::timeout(within, whole).await.unwrap_or(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_connections_over_the_cap_wait_until_one_of_those_before_is_gone() {
    let world = World::start(&[("store.url", "memory:"), ("server.max_connections", "2")]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(world.public).await.expect("accepted");
        assert!(is_healthy(&mut stream, PATIENCE).await);
        held.push(stream);
    }
    let mut third = TcpStream::connect(world.public).await.expect("it waits in the line");
    assert!(!is_healthy(&mut third, Duration::from_millis(300)).await, "a third place");
    // Who is in goes on being served, and so is the other listener.
    let mut first = held.remove(0);
    assert!(is_healthy(&mut first, PATIENCE).await);
    world.admin(Ask::get("/admin/v1/users")).await.ok();
    drop(first);
    assert!(read_health(&mut third, PATIENCE).await, "the place that got free");
    drop((held, third));
    world.stop().await;
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET` or `POST` of a path, as a header block without compression (RFC 7541 section 6.2.2).
fn block(method: u8, path: &str) -> Vec<u8> {
    // Indexed: 2 is GET and 3 is POST; 6 is the scheme http.
    let mut bytes = vec![0x80 | method, 0x86];
    for (name, value) in [(0x04, path), (0x01, "localhost")] {
        bytes.extend_from_slice(&[name, u8::try_from(value.len()).expect("short")]);
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes
}

/// A connection by prior knowledge.
async fn connect(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.public).await.expect("accepted");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let hello = [&preface[..], &frame(SETTINGS, 0, 0, &[])].concat();
    stream.write_all(&hello).await.expect("sent");
    stream
}

/// Kind, stream and payload of every frame until the server closes or says nothing more.
async fn frames(
    stream: &mut (impl AsyncRead + Unpin),
    until: impl Fn(u8) -> bool,
) -> Vec<(u8, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let read = async {
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).expect("a length")];
            if stream.read_exact(&mut payload).await.is_err() {
                break;
            }
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            found.push((head[3], id, payload));
            if until(head[3]) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the server answers or closes");
    found
}

async fn others_are_served(world: &World) {
    world.send(Ask::get("/healthz")).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_rapid_resets_end_the_connection() {
    let world = World::start(&[("store.url", "memory:")]).await;
    let mut stream = connect(&world).await;
    let mut sent = Vec::new();
    for n in 0..2000u32 {
        let id = 2 * n + 1;
        sent.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, &block(2, "/healthz")));
        sent.extend(frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
    }
    let (mut read, mut write) = stream.split();
    // It may be closed before all of it was read.
    let (_, found) = tokio::join!(write.write_all(&sent), frames(&mut read, |kind| kind == GOAWAY));
    let last = found.last().expect("an answer");
    // ENHANCE_YOUR_CALM (RFC 9113 section 7).
    assert_eq!((last.0, last.2.get(4..8)), (GOAWAY, Some(&11u32.to_be_bytes()[..])), "{last:?}");
    let closed = tokio::time::timeout(PATIENCE, read.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "the connection goes on");
    others_are_served(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_endless_continuations_end_the_connection() {
    let world = World::start(&[("store.url", "memory:")]).await;
    let mut stream = connect(&world).await;
    let first = frame(HEADERS, END_STREAM, 1, &block(2, "/healthz"));
    stream.write_all(&first).await.expect("sent");
    // Each adds a header of some 8 000 bytes, and none is the last.
    let mut header = vec![0x00, 1, b'x', 0x7f, 0xc1, 0x3d];
    header.extend(std::iter::repeat_n(b'a', 127 + 0x41 + (0x3d << 7)));
    let mut refused = false;
    for _ in 0..2000 {
        if stream.write_all(&frame(CONTINUATION, 0, 1, &header)).await.is_err() {
            refused = true;
            break;
        }
    }
    let last = frames(&mut stream, |kind| kind == GOAWAY).await;
    let told = last.iter().any(|(kind, ..)| *kind == GOAWAY || *kind == RST_STREAM);
    assert!(refused || told, "{last:?}");
    others_are_served(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_headers_that_grow_by_indexing_are_refused() {
    let world = World::start(&[("store.url", "memory:")]).await;
    let mut stream = connect(&world).await;
    // Put once into the table (RFC 7541 section 6.2.1), then named by one byte each.
    let mut bomb = block(2, "/healthz");
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0x81, 0x17]);
    bomb.extend(std::iter::repeat_n(b'a', 127 + 0x01 + (0x17 << 7)));
    bomb.extend(std::iter::repeat_n(0xbe, 8000));
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await.expect("sent");
    let answers = frames(&mut stream, |kind| matches!(kind, HEADERS | RST_STREAM | GOAWAY)).await;
    let last = answers.last().expect("an answer");
    // 431 is a literal status; 200 would be the index 8.
    assert!(last.0 != HEADERS || last.2.first() != Some(&0x88), "{last:?}");
    others_are_served(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_streams_of_a_connection_are_bounded() {
    let world = World::start(&[("store.url", "memory:"), ("server.request_timeout", "1s")]).await;
    let mut stream = connect(&world).await;
    let settings = frames(&mut stream, |kind| kind == SETTINGS).await;
    let settings = &settings.last().expect("settings").2;
    let limits = settings.chunks_exact(6).filter(|setting| setting[..2] == [0, 3]);
    let limits: Vec<u32> = limits
        .map(|setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]))
        .collect();
    assert_eq!(limits, [100]);
    // Requests whose bodies never come.
    let mut sent = Vec::new();
    for n in 0..150u32 {
        sent.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &block(3, "/auth/login")));
    }
    sent.extend(frame(DATA, 0, 1, b"{"));
    let _ = stream.write_all(&sent).await;
    let answers = frames(&mut stream, |kind| matches!(kind, RST_STREAM | GOAWAY)).await;
    // REFUSED_STREAM (RFC 9113 section 7) for the first one over the limit.
    let last = answers.last().expect("an answer");
    assert_eq!((last.0, last.1, last.2.last()), (RST_STREAM, 201, Some(&7)), "{answers:?}");
    others_are_served(&world).await;
    world.stop().await;
}
