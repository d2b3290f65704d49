//! Who asks: holders of sessions, operators, users with passwords, thieves, and those who look.

mod holder;
mod operator;
mod talk;
mod thief;
mod user;
mod watcher;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use cloakroom_bench::random::Random;

use crate::fleet::Fleet;
use crate::history::Stopwatch;
pub use talk::{Door, Talk};

/// A session, and the credential that its holder shows.
#[derive(Debug)]
pub struct Known {
    /// Its id.
    pub sid: String,
    /// Whose it is.
    pub subject: String,
    /// How it is shown.
    pub proof: Proof,
}

/// A credential.
#[derive(Debug)]
pub enum Proof {
    /// An access token.
    Bearer(String),
    /// The cookie, and the token against forged requests.
    Cookie {
        /// The cookie's value.
        token: String,
        /// For `X-CSRF-Token`.
        csrf: String,
    },
}

/// What all clients of a run share.
pub struct Shared {
    /// The nodes.
    pub fleet: Fleet,
    /// The run's clock.
    pub stopwatch: Stopwatch,
    is_over: AtomicBool,
    /// Sessions that may be looked at and ended by others; the latest are last.
    known: Mutex<VecDeque<Arc<Known>>>,
    /// Sessions that somebody was told are over; the latest are last.
    ended: Mutex<VecDeque<Arc<Known>>>,
    stolen: Mutex<BTreeSet<String>>,
}

/// Sessions that are remembered to be looked at.
const KNOWN_MAX: usize = 600;
/// Ended ones.
const ENDED_MAX: usize = 60;
/// Subjects of the sessions that backends open.
const SUBJECTS: usize = 60;

impl Shared {
    /// Of a run on these nodes.
    pub fn new(fleet: Fleet, stopwatch: Stopwatch) -> Self {
        Self {
            fleet,
            stopwatch,
            is_over: AtomicBool::new(false),
            known: Mutex::default(),
            ended: Mutex::default(),
            stolen: Mutex::default(),
        }
    }

    /// Lets all clients come to an end.
    pub fn finish(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// All sessions that are remembered.
    pub fn remembered(&self) -> Vec<Arc<Known>> {
        let ended = held(&self.ended).iter().cloned().collect::<Vec<_>>();
        held(&self.known).iter().cloned().chain(ended).collect()
    }

    /// Sessions of which a thief has a copy.
    pub fn stolen(&self) -> BTreeSet<String> {
        held(&self.stolen).clone()
    }

    fn remember(&self, known: &Arc<Known>) {
        push(&self.known, known, KNOWN_MAX);
    }

    fn over(&self, known: &Arc<Known>) {
        push(&self.ended, known, ENDED_MAX);
    }

    fn any_known(&self, random: &mut Random) -> Option<Arc<Known>> {
        let known = held(&self.known);
        known.get(random.below(known.len())).cloned()
    }

    fn any_ended(&self, random: &mut Random) -> Option<Arc<Known>> {
        let ended = held(&self.ended);
        ended.get(random.below(ended.len())).cloned()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn push(list: &Mutex<VecDeque<Arc<Known>>>, known: &Arc<Known>, most: usize) {
    let mut list = held(list);
    if list.len() >= most {
        list.pop_front();
    }
    list.push_back(Arc::clone(known));
}

/// A kind of client.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Opens sessions and refreshes, writes and ends them, from two tabs.
    Holder,
    /// Ends sessions of others, and opens some on epochs that it read before.
    Operator,
    /// Signs in by password.
    User(usize),
    /// Holds a copy of somebody's refresh token.
    Thief,
    /// Looks at sessions, most of all at ended ones.
    Watcher,
    /// Looks at sessions around their expiry.
    Expiring,
}

/// All clients of a run.
pub const CAST: [Role; 16] = [
    Role::Holder,
    Role::Holder,
    Role::Holder,
    Role::Holder,
    Role::Holder,
    Role::Holder,
    Role::Operator,
    Role::Operator,
    Role::User(0),
    Role::User(1),
    Role::Thief,
    Role::Thief,
    Role::Watcher,
    Role::Watcher,
    Role::Watcher,
    Role::Expiring,
];

impl Role {
    /// Plays until the run is over.
    pub fn play(self, talk: &mut Talk<'_>) {
        match self {
            Self::Holder => holder::play(talk),
            Self::Operator => operator::play(talk),
            Self::User(number) => user::play(talk, number),
            Self::Thief => thief::play(talk),
            Self::Watcher => watcher::play(talk),
            Self::Expiring => watcher::play_expiring(talk),
        }
    }
}

/// Makes the users with passwords.
pub fn set_up(talk: &mut Talk<'_>) -> std::io::Result<()> {
    let users = CAST.iter().filter_map(|role| match role {
        Role::User(number) => Some(*number),
        Role::Holder | Role::Operator | Role::Thief | Role::Watcher | Role::Expiring => None,
    });
    users.into_iter().try_for_each(|number| user::make(talk, number))
}

/// Waits for up to so many milliseconds.
fn pause(random: &mut Random, most_ms: usize) {
    thread::sleep(Duration::from_millis(random.below(most_ms) as u64));
}

fn any_subject(random: &mut Random) -> String {
    format!("subject-{}", random.below(SUBJECTS))
}
