//! The real server on one core beside a handler that does nothing, also on one core, the load
//! generator on another; in requests and, steadier, in the processor time of a request.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::generator::{self, Run};
use crate::http::{Answer, Client, Request};
use crate::idle::Idle;
use crate::machine;
use crate::report::{Aim, Figure, Kind, Report, skipped};
use crate::server::{self, Launch, Server};

/// Credentials used in turn.
const CREDENTIALS: usize = 10_000;
/// Subjects that sign in in turn: so many that none reaches its bound of sessions.
const SUBJECTS: usize = 50_000;
/// Clients at once, where reading is measured and where writing is.
const READERS: usize = 64;
const WRITERS: usize = 256;
/// Requests in flight while credentials are made.
const OPENERS: usize = 32;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
/// The first run of each is thrown away: it fills caches and starts threads.
const WARM_UP: Duration = Duration::from_secs(1);
/// The server's core and the generator's.
const SERVER_CORE: usize = 0;
const GENERATOR_CORE: usize = 1;

const NAMES: [&str; 8] = [
    "http/verify-cookie",
    "http/verify-cookie-cpu",
    "http/verify-access",
    "http/verify-access-cpu",
    "http/open",
    "http/open-cpu",
    "http/refresh",
    "http/refresh-cpu",
];

/// Measures what is asked for.
pub fn run(report: &Report, folder: &Path) -> io::Result<()> {
    if !report.wants_any(&NAMES) {
        return Ok(());
    }
    if !generator::is_ready() {
        skipped("everything over HTTP", "there is no wrk, and it can't be installed");
        return Ok(());
    }
    if machine::pinned_to(SERVER_CORE).is_empty() {
        skipped("pinning", "one core or no taskset: server and generator share what there is");
    }
    let launch = Launch::new(&server::build()?, &folder.join("http"))
        .under(machine::pinned_to(SERVER_CORE))
        .set("server.trusted_proxies", "127.0.0.1/32")
        .set("limit.session", "1000000/1m");
    let stage = Stage { server: launch.start()?, folder: folder.to_owned() };
    generator::write_scripts(folder)?;
    stage.verify(report, "cookie", NAMES[0], NAMES[1])?;
    stage.verify(report, "bearer", NAMES[2], NAMES[3])?;
    stage.open(report, NAMES[4], NAMES[5])?;
    stage.refresh(report, NAMES[6], NAMES[7])
}

struct Stage {
    server: Server,
    folder: PathBuf,
}

/// One comparison: the same requests to a listener of the server and to the reference.
struct Duel<'a> {
    address: &'a str,
    connections: usize,
    script: &'static str,
    input: PathBuf,
    /// What the reference answers to a POST.
    answer: Option<Answer>,
    aim: f64,
}

impl Stage {
    fn verify(
        &self,
        report: &Report,
        delivery: &str,
        rate: &'static str,
        cpu: &'static str,
    ) -> io::Result<()> {
        if !report.wants_any(&[rate, cpu]) {
            return Ok(());
        }
        let credentials = self.open_many(delivery, CREDENTIALS)?;
        let lines: Vec<String> = credentials
            .iter()
            .map(|opened| match delivery {
                "cookie" => format!("Cookie: session={}", member(opened, "session_token")),
                _ => format!("Authorization: Bearer {}", member(opened, "access_token")),
            })
            // What a gateway tells of the visitor's request; without it a cookie is refused.
            .map(|header| format!("GET /auth/verify HTTP/1.1|X-Forwarded-Method: GET|{header}"))
            .collect();
        let duel = Duel {
            address: &self.server.public,
            connections: READERS,
            script: "lines.lua",
            input: self.write_input(delivery, &lines)?,
            answer: None,
            aim: 0.7,
        };
        self.fight(report, &duel, rate, cpu)
    }

    fn open(&self, report: &Report, rate: &'static str, cpu: &'static str) -> io::Result<()> {
        if !report.wants_any(&[rate, cpu]) {
            return Ok(());
        }
        let body = |number: usize| {
            let claims = json!({ "email": format!("user{number}@example.com"), "role": "user" });
            json!({ "subject": format!("user{number}"), "claims": claims })
        };
        let head = format!(
            "POST /admin/v1/sessions HTTP/1.1|Content-Type: application/json|\
             Authorization: Bearer {}",
            self.server.root_key
        );
        let lines: Vec<String> =
            (0..SUBJECTS).map(|number| format!("{head}\t{}", body(number))).collect();
        let request = Request::new("POST", "/admin/v1/sessions");
        let request = request.bearer(&self.server.root_key).json(&body(0));
        let duel = Duel {
            address: &self.server.admin,
            connections: WRITERS,
            script: "lines.lua",
            input: self.write_input("open", &lines)?,
            answer: Some(Client::new(&self.server.admin).send(&request)?),
            aim: 0.4,
        };
        self.fight(report, &duel, rate, cpu)
    }

