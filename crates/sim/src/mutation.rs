//! Rules broken on purpose, one at a time: each must be noticed.

use std::sync::Arc;

use cloakroom_core::event::EventKind;
use cloakroom_core::types::Partition;
use cloakroom_store::{Batch, Change, Entry, Key, Review, Store, Version};

use crate::world::World;

/// A rule broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A touch is written whatever was written meanwhile.
    TouchUnconditional,
    /// A save of data is written whatever was written meanwhile.
    SaveUnconditional,
    /// An opening expects nothing of the epochs it read.
    OpeningExpectsNothing,
    /// Events are written after their change, by a commit of their own.
    EventOutsideCommit,
    /// Entries are written twice.
    EntriesTwice,
    /// A reuse that was found out is told nobody.
    ReuseUntold,
    /// A rotation from elsewhere is told nobody.
    RotationUntold,
    /// Commits are answered before they are durable, and a restart of the store loses them.
    AnsweredBeforeDurable,
    /// A failed read is taken for "there is none".
    FaultReadsAsAbsence,
    /// A partition whose log couldn't be read counts as read to its end.
    HeartbeatWithoutReading,
    /// One in the engine or its core.
    #[cfg(feature = "mutants")]
    Inner(cloakroom_core::mutants::Mutant),
}

impl Mutation {
    /// Those in the store that the simulation brings along.
    pub const OUTER: [Self; 10] = [
        Self::TouchUnconditional,
        Self::SaveUnconditional,
        Self::OpeningExpectsNothing,
        Self::EventOutsideCommit,
        Self::EntriesTwice,
        Self::ReuseUntold,
        Self::RotationUntold,
        Self::AnsweredBeforeDurable,
        Self::FaultReadsAsAbsence,
        Self::HeartbeatWithoutReading,
    ];

    /// All that this build can make.
    pub fn all() -> Vec<Self> {
        #[allow(unused_mut, reason = "grows where the engine's own are built in")]
        let mut all = Self::OUTER.to_vec();
        #[cfg(feature = "mutants")]
        all.extend(cloakroom_core::mutants::Mutant::ALL.map(Self::Inner));
        all
    }
}

/// Twists a commit as the mutation in force demands. What is given back is committed after it.
pub(crate) async fn twist(
    world: &Arc<World>,
    partition: Partition,
    batch: &mut Batch,
) -> Option<Batch> {
    match world.mutation? {
        Mutation::TouchUnconditional if is_touch(batch) => {
            expect_nothing(world, partition, batch).await
        }
        Mutation::SaveUnconditional if has_event(batch, EventKind::SessionDataChanged) => {
            expect_nothing(world, partition, batch).await;
        }
        Mutation::OpeningExpectsNothing if has_event(batch, EventKind::SessionOpened) => {
            batch.reads.clear();
        }
        Mutation::EventOutsideCommit => {
            let is_audit = |entry: &Entry| matches!(entry, Entry::Audit(_));
            let (events, feed) = std::mem::take(&mut batch.entries).into_iter().partition(is_audit);
            batch.entries = feed;
            let late = Batch { entries: events, ..Batch::default() };
            return (!late.entries.is_empty()).then_some(late);
        }
        Mutation::EntriesTwice => batch.entries.extend(batch.entries.clone()),
        Mutation::ReuseUntold => leave_out(batch, EventKind::SessionReuseDetected),
        Mutation::RotationUntold => leave_out(batch, EventKind::SessionRefreshed),
        _ => {}
    }
    None
}

fn has_event(batch: &Batch, kind: EventKind) -> bool {
    batch.entries.iter().any(|entry| matches!(entry, Entry::Audit(event) if event.kind == kind))
}

fn leave_out(batch: &mut Batch, kind: EventKind) {
    batch.entries.retain(|entry| !matches!(entry, Entry::Audit(event) if event.kind == kind));
}

/// Sessions put where they are filed, and nothing logged: uses written down.
fn is_touch(batch: &Batch) -> bool {
    let touches = |change: &Change| matches!(change, Change::Put { review: Review::Keep, .. });
    batch.entries.is_empty()
        && !batch.writes.is_empty()
        && batch.writes.iter().all(|w| matches!(w.key, Key::Session(_)) && touches(&w.change))
}

/// Expects whatever is there.
async fn expect_nothing(world: &Arc<World>, partition: Partition, batch: &mut Batch) {
    batch.reads.clear();
    let keys: Vec<Key> = batch.writes.iter().map(|write| write.key.clone()).collect();
    let Ok(found) = world.memory.load(partition, &keys).await else { return };
    for (write, found) in batch.writes.iter_mut().zip(found) {
        write.expected = found.map_or(Version::ZERO, |found| found.version);
    }
}
