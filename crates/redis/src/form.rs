//! The stored form of a record, and the texts of instants and ticks.
//!
//! A value is `1`, the version (16 hexadecimal digits), the instant of expiry (16 decimal digits
//! of milliseconds; nines: never), and then the record as `cloakroom_store::record` encodes it.
//! Scripts read the head, and so can people.

use cloakroom_core::types::Timestamp;
use cloakroom_store::{Tick, Version};

/// Before it stands nothing of a record.
const HEAD_BYTES: usize = 1 + 16 + 16;
const FORMAT: u8 = b'1';

/// No instant at all; later than all that are told apart.
const NEVER: &str = "9999999999999999";
/// From here on an instant counts as never: the scripts' numbers have 53 bits. It is in the year
/// 287,396.
const INSTANT_MS_MAX: i64 = 9_007_199_254_740_991;
/// How long what has expired is kept for the sweeper, before Redis removes it by itself.
const SAFETY_NET_MS: i64 = 24 * 60 * 60 * 1000;

/// The version and the record's bytes of a value; none where it is no value of ours.
pub(crate) fn open(value: &[u8]) -> Option<(Version, &[u8])> {
    let (head, body) = value.split_at_checked(HEAD_BYTES)?;
    let (format, rest) = head.split_first()?;
    let version = tick_of(rest.get(..16)?)?;
    (*format == FORMAT).then_some((version, body))
}

/// Whether a value needs no clock to be judged: it is ours and never expires.
pub(crate) fn is_endless(value: &[u8]) -> bool {
    value.first() == Some(&FORMAT) && value.get(17..HEAD_BYTES) == Some(NEVER.as_bytes())
}

/// The digits of an expiry.
pub(crate) fn expiry(at: Option<Timestamp>) -> String {
    finite(at).map_or_else(|| NEVER.to_owned(), |ms| format!("{ms:016}"))
}

/// When Redis removes a record by itself; never where it doesn't expire.
pub(crate) fn time_to_live(at: Option<Timestamp>) -> String {
    finite(at).map_or_else(String::new, |ms| (ms + SAFETY_NET_MS).to_string())
}

/// The score of a filing, or a bound of scores.
pub(crate) fn score(at: Timestamp) -> i64 {
    at.as_millis().clamp(-INSTANT_MS_MAX, INSTANT_MS_MAX)
}

fn finite(at: Option<Timestamp>) -> Option<i64> {
    let ms = at?.as_millis().max(0);
    (ms <= INSTANT_MS_MAX - SAFETY_NET_MS).then_some(ms)
}

/// The digits of a tick.
pub(crate) fn tick(tick: Tick) -> String {
    format!("{:016x}", tick.0)
}

/// The tick of its digits.
pub(crate) fn tick_of(digits: &[u8]) -> Option<Tick> {
    let is_plain = digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_plain)?;
    u64::from_str_radix(text, 16).ok().map(Tick)
}

/// The id of the first entry that a commit of this tick could have in a stream: milliseconds, and
/// the tick's count with 16 bits for the place within the commit.
pub(crate) fn stream_id(tick: Tick) -> String {
    format!("{}-{}", tick.0 >> 16, (tick.0 & 0xffff) << 16)
}

/// The tick and the place of an entry of a stream.
pub(crate) fn stream_place(id: &[u8]) -> Option<(Tick, u16)> {
    let (ms, sequence) = std::str::from_utf8(id).ok()?.split_once('-')?;
    let (ms, sequence) = (ms.parse::<u64>().ok()?, sequence.parse::<u64>().ok()?);
    let count = u16::try_from(sequence >> 16).ok()?;
    let index = u16::try_from(sequence & 0xffff).ok()?;
    (ms < 1 << 48).then_some((Tick((ms << 16) | u64::from(count)), index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_survives_its_digits() {
        for number in [0, 1, 0xffff, 0x0195_f3a2_b3c4_0001, u64::MAX] {
            let digits = tick(Tick(number));
            assert_eq!(tick_of(digits.as_bytes()), Some(Tick(number)));
            let id = stream_id(Tick(number));
            assert_eq!(stream_place(id.as_bytes()), Some((Tick(number), 0)));
        }
        for digits in ["", "1", "+000000000000001", "000000000000000g"] {
            assert_eq!(tick_of(digits.as_bytes()), None);
        }
        assert_eq!(stream_place(b"7-65537"), Some((Tick((7 << 16) | 1), 1)));
        assert_eq!(stream_place(b"7"), None);
    }

    #[test]
    fn instants_no_clock_shows_are_never_or_at_once() {
        assert_eq!(expiry(None), NEVER);
        let beyond = Some(Timestamp::from_millis(i64::MAX));
        assert_eq!((expiry(beyond).as_str(), time_to_live(beyond)), (NEVER, String::new()));
        assert_eq!(expiry(Some(Timestamp::MAX)), "0253402300799999");
        assert_eq!(expiry(Some(Timestamp::from_millis(-5))), "0000000000000000");
        assert_eq!(time_to_live(Some(Timestamp::from_millis(-5))), "86400000");
    }

    #[test]
    fn what_is_no_value_of_ours_is_not_opened() {
        let value = [b"1".as_slice(), b"000000000000000a", NEVER.as_bytes(), b"body"].concat();
        assert_eq!(open(&value), Some((Tick(10), &b"body"[..])));
        assert!(is_endless(&value) && !is_endless(&value[..HEAD_BYTES - 1]));
        let mortal = expiry(Some(Timestamp::MAX));
        assert!(!is_endless(&[b"1000000000000000a", mortal.as_bytes()].concat()));
        assert_eq!(open(&value[..HEAD_BYTES - 1]), None);
        assert_eq!(open(&[b"2", &value[1..]].concat()), None);
        assert_eq!(open(b""), None);
    }
}
