//! What is kept of a subject and of a partition: the epochs that end many sessions in one write.

use std::fmt;

use crate::limits::SUBJECT_BUMPS_KEPT;
use crate::session::{EndReason, Object};
use crate::types::{Subject, Timestamp, TokenHash};

/// One raise of a subject's epoch: every session of a lower epoch is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bump {
    /// The epoch after the raise.
    pub epoch: u64,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
}

/// What is kept of a subject. It outlives every session record that names it.
#[derive(Clone, Debug)]
pub struct SubjectState {
    /// Who.
    pub subject: Subject,
    /// Counts "sign out everywhere". Never goes back.
    pub epoch: u64,
    /// The last raises, oldest first; at most [`SUBJECT_BUMPS_KEPT`].
    pub bumps: Vec<Bump>,
    /// Claims of all the subject's sessions, unless a session has its own.
    pub claims: Object,
    /// Since when no session can be opened.
    pub disabled_at: Option<Timestamp>,
    /// When its password was last changed; a sign-in that checked an earlier one is void.
    pub password_changed_at: Option<Timestamp>,
}

impl SubjectState {
    /// A subject that was never heard of before.
    pub fn new(subject: Subject) -> Self {
        Self {
            subject,
            epoch: 0,
            bumps: Vec::new(),
            claims: Object::new(),
            disabled_at: None,
            password_changed_at: None,
        }
    }

    /// Ends every session opened so far.
    pub fn raise(&mut self, reason: EndReason, at: Timestamp) {
        self.raise_to(self.epoch + 1, reason, at);
    }

    /// Raises anew what a store that went back has lost: under the epoch that it had, or a later
    /// one where that was given to another raise meanwhile.
    pub fn raise_again(&mut self, lost: Bump) {
        self.raise_to(lost.epoch.max(self.epoch + 1), lost.reason, lost.at);
    }

    /// Whether it knows of the raise of that instant, or has forgotten it for later ones.
    pub fn was_raised_at(&self, at: Timestamp) -> bool {
        let is_forgotten =
            self.bumps.len() == SUBJECT_BUMPS_KEPT && self.bumps.iter().all(|bump| bump.at > at);
        is_forgotten || self.bumps.iter().any(|bump| bump.at == at)
    }

    fn raise_to(&mut self, epoch: u64, reason: EndReason, at: Timestamp) {
        self.epoch = epoch;
        self.bumps.push(Bump { epoch: self.epoch, at, reason });
        if self.bumps.len() > SUBJECT_BUMPS_KEPT {
            self.bumps.remove(0);
        }
    }

    /// The raise that ended a session opened under `epoch`, or the oldest one still known.
    pub fn bump_over(&self, epoch: u64) -> Option<Bump> {
        if epoch >= self.epoch {
            return None;
        }
        let forgotten = Bump {
            epoch: self.epoch,
            at: Timestamp::EPOCH,
            reason: EndReason::SignedOutEverywhere,
        };
        Some(self.bumps.iter().find(|bump| bump.epoch > epoch).copied().unwrap_or(forgotten))
    }
}

/// What is kept of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// Counts "end everything". Never goes back.
    pub epoch: u64,
    /// When it was last raised.
    pub bumped_at: Timestamp,
}

/// A user of the directory: the user's id is its subject.
#[derive(Clone)]
pub struct User {
    /// The user's id, which is the subject of the user's sessions.
    pub id: Subject,
    /// What the user types to sign in, as given.
    pub identifier: String,
    /// Keyed hash of the identifier's normal form: where its pointer is.
    pub identifier_hash: [u8; 32],
    /// The password's PHC string; none: can't sign in by password.
    pub password: Option<String>,
    /// When the user was created.
    pub created_at: Timestamp,
    /// When the password was last set.
    pub password_changed_at: Option<Timestamp>,
    /// What sets a new password once, in place of the current one.
    pub reset: Option<PasswordReset>,
}

/// A one-time token by which a password may be set, as it is kept.
#[derive(Clone, Copy, Debug)]
pub struct PasswordReset {
    /// Hash of its secret.
    pub secret: TokenHash,
    /// From when on it counts no more.
    pub until: Timestamp,
}

impl fmt::Debug for User {
    /// Leaves the password's hash out: what prints a user has no use for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("identifier", &self.identifier)
            .field("has_password", &self.password.is_some())
            .field("created_at", &self.created_at)
            .field("password_changed_at", &self.password_changed_at)
            .finish_non_exhaustive()
    }
}
