//! What subscribers of the streams cost that have nothing to hear: the node's processor time and
//! memory, and what verifications take beside them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::{Client, Request};
use crate::report::{Aim, Figure, Kind, Report};
use crate::server::{self, Launch, Server};
use crate::{Outcome, machine};

/// Backends that follow what ends; one key may have 1,024 streams.
const SUBSCRIBERS: usize = 1000;
const ROUNDS: usize = 5;
/// How long the processor time is counted: a heartbeat comes twice a second.
const SPAN: Duration = Duration::from_secs(5);
/// Verifications of a round, one after another.
const VERIFICATIONS: usize = 2000;
const STREAM: &str = "/admin/v1/revocations/stream";

const NAMES: [&str; 3] = ["streams/cpu", "streams/memory", "streams/verify-p99"];

/// Measures what is asked for.
pub fn run(report: &Report, folder: &Path) -> Outcome<()> {
    if !report.wants_any(&NAMES) {
        return Ok(());
    }
    let cpu = Figure::new(NAMES[0], "ms/s", Kind::Growth, Aim::Open);
    let memory = Figure::new(NAMES[1], "KiB each", Kind::Growth, Aim::Open);
    let p99 = Figure::new(NAMES[2], "us", Kind::Growth, Aim::AtMost(1.5));
    let mut figures = [cpu, memory, p99];
    let program = server::build()?;
    // One node alone, one with subscribers, each on the core that the other has too.
    let start = |name: &str| {
        let launch = Launch::new(&program, &folder.join(name)).under(machine::pinned_to(0));
        let launch = launch.set("store.url", "memory:").set("limit.verify", "1000000/1m");
        launch.set("server.max_connections", "4000").start()
    };
    let (alone, followed) = (start("alone")?, start("followed")?);
    let tokens = [open(&alone)?, open(&followed)?];
    let before = machine::memory(followed.pid())?;
    let streams: Vec<TcpStream> =
        (0..SUBSCRIBERS).map(|_| subscribe(&followed)).collect::<Outcome<_>>()?;
    for _ in 0..ROUNDS {
        figures[0].pair(busy(&followed)?, busy(&alone)?);
        let grown = machine::memory(followed.pid())?.saturating_sub(before);
        figures[1].alone(grown as f64 / 1024.0 / streams.len() as f64);
        figures[2].pair(verify(&followed, &tokens[1])?, verify(&alone, &tokens[0])?);
    }
    // They were there to the end.
    drop(streams);
    figures.iter().for_each(|figure| report.tell(figure));
    alone.stop()?;
    followed.stop()?;
    Ok(())
}

/// Opens a session; gives its access token.
fn open(server: &Server) -> Outcome<String> {
    let new = json!({"subject": "somebody", "delivery": "bearer"});
    let request = Request::new("POST", "/admin/v1/sessions").bearer(&server.root_key).json(&new);
    let answer = Client::new(&server.admin).send(&request)?;
    match answer.status {
        201 => Ok(answer.text("access_token")),
        _ => Err(answer.describe().into()),
    }
}

/// Begins a stream; what comes of it stays in the system's buffers, which hold minutes of it.
fn subscribe(server: &Server) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(&server.admin)?;
    let key = &server.root_key;
    let head = format!("GET {STREAM} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}");
    stream.write_all(format!("{head}\r\n\r\n").as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    match &status[9..] {
        b"200" => Ok(stream),
        _ => Err(String::from_utf8_lossy(&status).into_owned().into()),
    }
}

/// Milliseconds of processor time in a second of nothing.
fn busy(server: &Server) -> Outcome<f64> {
    let (before, began) = (machine::cpu_time(server.pid())?, Instant::now());
    thread::sleep(SPAN);
    let used = machine::cpu_time(server.pid())?.saturating_sub(before);
    Ok(used.as_secs_f64() * 1e3 / began.elapsed().as_secs_f64())
}

/// What one verification in a hundred takes longer than, in microseconds.
fn verify(server: &Server, token: &str) -> Outcome<f64> {
    let mut client = Client::new(&server.public);
    let request = Request::new("GET", "/auth/verify").bearer(token);
    let mut took = Vec::with_capacity(VERIFICATIONS);
    for _ in 0..VERIFICATIONS {
        let began = Instant::now();
        let answer = client.send(&request)?;
        took.push(began.elapsed());
        if answer.status != 200 {
            return Err(answer.describe().into());
        }
    }
    took.sort_unstable();
    let slow = took.get(VERIFICATIONS * 99 / 100).copied().unwrap_or_default();
    Ok(slow.as_secs_f64() * 1e6)
}
