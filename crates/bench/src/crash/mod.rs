//! Kills under load: whatever was acknowledged before `kill -9` holds after the restart.
//!
//! A few workers open, rotate, write and end sessions through HTTP and keep account of what was
//! acknowledged. The process is killed at a random moment, or right after an answer; it is
//! started again on the same directory, and every worker holds its account against it. What was
//! asked but not answered may have happened or not, and must be one of the two everywhere.
//!
//! A kill leaves the page cache alone, so it can't tell whether anything reached the disk: that
//! the disk is asked before an answer is the matter of [`trace`].

mod account;
mod check;
pub mod trace;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::random::Random;
use crate::server::{Launch, Server};
use work::Worker;

/// Clients at once.
const WORKERS: usize = 8;
/// Trials on one directory, so that later ones also check what earlier ones left.
const TRIALS_PER_DIRECTORY: u64 = 20;
/// A random moment is within this time from the start of the load.
const KILL_WITHIN_MS: usize = 250;
/// A kill after an answer comes after at most this many.
const KILL_WITHIN_ANSWERS: usize = 120;
/// For how long such a kill is waited for.
const LOAD_MAX: Duration = Duration::from_secs(10);
/// How long a predecessor is tolerated: longer than a directory is used.
pub(crate) const GRACE: Duration = Duration::from_secs(900);

/// What the trials came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Trials in which everything held.
    pub passed: u64,
    /// Trials in which something did not.
    pub failed: u64,
    /// Answers that acknowledged a change.
    pub acknowledged: u64,
    /// Requests that the kill left without an answer.
    pub unanswered: u64,
    /// Facts that were checked after restarts.
    pub checked: u64,
}

/// What is wrong with the server, told by a worker.
pub(crate) type Fault = String;

/// A server that the workers use and somebody will kill.
pub(crate) struct Victim {
    server: Mutex<Server>,
    killed: AtomicBool,
    /// Answers until a worker kills; 0 where the time decides.
    answers_left: AtomicU64,
}

impl Victim {
    fn new(server: Server, answers: u64) -> Self {
        Self {
            server: Mutex::new(server),
            killed: AtomicBool::new(false),
            answers_left: AtomicU64::new(answers),
        }
    }

    /// Kills it; the flag is up first, so that no broken connection is taken for a fault.
    fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been killed already.
        let _ = server.kill();
    }

    /// Whether it is about to be gone.
    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }

    /// Notes an acknowledged change: the last one awaited kills at once.
    pub(crate) fn acknowledged(&self) {
        let left = self.answers_left.load(Ordering::Relaxed);
        if left > 0 && self.answers_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.kill();
        }
    }

    /// How it ended, if not by us.
    fn death(&self) -> Option<Fault> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        match server.ended_by_itself() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("the server ended by itself: {status}")),
            Err(fault) => Some(fault.to_string()),
        }
    }
}

/// Runs `trials` of them and prints a line for each that failed.
pub fn run(program: &Path, trials: u64, seed: u64) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut first = 0;
    while first < trials {
        let count = TRIALS_PER_DIRECTORY.min(trials - first);
        let folder = tempfile::Builder::new().prefix("cloakroom-crash-").tempdir()?;
        let launch = launch(program, &folder.path().join("data"));
        let mut workers: Vec<Worker> = (0..WORKERS).map(Worker::new).collect();
        for trial in first..first + count {
            let faults = trial_on(&launch, &mut workers, seed, trial, &mut outcome)?;
            if faults.is_empty() {
                outcome.passed += 1;
                continue;
            }
            outcome.failed += 1;
            let shown = faults.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("; ");
            println!("trial {trial} (seed {seed}): {} faults: {shown}", faults.len());
        }
        first += count;
    }
    Ok(outcome)
}

/// The server of the trials: limits out of the way, a grace that outlasts a directory.
fn launch(program: &Path, data: &Path) -> Launch {
    Launch::new(program, data)
        .set("server.trusted_proxies", "127.0.0.1/32")
        .set("limit.network", "1000000/1m")
        .set("limit.session", "1000000/1m")
        .set("limit.verify", "1000000/1m")
        .set("refresh.grace", &format!("{}s", GRACE.as_secs()))
}

fn trial_on(
    launch: &Launch,
    workers: &mut [Worker],
    seed: u64,
    trial: u64,
    outcome: &mut Outcome,
) -> io::Result<Vec<Fault>> {
    let mut random = Random::new(seed, trial << 8);
    let by_answer = random.percent(50);
    let answers = if by_answer { 1 + random.below(KILL_WITHIN_ANSWERS) } else { 0 };
    let pause = Duration::from_millis(1 + random.below(KILL_WITHIN_MS) as u64);
    let victim = Victim::new(launch.start()?, answers as u64);
    let site = Site::of(&victim);
    let mut faults = Vec::new();
    thread::scope(|scope| {
        let working: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                let random = Random::new(seed, (trial << 8) + 1 + worker.number as u64);
                let (victim, site) = (&victim, &site);
                scope.spawn(move || worker.work(victim, site, random, trial))
            })
            .collect();
        let wait = if by_answer { LOAD_MAX } else { pause };
        let started = std::time::Instant::now();
        while started.elapsed() < wait && !victim.is_killed() {
            thread::sleep(Duration::from_millis(1));
        }
        victim.kill();
        faults.extend(working.into_iter().filter_map(|work| work.join().ok().flatten()));
    });
    faults.extend(victim.death());
    drop(victim);
    // Nothing may be left of the killed process before the next one takes its directory.
    let revived = launch.start()?;
    let site = Site { public: revived.public.clone(), ..Site::new(&revived) };
    let checks: Vec<check::Findings> = thread::scope(|scope| {
        let checking: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                let site = &site;
                scope.spawn(move || check::everything(worker, site, trial))
            })
            .collect();
        checking.into_iter().filter_map(|check| check.join().ok()).collect()
    });
    if checks.len() < workers.len() {
        faults.push("a check broke down".to_owned());
    }
    for findings in checks {
        outcome.checked += findings.checked;
        faults.extend(findings.faults);
    }
    for worker in workers.iter_mut() {
        let (acknowledged, unanswered) = worker.take_counts();
        outcome.acknowledged += acknowledged;
        outcome.unanswered += unanswered;
    }
    Ok(faults)
}

/// Where the server is and how to be let in.
pub(crate) struct Site {
    pub(crate) public: String,
    pub(crate) admin: String,
    pub(crate) key: String,
}

impl Site {
    fn new(server: &Server) -> Self {
        Self {
            public: server.public.clone(),
            admin: server.admin.clone(),
            key: server.root_key.clone(),
        }
    }

    fn of(victim: &Victim) -> Self {
        Self::new(&victim.server.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The program to try, built first.
pub fn program() -> io::Result<PathBuf> {
    crate::server::build()
}
