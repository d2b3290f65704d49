//! What is counted over all seeds.

use std::collections::BTreeMap;

/// The kinds of honest clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKind {
    /// A browser with a session cookie and two tabs.
    Browser,
    /// A single-page application in four tabs, whose refresh token is a cookie.
    Split,
    /// An application that sends an `Idempotency-Key` with each refresh.
    Keyed,
    /// An application that doesn't.
    Unkeyed,
}

impl ClientKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Browser, Self::Split, Self::Keyed, Self::Unkeyed];

    /// Its name in the summary.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Browser => "cookie, two tabs",
            Self::Split => "refresh cookie, four tabs",
            Self::Keyed => "bearer with Idempotency-Key",
            Self::Unkeyed => "bearer without a key",
        }
    }
}

/// Counts of one seed, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tasks polled and instants noted.
    pub steps: u64,
    /// Commits that took effect.
    pub commits: u64,
    /// Sessions opened.
    pub opened: u64,
    /// Refresh tokens rotated.
    pub rotations: u64,
    /// Answers judged.
    pub judged: u64,
    /// Faults injected, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Refreshes that honest clients asked for, by kind.
    pub honest_refreshes: BTreeMap<ClientKind, u64>,
    /// Honest clients signed out as thieves though the tolerances spoke for them, by kind.
    pub honest_wronged: BTreeMap<ClientKind, u64>,
    /// Honest clients signed out as thieves beyond the declared tolerances, by kind.
    pub honest_residue: BTreeMap<ClientKind, u64>,
    /// Honest clients signed out as thieves because the store had gone back, by kind.
    pub honest_after_failover: BTreeMap<ClientKind, u64>,
    /// Copies of refresh tokens that a thief presented.
    pub thief_refreshes: u64,
    /// Of these: answered within the tolerance, or before the owner rotated.
    pub thief_answered: u64,
    /// Sessions that ended because a thief and an owner both went on.
    pub thieves_caught: u64,
    /// Answers 503.
    pub unavailable: u64,
}

impl Tally {
    /// Counts a fault.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.commits += other.commits;
        self.opened += other.opened;
        self.rotations += other.rotations;
        self.judged += other.judged;
        self.thief_refreshes += other.thief_refreshes;
        self.thief_answered += other.thief_answered;
        self.thieves_caught += other.thieves_caught;
        self.unavailable += other.unavailable;
        add_all(&mut self.faults, &other.faults);
        add_all(&mut self.honest_refreshes, &other.honest_refreshes);
        add_all(&mut self.honest_wronged, &other.honest_wronged);
        add_all(&mut self.honest_residue, &other.honest_residue);
        add_all(&mut self.honest_after_failover, &other.honest_after_failover);
    }
}

fn add_all<K: Ord + Copy>(sum: &mut BTreeMap<K, u64>, other: &BTreeMap<K, u64>) {
    for (key, count) in other {
        *sum.entry(*key).or_default() += count;
    }
}
