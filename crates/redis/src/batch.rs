//! From a batch to the call that applies it, and back from the answer.

use cloakroom_core::types::Partition;
use cloakroom_store::{
    Batch, Change, Commit, Committed, Durability, Key, Log, Review, StoreError, Write, record,
};
use redis::Value;

use crate::form;
use crate::keys::{self, Keys};
use crate::script::{COMMIT, Call};
use crate::value;

/// The call that applies a batch.
pub(crate) fn call(keys: &Keys, partition: Partition, channel: &str, batch: &Batch) -> Call {
    let reads = batch.reads.iter().map(|(key, _)| key);
    let written = batch.writes.iter().map(|write| &write.key);
    let mut named = vec![keys.tick(), keys.due(), keys.log(Log::Feed), keys.log(Log::Audit)];
    named.extend(reads.chain(written).map(|key| keys.record(key)));
    let mut kinds: Vec<_> = batch.writes.iter().map(|write| write.key.kind()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    // Scripts count from 1.
    let first_list = named.len() + 1;
    named.extend(kinds.iter().map(|kind| keys.list(*kind)));
    let (feed, audit) = (entries(batch, Log::Feed), entries(batch, Log::Audit));
    let mut call = Call::script(&COMMIT, &named);
    call.arg(batch.reads.len()).arg(batch.writes.len()).arg(feed.len()).arg(audit.len());
    call.arg(if batch.is_ending() { channel } else { "" }).arg(partition.0);
    for (_, version) in &batch.reads {
        call.arg(form::tick(*version));
    }
    for write in &batch.writes {
        call.arg(form::tick(write.expected));
    }
    for write in &batch.writes {
        let place = kinds.binary_search(&write.key.kind()).unwrap_or(0);
        push_write(&mut call, write, first_list + place);
    }
    for entry in feed.into_iter().chain(audit) {
        call.arg(entry);
    }
    call
}

fn push_write(call: &mut Call, write: &Write, list: usize) {
    let (name, filing) = (keys::name(&write.key), keys::filing(&write.key));
    match &write.change {
        Change::Put { record, review, expires_at } => {
            let review = match review {
                Review::Keep => "=".to_owned(),
                Review::At(at) => form::score(*at).to_string(),
                Review::Never => "-".to_owned(),
            };
            call.arg("P").arg(list).arg(name).arg(filing).arg(review);
            call.arg(form::expiry(*expires_at)).arg(form::time_to_live(*expires_at));
            call.arg(record::encode(record));
        }
        Change::Delete => {
            call.arg("D").arg(list).arg(name).arg(filing);
            call.arg("").arg("").arg("").arg("");
        }
    }
}

/// The stored forms of those for one log; a place among them has 16 bits.
fn entries(batch: &Batch, log: Log) -> Vec<Vec<u8>> {
    let of_log = batch.entries.iter().filter(|entry| entry.log() == log);
    of_log.take(usize::from(u16::MAX) + 1).map(record::encode_entry).collect()
}

/// What a commit came to; of one that took effect, what is promised about it.
pub(crate) fn outcome(
    reply: &Value,
    partition: Partition,
    batch: &Batch,
    durability: Durability,
) -> Result<Commit, StoreError> {
    let parts = value::items(reply);
    let word = parts.first().and_then(value::text);
    match (word, parts.get(1)) {
        (Some("done"), Some(tick)) => match value::bytes(tick).and_then(form::tick_of) {
            Some(tick) => Ok(Commit::Done(Committed { tick, durability })),
            None => Err(StoreError::OutcomeUnknown("the store named no tick".to_owned())),
        },
        (Some("conflict"), Some(number)) => conflict(batch, number),
        _ => Err(refusal(parts, partition)),
    }
}

/// The tick of a commit that took effect.
pub(crate) fn is_done(reply: &Value) -> bool {
    value::items(reply).first().and_then(value::text) == Some("done")
}

fn conflict(batch: &Batch, number: &Value) -> Result<Commit, StoreError> {
    let reads = batch.reads.iter().map(|(key, _)| key);
    let mut keys = reads.chain(batch.writes.iter().map(|write| &write.key));
    let number = value::number(number).and_then(|number| usize::try_from(number - 1).ok());
    let key: Option<&Key> = number.and_then(|number| keys.nth(number));
    let unknown = || StoreError::Unavailable("the store named a check that isn't there".to_owned());
    key.map(|key| Commit::Conflict(key.clone())).ok_or_else(unknown)
}

/// Why a script did nothing.
pub(crate) fn refusal(parts: &[Value], partition: Partition) -> StoreError {
    let part = |number: usize| parts.get(number).and_then(value::bytes).unwrap_or_default();
    let text = |number| String::from_utf8_lossy(part(number)).into_owned();
    match part(0) {
        b"type" => {
            StoreError::Corrupt { key: text(1), problem: format!("it is a Redis {}", text(2)) }
        }
        b"format" => {
            let problem = "it has a form that this release doesn't know".to_owned();
            StoreError::Corrupt { key: text(1), problem }
        }
        _ => StoreError::Corrupt {
            key: format!("partition {partition}"),
            problem: "a script gave an unexpected answer".to_owned(),
        },
    }
}
