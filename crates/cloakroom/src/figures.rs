//! What a node counts for whoever watches it: atomics on the way, plain numbers when asked.
//!
//! Nothing is registered anywhere: whoever runs an [`Authority`] reads [`Authority::figures`] and
//! shows it as it likes. Nothing in it names a session, a subject or an address.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use cloakroom_core::event::FeedEntry;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::EndReason;
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::Store;

use crate::authority::Authority;
use crate::cache::CacheFigures;
use crate::context::Error;
use crate::hashing::PasswordFigures;
use crate::streams::StreamFigures;
use crate::sweep::Swept;
use crate::touch::TouchFigures;

/// The upper bounds of a histogram's buckets, in microseconds; beyond the last is one more bucket.
const BOUNDS_MICROS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Durations counted by their length, without a lock.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    micros: AtomicU64,
}

/// What a [`Histogram`] has counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// How many in each bucket: its upper bound in seconds, the last one's being infinite.
    pub buckets: Vec<(f64, u64)>,
    /// The sum, in seconds.
    pub sum: f64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Distribution {
        let bounds = BOUNDS_MICROS.iter().map(|micros| seconds(*micros));
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets = bounds.chain([f64::INFINITY]).zip(counts).collect();
        Distribution { buckets, sum: seconds(self.micros.load(Ordering::Relaxed)) }
    }
}

impl Distribution {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $( $(#[$about:meta])* $variant:ident = $text:literal, )+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$about])* $variant, )+ }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$( $text ),+].len()] = [$( Self::$variant ),+];

            /// Its stable name.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }
        }
    };
}

labels! {
    /// What kind of credential was judged.
    CredentialKind {
        /// A session cookie.
        Cookie = "cookie",
        /// An access token.
        Access = "access",
        /// A refresh token that was only looked at.
        Refresh = "refresh",
    }
}

labels! {
    /// What a credential was found to be.
    Verdict {
        /// It proves a live session.
        Live = "live",
        /// It is none of ours, or was superseded.
        Invalid = "invalid",
        /// It is of another kind than its place takes.
        WrongType = "wrong_type",
        /// Its time is over.
        Expired = "expired",
        /// Its session has ended.
        Ended = "ended",
        /// It was refused for another reason.
        Refused = "refused",
        /// Nobody could tell: the store failed.
        Unavailable = "unavailable",
    }
}

labels! {
    /// What a refresh token was exchanged for.
    RefreshOutcome {
        /// Its successor, made for this request.
        Rotated = "rotated",
        /// Its successor once more: a tolerated retry.
        Retried = "retried",
        /// A retry from another network or user agent, answered all the same.
        RetriedElsewhere = "retried_elsewhere",
        /// Itself: a cookie too young to be rotated.
        Unchanged = "unchanged",
        /// Nothing: it had been used before, and the session was ended.
        Reused = "reused",
        /// Nothing: it is newer than the store, which must have gone back.
        RollbackSeen = "rollback_seen",
        /// Nothing: it or its session is over, or it is none of ours.
        Refused = "refused",
        /// Nothing: the store failed.
        Unavailable = "unavailable",
    }
}

labels! {
    /// How a sign-in by password ended.
    SigninOutcome {
        /// With a session.
        Ok = "ok",
        /// The name or the password was wrong.
        Failed = "failed",
        /// There had been too many failures.
        Throttled = "throttled",
        /// For another reason, such as too many sessions.
        Refused = "refused",
        /// Nobody could tell: the store failed or too much was waiting.
        Unavailable = "unavailable",
    }
}

impl Verdict {
    fn of<T>(outcome: &Result<T, Error>) -> Self {
        match outcome {
            Ok(_) => Self::Live,
            Err(Error::Refused(Refusal::TokenInvalid)) => Self::Invalid,
            Err(Error::Refused(Refusal::TokenWrongType)) => Self::WrongType,
            Err(Error::Refused(Refusal::TokenExpired)) => Self::Expired,
            Err(Error::Refused(Refusal::SessionEnded(_))) => Self::Ended,
            Err(Error::Refused(_)) => Self::Refused,
            Err(Error::Unavailable(_) | Error::Overloaded) => Self::Unavailable,
        }
    }
}

impl RefreshOutcome {
    /// Of a refresh that came to no answer of its own.
    pub(crate) const fn of_error(error: &Error) -> Self {
        match error {
            Error::Refused(_) => Self::Refused,
            Error::Unavailable(_) | Error::Overloaded => Self::Unavailable,
        }
    }
}

impl SigninOutcome {
    fn of<T>(outcome: &Result<T, Error>) -> Self {
        match outcome {
            Ok(_) => Self::Ok,
            Err(Error::Refused(Refusal::CredentialsInvalid)) => Self::Failed,
            Err(Error::Refused(Refusal::LoginThrottled { .. })) => Self::Throttled,
            Err(Error::Refused(_)) => Self::Refused,
            Err(Error::Unavailable(_) | Error::Overloaded) => Self::Unavailable,
        }
    }
}

