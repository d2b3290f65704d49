//! Reading: one durable state of the store.

use cloakroom_core::types::{Partition, Sid, Timestamp};
use cloakroom_store::record;
use cloakroom_store::{Key, Kind, Log, Logged, StoreError, Tick, Versioned};
use fjall::{Iter, Keyspace, Readable as _, Slice, Snapshot};

use crate::envelope::Envelope;
use crate::floors::Look;
use crate::keys;
use crate::notes::Notes;

/// All that was durable at one moment, as it then was.
pub(crate) struct State {
    space: Keyspace,
    snapshot: Snapshot,
    /// The tick of the last commit in it.
    pub(crate) tick: Tick,
}

impl State {
    /// The state of a snapshot whose last commit is `tick`.
    pub(crate) const fn new(space: Keyspace, snapshot: Snapshot, tick: Tick) -> Self {
        Self { space, snapshot, tick }
    }

    /// What is stored under a key as spelled, in sight or not.
    pub(crate) fn stored(&self, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        self.snapshot.get(&self.space, key).map_err(|error| unreadable(&error))
    }

    /// The record of a key, where it is in sight at `now`; what is stored around it is noted.
    pub(crate) fn load(
        &self,
        partition: Partition,
        key: &Key,
        now: Timestamp,
        notes: &Notes,
    ) -> Result<Option<Versioned>, StoreError> {
        if let (Key::Partition, Some((_, known))) =
            (key, notes.known.record(partition, self.tick, now))
        {
            return Ok(Some(known));
        }
        let spelled = keys::record(partition, key);
        if let Key::Session(sid) = key
            && notes.known.is_new(partition, *sid, || self.newest_session(partition))?
        {
            notes.seen.note(spelled, None, self.tick);
            return Ok(None);
        }
        let Some(bytes) = self.stored(&spelled)? else {
            notes.seen.note(spelled, None, self.tick);
            return Ok(None);
        };
        let (envelope, _) = open_envelope(key, &bytes)?;
        let record = open_record(key, &bytes, now)?;
        match (key, &record) {
            (Key::Partition, Some(record)) => {
                notes.known.keep(partition, self.tick, envelope, record);
            }
            (_, _) => notes.seen.note(spelled, Some(envelope), self.tick),
        }
        Ok(record)
    }

    /// The greatest id of a session in a partition.
    fn newest_session(&self, partition: Partition) -> Result<Option<Sid>, StoreError> {
        let prefix = keys::kind_prefix(partition, Kind::Session);
        let end = keys::after_prefix(prefix.clone());
        let Some(last) = self.range(prefix, end).next_back() else { return Ok(None) };
        let name = last.key().map_err(|error| unreadable(&error))?;
        match keys::record_name(&name) {
            Some(Key::Session(sid)) => Ok(Some(sid)),
            Some(_) | None => Err(strange(&name)),
        }
    }

    /// At most `limit` records of a kind after `after`.
    pub(crate) fn page(
        &self,
        partition: Partition,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let prefix = keys::kind_prefix(partition, kind);
        let end = keys::after_prefix(prefix.clone());
        let start = match after {
            // The first key behind that one.
            Some(key) => [keys::record(partition, key), vec![0]].concat(),
            None => prefix,
        };
        let mut page = Vec::new();
        if end <= start {
            return Ok(page);
        }
        for item in self.range(start, end) {
            if page.len() >= limit {
                break;
            }
            let (name, bytes) = item.into_inner().map_err(|error| unreadable(&error))?;
            let key = keys::record_name(&name).ok_or_else(|| strange(&name))?;
            if let Some(record) = open_record(&key, &bytes, now)? {
                page.push((key, record));
            }
        }
        Ok(page)
    }

    /// At most `limit` keys that are filed before `before`, earliest first, and up to which instant
    /// nothing is filed.
    pub(crate) fn due(
        &self,
        partition: Partition,
        look: Look,
        before: Timestamp,
        limit: usize,
    ) -> Result<(Vec<Key>, Timestamp), StoreError> {
        // A clock that was set back asks for less than was looked through already.
        if before <= look.from {
            return Ok((Vec::new(), look.from));
        }
        let range = keys::due_between(partition, look.from, before);
        let (mut due, mut first) = (Vec::new(), None);
        for item in self.range(range.start, range.end).take(limit) {
            let name = item.key().map_err(|error| unreadable(&error))?;
            first = first.or(keys::due_place(&name));
            due.push(keys::due_name(&name).ok_or_else(|| strange(&name))?);
        }
        Ok((due, first.map_or(before, |(_, at)| at)))
    }

