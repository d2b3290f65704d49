//! What must not depend on how much is stored: the same operations on a small store and on a
//! large one, in turn.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::{Authority, Context};
use cloakroom_core::types::Subject;
use cloakroom_store::Store;
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::fill::{self, PER_SUBJECT};
use crate::http::{Client, Request};
use crate::machine;
use crate::random::Random;
use crate::report::{Aim, Figure, Kind, Report};
use crate::server::{self, Launch};
use crate::setting::{self, Engine};

/// Stored sessions.
pub(super) const SMALL: usize = 10_000;
pub(super) const LARGE: usize = 1_000_000;
const ROUNDS: usize = 5;
/// Subjects whose sessions are listed over and over: as many in both stores.
const LISTED: usize = 1000;
/// Subjects signed out everywhere in a round.
const SIGNED_OUT: usize = 60;
/// Sessions that expire before a sweep.
const EXPIRING: usize = 2000;
/// How long ago they were opened: their reasons aren't kept any more either.
const LONG_AGO: Duration = Duration::from_secs(30 * 24 * 3600);
/// What "doesn't depend on the size" means.
pub(super) const FLAT: Aim = Aim::AtMost(1.5);

const NAMES: [&str; 7] = [
    "size/start",
    "size/memory",
    "size/list",
    "size/list-first",
    "size/sign-out-everywhere",
    "size/sweep",
    "size/sweep-nothing",
];

/// Measures what is asked for.
pub fn run(report: &Report, folder: &Path) -> Outcome<()> {
    if !report.wants_any(&NAMES) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let [small, large] = [(SMALL, "small"), (LARGE, "large")].map(|(count, name)| {
        let data = folder.join(name);
        runtime.block_on(fill::data_directory(&data, count)).map(|()| data)
    });
    let (small, large) = (small?, large?);
    if report.wants_any(&NAMES[..2]) {
        starts(report, &server::build()?, &small, &large)?;
    }
    if report.wants_any(&NAMES[2..]) {
        operations(report, &runtime, &small, &large)?;
    }
    Ok(())
}

/// A large store must answer this soon after its start, in milliseconds.
const START_MS_MAX: f64 = 1000.0;

/// The real program on each store: the time to its first answer, and its memory afterwards.
fn starts(report: &Report, program: &Path, small: &Path, large: &Path) -> Outcome<()> {
    let mut times = Figure::new(NAMES[0], "ms", Kind::Growth, Aim::Below(START_MS_MAX));
    let mut memory = Figure::new(NAMES[1], "MiB", Kind::Growth, Aim::Open);
    for _ in 0..ROUNDS {
        let [few, many] = [small, large].map(|data| start(program, data));
        let (few, many) = (few?, many?);
        times.pair(many.0, few.0);
        memory.pair(many.1, few.1);
    }
    report.tell(&times);
    report.tell(&memory);
    Ok(())
}

fn start(program: &Path, data: &Path) -> Outcome<(f64, f64)> {
    let server = Launch::new(program, data).start()?;
    let mut client = Client::new(&server.admin);
    for number in 0..LISTED {
        let path = format!("/admin/v1/subjects/user{number}/sessions");
        let answer = client.send(&Request::new("GET", path).bearer(&server.root_key))?;
        if answer.status != 200 {
            return Err(answer.describe().into());
        }
    }
    let memory = machine::memory(server.pid())? as f64 / (1024.0 * 1024.0);
    let ready_after = server.ready_after.as_secs_f64() * 1e3;
    server.stop()?;
    Ok((ready_after, memory))
}

/// Both stores, open in this process.
struct Pair {
    small: Arc<Engine>,
    large: Arc<Engine>,
}

fn operations(report: &Report, runtime: &Runtime, small: &Path, large: &Path) -> Outcome<()> {
    runtime.block_on(async {
        let pair = Pair {
            small: setting::open(&small.join("store"), true).await?,
            large: setting::open(&large.join("store"), true).await?,
        };
        pair.list(report).await?;
        pair.sign_out(report).await?;
        pair.sweep(report).await
    })
}