    fn refresh(&self, report: &Report, rate: &'static str, cpu: &'static str) -> io::Result<()> {
        if !report.wants_any(&[rate, cpu]) {
            return Ok(());
        }
        let opened = self.open_many("bearer", CREDENTIALS + 1)?;
        let tokens: Vec<String> =
            opened.iter().map(|opened| member(opened, "refresh_token")).collect();
        let body = json!({ "refresh_token": tokens[CREDENTIALS] });
        let request = Request::new("POST", "/auth/refresh").json(&body);
        let duel = Duel {
            address: &self.server.public,
            connections: WRITERS,
            script: "chain.lua",
            input: self.write_input("refresh", &tokens[..CREDENTIALS])?,
            answer: Some(Client::new(&self.server.public).send(&request)?),
            aim: 0.0,
        };
        self.fight(report, &duel, rate, cpu)
    }

    /// Rounds of ours and the reference in turn.
    fn fight(
        &self,
        report: &Report,
        duel: &Duel<'_>,
        rate: &'static str,
        cpu: &'static str,
    ) -> io::Result<()> {
        let aim = if duel.aim > 0.0 { Aim::AtLeast(duel.aim) } else { Aim::Open };
        let mut rates = Figure::new(rate, "requests/s", Kind::Rate, aim);
        let mut costs = Figure::new(cpu, "us CPU", Kind::Cost, aim);
        let body = self.folder.join("answer.json");
        fs::write(&body, duel.answer.as_ref().map_or(&[][..], |answer| &answer.body))?;
        let answers = duel.answer.as_ref().map(|answer| (&body, answer.status));
        let idle = Idle::start(SERVER_CORE, answers)?;
        // The reference's chain of tokens is the same one for ever, in a file of its own.
        let copy = duel.input.with_extension("reference");
        fs::copy(&duel.input, &copy)?;
        let script = self.folder.join(duel.script);
        let ours = Run {
            address: duel.address,
            pid: self.server.pid(),
            connections: duel.connections,
            span: WARM_UP,
            script: &script,
            input: &duel.input,
        };
        let other = Run { address: &idle.address, pid: idle.pid(), input: &copy, ..ours };
        ours.go(GENERATOR_CORE)?;
        other.go(GENERATOR_CORE)?;
        for _ in 0..ROUNDS {
            let mine = Run { span: ROUND, ..ours }.go(GENERATOR_CORE)?;
            let reference = Run { span: ROUND, ..other }.go(GENERATOR_CORE)?;
            rates.pair(mine.per_second, reference.per_second);
            costs.pair(mine.cpu_us, reference.cpu_us);
        }
        report.tell(&rates);
        report.tell(&costs);
        Ok(())
    }

    /// Opens sessions over HTTP, as a backend would; returns the answers.
    fn open_many(&self, delivery: &str, count: usize) -> io::Result<Vec<Value>> {
        let share = count.div_ceil(OPENERS);
        let open = |opener: usize| -> io::Result<Vec<Value>> {
            let mut client = Client::new(&self.server.admin);
            let numbers = (opener * share)..((opener + 1) * share).min(count);
            numbers.map(|number| self.open_one(&mut client, delivery, number)).collect()
        };
        let open = &open;
        let parts: Vec<io::Result<Vec<Value>>> = thread::scope(|scope| {
            let opening: Vec<_> =
                (0..OPENERS).map(|opener| scope.spawn(move || open(opener))).collect();
            let ended = || Err(io::Error::other("an opener broke down"));
            opening.into_iter().map(|part| part.join().unwrap_or_else(|_| ended())).collect()
        });
        parts.into_iter().collect::<io::Result<Vec<_>>>().map(|parts| parts.concat())
    }

    fn open_one(&self, client: &mut Client, delivery: &str, number: usize) -> io::Result<Value> {
        let claims = json!({ "email": format!("user{number}@example.com"), "role": "user" });
        let subject = format!("{delivery}{number}");
        let body = json!({ "subject": subject, "delivery": delivery, "claims": claims });
        let request = Request::new("POST", "/admin/v1/sessions").json(&body);
        let answer = client.send(&request.bearer(&self.server.root_key))?;
        match answer.status {
            201 => Ok(answer.json()),
            _ => Err(io::Error::other(answer.describe())),
        }
    }

    fn write_input(&self, name: &str, lines: &[String]) -> io::Result<PathBuf> {
        let path = self.folder.join(format!("{name}.input"));
        fs::write(&path, lines.join("\n") + "\n")?;
        Ok(path)
    }
}

fn member(opened: &Value, name: &str) -> String {
    opened[name].as_str().unwrap_or_default().to_owned()
}