/// A counter for each of a closed set.
#[derive(Debug)]
struct Row<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Row<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Row<N> {
    fn add(&self, place: usize) {
        if let Some(count) = self.0.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read<T: Copy>(&self, all: [T; N]) -> Vec<(T, u64)> {
        all.into_iter().zip(&self.0).map(|(one, n)| (one, n.load(Ordering::Relaxed))).collect()
    }
}

const KINDS: usize = CredentialKind::ALL.len();
const VERDICTS: usize = Verdict::ALL.len();

/// What the engine counts as it goes.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    verdicts: [Row<VERDICTS>; KINDS],
    ended: Row<{ EndReason::ALL.len() }>,
    signed_out: Row<{ EndReason::ALL.len() }>,
    refreshes: Row<{ RefreshOutcome::ALL.len() }>,
    signins: Row<{ SigninOutcome::ALL.len() }>,
    reauthentications: Row<{ SigninOutcome::ALL.len() }>,
    conflicts: AtomicU64,
    in_doubt: AtomicU64,
    session_lookups: Row<2>,
    token_lookups: Row<2>,
    feed_lag: Histogram,
    feed_went_back: AtomicU64,
    sweeps: SweepTallies,
}

#[derive(Debug, Default)]
struct SweepTallies {
    ended: AtomicU64,
    removed: AtomicU64,
    trimmed: AtomicU64,
    failed: AtomicU64,
    spans: Histogram,
    /// When the last one was done, in milliseconds since the epoch; 0: never.
    last_ms: AtomicI64,
}

impl Tallies {
    pub(crate) fn verdict<T>(&self, kind: CredentialKind, outcome: &Result<T, Error>) {
        if let Some(row) = self.verdicts.get(kind as usize) {
            row.add(Verdict::of(outcome) as usize);
        }
    }

    /// Counts what a commit of this node told followers.
    pub(crate) fn committed(&self, feed: &[FeedEntry]) {
        for entry in feed {
            match entry {
                FeedEntry::SessionEnded { reason, .. } => self.ended.add(*reason as usize),
                FeedEntry::SubjectRaised { reason, .. } => self.signed_out.add(*reason as usize),
                FeedEntry::SessionSteppedUp { .. }
                | FeedEntry::TokenDenied { .. }
                | FeedEntry::KeyChanged { .. }
                | FeedEntry::AllEnded { .. }
                | FeedEntry::SessionChanged { .. }
                | FeedEntry::SubjectChanged { .. }
                | FeedEntry::RecordChanged => {}
            }
        }
    }

    pub(crate) fn refresh(&self, outcome: RefreshOutcome) {
        self.refreshes.add(outcome as usize);
    }

    pub(crate) fn signin<T>(&self, outcome: &Result<T, Error>) {
        self.signins.add(SigninOutcome::of(outcome) as usize);
    }

    pub(crate) fn reauthentication<T>(&self, outcome: &Result<T, Error>) {
        self.reauthentications.add(SigninOutcome::of(outcome) as usize);
    }

