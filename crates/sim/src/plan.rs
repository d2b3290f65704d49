//! What a seed holds in store: settings, skews, and every fault that was decided beforehand.

use std::time::Duration;

use cloakroom::{LoginLimits, OnLimit, Settings, VerifySettings};
use cloakroom_core::keys::{Algorithm, Hs256Secret};
use cloakroom_core::password::PasswordRules;
use cloakroom_core::rate::Quota;
use cloakroom_core::refresh::RefreshRules;
use cloakroom_core::session::SessionRules;
use cloakroom_core::token::access::ExtraClaims;

use crate::rng::Rng;
use crate::schedule::Millis;

/// How long the world lives under faults.
pub const STORMY: Millis = 50_000;
/// How long it then has to settle, without faults.
pub const CALM: Millis = 9_000;
/// The grace of a rotation.
pub const GRACE: Millis = 12_000;
/// The window of a retry by `Idempotency-Key`.
pub const RETRY_WINDOW: Millis = 45_000;
/// A node's clock differs from the store's by this at most.
pub const SKEW_MAX: Millis = 2_000;
/// How long an access token lives.
pub const ACCESS_TTL: Millis = 14_000;
/// The idle timeout of `cookie` sessions.
pub const IDLE: Millis = 20_000;
/// The idle timeout of `bearer` and `split` sessions.
pub const REFRESH_TTL: Millis = 40_000;
/// The absolute lifetime.
pub const ABSOLUTE: Millis = 42_000;
/// How long the reason of an ending is kept.
pub const KEEP_ENDED: Millis = 15_000;
/// How stale a partition may be before its cache no longer decides.
pub const MAX_STALENESS: Millis = 2_000;
/// How long an operation waits for the store.
pub const STORE_TIMEOUT: Millis = 2_000;
/// A client gives up on an answer after this.
pub const PATIENCE: Millis = 4_000;

// A client that gives up and asks again must do so within the grace, whatever the clocks say.
const _: () = assert!(PATIENCE * 2 + SKEW_MAX * 2 <= GRACE);
const _: () = assert!(GRACE < RETRY_WINDOW && RETRY_WINDOW > REFRESH_TTL);

/// How nodes and caches relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Several nodes; each verification reads the store.
    StoreRead,
    /// Several nodes with caches that follow the feed.
    Cached,
    /// One node, the store's only writer, whose cache always decides.
    Embedded,
}

/// How likely small faults are, in thousandths of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    /// A store call fails without effect.
    pub fail_before: u64,
    /// A store call fails after it took effect.
    pub fail_after: u64,
    /// A store call takes up to a second and a half.
    pub slow: u64,
    /// A store call takes longer than the deadline.
    pub stuck: u64,
    /// A request never arrives.
    pub lost_request: u64,
    /// An answer never arrives.
    pub lost_answer: u64,
    /// A request or an answer takes seconds.
    pub slow_network: u64,
    /// A request whose client gave up is dropped where it stands.
    pub dropped: u64,
    /// A client goes away while its request is served, which is dropped where it stands.
    pub gone: u64,
}

/// A span of time in which something doesn't work.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Which node; none: all.
    pub node: Option<usize>,
    /// Only the log of this partition; none: all of the store.
    pub feed_of: Option<u16>,
    /// From.
    pub from: Millis,
    /// To.
    pub to: Millis,
}

/// A node's sudden end.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Which node.
    pub node: usize,
    /// When.
    pub at: Millis,
    /// How long it is gone.
    pub away: Millis,
}

/// The store goes back to what it was a little earlier: acknowledged writes are lost.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    /// When.
    pub at: Millis,
    /// By how much.
    pub back: Millis,
}

