//! What a node has done since it started: counted in memory, at the cost of an addition.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use cloakroom_core::event::EventKind;
use cloakroom_core::types::Timestamp;
use cloakroom_store::Store;

use crate::authority::Authority;
use crate::figures::Tallies;

/// Looks that are remembered: an hour of one every ten seconds.
const SAMPLES_MAX: usize = 361;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// Sessions proven by a credential.
    Verified,
    /// Sessions opened.
    Opened,
    /// Refresh tokens taken.
    Refreshed,
    /// Sessions ended one by one, timeouts included.
    Ended,
    /// Subjects signed out everywhere.
    SignedOutEverywhere,
    /// Failed sign-ins.
    SigninsFailed,
    /// Sign-ins that were throttled.
    SigninsThrottled,
    /// Refresh tokens that were used again.
    ReusesDetected,
}

impl Stat {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Verified,
        Self::Opened,
        Self::Refreshed,
        Self::Ended,
        Self::SignedOutEverywhere,
        Self::SigninsFailed,
        Self::SigninsThrottled,
        Self::ReusesDetected,
    ];

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Opened => "opened",
            Self::Refreshed => "refreshed",
            Self::Ended => "ended",
            Self::SignedOutEverywhere => "signed_out_everywhere",
            Self::SigninsFailed => "signins_failed",
            Self::SigninsThrottled => "signins_throttled",
            Self::ReusesDetected => "reuses_detected",
        }
    }

    const fn of_event(kind: EventKind) -> Option<Self> {
        match kind {
            EventKind::SessionOpened => Some(Self::Opened),
            EventKind::SessionEnded => Some(Self::Ended),
            EventKind::SubjectSignedOutEverywhere => Some(Self::SignedOutEverywhere),
            EventKind::SigninFailed => Some(Self::SigninsFailed),
            EventKind::SigninThrottled => Some(Self::SigninsThrottled),
            EventKind::SessionReuseDetected => Some(Self::ReusesDetected),
            EventKind::SessionSteppedUp
            | EventKind::SessionClaimsChanged
            | EventKind::SessionDataChanged
            | EventKind::SessionRefreshed
            | EventKind::SessionRetriedElsewhere
            | EventKind::SessionRollbackSeen
            | EventKind::SubjectChanged
            | EventKind::SubjectErased
            | EventKind::UserCreated
            | EventKind::UserChanged
            | EventKind::UserDeleted
            | EventKind::UserDisabled
            | EventKind::UserEnabled
            | EventKind::UserPasswordChanged
            | EventKind::UserResetIssued
            | EventKind::KeyCreated
            | EventKind::KeyActivated
            | EventKind::KeyRetired
            | EventKind::KeyRevoked
            | EventKind::KeyRewrapped
            | EventKind::ApiKeyCreated
            | EventKind::ApiKeyDeleted
            | EventKind::TokenDenied
            | EventKind::AllEnded
            | EventKind::AuthorityStarted
            | EventKind::AuthoritySwept => None,
        }
    }
}

/// The counters at an instant.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    totals: [u64; Stat::ALL.len()],
}

impl Sample {
    /// How often it happened since the node started.
    pub fn total(&self, stat: Stat) -> u64 {
        self.totals.get(stat as usize).copied().unwrap_or(0)
    }
}

/// What a node has done.
#[derive(Clone, Debug)]
pub struct NodeStats {
    /// When it began to count.
    pub started_at: Timestamp,
    /// The counters now.
    pub now: Sample,
    /// The counters of the last hour, oldest first.
    pub series: Vec<Sample>,
}

#[derive(Debug)]
pub(crate) struct Counters {
    started_at: Timestamp,
    totals: [AtomicU64; Stat::ALL.len()],
    samples: Mutex<VecDeque<Sample>>,
    /// What is counted for whoever watches this node, beside what the console shows.
    pub(crate) tallies: Tallies,
}

impl Counters {
    pub(crate) fn new(started_at: Timestamp) -> Self {
        Self {
            started_at,
            totals: Default::default(),
            samples: Mutex::default(),
            tallies: Tallies::default(),
        }
    }

    pub(crate) fn add(&self, stat: Stat, count: u64) {
        if let Some(total) = self.totals.get(stat as usize) {
            total.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Counts what was committed with this event.
    pub(crate) fn add_event(&self, kind: EventKind, count: u32) {
        if let Some(stat) = Stat::of_event(kind) {
            self.add(stat, u64::from(count));
        }
    }

    pub(crate) fn total(&self, stat: Stat) -> u64 {
        self.totals.get(stat as usize).map_or(0, |total| total.load(Ordering::Relaxed))
    }

    fn sample(&self, at: Timestamp) -> Sample {
        let mut totals = [0; Stat::ALL.len()];
        for (total, counted) in totals.iter_mut().zip(&self.totals) {
            *total = counted.load(Ordering::Relaxed);
        }
        Sample { at, totals }
    }
}

impl<S: Store> Authority<S> {
    /// What this node has done since it started.
    pub fn stats(&self) -> NodeStats {
        let samples = self.counters.samples.lock().unwrap_or_else(PoisonError::into_inner);
        NodeStats {
            started_at: self.counters.started_at,
            now: self.counters.sample(self.now()),
            series: samples.iter().copied().collect(),
        }
    }

    /// Remembers the counters for their course over the last hour. To be called every ten seconds.
    pub fn sample_stats(&self) {
        let sample = self.counters.sample(self.now());
        let mut samples = self.counters.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}
