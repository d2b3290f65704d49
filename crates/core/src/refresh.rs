//! The refresh ratchet: rotation, retries that cost nothing, reuse that ends the session.
//!
//! A rotation draws a nonce and derives the successor from the presented secret, so that a
//! tolerated retry gets the *same* successor recomputed: nothing is minted twice, and what is
//! stored can mint nothing.

use std::time::Duration;

#[cfg(feature = "mutants")]
use crate::mutants::{Mutant, active};
use crate::store_key::DerivedKeys;
use crate::token::opaque::{OpaqueKind, OpaqueToken};
use crate::types::{Secret, Sid, Timestamp, TokenHash, same_bytes};

/// What a record keeps of a session's refresh tokens: constant in size, however often it rotates.
#[derive(Clone, Debug)]
pub struct RefreshState {
    /// Counts the step-ups: tokens of earlier lineages are void.
    pub lineage: u32,
    /// Counts the rotations within the lineage.
    pub generation: u32,
    /// Hash of the current token's secret.
    pub current: TokenHash,
    /// When the current token came to be. The grace is anchored here, so retries don't prolong it.
    pub rotated_at: Timestamp,
    /// The token before the current one; none at the start of a lineage.
    pub predecessor: Option<Predecessor>,
}

/// What is kept of the token that was rotated last.
#[derive(Clone, Debug)]
pub struct Predecessor {
    /// Hash of its secret.
    pub secret: TokenHash,
    /// When it came to be: its own lifetime counts from here.
    pub issued_at: Timestamp,
    /// Drawn at its rotation; makes the successor underivable from the store alone.
    pub nonce: [u8; 16],
    /// Hash of the `Idempotency-Key` of that rotation.
    pub idempotency: Option<[u8; 32]>,
}

impl RefreshState {
    /// The start of a lineage.
    pub const fn first(lineage: u32, current: TokenHash, now: Timestamp) -> Self {
        Self { lineage, generation: 0, current, rotated_at: now, predecessor: None }
    }
}

/// The tolerances of rotation; settings.
#[derive(Clone, Copy, Debug)]
pub struct RefreshRules {
    /// For how long after the rotation the predecessor is answered with the same successor.
    pub grace: Duration,
    /// For how long with the same `Idempotency-Key`, while the successor is unused.
    pub retry_window: Duration,
}

/// How a refresh token was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// In a body: one holder, who keeps what is answered.
    Body,
    /// In a cookie: tabs share one jar, answers arrive in any order.
    Cookie,
}

/// What a refresh comes to. The session itself was found live before.
#[derive(Debug)]
pub enum RefreshDecision {
    /// Commit this state; then the token may be answered.
    Rotate {
        /// The state to store.
        state: RefreshState,
        /// The successor.
        token: OpaqueToken,
    },
    /// A tolerated retry: answer the same successor, change nothing.
    Replay(OpaqueToken),
    /// A cookie younger than the grace: answer it with itself, change nothing.
    Keep,
    /// A rotated token came back: end the session.
    Reused,
    /// Superseded by a step-up: refuse, end nothing.
    Superseded,
    /// The predecessor's own lifetime is over: refuse, end nothing.
    Expired,
    /// Genuine and ahead of the record: the store went back. Refuse, end nothing.
    Ahead,
}

/// A presented refresh token, whose tag was checked, and how it came.
#[derive(Debug)]
pub struct Presented<'a> {
    /// The token.
    pub token: &'a OpaqueToken,
    /// How it came.
    pub channel: Channel,
    /// Hash of the `Idempotency-Key` with the presented generation.
    pub idempotency: Option<[u8; 32]>,
}

impl RefreshState {
    /// Decides a refresh at `now`; `idle_timeout` is the session's, each token's own lifetime.
    pub fn decide(
        &self,
        presented: &Presented<'_>,
        rules: RefreshRules,
        idle_timeout: Duration,
        now: Timestamp,
        nonce: [u8; 16],
        keys: &DerivedKeys,
    ) -> RefreshDecision {
        let token = presented.token;
        if token.lineage < self.lineage {
            return RefreshDecision::Superseded;
        }
        if token.lineage > self.lineage || token.generation > self.generation {
            return RefreshDecision::Ahead;
        }
        if token.generation == self.generation {
            return self.decide_current(presented, rules, now, nonce, keys);
        }
        #[cfg(feature = "mutants")]
        if active(Mutant::SuccessorMintedAnew) && token.generation + 1 == self.generation {
            let secret = successor_secret(keys, token, nonce);
            let minted = successor(token.sid, self.lineage, self.generation, secret);
            return RefreshDecision::Replay(minted);
        }
        match &self.predecessor {
            Some(predecessor) if token.generation + 1 == self.generation => {
                self.decide_predecessor(predecessor, presented, rules, idle_timeout, now, keys)
            }
            // Two or more behind: whoever holds it missed a rotation that somebody else made.
            Some(_) | None => RefreshDecision::Reused,
        }
    }

