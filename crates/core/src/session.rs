//! A session and its life: opened, live, ended; its idle and absolute ends.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::limits::{IMPERSONATION_LIFETIME_MAX, TOUCH_SLACK_MAX};
use crate::refresh::RefreshState;
use crate::subject::{PartitionState, SubjectState};
use crate::token::opaque::{OpaqueKind, OpaqueToken};
use crate::types::{Secret, Sid, Subject, Timestamp, TokenHash};

/// A JSON object: claims, or a session's data.
pub type Object = Map<String, Value>;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// Its own user signed it out.
    SignedOut,
    /// Its user ended it from another session.
    SignedOutElsewhere,
    /// Its user signed out everywhere.
    SignedOutEverywhere,
    /// An operator or a backend ended it.
    EndedByOperator,
    /// Nothing was heard of it for its idle timeout.
    IdleTimeout,
    /// It reached its absolute end.
    AbsoluteTimeout,
    /// A rotated refresh token was presented again.
    RefreshReused,
    /// Its user's password was changed.
    PasswordChanged,
    /// Its user was disabled or deleted.
    UserDisabled,
    /// A new session took its place.
    Replaced,
    /// Its user opened more sessions than allowed.
    TooManySessions,
}

impl EndReason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::SignedOut,
        Self::SignedOutElsewhere,
        Self::SignedOutEverywhere,
        Self::EndedByOperator,
        Self::IdleTimeout,
        Self::AbsoluteTimeout,
        Self::RefreshReused,
        Self::PasswordChanged,
        Self::UserDisabled,
        Self::Replaced,
        Self::TooManySessions,
    ];

    /// Its stable name, on the wire and in stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::SignedOutElsewhere => "signed_out_elsewhere",
            Self::SignedOutEverywhere => "signed_out_everywhere",
            Self::EndedByOperator => "ended_by_operator",
            Self::IdleTimeout => "idle_timeout",
            Self::AbsoluteTimeout => "absolute_timeout",
            Self::RefreshReused => "refresh_reused",
            Self::PasswordChanged => "password_changed",
            Self::UserDisabled => "user_disabled",
            Self::Replaced => "replaced",
            Self::TooManySessions => "too_many_sessions",
        }
    }

    /// The reason of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// How a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// The session that took its place.
    pub successor: Option<Sid>,
}

/// The stored part of a session's life. Whether it is over also depends on its epochs and times:
/// ask [`Session::standing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Not ended by itself.
    Live,
    /// Ended, for good.
    Ended(Ending),
}

/// How a session's credentials reach its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Delivery {
    /// A session cookie, looked up on the server.
    Cookie,
    /// Access and refresh token in the body.
    Bearer,
    /// Access token in the body, refresh token in a cookie.
    Split,
}

impl Delivery {
    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::Bearer => "bearer",
            Self::Split => "split",
        }
    }

    /// The delivery of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Cookie, Self::Bearer, Self::Split].into_iter().find(|d| d.as_str() == name)
    }
}

/// Where a request came from, as far as is known; cleaned and bounded by whoever fills it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// Its `User-Agent`.
    pub user_agent: Option<String>,
    /// What the user calls the device.
    pub label: Option<String>,
}

/// What proves that a client holds the session.
#[derive(Clone, Debug)]
pub enum Holder {
    /// A session cookie.
    Cookie {
        /// Counts the step-ups: cookies of earlier lineages are void.
        lineage: u32,
        /// Hash of the cookie's secret.
        secret: TokenHash,
    },
    /// A refresh token.
    Refresh(RefreshState),
}

/// A session as it is stored.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub sid: Sid,
    /// Whose it is; none before a sign-in.
    pub subject: Option<Subject>,
    /// The subject's epoch when it was opened; below the subject's now: over.
    pub subject_epoch: u64,
    /// The partition's epoch when it was opened; below the partition's now: over.
    pub partition_epoch: u64,
    /// Live, or ended for good.
    pub lifecycle: Lifecycle,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was last used, to within the touch slack.
    pub last_seen_at: Timestamp,
    /// When its user last proved who they are.
    pub auth_time: Timestamp,
    /// How long it lives without being used (`cookie`) or refreshed (`bearer`, `split`).
    pub idle_timeout: Duration,
    /// How long it lives from its opening or step-up at most.
    pub lifetime: Duration,
    /// Its absolute end.
    pub expires_at: Timestamp,
    /// Whether the cookie outlives the browser.
    pub remember: bool,
    /// How the user was authenticated (RFC 8176).
    pub amr: Vec<String>,
    /// How strongly.
    pub acr: String,
    /// Who acts as the subject, when it isn't the subject.
    pub actor: Option<String>,
    /// Its own claims; they win over the subject's.
    pub claims: Object,
    /// Who opened it, from where.
    pub client: Client,
    /// How its credentials travel.
    pub delivery: Delivery,
    /// What proves possession of it.
    pub holder: Holder,
}