    pub(crate) fn conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn in_doubt(&self) {
        self.in_doubt.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a look into the session cache where that may decide.
    pub(crate) fn session_lookup(&self, hit: bool) {
        self.session_lookups.add(usize::from(hit));
    }

    pub(crate) fn token_lookup(&self, hit: bool) {
        self.token_lookups.add(usize::from(hit));
    }

    /// Counts how long ago an entry of another commit was logged when it was applied here.
    pub(crate) fn feed_applied(&self, logged_at: Timestamp, now: Timestamp) {
        self.feed_lag.observe(now.since(logged_at));
    }

    pub(crate) fn feed_went_back(&self) {
        self.feed_went_back.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn swept(&self, outcome: Result<Swept, ()>, began: Timestamp, now: Timestamp) {
        let sweeps = &self.sweeps;
        sweeps.spans.observe(now.since(began));
        let Ok(swept) = outcome else {
            sweeps.failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        sweeps.last_ms.store(now.as_millis(), Ordering::Relaxed);
        for (total, count) in [
            (&sweeps.ended, swept.ended),
            (&sweeps.removed, swept.removed),
            (&sweeps.trimmed, swept.trimmed),
        ] {
            total.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

/// What a node has counted since it started, and what it holds now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Figures {
    /// Credentials judged.
    pub verdicts: Vec<(CredentialKind, Verdict, u64)>,
    /// Sessions opened.
    pub opened: u64,
    /// Sessions ended one by one, timeouts (by the sweep) included.
    pub ended: Vec<(EndReason, u64)>,
    /// Subjects whose sessions were ended together.
    pub signed_out: Vec<(EndReason, u64)>,
    /// Refreshes.
    pub refreshes: Vec<(RefreshOutcome, u64)>,
    /// Sign-ins by password.
    pub signins: Vec<(SigninOutcome, u64)>,
    /// Passwords given again in a session.
    pub reauthentications: Vec<(SigninOutcome, u64)>,
    /// Commits that met another version and were decided anew.
    pub conflicts: u64,
    /// Commits of which the store didn't say whether they took effect.
    pub in_doubt: u64,
    /// The hashing of passwords.
    pub passwords: PasswordFigures,
    /// What is kept in memory.
    pub caches: Vec<CacheFigures>,
    /// "Last seen".
    pub touches: TouchFigures,
    /// Refusals that wait to be written as events, and how many may.
    pub reports: (usize, usize),
    /// The clean-up.
    pub sweeps: SweepFigures,
    /// The log of a store that others write to.
    pub feed: FeedFigures,
    /// Streams.
    pub streams: StreamFigures,
}

/// The clean-up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SweepFigures {
    /// What was done in all.
    pub ended: u64,
    /// Records removed.
    pub removed: u64,
    /// Log entries removed.
    pub trimmed: u64,
    /// Runs that broke off.
    pub failed: u64,
    /// How long the runs took.
    pub spans: Distribution,
    /// When the last one was done.
    pub last_at: Option<Timestamp>,
}

/// How far behind a node may be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FeedFigures {
    /// Since when the partition that was read longest ago wasn't read to its end. None: nobody
    /// else writes, or some partition was never read.
    pub staleness: Option<Duration>,
    /// The same of partition 0, which holds the keys.
    pub keys_staleness: Option<Duration>,
    /// How old entries were when they were applied here.
    pub lag: Distribution,
    /// How often a log had gone back.
    pub went_back: u64,
}

impl<S: Store> Authority<S> {
    /// What this node has counted, and what it holds.
    pub fn figures(&self) -> Figures {
        let tallies = &self.counters.tallies;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let verdicts = CredentialKind::ALL.into_iter().zip(&tallies.verdicts);
        let token_lookups = tallies.token_lookups.read([false, true]);
        let session_lookups = tallies.session_lookups.read([false, true]);
        Figures {
            verdicts: verdicts
                .flat_map(|(kind, row)| {
                    row.read(Verdict::ALL).into_iter().map(move |(verdict, n)| (kind, verdict, n))
                })
                .collect(),
            opened: self.counters.total(crate::stats::Stat::Opened),
            ended: tallies.ended.read(EndReason::ALL),
            signed_out: tallies.signed_out.read(EndReason::ALL),
            refreshes: tallies.refreshes.read(RefreshOutcome::ALL),
            signins: tallies.signins.read(SigninOutcome::ALL),
            reauthentications: tallies.reauthentications.read(SigninOutcome::ALL),
            conflicts: read(&tallies.conflicts),
            in_doubt: read(&tallies.in_doubt),
            passwords: self.hashing.figures(),
            caches: self
                .cache
                .figures(lookups(&session_lookups))
                .into_iter()
                .chain([self.access_tokens.figures("access_tokens", lookups(&token_lookups))])
                .collect(),
            touches: self.touches.figures(),
            reports: self.reports.figures(),
            sweeps: tallies.sweeps.figures(),
            feed: self.feed_figures(),
            streams: self.streams.figures(),
        }
    }

    fn feed_figures(&self) -> FeedFigures {
        let now = self.now();
        let shared = self.settings.verify.max_staleness.is_some();
        let staleness = |partition| {
            let read_at = self.cache.fresh_at(partition);
            (read_at > Timestamp::EPOCH).then(|| now.since(read_at))
        };
        let partitions = (0..self.store.partitions()).map(Partition);
        let all = partitions.map(staleness).collect::<Option<Vec<Duration>>>();
        let tallies = &self.counters.tallies;
        FeedFigures {
            staleness: all.and_then(|all| all.into_iter().max()).filter(|_| shared),
            keys_staleness: staleness(Partition::ZERO).filter(|_| shared),
            lag: tallies.feed_lag.read(),
            went_back: tallies.feed_went_back.load(Ordering::Relaxed),
        }
    }
}

impl SweepTallies {
    fn figures(&self) -> SweepFigures {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        SweepFigures {
            ended: self.ended.load(Ordering::Relaxed),
            removed: self.removed.load(Ordering::Relaxed),
            trimmed: self.trimmed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            spans: self.spans.read(),
            last_at: (last_ms != 0).then(|| Timestamp::from_millis(last_ms)),
        }
    }
}

/// Hits and misses of a row that counts both.
fn lookups(row: &[(bool, u64)]) -> Option<(u64, u64)> {
    let of = |hit: bool| row.iter().find(|(known, _)| *known == hit).map_or(0, |(_, n)| *n);
    Some((of(true), of(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 20_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!(read.count(), 4);
        assert_eq!(read.buckets.first(), Some(&(0.0001, 2)));
        assert_eq!(read.buckets.get(1), Some(&(0.000_25, 1)));
        assert_eq!(read.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert!((read.sum - 20.000_201).abs() < 1e-9);
    }

    #[test]
    fn each_reason_has_its_own_counter() {
        let tallies = Tallies::default();
        for (place, reason) in EndReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "ALL is in the order of the variants");
            let sid = cloakroom_core::types::Sid::from_bytes([0; 16]);
            let until = Timestamp::EPOCH;
            tallies.committed(&[FeedEntry::SessionEnded { sid, reason, until }]);
        }
        assert!(tallies.ended.read(EndReason::ALL).iter().all(|(_, count)| *count == 1));
    }
}