impl Pair {
    async fn list(&self, report: &Report) -> Outcome<()> {
        if !report.wants_any(&NAMES[2..4]) {
            return Ok(());
        }
        let mut first = Figure::new(NAMES[3], "us", Kind::Growth, Aim::Open);
        let [few, many] = [list(&self.small, SMALL).await?, list(&self.large, LARGE).await?];
        first.pair(many, few);
        let mut again = Figure::new(NAMES[2], "us", Kind::Growth, FLAT);
        for _ in 0..ROUNDS {
            let [few, many] = [list(&self.small, SMALL).await?, list(&self.large, LARGE).await?];
            again.pair(many, few);
        }
        report.tell(&again);
        report.tell(&first);
        Ok(())
    }

    async fn sign_out(&self, report: &Report) -> Outcome<()> {
        if !report.wants(NAMES[4]) {
            return Ok(());
        }
        let mut figure = Figure::new(NAMES[4], "us", Kind::Growth, FLAT);
        for round in 0..ROUNDS {
            let few = sign_out(&self.small, round).await?;
            figure.pair(sign_out(&self.large, round).await?, few);
        }
        report.tell(&figure);
        Ok(())
    }

    async fn sweep(&self, report: &Report) -> Outcome<()> {
        if !report.wants_any(&NAMES[5..]) {
            return Ok(());
        }
        let mut full = Figure::new(NAMES[5], "ms", Kind::Growth, FLAT);
        let mut empty = Figure::new(NAMES[6], "ms", Kind::Growth, FLAT);
        for round in 0..ROUNDS {
            let few = sweep(&self.small, round).await?;
            let many = sweep(&self.large, round).await?;
            full.pair(many.0, few.0);
            empty.pair(many.1, few.1);
        }
        report.tell(&full);
        report.tell(&empty);
        Ok(())
    }
}

/// The time of one listing, over as many subjects in each store, spread over all it has.
pub(super) async fn list<S: Store>(engine: &Authority<S>, stored: usize) -> Outcome<f64> {
    let mut random = Random::new(1, 1);
    let subjects: Vec<Subject> = (0..LISTED)
        .map(|_| Subject::parse(&format!("user{}", random.below(stored / PER_SUBJECT))))
        .collect::<Result<_, _>>()?;
    let started = Instant::now();
    for subject in &subjects {
        let listed = engine.sessions_of(subject).await?.len();
        if listed != PER_SUBJECT {
            return Err(format!("{subject:?} has {listed} sessions").into());
        }
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / LISTED as f64)
}

/// The time of one sign-out everywhere, each waited for by itself.
pub(super) async fn sign_out<S: Store>(engine: &Authority<S>, round: usize) -> Outcome<f64> {
    let started = Instant::now();
    for number in 0..SIGNED_OUT {
        let subject = Subject::parse(&format!("user{}", round * SIGNED_OUT + number))?;
        engine.end_subject(&subject, &Context::system()).await?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / SIGNED_OUT as f64)
}

/// The time of a sweep after many sessions expired, and of one that finds nothing to do.
pub(super) async fn sweep<S: Store>(
    engine: &Arc<Authority<S>>,
    round: usize,
) -> Outcome<(f64, f64)> {
    let opened_at = engine.now().minus(LONG_AGO);
    fill::plant(engine, &format!("expired{round}-"), EXPIRING, 1, opened_at).await?;
    let mut times = Vec::new();
    let mut touched = 0;
    for _ in 0..2 {
        let started = Instant::now();
        let swept = engine.sweep().await?;
        touched += swept.ended.max(swept.removed);
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    if touched < EXPIRING {
        return Err(format!("the sweep found {touched} of {EXPIRING} sessions").into());
    }
    Ok((times[0], times[1]))
}
