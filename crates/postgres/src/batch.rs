//! A batch, as the arguments of the one call that commits it.

use std::net::IpAddr;
use std::time::SystemTime;

use cloakroom_core::types::Partition;
use cloakroom_store::record::{FORMAT, encode, encode_entry};
use cloakroom_store::{Batch, Change, Entry, Key, Review, StoreError, Version, Write};
use tokio_postgres::types::{ToSql, Type};

use crate::columns::{Columns, EntryColumns};
use crate::names::{kind_name, name};
use crate::time::{bigint, system_time};

/// The arguments of `commit_batch`, column by column.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    partition: i32,
    wait_ms: i32,
    format: i16,
    expected: Expected,
    writes: Writes,
    feed: Entries,
    audit: Entries,
}

/// What must not have moved: first what is only read, then what is written.
#[derive(Debug, Default)]
struct Expected {
    kinds: Vec<&'static str>,
    names: Vec<String>,
    versions: Vec<i64>,
}

/// What is written; all have one entry each, also where nothing is put.
#[derive(Debug, Default)]
struct Writes {
    is_put: Vec<bool>,
    kinds: Vec<&'static str>,
    names: Vec<String>,
    is_kept: Vec<bool>,
    review_at: Vec<Option<SystemTime>>,
    invisible_at: Vec<Option<SystemTime>>,
    subjects: Vec<Option<String>>,
    titles: Vec<Option<String>>,
    states: Vec<Option<&'static str>>,
    reasons: Vec<Option<&'static str>>,
    epochs: Vec<Option<i64>>,
    created_at: Vec<Option<SystemTime>>,
    last_seen_at: Vec<Option<SystemTime>>,
    ended_at: Vec<Option<SystemTime>>,
    expires_at: Vec<Option<SystemTime>>,
    client_ips: Vec<Option<IpAddr>>,
    records: Vec<Option<String>>,
}

/// What is logged, of one log.
#[derive(Debug, Default)]
struct Entries {
    kinds: Vec<&'static str>,
    at: Vec<SystemTime>,
    sids: Vec<Option<String>>,
    subjects: Vec<Option<String>>,
    entries: Vec<String>,
}

/// An argument and its type.
type Argument<'a> = (&'a (dyn ToSql + Sync), Type);

impl Arguments {
    /// Those of a batch.
    pub(crate) fn of(partition: Partition, batch: &Batch) -> Result<Self, StoreError> {
        let (partition, format) = (i32::from(partition.0), i16::from(FORMAT));
        let mut arguments = Self { partition, format, ..Self::default() };
        for (key, version) in expectations(batch) {
            arguments.expected.push(key, version);
        }
        for write in &batch.writes {
            arguments.writes.push(write)?;
        }
        for entry in &batch.entries {
            arguments.log(entry)?;
        }
        Ok(arguments)
    }

    fn log(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let stored = json(encode_entry(entry), || "a log entry".to_owned())?;
        match entry {
            Entry::Feed(feed) => self.feed.push(EntryColumns::of_feed(feed), None, stored),
            Entry::Audit(event) => {
                let at = system_time(event.at);
                self.audit.push(EntryColumns::of_event(event), Some(at), stored);
            }
        }
        Ok(())
    }

    /// How long the commit may wait for others of its partition, in milliseconds.
    pub(crate) fn wait_at_most(&mut self, wait_ms: i32) {
        self.wait_ms = wait_ms;
    }

    /// In the order in which `commit_batch` takes them.
    pub(crate) fn list(&self) -> Vec<Argument<'_>> {
        let Self { partition, wait_ms, format, expected, writes, feed, audit } = self;
        let mut list: Vec<Argument<'_>> = vec![
            (partition, Type::INT4),
            (wait_ms, Type::INT4),
            (&expected.kinds, Type::TEXT_ARRAY),
            (&expected.names, Type::TEXT_ARRAY),
            (&expected.versions, Type::INT8_ARRAY),
        ];
        writes.list(&mut list, format);
        list.extend([
            (&feed.kinds as _, Type::TEXT_ARRAY),
            (&feed.sids as _, Type::TEXT_ARRAY),
            (&feed.subjects as _, Type::TEXT_ARRAY),
            (&feed.entries as _, Type::TEXT_ARRAY),
            (&audit.kinds as _, Type::TEXT_ARRAY),
            (&audit.at as _, Type::TIMESTAMPTZ_ARRAY),
            (&audit.sids as _, Type::TEXT_ARRAY),
            (&audit.subjects as _, Type::TEXT_ARRAY),
            (&audit.entries as _, Type::TEXT_ARRAY),
        ]);
        list
    }
}

