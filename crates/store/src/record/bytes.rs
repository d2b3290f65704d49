//! The parts that stored shapes share: the format byte, byte strings, ids, names.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::event::EventKind;
use cloakroom_core::keys::{Algorithm, KeyState};
use cloakroom_core::session::{Delivery, EndReason};
use cloakroom_core::types::{Sid, Subject, Timestamp};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use super::{DecodeError, FORMAT, FORMAT_MIN};

/// Writes the format and a shape.
pub(super) fn write<T: Serialize>(shape: &T) -> Vec<u8> {
    let mut stored = vec![FORMAT];
    let written = serde_json::to_writer(&mut stored, shape);
    // Shapes have string keys only and a Vec takes every byte: nothing is left that could fail.
    assert!(written.is_ok(), "a stored shape has no JSON form");
    stored
}

/// Reads a shape behind its format.
pub(super) fn read<'a, T: Deserialize<'a>>(stored: &'a [u8]) -> Result<T, DecodeError> {
    let (format, json) = stored.split_first().ok_or(DecodeError::Empty)?;
    if !(FORMAT_MIN..=FORMAT).contains(format) {
        return Err(DecodeError::Format { found: *format });
    }
    // The parser's own message may quote what it read, and that may be anybody's claims.
    serde_json::from_slice(json).map_err(|error| DecodeError::Shape { at: error.column() })
}

/// Bytes of a fixed length, as base64url.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixed<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| {
            let mut bytes = [0; N];
            match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
                Ok(length) if length == N => Some(Self(bytes)),
                Ok(_) | Err(_) => None,
            }
        };
        deserializer.deserialize_str(Text(read))
    }
}

/// Bytes of any length, as base64url.
#[derive(Clone, Debug, Default)]
pub(super) struct Any(pub(super) Vec<u8>);

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(|text: &str| URL_SAFE_NO_PAD.decode(text).ok().map(Self)))
    }
}

/// A sid, in its one spelling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Id(pub(super) Sid);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(|text: &str| text.parse().ok().map(Self)))
    }
}

/// A subject's text.
#[derive(Clone, Debug)]
pub(super) struct Who(pub(super) Subject);

impl Serialize for Who {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(|text: &str| Subject::parse(text).ok().map(Self)))
    }
}

/// An instant, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ms(pub(super) Timestamp);

impl Serialize for Ms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0.as_millis())
    }
}

impl<'de> Deserialize<'de> for Ms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(|ms| Self(Timestamp::from_millis(ms)))
    }
}

/// A value that is stored by its stable name.
macro_rules! named {
    ($($(#[$doc:meta])* $shape:ident($held:ty): $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $shape(pub(super) $held);

        impl Serialize for $shape {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.$name())
            }
        }

        impl<'de> Deserialize<'de> for $shape {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(|text: &str| <$held>::parse(text).map(Self)))
            }
        }
    )*};
}

named! {
    /// Why a session ended.
    Reason(EndReason): as_str;
    /// How credentials travel.
    Way(Delivery): as_str;
    /// What happened.
    Happened(EventKind): as_str;
    /// A key's algorithm.
    Alg(Algorithm): name;
    /// A key's state.
    State(KeyState): name;
}

/// Reads a value from a string without keeping it.
struct Text<F>(F);

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string in its stored form")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom("not in its stored form"))
    }
}
