//! How keys are spelled in the columns `kind` and `name`.
//!
//! Sids are in their one spelling, keyed hashes are base64url, all else is its own text. PostgreSQL
//! takes no NUL in a text, so `%` and NUL are escaped in texts that aren't known to have none; an
//! empty name stands for no record, and nothing sorts before all names.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::types::Subject;
use cloakroom_store::{Key, Kind};

/// What a kind is called in the column `kind`. Part of the schema: never reused, never changed.
pub(crate) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Session => "session",
        Kind::Data => "data",
        Kind::Subject => "subject",
        Kind::Index => "index",
        Kind::User => "user",
        Kind::Identifier => "identifier",
        Kind::Handle => "handle",
        Kind::DeniedToken => "denied_token",
        Kind::Throttle => "throttle",
        Kind::Partition => "partition",
        Kind::SigningKey => "signing_key",
        Kind::ApiKey => "api_key",
        Kind::StoreKey => "store_key",
        Kind::Settings => "settings",
    }
}

/// What a record is called in the column `name`.
pub(crate) fn name(key: &Key) -> String {
    match key {
        Key::Session(sid) | Key::Data(sid) | Key::ApiKey(sid) => sid.to_string(),
        Key::Subject(subject) | Key::Index(subject) | Key::User(subject) => {
            escape(subject.as_str()).into_owned()
        }
        Key::Identifier(hash) | Key::Handle(hash) | Key::Throttle(hash) => {
            URL_SAFE_NO_PAD.encode(hash)
        }
        Key::DeniedToken(text) | Key::SigningKey(text) => escape(text).into_owned(),
        Key::Partition | Key::StoreKey | Key::Settings => THE_ONLY.to_owned(),
    }
}

/// The key of a row.
pub(crate) fn key(kind: &str, name: &str) -> Option<Key> {
    let kind = Kind::ALL.into_iter().find(|known| kind_name(*known) == kind)?;
    key_of(kind, name)
}

/// The key of a row of a kind.
pub(crate) fn key_of(kind: Kind, name: &str) -> Option<Key> {
    let sid = || name.parse().ok();
    let subject = || Subject::parse(&unescape(name)?).ok();
    let text = || unescape(name).map(|text| Arc::from(text.as_ref()));
    let is_only = name == THE_ONLY;
    match kind {
        Kind::Session => sid().map(Key::Session),
        Kind::Data => sid().map(Key::Data),
        Kind::ApiKey => sid().map(Key::ApiKey),
        Kind::Subject => subject().map(Key::Subject),
        Kind::Index => subject().map(Key::Index),
        Kind::User => subject().map(Key::User),
        Kind::Identifier => hash(name).map(Key::Identifier),
        Kind::Handle => hash(name).map(Key::Handle),
        Kind::Throttle => hash(name).map(Key::Throttle),
        Kind::DeniedToken => text().map(Key::DeniedToken),
        Kind::SigningKey => text().map(Key::SigningKey),
        Kind::Partition => is_only.then_some(Key::Partition),
        Kind::StoreKey => is_only.then_some(Key::StoreKey),
        Kind::Settings => is_only.then_some(Key::Settings),
    }
}

/// Any text as one that PostgreSQL takes.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.is_empty() {
        return Cow::Borrowed(EMPTY);
    }
    if !text.contains(['%', '\0']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('%', "%25").replace('\0', "%00"))
}

fn unescape(name: &str) -> Option<Cow<'_, str>> {
    if name == EMPTY {
        return Some(Cow::Borrowed(""));
    }
    if !name.contains('%') {
        return Some(Cow::Borrowed(name));
    }
    let mut pieces = name.split('%');
    let mut text = pieces.next()?.to_owned();
    for piece in pieces {
        let (escaped, rest) = match (piece.strip_prefix("25"), piece.strip_prefix("00")) {
            (Some(rest), _) => ('%', rest),
            (None, Some(rest)) => ('\0', rest),
            (None, None) => return None,
        };
        text.push(escaped);
        text.push_str(rest);
    }
    Some(Cow::Owned(text))
}

fn hash(name: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(name).ok()?.try_into().ok()
}

/// The name of a record of which a partition has one.
const THE_ONLY: &str = "*";

/// The empty text; no other text is escaped to it.
const EMPTY: &str = "%";

#[cfg(test)]
mod tests {
    use cloakroom_core::types::{Partition, Sid, Timestamp};

    use super::*;

    #[test]
    fn a_name_survives_its_spelling() {
        let sid = Sid::new(Timestamp::from_secs(1), Partition(3), [7; 8]);
        let subject = Subject::parse("50 % \u{e9}}:{*").expect("a subject");
        let keys = [
            Key::Session(sid),
            Key::Data(sid),
            Key::Subject(subject.clone()),
            Key::Index(subject.clone()),
            Key::User(subject),
            Key::Identifier([0; 32]),
            Key::Handle([7; 32]),
            Key::DeniedToken("a\0b%00%".into()),
            Key::Throttle([255; 32]),
            Key::Partition,
            Key::SigningKey("".into()),
            Key::ApiKey(sid),
            Key::StoreKey,
            Key::Settings,
        ];
        assert_eq!(keys.len(), Kind::ALL.len());
        for expected in keys {
            let spelled = name(&expected);
            assert!(!spelled.is_empty() && !spelled.contains('\0'), "{spelled:?}");
            assert_eq!(key(kind_name(expected.kind()), &spelled), Some(expected));
        }
    }

    #[test]
    fn a_foreign_name_has_no_key() {
        let foreign = [
            ("nothing", "a"),
            ("session", "a"),
            ("subject", ""),
            ("subject", "%2"),
            ("denied_token", "a%41"),
            ("throttle", "AAAA"),
            ("partition", "1"),
        ];
        for (kind, name) in foreign {
            assert_eq!(key(kind, name), None, "{kind} {name}");
        }
    }
}