impl Expected {
    fn push(&mut self, key: &Key, version: Version) {
        self.kinds.push(kind_name(key.kind()));
        self.names.push(name(key));
        self.versions.push(bigint(version));
    }
}

impl Writes {
    fn push(&mut self, write: &Write) -> Result<(), StoreError> {
        self.kinds.push(kind_name(write.key.kind()));
        self.names.push(name(&write.key));
        let (columns, review, invisible_at, stored) = match &write.change {
            Change::Delete => (Columns::default(), Review::Never, None, None),
            Change::Put { record, review, expires_at } => {
                let stored = json(encode(record), || write.key.to_string())?;
                (Columns::of(record), *review, expires_at.map(system_time), Some(stored))
            }
        };
        let (is_kept, review_at) = match review {
            Review::Keep => (true, None),
            Review::At(at) => (false, Some(system_time(at))),
            Review::Never => (false, None),
        };
        self.is_put.push(stored.is_some());
        self.is_kept.push(is_kept);
        self.review_at.push(review_at);
        self.invisible_at.push(invisible_at);
        self.records.push(stored);
        self.push_columns(columns);
        Ok(())
    }

    fn push_columns(&mut self, columns: Columns) {
        self.subjects.push(columns.subject);
        self.titles.push(columns.title);
        self.states.push(columns.state);
        self.reasons.push(columns.reason);
        self.epochs.push(columns.epoch);
        self.created_at.push(columns.created_at);
        self.last_seen_at.push(columns.last_seen_at);
        self.ended_at.push(columns.ended_at);
        self.expires_at.push(columns.expires_at);
        self.client_ips.push(columns.client_ip);
    }

    fn list<'a>(&'a self, list: &mut Vec<Argument<'a>>, format: &'a i16) {
        list.extend([
            (&self.is_put as _, Type::BOOL_ARRAY),
            (&self.kinds as _, Type::TEXT_ARRAY),
            (&self.names as _, Type::TEXT_ARRAY),
            (&self.is_kept as _, Type::BOOL_ARRAY),
            (&self.review_at as _, Type::TIMESTAMPTZ_ARRAY),
            (&self.invisible_at as _, Type::TIMESTAMPTZ_ARRAY),
            (&self.subjects as _, Type::TEXT_ARRAY),
            (&self.titles as _, Type::TEXT_ARRAY),
            (&self.states as _, Type::TEXT_ARRAY),
            (&self.reasons as _, Type::TEXT_ARRAY),
            (&self.epochs as _, Type::INT8_ARRAY),
            (&self.created_at as _, Type::TIMESTAMPTZ_ARRAY),
            (&self.last_seen_at as _, Type::TIMESTAMPTZ_ARRAY),
            (&self.ended_at as _, Type::TIMESTAMPTZ_ARRAY),
            (&self.expires_at as _, Type::TIMESTAMPTZ_ARRAY),
            (&self.client_ips as _, Type::INET_ARRAY),
            (format as _, Type::INT2),
            (&self.records as _, Type::TEXT_ARRAY),
        ]);
    }
}

impl Entries {
    fn push(&mut self, columns: EntryColumns, at: Option<SystemTime>, stored: String) {
        self.kinds.push(columns.kind);
        self.sids.push(columns.sid);
        self.subjects.push(columns.subject);
        self.at.extend(at);
        self.entries.push(stored);
    }
}

/// Which key the failed expectation was of.
pub(crate) fn conflicting(batch: &Batch, place: i64) -> Option<Key> {
    let number = usize::try_from(place).ok()?.checked_sub(1)?;
    expectations(batch).nth(number).map(|(key, _)| key.clone())
}

/// All that a batch expects, in the order in which it is checked.
fn expectations(batch: &Batch) -> impl Iterator<Item = (&Key, Version)> {
    let reads = batch.reads.iter().map(|(key, version)| (key, *version));
    reads.chain(batch.writes.iter().map(|write| (&write.key, write.expected)))
}

/// The JSON of a stored form, whose format has a column of its own.
fn json(mut stored: Vec<u8>, what: impl Fn() -> String) -> Result<String, StoreError> {
    let corrupt = |problem: &str| StoreError::Corrupt { key: what(), problem: problem.to_owned() };
    if stored.first() != Some(&FORMAT) {
        return Err(corrupt("its stored form has no format"));
    }
    stored.remove(0);
    String::from_utf8(stored).map_err(|_| corrupt("its stored form is no text"))
}

/// A stored form from its two columns.
pub(crate) fn stored(format: i16, json: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + json.len());
    // What isn't a byte is no format either; the decoder says so.
    bytes.push(u8::try_from(format).unwrap_or(u8::MAX));
    bytes.extend(json.as_bytes());
    bytes
}