/// Lifetimes by delivery and assurance; all of them settings.
#[derive(Clone, Debug)]
pub struct SessionRules {
    /// Idle timeout of `cookie` sessions.
    pub idle: Duration,
    /// The same with `remember`.
    pub idle_remember: Duration,
    /// The same before a sign-in.
    pub idle_anonymous: Duration,
    /// Absolute lifetime.
    pub absolute: Duration,
    /// The same with `remember`, and for `bearer` and `split`.
    pub absolute_remember: Duration,
    /// Idle timeout of `bearer` and `split` sessions.
    pub refresh_ttl: Duration,
    /// Caps for sessions of an `acr`: name, idle, absolute.
    pub aal_caps: Vec<(String, Duration, Duration)>,
}

/// What a sign-in grants.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Whose the session will be; none: anonymous.
    pub subject: Option<Subject>,
    /// How its credentials travel.
    pub delivery: Delivery,
    /// Whether a cookie outlives the browser.
    pub remember: bool,
    /// The session's own claims, checked.
    pub claims: Object,
    /// How the user was authenticated.
    pub amr: Vec<String>,
    /// How strongly.
    pub acr: String,
    /// Who acts as the subject.
    pub actor: Option<String>,
    /// An idle timeout of its own.
    pub idle_timeout: Option<Duration>,
    /// A lifetime of its own.
    pub lifetime: Option<Duration>,
    /// Who asks, from where.
    pub client: Client,
}

impl SessionRules {
    /// The idle timeout and the lifetime of a session to be opened by `grant`.
    pub fn lifetimes(&self, grant: &Grant) -> (Duration, Duration) {
        let (idle, absolute) = match (grant.delivery, grant.subject.is_some()) {
            (Delivery::Cookie, false) => (self.idle_anonymous, self.absolute),
            (Delivery::Cookie, true) if grant.remember => {
                (self.idle_remember, self.absolute_remember)
            }
            (Delivery::Cookie, true) => (self.idle, self.absolute),
            (Delivery::Bearer | Delivery::Split, _) => (self.refresh_ttl, self.absolute_remember),
        };
        let lifetime = grant.lifetime.unwrap_or(absolute);
        // A lifetime asked for on purpose isn't cut short by a default idle timeout, nor is a
        // longer idle timeout of any use.
        let idle = grant.idle_timeout.unwrap_or(idle).min(lifetime);
        let cap = self.aal_caps.iter().find(|(acr, ..)| *acr == grant.acr);
        let (idle, lifetime) = match cap {
            Some((_, idle_cap, cap)) => (idle.min(*idle_cap), lifetime.min(*cap)),
            None => (idle, lifetime),
        };
        match grant.actor {
            Some(_) => {
                let lifetime = lifetime.min(IMPERSONATION_LIFETIME_MAX);
                (idle.min(lifetime), lifetime)
            }
            None => (idle, lifetime),
        }
    }
}

/// The epochs a session is opened under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// The subject's; 0 for an anonymous session.
    pub subject: u64,
    /// The partition's.
    pub partition: u64,
}

impl Session {
    /// Opens a session; the token is its holder's proof and exists nowhere else.
    pub fn open(
        grant: Grant,
        rules: &SessionRules,
        sid: Sid,
        epochs: Epochs,
        now: Timestamp,
        secret: Secret<[u8; 32]>,
    ) -> (Self, OpaqueToken) {
        let (idle_timeout, lifetime) = rules.lifetimes(&grant);
        let hash = TokenHash::of(secret.expose());
        let (kind, holder) = match grant.delivery {
            Delivery::Cookie => (OpaqueKind::Session, Holder::Cookie { lineage: 0, secret: hash }),
            Delivery::Bearer | Delivery::Split => {
                (OpaqueKind::Refresh, Holder::Refresh(RefreshState::first(0, hash, now)))
            }
        };
        let session = Self {
            sid,
            subject: grant.subject,
            subject_epoch: epochs.subject,
            partition_epoch: epochs.partition,
            lifecycle: Lifecycle::Live,
            created_at: now,
            last_seen_at: now,
            auth_time: now,
            idle_timeout,
            lifetime,
            expires_at: now.plus(lifetime),
            remember: grant.remember,
            amr: grant.amr,
            acr: grant.acr,
            actor: grant.actor,
            claims: grant.claims,
            client: grant.client,
            delivery: grant.delivery,
            holder,
        };
        (session, OpaqueToken { kind, sid, lineage: 0, generation: 0, secret })
    }

