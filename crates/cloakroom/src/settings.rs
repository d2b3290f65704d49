//! What an operator decides.

use std::time::Duration;

use cloakroom_core::keys::{Algorithm, Hs256Secret};
use cloakroom_core::password::PasswordRules;
use cloakroom_core::rate::Quota;
use cloakroom_core::refresh::RefreshRules;
use cloakroom_core::session::SessionRules;
use cloakroom_core::token::access::ExtraClaims;

/// What happens when a subject has all the sessions it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLimit {
    /// The session that was used least recently ends.
    EndOldest,
    /// The sign-in is refused.
    Refuse,
}

/// How verification uses the cache.
#[derive(Clone, Copy, Debug)]
pub struct VerifySettings {
    /// Whether the cache may decide at all. An embedded store's may always.
    pub cache: bool,
    /// How stale a partition may be before the cache no longer decides. `None`: the store has no
    /// other writer than this process, so the cache is never stale.
    pub max_staleness: Option<Duration>,
    /// For how long cached sessions are taken while the store can't be reached.
    pub outage_grace: Duration,
    /// Records cached of each kind.
    pub capacity: u64,
}

/// Limits of failed sign-ins; counted in the store.
#[derive(Clone, Copy, Debug)]
pub struct LoginLimits {
    /// Per identifier and network together.
    pub login: Quota,
    /// Per identifier, from everywhere.
    pub identifier: Quota,
    /// Per network, for all identifiers.
    pub network: Quota,
}

/// Everything that an operator decides about an authority.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `iss` of the tokens.
    pub issuer: String,
    /// `aud` of the tokens.
    pub audience: Vec<String>,
    /// How tokens are signed.
    pub algorithm: Algorithm,
    /// The shared secret, for HS256 only.
    pub hs256_secret: Option<Hs256Secret>,
    /// How long an access token lives.
    pub access_ttl: Duration,
    /// Constant claims and renamings.
    pub extra_claims: ExtraClaims,
    /// How long a key signs.
    pub key_rotation: Duration,
    /// `aud` of the assertions for upstreams of a gateway.
    pub gateway_audience: String,
    /// How long such an assertion lives.
    pub gateway_ttl: Duration,
    /// Tolerances of rotation.
    pub refresh: RefreshRules,
    /// Lifetimes.
    pub session: SessionRules,
    /// Live sessions of a subject.
    pub max_per_subject: usize,
    /// What happens beyond.
    pub on_limit: OnLimit,
    /// A session's data, in bytes of JSON.
    pub max_data: usize,
    /// Claims of a session or a subject, in bytes of JSON.
    pub max_claims: usize,
    /// How long an ended session's reason is known.
    pub keep_ended: Duration,
    /// How long audit events are kept.
    pub events_keep: Duration,
    /// The cache.
    pub verify: VerifySettings,
    /// Failed sign-ins.
    pub login_limits: LoginLimits,
    /// Passwords that may be chosen.
    pub password: PasswordRules,
    /// argon2id: memory in KiB, passes, lanes.
    pub argon2: (u32, u32, u32),
    /// Passwords hashed at once.
    pub password_pool: usize,
    /// How long an operation may wait for the store.
    pub store_timeout: Duration,
}