    /// Entries from `from` on; whole commits, until there are `limit` or more.
    pub(crate) fn log(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let start = keys::log_cursor(partition, log, from);
        take_commits(self.range(start, keys::log_end(partition, log)), limit)
    }

    /// Entries before `before`, latest first; whole commits, until there are `limit` or more.
    pub(crate) fn log_back(
        &self,
        partition: Partition,
        log: Log,
        before: Tick,
        limit: usize,
    ) -> Result<Vec<Logged>, StoreError> {
        let start = keys::log_cursor(partition, log, Tick::ZERO);
        let end = keys::log_cursor(partition, log, before);
        take_commits(self.range(start, end).rev(), limit)
    }

    /// The keys of at most `limit` entries from `from` on that are older than `before`.
    pub(crate) fn log_before(
        &self,
        partition: Partition,
        log: Log,
        from: Tick,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        if Tick::at(before) <= from {
            return Ok(Vec::new());
        }
        let start = keys::log_cursor(partition, log, from);
        let end = keys::log_cursor(partition, log, Tick::at(before));
        let name = |item: fjall::Guard| item.key().map(|key| key.to_vec());
        let names: Result<_, _> = self.range(start, end).take(limit).map(name).collect();
        names.map_err(|error| unreadable(&error))
    }

    fn range(&self, start: Vec<u8>, end: Vec<u8>) -> Iter {
        self.snapshot.range(&self.space, start..end)
    }
}

/// Decodes entries until `limit` is reached at the end of a commit.
fn take_commits(
    items: impl Iterator<Item = fjall::Guard>,
    limit: usize,
) -> Result<Vec<Logged>, StoreError> {
    let mut entries: Vec<Logged> = Vec::new();
    if limit == 0 {
        return Ok(entries);
    }
    for item in items {
        let (name, bytes) = item.into_inner().map_err(|error| unreadable(&error))?;
        let (cursor, index) = keys::log_place(&name).ok_or_else(|| strange(&name))?;
        let same_commit = entries.last().is_some_and(|last| last.cursor == cursor);
        if entries.len() >= limit && !same_commit {
            break;
        }
        let entry = record::decode_entry(&bytes).map_err(|error| StoreError::Corrupt {
            key: format!("log entry {}.{index}", cursor.0),
            problem: error.to_string(),
        })?;
        entries.push(Logged { cursor, index, entry });
    }
    Ok(entries)
}

fn open_record(key: &Key, bytes: &[u8], now: Timestamp) -> Result<Option<Versioned>, StoreError> {
    let (envelope, bytes) = open_envelope(key, bytes)?;
    if envelope.is_expired(now) {
        return Ok(None);
    }
    let record = record::decode(key.kind(), bytes).map_err(|error| corrupt(key, &error))?;
    Ok(Some(Versioned { version: envelope.version, record }))
}

/// What is stored around the record of a key.
pub(crate) fn open_envelope<'a>(
    key: &Key,
    bytes: &'a [u8],
) -> Result<(Envelope, &'a [u8]), StoreError> {
    Envelope::open(bytes).map_err(|error| corrupt(key, &error))
}

fn corrupt(key: &Key, problem: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt { key: key.to_string(), problem: problem.to_string() }
}

fn strange(name: &[u8]) -> StoreError {
    StoreError::Corrupt { key: format!("{name:?}"), problem: "it has no such name".to_owned() }
}

/// The library couldn't read: from the disk, or what it found there.
fn unreadable(error: &fjall::Error) -> StoreError {
    match error {
        fjall::Error::Storage(fjall::LsmError::Io(error)) | fjall::Error::Io(error) => {
            StoreError::Unavailable(format!("the disk can't be read: {error}"))
        }
        other => {
            StoreError::Corrupt { key: "in a table on disk".to_owned(), problem: other.to_string() }
        }
    }
}
