//! Rules that the simulation breaks on purpose, to prove that it would notice.
//!
//! Built only with the feature `mutants`, which nothing but the simulation's own turns on. At most
//! one is in force, in the thread that put it in force.

use std::cell::Cell;

/// A rule broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The grace counts from the last retry, so retries prolong it.
    GraceFromLastRetry,
    /// A tolerated retry is answered with a successor of its own.
    SuccessorMintedAnew,
    /// Any predecessor is tolerated, however old.
    PredecessorForever,
    /// A refresh cookie is rotated however young it is.
    YoungCookieRotated,
    /// A retry doesn't know its own `Idempotency-Key` again.
    KeyIgnored,
    /// An opening doesn't check what its ticket said.
    TicketUnchecked,
    /// An opening that meets a conflict goes on under the new epoch.
    ConflictAdoptsEpoch,
    /// A read that was overtaken by an ending fills the cache.
    FillAfterEnding,
    /// A node doesn't apply what it committed itself.
    CommitUnobserved,
    /// The sweeper removes what has under five seconds left.
    SweepEarly,
    /// Endings that a store lost are not done again.
    EndingsNotReapplied,
    /// A node doesn't notice that the store lost what the node itself committed last.
    OwnLossUnnoticed,
    /// Records of two instants are judged together.
    TwoInstants,
    /// Uses that couldn't be written down are forgotten.
    UsesForgotten,
    /// A denied access token counts for whoever saw it before.
    DenialUnread,
    /// A node forgets that it saw all of a partition end.
    FloorForgotten,
    /// A node trusts the keys it has, however long it didn't hear of them.
    KeysTrustedForever,
    /// A commit whose answer came late is taken to be in what was read of the log before.
    LateAnswerUnexpected,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::GraceFromLastRetry,
        Self::SuccessorMintedAnew,
        Self::PredecessorForever,
        Self::YoungCookieRotated,
        Self::KeyIgnored,
        Self::TicketUnchecked,
        Self::ConflictAdoptsEpoch,
        Self::FillAfterEnding,
        Self::CommitUnobserved,
        Self::SweepEarly,
        Self::EndingsNotReapplied,
        Self::OwnLossUnnoticed,
        Self::TwoInstants,
        Self::UsesForgotten,
        Self::DenialUnread,
        Self::FloorForgotten,
        Self::KeysTrustedForever,
        Self::LateAnswerUnexpected,
    ];
}

thread_local! {
    static IN_FORCE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Puts a mutant in force in this thread, or none.
pub fn activate(mutant: Option<Mutant>) {
    IN_FORCE.set(mutant);
}

/// Whether this one is in force.
pub fn active(mutant: Mutant) -> bool {
    IN_FORCE.get() == Some(mutant)
}
