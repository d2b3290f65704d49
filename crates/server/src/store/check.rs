//! Looking for what doesn't belong together in a store, and putting it right.
//!
//! It reads page by page and may be run beside nodes that write: what looks wrong is read again in
//! one state before it counts, and a repair expects the versions that it was decided on.

mod events;
mod feed;
mod filing;
mod records;

use std::time::Duration;

use cloakroom_core::session::{Lifecycle, Session};
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::{Batch, Commit, Key, Record, Review, Store, StoreError, Version, Versioned};

/// What is wrong with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A subject's list names a session that isn't there, or that has ended.
    IndexWithoutSession,
    /// A live session isn't in its subject's list: "sign out everywhere" counts without it, and
    /// nobody sees it.
    SessionWithoutIndex,
    /// A session names a subject that has no record: whether it is live can't be known.
    SessionWithoutSubject,
    /// Data of a session that isn't there.
    DataWithoutSession,
    /// A handle that leads to no session.
    HandleWithoutSession,
    /// A session that the clean-up never looks at.
    SessionNotFiled,
    /// The clean-up is to look at something that isn't there.
    FiledWithoutRecord,
    /// The audit log has no event of a session's opening.
    OpeningWithoutEvent,
    /// The audit log has no event of a session's ending.
    EndingWithoutEvent,
    /// The feed doesn't tell of what ended lately: followers may let it live on in their caches.
    EndingWithoutFeedEntry,
    /// A partition has no record of its own epoch: nothing in it can be judged.
    PartitionMissing,
}

impl Fault {
    /// Its name for machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IndexWithoutSession => "index_without_session",
            Self::SessionWithoutIndex => "session_without_index",
            Self::SessionWithoutSubject => "session_without_subject",
            Self::DataWithoutSession => "data_without_session",
            Self::HandleWithoutSession => "handle_without_session",
            Self::SessionNotFiled => "session_not_filed",
            Self::FiledWithoutRecord => "filed_without_record",
            Self::OpeningWithoutEvent => "opening_without_event",
            Self::EndingWithoutEvent => "ending_without_event",
            Self::EndingWithoutFeedEntry => "ending_without_feed_entry",
            Self::PartitionMissing => "partition_missing",
        }
    }

    /// What it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::IndexWithoutSession => "a subject's list names a session that isn't there",
            Self::SessionWithoutIndex => "a live session isn't in its subject's list",
            Self::SessionWithoutSubject => "a session's subject has no record",
            Self::DataWithoutSession => "data of a session that isn't there",
            Self::HandleWithoutSession => "a handle leads to no session",
            Self::SessionNotFiled => "the clean-up would never look at a session",
            Self::FiledWithoutRecord => "the clean-up would look at what isn't there",
            Self::OpeningWithoutEvent => "the audit log lacks a session's opening",
            Self::EndingWithoutEvent => "the audit log lacks a session's ending",
            Self::EndingWithoutFeedEntry => "followers were not told of what ended lately",
            Self::PartitionMissing => "a partition has no record of its own",
        }
    }
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub partition: Partition,
    /// What is wrong.
    pub fault: Fault,
    /// With what: the id of a session or the name of a subject.
    pub with: String,
    /// Whether it was put right.
    pub repaired: bool,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Sessions.
    pub sessions: u64,
    /// All other records.
    pub records: u64,
    /// Entries of the audit log.
    pub events: u64,
}

/// A look at a store, one partition after the other.
pub struct Check<'a, S> {
    store: &'a S,
    repairs: bool,
    /// How long access tokens are valid: so long a verifier must remember an ending.
    access_ttl: Duration,
    now: Timestamp,
    looked: Looked,
    found: Vec<Found>,
}

impl<'a, S: Store> Check<'a, S> {
    /// A check that also repairs where `repairs` says so.
    pub async fn new(
        store: &'a S,
        repairs: bool,
        access_ttl: Duration,
    ) -> Result<Self, StoreError> {
        let now = store.now().await?;
        Ok(Self { store, repairs, access_ttl, now, looked: Looked::default(), found: Vec::new() })
    }

    /// What was looked at so far.
    pub const fn looked(&self) -> &Looked {
        &self.looked
    }

    /// Everything that was found.
    pub fn into_found(self) -> Vec<Found> {
        self.found
    }

    /// Looks at one partition.
    pub async fn partition(&mut self, partition: Partition) -> Result<(), StoreError> {
        let state = self.store.load(partition, &[Key::Partition]).await?;
        if state.iter().flatten().next().is_none() {
            // Which epoch it had nobody knows, so nothing can be put in its place.
            self.note(partition, Fault::PartitionMissing, partition.to_string(), None).await?;
        }
        self.indices(partition).await?;
        let logged = self.logged(partition).await?;
        // What looks wrong is read again, and isn't counted again.
        self.looked.events += logged.entries;
        let told = self.told(partition).await?;
        let filed = self.filed(partition).await?;
        self.sessions(partition, (&logged, &told), filed.as_ref()).await?;
        self.told_of_others(partition, &told).await?;
        self.data(partition).await?;
        self.handles(partition).await
    }

    /// Notes a fault, and repairs it by this batch; a repair that meets another write is left to
    /// the next check.
    async fn note(
        &mut self,
        partition: Partition,
        fault: Fault,
        with: String,
        repair: Option<Batch>,
    ) -> Result<(), StoreError> {
        let repaired = match repair.filter(|_| self.repairs) {
            Some(batch) => {
                matches!(self.store.commit(partition, batch).await?, Commit::Done(_))
            }
            None => false,
        };
        self.found.push(Found { partition, fault, with, repaired });
        Ok(())
    }

    async fn load_one(
        &self,
        partition: Partition,
        key: &Key,
    ) -> Result<Option<Versioned>, StoreError> {
        Ok(self
            .store
            .load(partition, std::slice::from_ref(key))
            .await?
            .into_iter()
            .flatten()
            .next())
    }
}

fn session_of(found: Option<&Versioned>) -> Option<&Session> {
    match found.map(|found| &found.record) {
        Some(Record::Session(session)) => Some(session),
        _ => None,
    }
}

fn is_live(session: &Session) -> bool {
    matches!(session.lifecycle, Lifecycle::Live)
}

fn version_of(found: Option<&Versioned>) -> Version {
    found.map_or(Version::ZERO, |found| found.version)
}

/// When the clean-up looks at a session: a lower bound, it files what still lives anew.
fn review_of(session: &Session, now: Timestamp) -> Review {
    match session.lifecycle {
        Lifecycle::Live => Review::At(session.refused_from()),
        Lifecycle::Ended(_) => Review::At(now),
    }
}

/// Records read at a time.
const PAGE: usize = 128;

#[cfg(test)]
mod tests;