    /// How much older than its stored instant "last seen" may really be: a twentieth of the idle
    /// timeout, a minute at most.
    pub fn touch_slack(&self) -> Duration {
        (self.idle_timeout / 20).min(TOUCH_SLACK_MAX)
    }

    /// From when on the session counts as idle, by what is stored of it, without slack.
    ///
    /// Use slides a `cookie` session; only a rotation slides a `bearer` or `split` one.
    pub fn idle_expires_at(&self) -> Timestamp {
        let anchor = match &self.holder {
            Holder::Cookie { .. } => self.last_seen_at,
            Holder::Refresh(refresh) => refresh.rotated_at,
        };
        anchor.plus(self.idle_timeout).min(self.expires_at)
    }

    /// When the session is over if nothing more is heard of it: no verification succeeds from
    /// then on.
    pub fn refused_from(&self) -> Timestamp {
        self.refused_from_when_seen(self.last_seen_at)
    }

    fn refused_from_when_seen(&self, seen_at: Timestamp) -> Timestamp {
        match &self.holder {
            // Uses within the slack of the stored instant were not written down.
            Holder::Cookie { .. } => {
                let seen_at = seen_at.max(self.last_seen_at);
                seen_at.plus(self.idle_timeout).plus(self.touch_slack()).min(self.expires_at)
            }
            Holder::Refresh(_) => self.idle_expires_at(),
        }
    }

    /// When a token that is made at a use at `now` must be over: no token outlives its session.
    pub fn tokens_end(&self, now: Timestamp) -> Timestamp {
        match &self.holder {
            Holder::Cookie { .. } => now.plus(self.idle_timeout).min(self.expires_at),
            Holder::Refresh(_) => self.idle_expires_at(),
        }
    }

    /// Whether a use at `now` is to be written down, where the last known one was at `seen_at`.
    pub fn wants_touch(&self, seen_at: Timestamp, now: Timestamp) -> bool {
        now.since(seen_at.max(self.last_seen_at)) > self.touch_slack()
    }

    /// Whether the session lives at `now`; if not, since when and why.
    ///
    /// `subject` is the record of [`Session::subject`], which exists for as long as the session
    /// names it.
    pub fn standing(
        &self,
        subject: Option<&SubjectState>,
        partition: &PartitionState,
        now: Timestamp,
    ) -> Result<(), Ending> {
        self.standing_when_seen(self.last_seen_at, subject, partition, now)
    }

    /// The same where a use at `seen_at` is known and not yet written down.
    pub fn standing_when_seen(
        &self,
        seen_at: Timestamp,
        subject: Option<&SubjectState>,
        partition: &PartitionState,
        now: Timestamp,
    ) -> Result<(), Ending> {
        if let Lifecycle::Ended(ending) = self.lifecycle {
            return Err(ending);
        }
        let idle_end = self.refused_from_when_seen(seen_at);
        let bump = subject.and_then(|subject| subject.bump_over(self.subject_epoch));
        let disabled_at = subject.and_then(|subject| subject.disabled_at);
        let all_ended = self.partition_epoch < partition.epoch;
        let causes = [
            bump.map(|bump| (bump.at, bump.reason)),
            disabled_at.map(|at| (at, EndReason::UserDisabled)),
            all_ended.then_some((partition.bumped_at, EndReason::EndedByOperator)),
            (now >= self.expires_at).then_some((self.expires_at, EndReason::AbsoluteTimeout)),
            (now >= idle_end).then_some((idle_end, EndReason::IdleTimeout)),
        ];
        // What came first ended it; what came later found it over.
        match causes.into_iter().flatten().min_by_key(|(at, _)| *at) {
            Some((at, reason)) => Err(Ending { at, reason, successor: None }),
            None => Ok(()),
        }
    }

