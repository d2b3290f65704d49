//! How keys are spelled: `{<namespace>:<partition>}:` and then what it is, so that whoever looks
//! finds their way, and all of a partition lies in one slot.

use std::sync::Arc;

use cloakroom_core::types::{Partition, Sid, Subject};
use cloakroom_store::{Key, Kind, Log};

/// The keys of one partition.
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    /// Those of a partition of a namespace.
    pub(crate) fn of(namespace: &str, partition: Partition) -> Self {
        Self { prefix: format!("{{{namespace}:{partition}}}:") }
    }

    /// What all of them begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The last tick.
    pub(crate) fn tick(&self) -> Vec<u8> {
        self.named("tick")
    }

    /// What is filed for review: a sorted set by instant.
    pub(crate) fn due(&self) -> Vec<u8> {
        self.named("due")
    }

    /// A log: a stream.
    pub(crate) fn log(&self, log: Log) -> Vec<u8> {
        match log {
            Log::Feed => self.named("feed"),
            Log::Audit => self.named("audit"),
        }
    }

    /// The names of all records of a kind: a sorted set without scores.
    pub(crate) fn list(&self, kind: Kind) -> Vec<u8> {
        self.named(&format!("all:{}", word(kind)))
    }

    /// A record.
    pub(crate) fn record(&self, key: &Key) -> Vec<u8> {
        self.named(&filing(key))
    }

    /// What the store is laid out like; in partition 0.
    pub(crate) fn layout(&self) -> Vec<u8> {
        self.named("layout")
    }

    /// Something to try commands on.
    pub(crate) fn trial(&self, number: u8) -> Vec<u8> {
        self.named(&format!("trial:{number}"))
    }

    fn named(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.prefix).into_bytes()
    }
}

/// What a record is called among the filings: its kind and its name.
pub(crate) fn filing(key: &Key) -> String {
    format!("{}:{}", word(key.kind()), name(key))
}

/// The record of a filing.
pub(crate) fn filed(member: &[u8]) -> Option<Key> {
    let (kind, name) = std::str::from_utf8(member).ok()?.split_once(':')?;
    let kind = Kind::ALL.into_iter().find(|known| word(*known) == kind)?;
    named(kind, name)
}

/// What a record is called among those of its kind.
pub(crate) fn name(key: &Key) -> String {
    match key {
        Key::Session(sid) | Key::Data(sid) | Key::ApiKey(sid) => sid.to_string(),
        Key::Subject(subject) | Key::Index(subject) | Key::User(subject) => {
            subject.as_str().to_owned()
        }
        Key::Identifier(hash) | Key::Handle(hash) | Key::Throttle(hash) => hex(hash),
        Key::DeniedToken(text) | Key::SigningKey(text) => text.to_string(),
        Key::Partition | Key::StoreKey | Key::Settings => String::new(),
    }
}

/// The record of a kind that is called so.
pub(crate) fn named(kind: Kind, name: &str) -> Option<Key> {
    let sid = || name.parse::<Sid>().ok();
    let subject = || Subject::parse(name).ok();
    let single = |key: Key| name.is_empty().then_some(key);
    match kind {
        Kind::Session => sid().map(Key::Session),
        Kind::Data => sid().map(Key::Data),
        Kind::ApiKey => sid().map(Key::ApiKey),
        Kind::Subject => subject().map(Key::Subject),
        Kind::Index => subject().map(Key::Index),
        Kind::User => subject().map(Key::User),
        Kind::Identifier => unhex(name).map(Key::Identifier),
        Kind::Handle => unhex(name).map(Key::Handle),
        Kind::Throttle => unhex(name).map(Key::Throttle),
        Kind::DeniedToken => Some(Key::DeniedToken(Arc::from(name))),
        Kind::SigningKey => Some(Key::SigningKey(Arc::from(name))),
        Kind::Partition => single(Key::Partition),
        Kind::StoreKey => single(Key::StoreKey),
        Kind::Settings => single(Key::Settings),
    }
}

/// The word of a kind. Part of the layout: never reused, never changed.
const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Session => "session",
        Kind::Data => "data",
        Kind::Subject => "subject",
        Kind::Index => "index",
        Kind::User => "user",
        Kind::Identifier => "identifier",
        Kind::Handle => "handle",
        Kind::DeniedToken => "denied",
        Kind::Throttle => "throttle",
        Kind::Partition => "partition",
        Kind::SigningKey => "signing-key",
        Kind::ApiKey => "api-key",
        Kind::StoreKey => "store-key",
        Kind::Settings => "settings",
    }
}

fn hex(hash: &[u8; 32]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || text.contains(|c: char| c.is_ascii_uppercase()) {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = (digit(pair.first()?)? << 4) | digit(pair.get(1)?)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use cloakroom_core::types::Timestamp;

    use super::*;

    fn one_of_each_kind() -> Vec<Key> {
        let sid = Sid::new(Timestamp::from_secs(1), Partition(3), [7; 8]);
        let subject = Subject::parse("a}:{b*../é:").expect("a subject");
        vec![
            Key::Session(sid),
            Key::Data(sid),
            Key::Subject(subject.clone()),
            Key::Index(subject.clone()),
            Key::User(subject),
            Key::Identifier([0xa5; 32]),
            Key::Handle([0x5a; 32]),
            Key::DeniedToken("j:1".into()),
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
            assert_eq!(named(key.kind(), &name(&key)), Some(key.clone()));
            assert_eq!(filed(filing(&key).as_bytes()), Some(key));
        }
    }

    #[test]
    fn no_record_is_spelled_like_what_the_store_keeps_for_itself() {
        let keys = Keys::of("ns", Partition(7));
        let mut taken = vec![keys.tick(), keys.due(), keys.layout()];
        taken.extend([Log::Feed, Log::Audit].map(|log| keys.log(log)));
        taken.extend(Kind::ALL.map(|kind| keys.list(kind)));
        for kind in Kind::ALL {
            let start = format!("{{ns:7}}:{}:", word(kind)).into_bytes();
            assert!(!taken.iter().any(|key| key.starts_with(&start)), "{kind:?}");
        }
        assert!(taken.iter().all(|key| key.starts_with(b"{ns:7}:")));
    }

    #[test]
    fn a_foreign_name_is_none() {
        for member in [&b"session:x"[..], b"other:1", b"settings:x", b"\xff", b"throttle:AA"] {
            assert_eq!(filed(member), None, "{member:?}");
        }
    }
}
