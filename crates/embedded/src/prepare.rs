//! From a batch to bytes, on the task that commits: all that needs no order among commits.
//!
//! Encoding and looking up the expected versions are most of the work of a commit. Done here they
//! run on as many cores as there are; the one writer only has to know what changed since.

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::record;
use cloakroom_store::{Batch, Change, Key, Log, Review, StoreError, Tick, Version, Write};

use crate::envelope::Envelope;
use crate::keys;
use crate::recent::KeyHash;
use crate::state::{State, open_envelope};

/// A commit whose expectations held in a state, and its bytes.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The last commit of the state that it was checked against.
    pub(crate) seen: Tick,
    /// What it expects unchanged: first what it only reads, then what it writes.
    pub(crate) checks: Vec<Check>,
    /// The new values of the last of `checks`; none where it is removed.
    pub(crate) values: Vec<Option<Vec<u8>>>,
    /// Keys without values: set or removed.
    pub(crate) filings: Vec<(Vec<u8>, bool)>,
    /// Keys, without their tick, and values of log entries.
    pub(crate) entries: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A record that mustn't have changed.
#[derive(Debug)]
pub(crate) struct Check {
    /// Its key as spelled.
    pub(crate) key: Vec<u8>,
    /// Its key as the last changes are remembered.
    pub(crate) hash: KeyHash,
    /// When it goes out of sight, which changes it as well.
    pub(crate) expires_at: Option<Timestamp>,
}

/// What became of a batch.
pub(crate) enum Preparation {
    /// The writer may decide.
    Ready(Prepared),
    /// One of its expectations doesn't hold.
    Conflict(Key),
}

/// Checks a batch against a state and encodes it.
pub(crate) fn prepare(
    state: &State,
    partition: Partition,
    batch: &Batch,
    now: Timestamp,
) -> Result<Preparation, StoreError> {
    let mut prepared = Prepared {
        seen: state.tick,
        checks: Vec::with_capacity(batch.reads.len() + batch.writes.len()),
        values: Vec::with_capacity(batch.writes.len()),
        filings: Vec::new(),
        entries: encode_entries(partition, batch),
    };
    for (key, expected) in &batch.reads {
        let stored = Stored::find(state, partition, key, now)?;
        if stored.version() != *expected {
            return Ok(Preparation::Conflict(key.clone()));
        }
        prepared.checks.push(stored.check(partition, key));
    }
    for write in &batch.writes {
        let stored = Stored::find(state, partition, &write.key, now)?;
        if stored.version() != write.expected {
            return Ok(Preparation::Conflict(write.key.clone()));
        }
        prepared.checks.push(stored.check(partition, &write.key));
        prepared.add_write(partition, write, stored);
    }
    Ok(Preparation::Ready(prepared))
}

impl Prepared {
    fn add_write(&mut self, partition: Partition, write: &Write, stored: Stored) {
        let (value, review_at) = match &write.change {
            Change::Put { record, review, expires_at } => {
                let review_at = match review {
                    Review::Keep => stored.in_sight().and_then(|envelope| envelope.review_at),
                    Review::At(at) => Some(*at),
                    Review::Never => None,
                };
                let bytes = record::encode(record);
                (Some(Envelope::seal(review_at, *expires_at, &bytes)), review_at)
            }
            Change::Delete => (None, None),
        };
        self.values.push(value);
        let filed_at = stored.envelope.and_then(|envelope| envelope.review_at);
        if filed_at != review_at {
            let filing = |at| keys::due(partition, at, &write.key);
            self.filings.extend(filed_at.map(|at| (filing(at), false)));
            self.filings.extend(review_at.map(|at| (filing(at), true)));
        }
    }

    /// About how many bytes it writes.
    pub(crate) fn size_bytes(&self) -> usize {
        let records: usize = self.checks.iter().map(|check| check.key.len()).sum();
        let values: usize = self.values.iter().flatten().map(Vec::len).sum();
        let filings: usize = self.filings.iter().map(|(key, _)| key.len()).sum();
        let entries: usize = self.entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        records + values + filings + entries
    }
}

/// What is stored under a key at an instant.
#[derive(Clone, Copy)]
struct Stored {
    envelope: Option<Envelope>,
    now: Timestamp,
}

impl Stored {
    fn find(
        state: &State,
        partition: Partition,
        key: &Key,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let Some(bytes) = state.stored(partition, key)? else {
            return Ok(Self { envelope: None, now });
        };
        let (envelope, _) = open_envelope(key, &bytes)?;
        Ok(Self { envelope: Some(envelope), now })
    }

    /// What a load shows: an expired record is none, so that it can be replaced and removed.
    fn in_sight(&self) -> Option<Envelope> {
        self.envelope.filter(|envelope| !envelope.is_expired(self.now))
    }

    fn version(&self) -> Version {
        self.in_sight().map_or(Tick::ZERO, |envelope| envelope.version)
    }

    fn check(&self, partition: Partition, key: &Key) -> Check {
        let expires_at = self.in_sight().and_then(|envelope| envelope.expires_at);
        let key = keys::record(partition, key);
        Check { hash: KeyHash::of(&key), key, expires_at }
    }
}

/// Numbers the entries within their log.
fn encode_entries(partition: Partition, batch: &Batch) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut feed, mut audit) = (0, 0);
    let mut entries = Vec::with_capacity(batch.entries.len());
    for entry in &batch.entries {
        let next = match entry.log() {
            Log::Feed => &mut feed,
            Log::Audit => &mut audit,
        };
        let key = keys::log(partition, entry.log(), Tick::ZERO, *next);
        entries.push((key, record::encode_entry(entry)));
        *next = next.saturating_add(1);
    }
    entries
}