    /// The session with an ending; one that is ended already keeps its first ending.
    #[must_use]
    pub fn ended(mut self, ending: Ending) -> Self {
        if self.lifecycle == Lifecycle::Live {
            self.lifecycle = Lifecycle::Ended(ending);
        }
        self
    }

    /// Starts a new lineage after a fresh proof of the user: a new secret without predecessor,
    /// `auth_time` now, idle and absolute lifetimes restarted.
    #[must_use]
    pub fn stepped_up(mut self, now: Timestamp, secret: Secret<[u8; 32]>) -> (Self, OpaqueToken) {
        let hash = TokenHash::of(secret.expose());
        // Access tokens name `auth_time` in whole seconds; earlier ones must be told apart even
        // when both proofs fall into one second.
        let next_second = Timestamp::from_secs(self.auth_time.as_secs().saturating_add(1));
        self.auth_time = now.max(next_second);
        self.last_seen_at = self.last_seen_at.max(now);
        self.expires_at = now.plus(self.lifetime);
        let (kind, lineage) = match &mut self.holder {
            Holder::Cookie { lineage, secret } => {
                *lineage += 1;
                *secret = hash;
                (OpaqueKind::Session, *lineage)
            }
            Holder::Refresh(refresh) => {
                let lineage = refresh.lineage + 1;
                *refresh = RefreshState::first(lineage, hash, now);
                (OpaqueKind::Refresh, lineage)
            }
        };
        let token = OpaqueToken { kind, sid: self.sid, lineage, generation: 0, secret };
        (self, token)
    }

    /// The session's claims over its subject's.
    pub fn effective_claims(&self, subject: Option<&SubjectState>) -> Object {
        let mut claims = subject.map(|s| s.claims.clone()).unwrap_or_default();
        for (name, value) in &self.claims {
            claims.insert(name.clone(), value.clone());
        }
        claims
    }
}

/// What a session cookie's secret says against the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieMatch {
    /// It is the session's.
    Genuine,
    /// It was, before a step-up; or it isn't a cookie session.
    Superseded,
    /// It is genuine and the record is older than it: the store went back.
    Ahead,
}

impl Session {
    /// Compares a presented session cookie, whose tag was checked, with the record.
    pub fn match_cookie(&self, presented: &OpaqueToken) -> CookieMatch {
        let Holder::Cookie { lineage, secret } = &self.holder else {
            return CookieMatch::Superseded;
        };
        if presented.lineage < *lineage {
            CookieMatch::Superseded
        } else if presented.lineage == *lineage && secret.matches(presented.secret.expose()) {
            CookieMatch::Genuine
        } else {
            CookieMatch::Ahead
        }
    }
}

impl Session {
    /// Whether a presented refresh token, whose tag was checked, is the session's current one or
    /// the one before.
    pub fn holds_refresh(&self, presented: &OpaqueToken) -> bool {
        let Holder::Refresh(refresh) = &self.holder else { return false };
        if presented.lineage != refresh.lineage {
            return false;
        }
        let secret = presented.secret.expose();
        if presented.generation == refresh.generation {
            return refresh.current.matches(secret);
        }
        match &refresh.predecessor {
            Some(predecessor)
                if presented.generation.checked_add(1) == Some(refresh.generation) =>
            {
                predecessor.secret.matches(secret)
            }
            Some(_) | None => false,
        }
    }
}

impl Session {
    /// Whether a presented refresh token, whose tag was checked, would be answered by a refresh:
    /// the current one, or the one before while its retries are tolerated.
    pub fn accepts_refresh(
        &self,
        presented: &OpaqueToken,
        grace: Duration,
        now: Timestamp,
    ) -> bool {
        let Holder::Refresh(refresh) = &self.holder else { return false };
        let is_current = presented.generation == refresh.generation;
        self.holds_refresh(presented) && (is_current || now.since(refresh.rotated_at) < grace)
    }
}

impl Session {
    /// Whether a presented opaque token, whose tag was checked, is one that holds the session.
    pub fn proves(&self, presented: &OpaqueToken) -> bool {
        match presented.kind {
            OpaqueKind::Session => self.match_cookie(presented) == CookieMatch::Genuine,
            OpaqueKind::Refresh => self.holds_refresh(presented),
            OpaqueKind::ApiKey => false,
        }
    }
}
