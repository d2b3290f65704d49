//! Section 7: streams of revocations and events, read as they come.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::Ask;
use crate::world::{ADA, World, on_each_store};

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// More heartbeats than a connection's buffers and the ring for slow readers hold together.
const TOO_MANY: usize = 80_000;
/// How far a reader who does read may be behind here, in heartbeats.
const LAG_MAX: usize = 1_000;

/// An open stream.
struct Listener {
    stream: TcpStream,
    text: String,
}

/// A message of a stream.
#[derive(Debug)]
struct Message {
    event: String,
    id: Option<String>,
    data: Value,
}

impl Listener {
    async fn open(world: &World, path: &str, key: &str, after: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(world.admin).await.expect("the server accepts");
        let after = after.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        // HTTP/1.0: the body comes as it is, without chunks.
        let head = format!(
            "GET {path} HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n{after}\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut listener = Self { stream, text: String::new() };
        while !listener.text.contains("\r\n\r\n") {
            assert!(listener.read().await, "{}", listener.text);
        }
        let body = listener.text.split_off(listener.text.find("\r\n\r\n").expect("a head") + 4);
        let head = std::mem::replace(&mut listener.text, body);
        let lower = head.to_ascii_lowercase();
        assert!(head.contains(" 200 "), "{head}");
        assert!(lower.contains("content-type: text/event-stream"), "{head}");
        assert!(lower.contains("cache-control: no-store"), "{head}");
        listener
    }

    /// Reads some more; false: the stream is over.
    async fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        let read = read.expect("something comes in time").unwrap_or(0);
        self.text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        read > 0
    }

    /// The next message; none: the stream is over.
    async fn next(&mut self) -> Option<Message> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                let block = std::mem::replace(&mut self.text, rest);
                if let Some(message) = message(&block) {
                    return Some(message);
                }
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The next message that isn't a heartbeat.
    async fn news(&mut self) -> Message {
        self.find(|message| message.event != "heartbeat").await
    }

    async fn find(&mut self, wanted: impl Fn(&Message) -> bool) -> Message {
        loop {
            let message = self.next().await.expect("the stream goes on");
            if wanted(&message) {
                return message;
            }
        }
    }
}

fn message(block: &str) -> Option<Message> {
    let field = |name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start().to_owned())
    };
    let data = serde_json::from_str(&field("data:")?).expect("data is JSON");
    Some(Message { event: field("event:").expect("a name"), id: field("id:"), data })
}

async fn open_session(world: &World, subject: &str) -> String {
    let body = json!({"subject": subject, "delivery": "bearer"});
    let opened = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
    opened.is(201).text("session.id")
}

async fn end(world: &World, sid: &str) {
    world.admin(Ask::delete(&format!("/admin/v1/sessions/{sid}"))).await.is(204);
}

async fn key(world: &World, scope: &str) -> (String, String) {
    let body = json!({"name": "test", "scopes": [scope]});
    let made = world.admin(Ask::post("/admin/v1/api-keys").json(&body)).await;
    made.is(201);
    (made.text("api_key.id"), made.text("secret"))
}

const REVOCATIONS: &str = "/admin/v1/revocations/stream";
const EVENTS: &str = "/admin/v1/events/stream";

