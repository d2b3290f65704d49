//! What is stored around a record: its version, where it is filed and when it goes out of sight.

use cloakroom_core::types::Timestamp;
use cloakroom_store::{Tick, Version};

/// The fixed part in front of a record's bytes.
///
/// Format 1: the format, then the version, the review and the expiry, each eight bytes big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The tick of the commit that wrote it.
    pub(crate) version: Version,
    /// Where it is filed for review.
    pub(crate) review_at: Option<Timestamp>,
    /// From when on it is invisible.
    pub(crate) expires_at: Option<Timestamp>,
}

/// The bytes are no envelope; says why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MalformedEnvelope {
    /// They end too early.
    #[error("it is cut short")]
    Short,
    /// A newer release wrote them.
    #[error("it has format {0}, this release reads up to {FORMAT}")]
    Format(u8),
}

impl Envelope {
    /// Bytes with the record behind; the version is still to be set.
    pub(crate) fn seal(
        review_at: Option<Timestamp>,
        expires_at: Option<Timestamp>,
        record: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH + record.len());
        bytes.push(FORMAT);
        bytes.extend(Tick::ZERO.0.to_be_bytes());
        bytes.extend(instant_bytes(review_at));
        bytes.extend(instant_bytes(expires_at));
        bytes.extend(record);
        bytes
    }

    /// Sets the version of sealed bytes: it is known last, when the commit is taken.
    pub(crate) fn set_version(sealed: &mut [u8], version: Version) {
        if let Some(place) = sealed.get_mut(1..9) {
            place.copy_from_slice(&version.0.to_be_bytes());
        }
    }

    /// The envelope and the record's bytes.
    pub(crate) fn open(bytes: &[u8]) -> Result<(Self, &[u8]), MalformedEnvelope> {
        let (format, rest) = bytes.split_first().ok_or(MalformedEnvelope::Short)?;
        if *format != FORMAT {
            return Err(MalformedEnvelope::Format(*format));
        }
        let (version, rest) = rest.split_first_chunk().ok_or(MalformedEnvelope::Short)?;
        let (review_at, rest) = rest.split_first_chunk().ok_or(MalformedEnvelope::Short)?;
        let (expires_at, rest) = rest.split_first_chunk().ok_or(MalformedEnvelope::Short)?;
        let envelope = Self {
            version: Tick(u64::from_be_bytes(*version)),
            review_at: instant(*review_at),
            expires_at: instant(*expires_at),
        };
        Ok((envelope, rest))
    }

    /// Whether it is out of sight at `now`.
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

fn instant_bytes(instant: Option<Timestamp>) -> [u8; 8] {
    instant.map_or(NEVER, Timestamp::as_millis).to_be_bytes()
}

fn instant(bytes: [u8; 8]) -> Option<Timestamp> {
    let ms = i64::from_be_bytes(bytes);
    (ms != NEVER).then(|| Timestamp::from_millis(ms))
}

const FORMAT: u8 = 1;
const LENGTH: usize = 1 + 3 * 8;

/// Stands for no instant; no clock ever shows it.
const NEVER: i64 = i64::MIN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_survives_its_bytes() {
        for at in [None, Some(Timestamp::EPOCH), Some(Timestamp::MAX)] {
            let mut bytes = Envelope::seal(at, at, b"record");
            Envelope::set_version(&mut bytes, Tick(7));
            let envelope = Envelope { version: Tick(7), review_at: at, expires_at: at };
            assert_eq!(Envelope::open(&bytes), Ok((envelope, &b"record"[..])));
        }
    }

    #[test]
    fn it_expires_at_its_instant() {
        let at = Timestamp::from_millis(5);
        let envelope = Envelope { version: Tick(1), review_at: None, expires_at: Some(at) };
        assert!(!envelope.is_expired(Timestamp::from_millis(4)));
        assert!(envelope.is_expired(at));
    }

    #[test]
    fn what_is_cut_or_newer_is_refused() {
        let bytes = Envelope::seal(None, None, b"");
        for length in 0..bytes.len() {
            let cut = bytes.get(..length).unwrap_or_default();
            assert_eq!(Envelope::open(cut), Err(MalformedEnvelope::Short));
        }
        assert_eq!(Envelope::open(&[2; 40]), Err(MalformedEnvelope::Format(2)));
    }
}