/// Everything that was decided beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How nodes and caches relate.
    pub shape: Shape,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many partitions there are.
    pub partitions: u16,
    /// Each node's clock: milliseconds ahead of the store's.
    pub skews: Vec<i64>,
    /// Small faults.
    pub odds: Odds,
    /// Cuts.
    pub cuts: Vec<Cut>,
    /// Crashes.
    pub crashes: Vec<Crash>,
    /// A declared failover.
    pub failover: Option<Failover>,
    /// How tokens are signed.
    pub algorithm: Algorithm,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(rng: &mut Rng) -> Self {
        let shape = match rng.below(10) {
            0..=3 => Shape::StoreRead,
            4..=7 => Shape::Cached,
            _ => Shape::Embedded,
        };
        let nodes = if shape == Shape::Embedded { 1 } else { 3 };
        let partitions = u16::try_from(rng.between(2, 3)).unwrap_or(2);
        let odds = match rng.below(4) {
            0 => Odds::default(),
            1 => Odds { slow: 20, lost_answer: 40, slow_network: 40, ..Odds::default() },
            _ => Odds {
                fail_before: rng.below(15),
                fail_after: rng.below(25),
                slow: rng.below(40),
                stuck: rng.below(6),
                lost_request: rng.below(40),
                lost_answer: rng.below(80),
                slow_network: rng.below(80),
                dropped: rng.below(600),
                gone: rng.below(40),
            },
        };
        let skew = |rng: &mut Rng| {
            let size = i64::try_from(rng.below(SKEW_MAX + 1)).unwrap_or(0);
            if rng.chance(500) { size } else { -size }
        };
        let is_skewed = rng.chance(600);
        let skews = (0..nodes).map(|_| if is_skewed { skew(rng) } else { 0 }).collect();
        Self {
            shape,
            nodes,
            partitions,
            skews,
            odds,
            cuts: draw_cuts(rng, nodes, partitions),
            crashes: draw_crashes(rng, nodes),
            failover: (shape != Shape::Embedded && rng.chance(150)).then(|| Failover {
                at: rng.between(15_000, STORMY - 10_000),
                back: rng.between(50, 1_000),
            }),
            algorithm: if rng.chance(100) { Algorithm::EdDsa } else { Algorithm::Hs256 },
        }
    }

    /// The authority's settings under this plan, shared secret included.
    pub fn settings(&self) -> Option<Settings> {
        let quota = |count| Quota::new(count, Duration::from_secs(60)).ok();
        let shared = "ue8Vq3xkRz0WmT5yLb9CnHs2PdJ7fGaQ";
        let cached = self.shape != Shape::StoreRead;
        Some(Settings {
            issuer: "https://id.example".to_owned(),
            audience: vec!["api".to_owned()],
            algorithm: self.algorithm,
            hs256_secret: match self.algorithm {
                Algorithm::Hs256 => Some(Hs256Secret::parse(shared).ok()?),
                Algorithm::EdDsa | Algorithm::Es256 | Algorithm::Rs256 => None,
            },
            access_ttl: millis(ACCESS_TTL),
            extra_claims: ExtraClaims::default(),
            key_rotation: millis(3_600_000),
            gateway_audience: "upstream".to_owned(),
            gateway_ttl: millis(ACCESS_TTL),
            refresh: RefreshRules { grace: millis(GRACE), retry_window: millis(RETRY_WINDOW) },
            session: SessionRules {
                idle: millis(IDLE),
                idle_remember: millis(IDLE),
                idle_anonymous: millis(IDLE),
                absolute: millis(ABSOLUTE),
                absolute_remember: millis(ABSOLUTE),
                refresh_ttl: millis(REFRESH_TTL),
                aal_caps: Vec::new(),
            },
            max_per_subject: 6,
            on_limit: OnLimit::EndOldest,
            max_data: 16 * 1024,
            max_claims: 8 * 1024,
            keep_ended: millis(KEEP_ENDED),
            events_keep: millis(3_600_000),
            verify: VerifySettings {
                cache: cached,
                max_staleness: (self.shape != Shape::Embedded).then(|| millis(MAX_STALENESS)),
                outage_grace: Duration::ZERO,
                capacity: 1_000,
            },
            login_limits: LoginLimits {
                login: quota(1_000)?,
                identifier: quota(1_000)?,
                network: quota(1_000)?,
            },
            password: PasswordRules::new(15, 64).ok()?,
            argon2: (8, 1, 1),
            password_pool: 1,
            store_timeout: millis(STORE_TIMEOUT),
        })
    }
}

fn draw_cuts(rng: &mut Rng, nodes: usize, partitions: u16) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for _ in 0..rng.below(4) {
        let from = rng.between(3_000, STORMY - 5_000);
        let node = if rng.chance(250) { None } else { Some(rng.index(nodes)) };
        let feed = u16::try_from(rng.below(u64::from(partitions))).unwrap_or(0);
        let feed_of = rng.chance(500).then_some(feed);
        // An outage of everything is short enough for honest users to sit it out.
        let longest = if feed_of.is_some() { 12_000 } else { 4_000 };
        cuts.push(Cut { node, feed_of, from, to: from + rng.between(200, longest) });
    }
    cuts
}

fn draw_crashes(rng: &mut Rng, nodes: usize) -> Vec<Crash> {
    (0..rng.below(3))
        .map(|_| Crash {
            node: rng.index(nodes),
            at: rng.between(5_000, STORMY - 2_000),
            away: rng.between(50, 3_000),
        })
        .collect()
}

/// A span of virtual time as the engine takes it.
pub const fn millis(span: Millis) -> Duration {
    Duration::from_millis(span)
}
