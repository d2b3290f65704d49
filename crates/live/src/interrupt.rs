//! What happens when somebody ends a run early: its servers end with it, and their files go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Where the files of the run are.
static FILES: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Whether somebody has ended the run.
static IS_ENDED: AtomicBool = AtomicBool::new(false);

/// How often it is looked for processes that are still there, or there again.
const LOOKS: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// From now on SIGINT, SIGTERM and SIGHUP clean up and end this process.
pub fn watch() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let signals = {
        let _inside = runtime.enter();
        let interrupt = signal(SignalKind::interrupt())?;
        [interrupt, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]
    };
    thread::spawn(move || {
        let number = runtime.block_on(any_of(signals));
        IS_ENDED.store(true, Ordering::SeqCst);
        clean_up();
        // As a shell says of who was ended by a signal.
        std::process::exit(128 + number);
    });
    Ok(())
}

/// Never returns once somebody has ended the run: what failed since then failed by that, and the
/// process ends when all is cleaned up.
pub fn give_way() {
    while IS_ENDED.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// The files of a run, until this is dropped.
#[derive(Debug)]
pub struct Files(());

impl Files {
    /// Those in `dir` go when the run is ended early.
    pub fn are_in(dir: &Path) -> Self {
        *files() = Some(dir.to_owned());
        Self(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        *files() = None;
    }
}

fn files() -> std::sync::MutexGuard<'static, Option<PathBuf>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the first of them; says its number.
async fn any_of([mut interrupt, mut terminate, mut hangup]: [Signal; 3]) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = hangup.recv() => SignalKind::hangup().as_raw_value(),
    }
}

/// Ends all that this process has started, and what that has started, and removes its files.
fn clean_up() {
    // Other threads may be about to start something: without its files it doesn't stay.
    for _ in 0..LOOKS {
        let started = descendants(std::process::id());
        let dir = files().clone().filter(|dir| dir.exists());
        if started.is_empty() && dir.is_none() {
            return;
        }
        for pid in started {
            // It may be gone already.
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
        }
        if let Some(dir) = dir {
            let _ = fs::remove_dir_all(dir);
        }
        thread::sleep(PAUSE);
    }
}

/// The processes below one that are still running.
fn descendants(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    let children: Vec<u32> = lists
        .flatten()
        .flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    let below = children.iter().flat_map(|child| descendants(*child)).collect::<Vec<_>>();
    below.into_iter().chain(children).filter(|pid| is_running(*pid)).collect()
}

/// Whether a process is more than an entry that nobody has waited for.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After its name, which may hold anything, in parentheses.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}
