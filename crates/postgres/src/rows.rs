//! Rows back into records, keys and entries.

use std::collections::BTreeMap;

use cloakroom_store::{Follow, Found, Key, Kind, Logged, StoreError, Versioned};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::batch::stored;
use crate::names;
use crate::time::tick;
use crate::{decode, decode_entry};

/// A record of a page: name, version, format, record.
pub(crate) fn named(row: &Row, kind: Kind) -> Result<(Key, Versioned), StoreError> {
    let name: &str = column(row, 0)?;
    let key = names::key_of(kind, name).ok_or_else(|| unreadable(name))?;
    let versioned = versioned(row, &key)?;
    Ok((key, versioned))
}

/// The records of a load, in the order of its keys: place, version, format, record.
pub(crate) fn placed(rows: &[Row], keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
    let mut found: Vec<Option<Versioned>> = keys.iter().map(|_| None).collect();
    for row in rows {
        let Some(place) = column::<Option<i64>>(row, 0)? else { continue };
        let place = usize::try_from(place - 1).map_err(|_| missing())?;
        if let (Some(slot), Some(key)) = (found.get_mut(place), keys.get(place)) {
            *slot = Some(versioned(row, key)?);
        }
    }
    Ok(found)
}

/// The same, and what they name: without a place, but with kind and name.
pub(crate) fn found(rows: &[Row], keys: &[Key], follow: Follow) -> Result<Found, StoreError> {
    let asked = placed(rows, keys)?;
    let mut brought = BTreeMap::new();
    for row in rows {
        if column::<Option<i64>>(row, 0)?.is_none() {
            brought.insert((column::<&str>(row, 4)?, column::<&str>(row, 5)?), row);
        }
    }
    let named = |key: Key| {
        let name = names::name(&key);
        let row = brought.get(&(names::kind_name(key.kind()), name.as_str())).copied();
        let found = row.map(|row| versioned(row, &key)).transpose()?;
        Ok((key, found))
    };
    let followed = follow.keys(keys, &asked).into_iter().map(named).collect::<Result<_, _>>()?;
    Ok(Found { asked, followed })
}

/// A record whose key is known: something, version, format, record.
pub(crate) fn versioned(row: &Row, key: &Key) -> Result<Versioned, StoreError> {
    let version = tick(column(row, 1)?);
    let bytes = stored(column(row, 2)?, column(row, 3)?);
    let record = decode(key.kind(), &bytes);
    let corrupt = |problem: String| StoreError::Corrupt { key: key.to_string(), problem };
    let record = record.map_err(|error| corrupt(error.to_string()))?;
    Ok(Versioned { version, record })
}

/// A key: kind, name.
pub(crate) fn key(row: &Row) -> Result<Key, StoreError> {
    let (kind, name): (&str, &str) = (column(row, 0)?, column(row, 1)?);
    names::key(kind, name).ok_or_else(|| unreadable(name))
}

/// An entry: tick, place, format, entry.
pub(crate) fn logged(row: &Row) -> Result<Logged, StoreError> {
    let cursor = tick(column(row, 0)?);
    let index = u16::try_from(column::<i32>(row, 1)?).unwrap_or(u16::MAX);
    let bytes = stored(column(row, 2)?, column(row, 3)?);
    let entry = decode_entry(&bytes).map_err(|error| StoreError::Corrupt {
        key: format!("log entry {}.{index}", cursor.0),
        problem: error.to_string(),
    })?;
    Ok(Logged { cursor, index, entry })
}

/// Entries of several logs, with the number of theirs as fifth column, counted from 1.
pub(crate) fn pages(rows: &[Row], count: usize) -> Result<Vec<Vec<Logged>>, StoreError> {
    let mut pages = vec![Vec::new(); count];
    for row in rows {
        let number = usize::try_from(column::<i64>(row, 4)? - 1).map_err(|_| missing())?;
        pages.get_mut(number).ok_or_else(missing)?.push(logged(row)?);
    }
    Ok(pages)
}

/// A column, which somebody may have changed under us.
pub(crate) fn column<'a, T: FromSql<'a>>(row: &'a Row, number: usize) -> Result<T, StoreError> {
    row.try_get(number).map_err(|_| StoreError::Corrupt {
        key: "a row".to_owned(),
        problem: format!("its column {number} has another type than expected"),
    })
}

/// The server answered less than was asked.
pub(crate) fn missing() -> StoreError {
    StoreError::Corrupt {
        key: "an answer".to_owned(),
        problem: "the server left a part of it out".to_owned(),
    }
}

fn unreadable(name: &str) -> StoreError {
    StoreError::Corrupt { key: name.to_owned(), problem: "no record is called so".to_owned() }
}
