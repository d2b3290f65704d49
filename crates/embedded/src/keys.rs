//! How keys are spelled in the one ordered key space.
//!
//! The first byte is the table, the next two are the partition, so that everything a call of the
//! trait reads is one range. Numbers are big-endian: their order is that of the bytes.

use std::ops::Range;
use std::sync::Arc;

use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::{Key, Kind, Log, Tick};

/// Where the last drawn tick is kept; each write of the store rewrites it.
pub(crate) const LAST_TICK: &[u8] = &[TABLE_META, b't'];

/// Where a tick goes in the key of a log entry.
pub(crate) const LOG_TICK: Range<usize> = 3..11;

/// The key of a record.
pub(crate) fn record(partition: Partition, key: &Key) -> Vec<u8> {
    let mut bytes = table(TABLE_RECORDS, partition, 1 + 32);
    push_name(&mut bytes, key);
    bytes
}

/// What all records of a kind begin with.
pub(crate) fn kind_prefix(partition: Partition, kind: Kind) -> Vec<u8> {
    let mut bytes = table(TABLE_RECORDS, partition, 1);
    bytes.push(kind_byte(kind));
    bytes
}

/// The name within the key of a record.
pub(crate) fn record_name(bytes: &[u8]) -> Option<Key> {
    name(bytes.get(3..)?)
}

/// The partition in the key of a record that is worth knowing of, see `known`, and which session's
/// it is; none: it is the partition's own.
pub(crate) fn known_name(bytes: &[u8]) -> Option<(Partition, Option<Sid>)> {
    let (head, name) = bytes.split_at_checked(3)?;
    let (kind, rest) = name.split_first()?;
    if *head.first()? != TABLE_RECORDS {
        return None;
    }
    let partition = Partition(u16::from_be_bytes([*head.get(1)?, *head.get(2)?]));
    if *kind == kind_byte(Kind::Session) {
        let sid = rest.try_into().ok().map(Sid::from_bytes)?;
        return Some((partition, Some(sid)));
    }
    (*kind == kind_byte(Kind::Partition)).then_some((partition, None))
}

/// The key of a filing for review; it has no value.
pub(crate) fn due(partition: Partition, review_at: Timestamp, key: &Key) -> Vec<u8> {
    let mut bytes = table(TABLE_DUE, partition, 8 + 1 + 32);
    bytes.extend(ordered(review_at));
    push_name(&mut bytes, key);
    bytes
}

/// The filings of a partition between two instants, the second of which is outside.
pub(crate) fn due_between(
    partition: Partition,
    from: Timestamp,
    before: Timestamp,
) -> Range<Vec<u8>> {
    let at = |instant| {
        let mut bytes = table(TABLE_DUE, partition, 8);
        bytes.extend(ordered(instant));
        bytes
    };
    at(from)..at(before)
}

/// The partition and the instant in the key of a filing.
pub(crate) fn due_place(bytes: &[u8]) -> Option<(Partition, Timestamp)> {
    let partition = u16::from_be_bytes(bytes.get(1..3)?.try_into().ok()?);
    let instant = i64::from_be_bytes(bytes.get(3..11)?.try_into().ok()?);
    Some((Partition(partition), Timestamp::from_millis(instant ^ i64::MIN)))
}

/// The name within the key of a filing.
pub(crate) fn due_name(bytes: &[u8]) -> Option<Key> {
    name(bytes.get(11..)?)
}

/// The key of a log entry.
pub(crate) fn log(partition: Partition, log: Log, tick: Tick, index: u16) -> Vec<u8> {
    let mut bytes = log_cursor(partition, log, tick);
    bytes.extend(index.to_be_bytes());
    bytes
}

/// What the entries of a commit begin with; less than all of them.
pub(crate) fn log_cursor(partition: Partition, log: Log, tick: Tick) -> Vec<u8> {
    let mut bytes = table(log_table(log), partition, 8 + 2);
    bytes.extend(tick.0.to_be_bytes());
    bytes
}

/// The cursor and the index within the key of a log entry.
pub(crate) fn log_place(bytes: &[u8]) -> Option<(Tick, u16)> {
    let tick = bytes.get(LOG_TICK)?.try_into().ok()?;
    let index = bytes.get(LOG_TICK.end..)?.try_into().ok()?;
    Some((Tick(u64::from_be_bytes(tick)), u16::from_be_bytes(index)))
}

/// The first key after all that begin with `prefix`.
pub(crate) fn after_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            break;
        }
    }
    prefix
}

/// The end of the log of a partition: after each of its entries.
pub(crate) fn log_end(partition: Partition, log: Log) -> Vec<u8> {
    after_prefix(table(log_table(log), partition, 0))
}

fn table(table: u8, partition: Partition, more: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + more);
    bytes.push(table);
    bytes.extend(partition.0.to_be_bytes());
    bytes
}

const fn log_table(log: Log) -> u8 {
    match log {
        Log::Feed => TABLE_FEED,
        Log::Audit => TABLE_AUDIT,
    }
}

/// The eight bytes of an instant, ordered as instants are, those before the epoch too.
fn ordered(instant: Timestamp) -> [u8; 8] {
    (instant.as_millis() ^ i64::MIN).to_be_bytes()
}

