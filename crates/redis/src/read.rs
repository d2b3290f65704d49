//! Answers of reading calls.

use std::collections::BTreeMap;

use cloakroom_core::types::Partition;
use cloakroom_store::{Follow, Found, Key, Kind, Logged, StoreError, Versioned, record};
use redis::Value;

use crate::batch::refusal;
use crate::form;
use crate::keys;
use crate::value;

/// Whether values can be read as they are: nothing of them expires, is foreign or was refused.
pub(crate) fn is_plain(values: &[Value]) -> bool {
    values.iter().all(|held| match value::bytes(held) {
        Some(bytes) => form::is_endless(bytes),
        None => *held == Value::Nil,
    })
}

/// The records of values, in the order of their keys.
pub(crate) fn plain(values: &[Value], keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
    keys.iter().zip(values).map(|(key, held)| versioned(key, Some(held))).collect()
}

/// The records of a load, in the order of its keys.
pub(crate) fn records(
    reply: &Value,
    partition: Partition,
    keys: &[Key],
) -> Result<Vec<Option<Versioned>>, StoreError> {
    let parts = value::items(reply);
    match parts.split_first() {
        Some((word, held)) if value::text(word) == Some("found") => {
            // A list may end early: trailing gaps are cut off.
            let held = held.iter().map(Some).chain(std::iter::repeat(None));
            keys.iter().zip(held).map(|(key, held)| versioned(key, held)).collect()
        }
        _ => Err(refusal(parts, partition)),
    }
}

/// The records of a load that follows; none where it has to be made in steps.
pub(crate) fn followed(
    reply: &Value,
    partition: Partition,
    keys: &[Key],
    follow: Follow,
) -> Result<Option<Found>, StoreError> {
    let parts = value::items(reply);
    match (parts.first().and_then(value::text), parts) {
        (Some("found"), [_, asked, followed]) => {
            let asked = plain(value::items(asked), keys)?;
            let found = asked.iter().flatten();
            // In the order in which the script came by them, doubles included.
            let names: Vec<Key> = found.flat_map(|found| follow.names(&found.record)).collect();
            if asked.len() != keys.len() || names.len() != value::items(followed).len() {
                return Ok(None);
            }
            let found = plain(value::items(followed), &names)?;
            let mut brought: BTreeMap<Key, _> = names.into_iter().zip(found).collect();
            let names = follow.keys(keys, &asked).into_iter();
            let followed = names.map(|name| {
                let found = brought.remove(&name).flatten();
                (name, found)
            });
            let followed = followed.collect();
            Ok(Some(Found { asked, followed }))
        }
        (Some("apart"), _) => Ok(None),
        (Some(_) | None, _) => Err(refusal(parts, partition)),
    }
}

fn versioned(key: &Key, held: Option<&Value>) -> Result<Option<Versioned>, StoreError> {
    match held.and_then(value::bytes) {
        Some(bytes) => open(key, bytes).map(Some),
        None => Ok(None),
    }
}

fn open(key: &Key, bytes: &[u8]) -> Result<Versioned, StoreError> {
    let corrupt = |problem| StoreError::Corrupt { key: key.to_string(), problem };
    let (version, body) = form::open(bytes)
        .ok_or_else(|| corrupt("it has a form that this release doesn't know".to_owned()))?;
    let record = record::decode(key.kind(), body).map_err(|error| corrupt(error.to_string()))?;
    Ok(Versioned { version, record })
}

/// The keys of a list of names.
pub(crate) fn names(
    reply: &Value,
    partition: Partition,
    kind: Kind,
) -> Result<Vec<Key>, StoreError> {
    let named = |name: &Value| value::text(name).and_then(|name| keys::named(kind, name));
    let names = value::items(reply).iter();
    names.map(|name| named(name).ok_or_else(|| foreign(partition, "a list"))).collect()
}

/// The keys of filings.
pub(crate) fn filings(reply: &Value, partition: Partition) -> Result<Vec<Key>, StoreError> {
    let filed = |member: &Value| value::bytes(member).and_then(keys::filed);
    let members = value::items(reply).iter();
    members.map(|member| filed(member).ok_or_else(|| foreign(partition, "the filings"))).collect()
}

/// The entries of a log.
pub(crate) fn entries(reply: &Value, partition: Partition) -> Result<Vec<Logged>, StoreError> {
    value::items(reply).iter().map(|item| logged(item, partition)).collect()
}

fn logged(item: &Value, partition: Partition) -> Result<Logged, StoreError> {
    let [id, fields] = value::items(item) else { return Err(foreign(partition, "a log")) };
    let place = value::bytes(id).and_then(form::stream_place);
    let (cursor, index) = place.ok_or_else(|| foreign(partition, "a log"))?;
    let body = value::items(fields).get(1).and_then(value::bytes).unwrap_or_default();
    let entry = record::decode_entry(body).map_err(|error| StoreError::Corrupt {
        key: format!("entry {} of partition {partition}", form::tick(cursor)),
        problem: error.to_string(),
    })?;
    Ok(Logged { cursor, index, entry })
}

fn foreign(partition: Partition, place: &str) -> StoreError {
    StoreError::Corrupt {
        key: format!("partition {partition}"),
        problem: format!("{place} holds what this release didn't put there"),
    }
}