#[tokio::test(flavor = "multi_thread")]
async fn revocations_are_told_in_the_contracts_words() {
    on_each_store(&[], async |world| {
        let mut listener = Listener::open(world, REVOCATIONS, &world.root_key, None).await;
        let beat = listener.find(|message| message.event == "heartbeat").await;
        assert!(beat.data["at"].is_string() && beat.id.is_some());
        assert!(beat.id.as_deref().is_some_and(|id| id.len() <= 128));
        let sid = open_session(world, "ada").await;
        end(world, &sid).await;
        let told = listener.find(|told| told.event == "session" && told.data["sid"] == sid).await;
        assert_eq!(told.data["reason"], "ended_by_operator");
        assert!(told.data["until"].is_string());
        world.admin(Ask::delete("/admin/v1/subjects/ada/sessions")).await.ok();
        let told = listener.find(|told| told.event == "subject").await;
        assert_eq!(told.data, json!({"subject": "ada", "epoch": 1}));
        world.admin(Ask::post("/admin/v1/sessions/end-all")).await.ok();
        let told = listener.find(|told| told.event == "all").await;
        assert!(told.data["at"].is_string());
        let patch = json!({"claims": {"role": "user"}});
        let path = "/admin/v1/subjects/ada";
        world.admin(Ask::new("PATCH", path).json(&patch)).await.ok();
        let told = listener.find(|told| told.event == "changed").await;
        assert_eq!(told.data, json!({"subject": "ada"}));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g10_snapshot_subscription_and_reconnect_leave_no_gap() {
    on_each_store(&[], async |world| {
        let first = open_session(world, "ada").await;
        let second = open_session(world, "ada").await;
        let third = open_session(world, "ada").await;
        end(world, &first).await;
        let snapshot = world.admin(Ask::get("/admin/v1/revocations")).await;
        assert_eq!(snapshot.ok().at("sessions.0.sid"), first.as_str());
        assert_eq!(snapshot.at("all"), Value::Null);
        let cursor = snapshot.text("cursor");
        end(world, &second).await;
        let key = &world.root_key;
        let mut listener = Listener::open(world, REVOCATIONS, key, Some(&cursor)).await;
        let told = listener.find(|told| told.data["sid"] == second.as_str()).await;
        drop(listener);
        end(world, &third).await;
        let mut listener = Listener::open(world, REVOCATIONS, key, told.id.as_deref()).await;
        listener.find(|told| told.data["sid"] == third.as_str()).await;
        for bad in ["garbage", "0", "ffffffffffffffffffffffff", &cursor[1..]] {
            let mut listener = Listener::open(world, REVOCATIONS, key, Some(bad)).await;
            let told = listener.news().await;
            assert_eq!((told.event.as_str(), told.id), ("reset", None), "{bad}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_stream_as_the_listing_shows_them() {
    let world = World::start(&[]).await;
    let mut listener = Listener::open(&world, EVENTS, &world.root_key, None).await;
    let sid = open_session(&world, ADA).await;
    let is_opened =
        |told: &Message| told.data["type"] == "session.opened" && told.data["sid"] == sid;
    let told = listener.find(is_opened).await;
    let listed = world.admin(Ask::get(&format!("/admin/v1/events?sid={sid}"))).await;
    assert_eq!(listed.at("events.0"), told.data);
    assert_eq!(told.id.as_deref(), told.data["cursor"].as_str());
    // A listing's cursor is a stream's, and the other way round.
    let cursor = told.id.expect("a cursor");
    end(&world, &sid).await;
    let listed = world.admin(Ask::get(&format!("/admin/v1/events?sid={sid}&after={cursor}"))).await;
    assert_eq!(listed.text("events.0.type"), "session.ended");
    let mut resumed = Listener::open(&world, EVENTS, &world.root_key, Some(&cursor)).await;
    resumed.find(|told| told.data["type"] == "session.ended").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m2_a_reason_cannot_forge_an_event() {
    let world = World::start(&[]).await;
    let mut listener = Listener::open(&world, EVENTS, &world.root_key, None).await;
    let sid = open_session(&world, "ada").await;
    let hostile = "x%0D%0A%0D%0Aevent:%20forged%0Adata:%20%7B%7D%0A%0A%E2%80%A8";
    world.admin(Ask::delete(&format!("/admin/v1/sessions/{sid}?reason={hostile}"))).await.is(204);
    let told = listener.find(|told| told.data["type"] == "session.ended").await;
    assert_eq!(told.event, "event");
    let reason = told.data["reason"].as_str().expect("a reason");
    assert!(!reason.contains(['\r', '\n']), "{reason:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_deleted_key_ends_its_streams_and_only_those() {
    let world = World::start(&[]).await;
    let (id, secret) = key(&world, "sessions:read").await;
    let mut own = Listener::open(&world, REVOCATIONS, &secret, None).await;
    let mut other = Listener::open(&world, REVOCATIONS, &world.root_key, None).await;
    assert!(own.next().await.is_some());
    let deleted = world.admin(Ask::delete(&format!("/admin/v1/api-keys/{id}"))).await;
    deleted.is(204);
    while own.next().await.is_some() {}
    let refused = world.send_admin(Ask::get("/admin/v1/sessions").bearer(&secret)).await;
    refused.refused(401, "token_invalid");
    assert!(other.next().await.is_some());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_streams_need_their_scope() {
    let world = World::start(&[]).await;
    let (_, events) = key(&world, "events").await;
    let (_, sessions) = key(&world, "sessions:read").await;
    for (path, wrong) in [(REVOCATIONS, &events), (EVENTS, &sessions)] {
        let refused = world.send_admin(Ask::get(path).bearer(wrong)).await;
        refused.refused(403, "insufficient_scope");
        let refused = world.send_admin(Ask::get(path)).await;
        refused.refused(401, "credentials_required");
    }
    Listener::open(&world, EVENTS, &events, None).await;
    Listener::open(&world, REVOCATIONS, &sessions, None).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_node_drains() {
    let mut world = World::start(&[]).await;
    let mut listener = Listener::open(&world, REVOCATIONS, &world.root_key, None).await;
    assert!(listener.next().await.is_some());
    let stopping = tokio::spawn(world.take_running().stop());
    while listener.next().await.is_some() {}
    tokio::time::timeout(PATIENCE, stopping).await.expect("in time").expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn m7_a_key_has_so_many_streams_and_no_more() {
    let world = World::start(&[("server.max_connections", "2000")]).await;
    let (_, secret) = key(&world, "sessions:read").await;
    let mut open = Vec::new();
    for _ in 0..1024 {
        open.push(Listener::open(&world, REVOCATIONS, &secret, None).await);
    }
    let refused = world.send_admin(Ask::get(REVOCATIONS).bearer(&secret)).await;
    assert!(refused.refused(429, "rate_limited").header("retry-after").is_some());
    // All are told the same, and others aren't hindered.
    let sid = open_session(&world, "ada").await;
    end(&world, &sid).await;
    for listener in &mut open {
        listener.find(|told| told.data["sid"] == sid.as_str()).await;
    }
    drop(open);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m7_a_reader_that_stops_reading_is_cut_and_hinders_nobody() {
    let settings = [("store.url", "memory:"), ("store.partitions", "1")];
    let world = World::start(&settings).await;
    let mut slow = Listener::open(&world, EVENTS, &world.root_key, None).await;
    let mut other = Listener::open(&world, EVENTS, &world.root_key, None).await;
    let sid = open_session(&world, "ada").await;
    let last = slow.find(|told| told.data["sid"] == sid).await.id.expect("a cursor");
    let (heard, mut hearing) = tokio::sync::watch::channel(0);
    let reading = tokio::spawn(async move {
        let is_end = |told: &Message| {
            heard.send_modify(|count| *count += 1);
            told.data["type"] == "session.ended"
        };
        other.find(is_end).await
    });
    let authority = &world.running().site().authority;
    for told in 0..TOO_MANY {
        authority.pump_streams().await.expect("a reading");
        // The other one keeps up.
        let keeps_up = hearing.wait_for(|heard| heard + LAG_MAX >= told);
        let waited = tokio::time::timeout(PATIENCE, keeps_up).await.expect("in time");
        waited.expect("not cut");
    }
    end(&world, &sid).await;
    let told = tokio::time::timeout(PATIENCE, reading).await.expect("in time").expect("told");
    assert_eq!(told.data["sid"], sid.as_str());
    let mut told = Vec::new();
    while let Some(message) = slow.next().await {
        told.push(message.event);
    }
    assert_eq!(told.last().map(String::as_str), Some("reset"), "of {}", told.len());
    // It resumes where it was.
    let mut again = Listener::open(&world, EVENTS, &world.root_key, Some(&last)).await;
    again.find(|told| told.data["type"] == "session.ended").await;
    world.stop().await;
}
