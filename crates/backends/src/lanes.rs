//! What is measured beside what: each application and way to be known is a lane, all lanes of a
//! language run in turn, and a figure is two of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloakroom_bench::generator::{Load, Run};
use cloakroom_bench::http::{Client, Request};
use cloakroom_bench::report::{Aim, Figure, Kind, Report};

use crate::process::Process;

/// Users who ask in turn.
const USERS: usize = 1000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// Thrown away: it fills caches, and what a runtime compiles while it runs is compiled.
const WARM_UP: Duration = Duration::from_secs(3);
/// Where the applications run, and where the load generator does, with Redis and the authority.
pub const APPLICATION_CORE: usize = 0;
/// See [`APPLICATION_CORE`].
pub const OTHERS_CORE: usize = 1;
/// A cookie of the Express SDK beside its session's, which a browser keeps for 10 s.
const PASSING_COOKIE: &str = "cloakroom-seen=";

/// How a request says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Not at all.
    Nobody,
    /// By the cookie that `/login` set.
    Cookie,
    /// By the access token that `/tokens` gave.
    Bearer,
}

/// One application asked in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Which application.
    pub app: &'static str,
    /// Which route.
    pub path: &'static str,
    /// As whom.
    pub by: By,
}

/// One lane beside another.
#[derive(Clone, Copy, Debug)]
pub struct Duel {
    /// Its name, and that of the processor time.
    pub names: [&'static str; 2],
    /// The name of what it adds to the bare route.
    pub added: Option<&'static str>,
    /// Ours.
    pub ours: Lane,
    /// What it is measured beside.
    pub reference: Lane,
    /// What the ratio should come to.
    pub aim: Aim,
}

impl Duel {
    /// Whether one of its figures is asked for.
    pub fn is_wanted(&self, report: &Report) -> bool {
        report.wants_any(&self.names) || self.added.is_some_and(|name| report.wants(name))
    }
}

/// The route without anything.
pub const BARE: Lane = Lane { app: "bare", path: "/me", by: By::Nobody };

/// A route that needs a sign-in, by cookie.
pub const fn cookie(app: &'static str) -> Lane {
    Lane { app, path: "/me", by: By::Cookie }
}

/// One that reads the session's data as well.
pub const fn data(app: &'static str) -> Lane {
    Lane { app, path: "/cart", by: By::Cookie }
}

/// A route that needs a sign-in, by bearer token.
pub const fn bearer(app: &'static str) -> Lane {
    Lane { app, path: "/me", by: By::Bearer }
}

/// Runs all lanes that `duels` need in turn, round by round, and tells the figures.
pub fn race(
    report: &Report,
    duels: &[Duel],
    connections: usize,
    folder: &Path,
    start: &dyn Fn(&str) -> io::Result<Process>,
) -> io::Result<()> {
    let wanted: Vec<&Duel> = duels.iter().filter(|duel| duel.is_wanted(report)).collect();
    let mut lanes: Vec<Lane> = Vec::new();
    let needs = |duel: &&Duel| [duel.ours, duel.reference, BARE];
    for lane in wanted.iter().flat_map(needs) {
        if !lanes.contains(&lane) {
            lanes.push(lane);
        }
    }
    let mut processes: BTreeMap<&str, Process> = BTreeMap::new();
    for lane in &lanes {
        if !processes.contains_key(lane.app) {
            processes.insert(lane.app, start(lane.app)?);
        }
    }
    let mut ready = Vec::new();
    for (number, lane) in lanes.iter().enumerate() {
        let process = &processes[lane.app];
        let input = folder.join(format!("{number}.input"));
        fs::write(&input, lines(lane, &process.address)?)?;
        ready.push((process, input));
    }
    let script = folder.join("lines.lua");
    let go = |(process, input): &(&Process, PathBuf), span| {
        let pid = process.worker()?;
        let address = &process.address;
        Run { address, pid, connections, span, script: &script, input }.go(OTHERS_CORE)
    };
    for lane in &ready {
        go(lane, WARM_UP)?;
    }
    let mut rounds: Vec<Vec<Load>> = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(ready.iter().map(|lane| go(lane, ROUND)).collect::<io::Result<_>>()?);
    }
    for duel in wanted {
        tell(report, duel, &lanes, &rounds);
        tell_added(report, duel, &lanes, &rounds);
    }
    Ok(())
}

fn tell(report: &Report, duel: &Duel, lanes: &[Lane], rounds: &[Vec<Load>]) {
    let [rate, cpu] = duel.names;
    let mut rates = Figure::new(rate, "requests/s", Kind::Rate, duel.aim);
    let mut costs = Figure::new(cpu, "us CPU", Kind::Cost, Aim::Open);
    let at = |lane: Lane| lanes.iter().position(|known| *known == lane);
    let (Some(ours), Some(reference)) = (at(duel.ours), at(duel.reference)) else { return };
    for round in rounds {
        rates.pair(round[ours].per_second, round[reference].per_second);
        costs.pair(round[ours].cpu_us, round[reference].cpu_us);
    }
    report.tell(&rates);
    report.tell(&costs);
}

/// What a session adds to the bare route's processor time, ours beside the reference's.
fn tell_added(report: &Report, duel: &Duel, lanes: &[Lane], rounds: &[Vec<Load>]) {
    let Some(name) = duel.added else { return };
    let mut added = Figure::new(name, "us CPU", Kind::Cost, Aim::Open);
    let at = |lane: Lane| lanes.iter().position(|known| *known == lane);
    let (Some(ours), Some(reference), Some(bare)) = (at(duel.ours), at(duel.reference), at(BARE))
    else {
        return;
    };
    for round in rounds {
        let less = |lane: usize| round[lane].cpu_us - round[bare].cpu_us;
        added.pair(less(ours), less(reference));
    }
    report.tell(&added);
}

/// The requests of a lane, as the load generator's script reads them: a line for each user.
fn lines(lane: &Lane, address: &str) -> io::Result<String> {
    let head = format!("GET {} HTTP/1.1", lane.path);
    if lane.by == By::Nobody {
        return Ok(head + "\n");
    }
    let mut client = Client::new(address);
    let mut text = String::new();
    for number in 0..USERS {
        let (path, bearer) = match lane.by {
            By::Nobody | By::Cookie => ("login", false),
            By::Bearer => ("tokens", true),
        };
        let answer = client.send(&Request::new("GET", format!("/{path}?user=user{number}")))?;
        let known = if bearer {
            let token = answer.text("access_token");
            (!token.is_empty()).then(|| format!("Authorization: Bearer {token}"))
        } else {
            let mut set = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
            let pair = set.find(|(_, line)| !line.starts_with(PASSING_COOKIE));
            pair.and_then(|(_, line)| Some(format!("Cookie: {}", line.split(';').next()?)))
        };
        let refused = || io::Error::other(format!("{}: {}", lane.app, answer.describe()));
        text.push_str(&format!("{head}|{}\n", known.ok_or_else(refused)?));
    }
    Ok(text)
}