    fn decide_current(
        &self,
        presented: &Presented<'_>,
        rules: RefreshRules,
        now: Timestamp,
        nonce: [u8; 16],
        keys: &DerivedKeys,
    ) -> RefreshDecision {
        let token = presented.token;
        if !self.current.matches(token.secret.expose()) {
            // Ours by its tag, but of a generation that this record filled otherwise.
            return RefreshDecision::Ahead;
        }
        let is_young = now.since(self.rotated_at) < rules.grace;
        #[cfg(feature = "mutants")]
        let is_young = is_young && !active(Mutant::YoungCookieRotated);
        if presented.channel == Channel::Cookie && is_young {
            return RefreshDecision::Keep;
        }
        let Some(generation) = self.generation.checked_add(1) else {
            return RefreshDecision::Superseded;
        };
        let secret = successor_secret(keys, token, nonce);
        let state = Self {
            lineage: self.lineage,
            generation,
            current: TokenHash::of(secret.expose()),
            // A clock that stepped back must not make a token older than its predecessor.
            rotated_at: now.max(self.rotated_at),
            predecessor: Some(Predecessor {
                secret: self.current,
                issued_at: self.rotated_at,
                nonce,
                idempotency: presented.idempotency,
            }),
        };
        let token = successor(token.sid, self.lineage, generation, secret);
        RefreshDecision::Rotate { state, token }
    }

    fn decide_predecessor(
        &self,
        predecessor: &Predecessor,
        presented: &Presented<'_>,
        rules: RefreshRules,
        idle_timeout: Duration,
        now: Timestamp,
        keys: &DerivedKeys,
    ) -> RefreshDecision {
        let token = presented.token;
        if !predecessor.secret.matches(token.secret.expose()) {
            return RefreshDecision::Ahead;
        }
        let age = now.since(self.rotated_at);
        let same_attempt = match (&predecessor.idempotency, &presented.idempotency) {
            (Some(kept), Some(given)) => same_bytes(kept, given),
            (Some(_) | None, Some(_) | None) => false,
        };
        #[cfg(feature = "mutants")]
        let same_attempt = same_attempt && !active(Mutant::KeyIgnored);
        // The record is at this generation, so the successor was never used.
        let tolerated = age < rules.grace || (same_attempt && age < rules.retry_window);
        #[cfg(feature = "mutants")]
        let tolerated = tolerated || active(Mutant::PredecessorForever);
        if !tolerated {
            return RefreshDecision::Reused;
        }
        if now >= predecessor.issued_at.plus(idle_timeout) {
            return RefreshDecision::Expired;
        }
        let secret = successor_secret(keys, token, predecessor.nonce);
        #[cfg(feature = "mutants")]
        if active(Mutant::GraceFromLastRetry) {
            let state = Self { rotated_at: now, ..self.clone() };
            let token = successor(token.sid, self.lineage, self.generation, secret);
            return RefreshDecision::Rotate { state, token };
        }
        RefreshDecision::Replay(successor(token.sid, self.lineage, self.generation, secret))
    }
}

fn successor(sid: Sid, lineage: u32, generation: u32, secret: Secret<[u8; 32]>) -> OpaqueToken {
    OpaqueToken { kind: OpaqueKind::Refresh, sid, lineage, generation, secret }
}

fn successor_secret(keys: &DerivedKeys, token: &OpaqueToken, nonce: [u8; 16]) -> Secret<[u8; 32]> {
    keys.ratchet(&[
        b"cloakroom refresh 1",
        token.secret.expose(),
        token.sid.as_bytes(),
        &token.lineage.to_be_bytes(),
        &token.generation.to_be_bytes(),
        &nonce,
    ])
}
