//! From a batch to bytes, on the task that commits: all that needs no order among commits.
//!
//! Encoding and looking up the expected versions are most of the work of a commit. Done here they
//! run on as many cores as there are; the one writer only has to know what changed since. What was
//! loaded a moment before isn't even looked up: the load remembers what it saw.

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::record;
use cloakroom_store::{Batch, Change, Key, Log, Review, StoreError, Tick, Version, Write};

use crate::envelope::Envelope;
use crate::keys;
use crate::notes::Notes;
use crate::recent::KeyHash;
use crate::state::{State, open_envelope};

/// A commit whose expectations held in a state, and its bytes.
#[derive(Debug)]
pub(crate) struct Prepared {
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
    /// The last commit of the state that it was looked up in.
    pub(crate) seen: Tick,
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

/// Checks a batch against a state, or against what loads saw in earlier ones, and encodes it.
pub(crate) fn prepare(
    state: &State,
    notes: Option<&Notes>,
    partition: Partition,
    batch: &Batch,
    now: Timestamp,
) -> Result<Preparation, StoreError> {
    let mut prepared = Prepared {
        checks: Vec::with_capacity(batch.reads.len() + batch.writes.len()),
        values: Vec::with_capacity(batch.writes.len()),
        filings: Vec::new(),
        entries: encode_entries(partition, batch),
    };
    let look = Look { state, notes, partition, now };
    for (key, expected) in &batch.reads {
        let (stored, check) = look.up(key, *expected)?;
        if stored.version() != *expected {
            return Ok(Preparation::Conflict(key.clone()));
        }
        prepared.checks.push(check);
    }
    for write in &batch.writes {
        let (stored, check) = look.up(&write.key, write.expected)?;
        if stored.version() != write.expected {
            return Ok(Preparation::Conflict(write.key.clone()));
        }
        prepared.checks.push(check);
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

/// Where to look keys up.
struct Look<'a> {
    state: &'a State,
    notes: Option<&'a Notes>,
    partition: Partition,
    now: Timestamp,
}

impl Look<'_> {
    /// What is stored under a key, and how the writer will check that it is still so.
    fn up(&self, key: &Key, expected: Version) -> Result<(Stored, Check), StoreError> {
        let spelled = keys::record(self.partition, key);
        let hash = KeyHash::of(&spelled);
        // What was seen at another version tells nothing: it may be too old or too new.
        let known = self.notes.and_then(|notes| self.noted(notes, key, hash, &spelled));
        let known = known.map(|(envelope, seen)| (Stored { envelope, now: self.now }, seen));
        let (stored, seen) = match known.filter(|(stored, _)| stored.version() == expected) {
            Some(known) => known,
            None => (self.find(key, &spelled)?, self.state.tick),
        };
        let expires_at = stored.in_sight().and_then(|envelope| envelope.expires_at);
        Ok((stored, Check { key: spelled, hash, seen, expires_at }))
    }

    /// What was stored under a key in a state, and in which, as far as it is remembered.
    fn noted(
        &self,
        notes: &Notes,
        key: &Key,
        hash: KeyHash,
        spelled: &[u8],
    ) -> Option<(Option<Envelope>, Tick)> {
        if *key == Key::Partition {
            let known = notes.known.record(self.partition, self.state.tick, self.now);
            return known.map(|(envelope, _)| (Some(envelope), self.state.tick));
        }
        notes.seen.of(hash, spelled)
    }

    fn find(&self, key: &Key, spelled: &[u8]) -> Result<Stored, StoreError> {
        let bytes = self.state.stored(spelled)?;
        let opened = bytes.as_ref().map(|bytes| open_envelope(key, bytes)).transpose()?;
        Ok(Stored { envelope: opened.map(|(envelope, _)| envelope), now: self.now })
    }
}

impl Stored {
    /// What a load shows: an expired record is none, so that it can be replaced and removed.
    fn in_sight(&self) -> Option<Envelope> {
        self.envelope.filter(|envelope| !envelope.is_expired(self.now))
    }

    fn version(&self) -> Version {
        self.in_sight().map_or(Tick::ZERO, |envelope| envelope.version)
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
