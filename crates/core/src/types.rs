//! The small values everything else is made of: instants, ids, and secrets that stay secret.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use ulid::Ulid;
use zeroize::Zeroize;

use crate::limits::{SUBJECT_BYTES_MAX, TIMESTAMP_MS_MAX};

/// An instant: whole milliseconds since the Unix epoch, UTC.
///
/// Arithmetic saturates, so no input can make an instant overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// The last instant that is ever used (the year 9999).
    pub const MAX: Self = Self(TIMESTAMP_MS_MAX);

    /// An instant from milliseconds since the epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// An instant from whole seconds since the epoch, saturating.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant and a span later, at most [`Timestamp::MAX`].
    pub fn plus(self, span: Duration) -> Self {
        let ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(ms).min(TIMESTAMP_MS_MAX))
    }

    /// This instant and a span earlier.
    pub fn minus(self, span: Duration) -> Self {
        let ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(ms))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A shard of the store: everything about one subject lives in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u16);

impl Partition {
    /// Where keys, settings and API keys live; every node follows it.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A session's id: a ULID whose seventh and eighth byte are its partition.
///
/// Not a secret; it grants nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid([u8; 16]);

impl Sid {
    /// Makes an id for a session opened at `now` in `partition`.
    pub fn new(now: Timestamp, partition: Partition, entropy: [u8; 8]) -> Self {
        let ms = u64::try_from(now.as_millis()).unwrap_or(0).to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&ms[2..]);
        bytes[6..8].copy_from_slice(&partition.0.to_be_bytes());
        bytes[8..].copy_from_slice(&entropy);
        Self(bytes)
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The partition that the id names. A made-up id may name one that doesn't exist.
    pub const fn partition(&self) -> Partition {
        Partition(u16::from_be_bytes([self.0[6], self.0[7]]))
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        f.write_str(Ulid::from_bytes(self.0).array_to_str(&mut buffer))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no id of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed id")]
pub struct MalformedId;

impl FromStr for Sid {
    type Err = MalformedId;

    /// Takes the canonical form only: 26 characters of Crockford's base 32 in upper case.
    fn from_str(text: &str) -> Result<Self, MalformedId> {
        let sid = Self(Ulid::from_string(text).map_err(|_| MalformedId)?.to_bytes());
        // One session has one name: no lower case, no look-alike letters.
        if sid.to_string() == text { Ok(sid) } else { Err(MalformedId) }
    }
}

/// Whom a session is for: an opaque name that the sign-in chose.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// Takes 1 to 255 bytes of text without control characters.
    pub fn parse(text: &str) -> Result<Self, MalformedSubject> {
        if text.is_empty() {
            return Err(MalformedSubject("must not be empty"));
        }
        if text.len() > SUBJECT_BYTES_MAX {
            return Err(MalformedSubject("must be at most 255 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(MalformedSubject("must have no control characters"));
        }
        Ok(Self(text.into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text can't be a subject; says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedSubject(pub &'static str);

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A value that must not be printed, serialised or compared by accident.
///
/// Overwritten when dropped. `expose` is its only reader.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes charge of a secret value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; each call is a place to review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// SHA-256 of a credential's secret: what is kept of it at rest.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hashes a credential's secret.
    pub fn of(secret: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
        Self(hash)
    }

    /// A hash read back from a store.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for a store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `secret` hashes to this, in constant time.
    pub fn matches(&self, secret: &[u8]) -> bool {
        same_bytes(&self.0, &Self::of(secret).0)
    }

    /// Whether both are one hash, in constant time.
    pub fn same_as(&self, other: &Self) -> bool {
        same_bytes(&self.0, &other.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// Whether two byte strings are equal, in time that depends on their lengths alone.
pub fn same_bytes(left: &[u8], right: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(left, right).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_carries_its_partition_and_has_one_spelling() {
        let sid = Sid::new(Timestamp::from_secs(1_800_000_000), Partition(77), [9; 8]);
        let text = sid.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text.parse(), Ok(sid));
        assert_eq!(sid.partition(), Partition(77));
        assert_eq!(text.to_lowercase().parse::<Sid>(), Err(MalformedId));
        assert_eq!(format!("{text}0").parse::<Sid>(), Err(MalformedId));
        assert_eq!("".parse::<Sid>(), Err(MalformedId));
    }

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        assert_eq!(format!("{:?}", Secret::new([7u8; 32])), "Secret(..)");
        assert_eq!(format!("{:?}", TokenHash::of(b"x")), "TokenHash(..)");
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH.since(Timestamp::MAX), Duration::ZERO);
    }

    #[test]
    fn a_subject_is_bounded_text_without_control_characters() {
        assert!(Subject::parse("usr_1").is_ok());
        for bad in ["", "a\nb", "a\0b", &"x".repeat(256)] {
            assert!(Subject::parse(bad).is_err(), "{bad:?}");
        }
    }
}
