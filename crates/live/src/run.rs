//! One run: start everything, let it live, end it, and judge.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom_bench::http::Request;
use cloakroom_bench::random::Random;

use crate::clients::{CAST, Door, Shared, Talk, set_up};
use crate::fleet::{CACHING, Fleet, NODES, STALENESS_SECS};
use crate::history::{
    Audited, Disturbance, Entry, Fault, History, Intent, Promises, SECOND, Span, Stopwatch,
};
use crate::interrupt::Files;
use crate::stand::{Kind, Stand};

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// On which store.
    pub kind: Kind,
    /// How long clients are at work.
    pub span: Duration,
    /// What the choices follow from; the timing is never the same twice.
    pub seed: u64,
    /// The program to run.
    pub program: PathBuf,
}

/// Between two faults of nodes, in milliseconds: at least, and at most this much more.
const NODE_FAULTS_MS: (u64, usize) = (3_000, 4_000);
/// Between two faults of the store.
const STORE_FAULTS_MS: (u64, usize) = (7_000, 7_000);
/// After the last fault everything must be well again within this time.
const CALM: Duration = Duration::from_secs(30);
/// Events of one page of the audit log.
const PAGE: usize = 200;

/// Lives through a run; `None`: the store can't be had here.
pub fn live(plan: &Plan) -> io::Result<Option<History>> {
    let dir = tempfile::Builder::new().prefix("cloakroom-live-").tempdir()?;
    let _files = Files::are_in(dir.path());
    // PostgreSQL runs as nobody and must get into it.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open)?;
    let program = dir.path().join("cloakroom");
    // A build of meanwhile must not change the nodes that are started later.
    std::fs::copy(&plan.program, &program)?;
    let Some(stand) = Stand::start(plan.kind, dir.path())? else { return Ok(None) };
    let fleet = Fleet::start(&program, &stand.url(), dir.path())?;
    let shared = Shared::new(fleet, Stopwatch::start());
    let history = lived(plan, stand, &shared);
    if history.is_err() {
        print_logs(dir.path());
    }
    history.map(Some)
}

fn lived(plan: &Plan, mut stand: Stand, shared: &Shared) -> io::Result<History> {
    let mut first = Talk::new(shared, Random::new(plan.seed, 0));
    set_up(&mut first)?;
    let disturbances = Mutex::new(Vec::new());
    let is_calm = AtomicBool::new(false);
    let (stand, mut entries) = (&mut stand, Vec::new());
    thread::scope(|scope| {
        let clients: Vec<_> = (1..)
            .zip(CAST)
            .map(|(number, role)| {
                let random = Random::new(plan.seed, number);
                scope.spawn(move || {
                    let mut talk = Talk::new(shared, random);
                    role.play(&mut talk);
                    talk.into_entries()
                })
            })
            .collect();
        let (seed, noted, calm) = (plan.seed, &disturbances, &is_calm);
        let faults = [
            scope.spawn(move || disturb_nodes(shared, Random::new(seed, 1000), noted, calm)),
            scope.spawn(move || disturb_store(shared, stand, Random::new(seed, 1001), noted, calm)),
        ];
        thread::sleep(plan.span);
        // Whatever is lost by the last fault must be seen by somebody.
        is_calm.store(true, Ordering::SeqCst);
        let outcome: io::Result<()> =
            faults.into_iter().try_for_each(|fault| fault.join().unwrap_or_else(broken));
        if outcome.is_ok() {
            thread::sleep(Duration::from_secs(3));
        }
        shared.finish();
        for client in clients {
            entries.extend(client.join().unwrap_or_default());
        }
        outcome?;
        entries.extend(look_at_all(shared, first));
        shared.fleet.check_alive()?;
        let audit = audit(shared)?;
        let mut staleness = vec![0; NODES];
        staleness[CACHING] = STALENESS_SECS * SECOND;
        Ok(History {
            promises: Promises { may_lose: plan.kind.may_lose(), staleness },
            entries: std::mem::take(&mut entries),
            disturbances: std::mem::take(
                &mut *disturbances.lock().unwrap_or_else(PoisonError::into_inner),
            ),
            stolen: shared.stolen(),
            audit,
            faults: shared.fleet.check_store()?,
        })
    })
}

fn broken<T>(_: T) -> io::Result<()> {
    Err(io::Error::other("a thread broke down"))
}

fn disturb_nodes(
    shared: &Shared,
    mut random: Random,
    noted: &Mutex<Vec<Disturbance>>,
    is_calm: &AtomicBool,
) -> io::Result<()> {
    while waited(&mut random, NODE_FAULTS_MS, is_calm) {
        let node = random.below(NODES);
        let begun = shared.stopwatch.at();
        shared.fleet.kill_and_restart(node)?;
        note(noted, begun, shared.stopwatch.at(), Fault::NodeKilled(node));
    }
    Ok(())
}

fn disturb_store(
    shared: &Shared,
    stand: &mut Stand,
    mut random: Random,
    noted: &Mutex<Vec<Disturbance>>,
    is_calm: &AtomicBool,
) -> io::Result<()> {
    while waited(&mut random, STORE_FAULTS_MS, is_calm) {
        let begun = shared.stopwatch.at();
        let fault = stand.disturb(&mut random)?;
        note(noted, begun, shared.stopwatch.at(), fault);
    }
    Ok(())
}

fn note(noted: &Mutex<Vec<Disturbance>>, begun: u64, done: u64, fault: Fault) {
    let disturbance = Disturbance { span: Span { begun, done }, fault };
    noted.lock().unwrap_or_else(PoisonError::into_inner).push(disturbance);
}

/// Waits for a while; false when it is time to be calm.
fn waited(random: &mut Random, (least, more): (u64, usize), is_calm: &AtomicBool) -> bool {
    let until = Instant::now() + Duration::from_millis(least + random.below(more) as u64);
    while Instant::now() < until && !is_calm.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(20));
    }
    !is_calm.load(Ordering::SeqCst)
}

/// Every node says of every session that is remembered what it knows.
fn look_at_all(shared: &Shared, mut talk: Talk<'_>) -> Vec<Entry> {
    for known in shared.remembered() {
        for node in 0..NODES {
            talk.look(node, &known);
        }
    }
    talk.into_entries()
}

/// The audit log, once the nodes have written what they coalesced.
fn audit(shared: &Shared) -> io::Result<Vec<Audited>> {
    let mut talk = Talk::new(shared, Random::new(0, 0));
    let (mut audit, mut after) = (Vec::new(), None::<String>);
    let began = Instant::now();
    loop {
        let cursor = after.as_ref().map_or(String::new(), |after| format!("&after={after}"));
        let path = format!("/admin/v1/events?limit={PAGE}{cursor}");
        let asked = talk.ask(0, Door::Admin, &Request::new("GET", path), Intent::Look);
        let Some((_, answer)) = asked.filter(|(_, answer)| answer.status == 200) else {
            if began.elapsed() > CALM {
                return Err(io::Error::other("the audit log can't be read"));
            }
            thread::sleep(Duration::from_millis(200));
            continue;
        };
        let body = answer.json();
        let text = |event: &serde_json::Value, name: &str| {
            event[name].as_str().unwrap_or_default().to_owned()
        };
        let events = body["events"].as_array().into_iter().flatten();
        audit.extend(
            events.map(|event| Audited { kind: text(event, "type"), sid: text(event, "sid") }),
        );
        match body["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return Ok(audit),
        }
    }
}

/// What the servers said before it went wrong.
fn print_logs(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(20)..];
            println!("-- {}\n{}", path.display(), last.join("\n"));
        }
    }
}