fn push_name(bytes: &mut Vec<u8>, key: &Key) {
    bytes.push(kind_byte(key.kind()));
    match key {
        Key::Session(sid) | Key::Data(sid) | Key::ApiKey(sid) => bytes.extend(sid.as_bytes()),
        Key::Subject(subject) | Key::Index(subject) | Key::User(subject) => {
            bytes.extend(subject.as_str().as_bytes());
        }
        Key::Identifier(hash) | Key::Handle(hash) | Key::Throttle(hash) => bytes.extend(hash),
        Key::DeniedToken(text) | Key::SigningKey(text) => bytes.extend(text.as_bytes()),
        Key::Partition | Key::StoreKey | Key::Settings => {}
    }
}

fn name(bytes: &[u8]) -> Option<Key> {
    let (kind, rest) = bytes.split_first()?;
    let kind = Kind::ALL.into_iter().find(|known| kind_byte(*known) == *kind)?;
    let text = || std::str::from_utf8(rest).ok();
    let subject = || Subject::parse(text()?).ok();
    let sid = || rest.try_into().ok().map(Sid::from_bytes);
    let hash = || rest.try_into().ok();
    match kind {
        Kind::Session => sid().map(Key::Session),
        Kind::Data => sid().map(Key::Data),
        Kind::ApiKey => sid().map(Key::ApiKey),
        Kind::Subject => subject().map(Key::Subject),
        Kind::Index => subject().map(Key::Index),
        Kind::User => subject().map(Key::User),
        Kind::Identifier => hash().map(Key::Identifier),
        Kind::Handle => hash().map(Key::Handle),
        Kind::Throttle => hash().map(Key::Throttle),
        Kind::DeniedToken => text().map(|text| Key::DeniedToken(Arc::from(text))),
        Kind::SigningKey => text().map(|text| Key::SigningKey(Arc::from(text))),
        Kind::Partition => rest.is_empty().then_some(Key::Partition),
        Kind::StoreKey => rest.is_empty().then_some(Key::StoreKey),
        Kind::Settings => rest.is_empty().then_some(Key::Settings),
    }
}

/// The byte of a kind. Part of the format: never reused, never changed.
const fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Session => 1,
        Kind::Data => 2,
        Kind::Subject => 3,
        Kind::Index => 4,
        Kind::User => 5,
        Kind::Identifier => 6,
        Kind::DeniedToken => 7,
        Kind::Throttle => 8,
        Kind::Partition => 9,
        Kind::SigningKey => 10,
        Kind::ApiKey => 11,
        Kind::Handle => 14,
        Kind::StoreKey => 12,
        Kind::Settings => 13,
    }
}

const TABLE_META: u8 = 0;
const TABLE_RECORDS: u8 = 1;
const TABLE_DUE: u8 = 2;
const TABLE_FEED: u8 = 3;
const TABLE_AUDIT: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each_kind() -> Vec<Key> {
        let sid = Sid::new(Timestamp::from_secs(1), Partition(3), [7; 8]);
        let subject = Subject::parse("a}:{b*../é").expect("a subject");
        vec![
            Key::Session(sid),
            Key::Data(sid),
            Key::Subject(subject.clone()),
            Key::Index(subject.clone()),
            Key::User(subject),
            Key::Identifier([0; 32]),
            Key::Handle([1; 32]),
            Key::DeniedToken("j".into()),
            Key::Throttle([255; 32]),
            Key::Partition,
            Key::SigningKey("k".into()),
            Key::ApiKey(sid),
            Key::StoreKey,
            Key::Settings,
        ]
    }

    #[test]
    fn a_name_survives_its_spelling() {
        let keys = one_of_each_kind();
        assert_eq!(keys.len(), Kind::ALL.len());
        for key in keys {
            let partition = Partition(0xfffe);
            assert_eq!(record_name(&record(partition, &key)), Some(key.clone()));
            let filed = due(partition, Timestamp::from_millis(-5), &key);
            assert_eq!(due_name(&filed), Some(key.clone()));
            let known = match key {
                Key::Session(sid) => Some((partition, Some(sid))),
                Key::Partition => Some((partition, None)),
                _ => None,
            };
            assert_eq!(known_name(&record(partition, &key)), known);
        }
    }

    #[test]
    fn instants_are_filed_in_their_order() {
        let filed = |ms| due(Partition(1), Timestamp::from_millis(ms), &Key::Settings);
        assert!(filed(-1) < filed(0));
        assert!(filed(0) < filed(1));
        assert!(filed(255) < filed(256));
        let at = Timestamp::from_millis;
        let before = due_between(Partition(1), at(i64::MIN), at(1));
        assert!(before.contains(&filed(i64::MIN)) && before.contains(&filed(0)));
        assert!(!before.contains(&filed(1)));
        assert!(!due_between(Partition(1), at(1), at(2)).contains(&filed(0)));
        for ms in [i64::MIN, -1, 0, 7] {
            assert_eq!(due_place(&filed(ms)), Some((Partition(1), at(ms))));
        }
    }

    #[test]
    fn a_range_ends_with_its_partition() {
        let last = log(Partition(0xffff), Log::Feed, Tick(u64::MAX), u16::MAX);
        assert!(last < log_end(Partition(0xffff), Log::Feed));
        assert!(log_end(Partition(0xffff), Log::Feed) <= table(TABLE_AUDIT, Partition(0), 0));
        assert_eq!(after_prefix(vec![1, 255, 255]), [2]);
        assert_eq!(log_place(&last), Some((Tick(u64::MAX), u16::MAX)));
    }

    #[test]
    fn a_foreign_key_has_no_name() {
        for bytes in [&[][..], &[1, 0, 0], &[1, 0, 0, 99], &[1, 0, 0, 1, 5], &[1, 0, 0, 9, 1]] {
            assert_eq!(record_name(bytes), None, "{bytes:?}");
        }
    }
}
