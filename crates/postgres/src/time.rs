//! Instants and ticks, as PostgreSQL's types have them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloakroom_core::types::Timestamp;
use cloakroom_store::Tick;

/// An instant as a `timestamptz` is given.
pub(crate) fn system_time(at: Timestamp) -> SystemTime {
    let ms = at.as_millis();
    let distance = Duration::from_millis(ms.unsigned_abs());
    // Both bounds lie within what the column holds and what the type holds.
    let moved = if ms < 0 {
        UNIX_EPOCH.checked_sub(distance.min(SPAN_MAX))
    } else {
        UNIX_EPOCH.checked_add(distance.min(SPAN_MAX))
    };
    moved.unwrap_or(UNIX_EPOCH)
}

/// An instant as a `timestamptz` is read, down to the millisecond.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let ms = match at.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    Timestamp::from_millis(ms)
}

/// A tick as a `bigint`. Those above it are of no commit of ours: the time is 48 bits wide, and
/// its upper half begins in the year 6429.
pub(crate) fn bigint(tick: Tick) -> i64 {
    i64::try_from(tick.0).unwrap_or(i64::MAX)
}

/// A `bigint` as a tick.
pub(crate) fn tick(number: i64) -> Tick {
    Tick(u64::try_from(number).unwrap_or(0))
}

/// About ten thousand years, which is more than a timestamp in use has.
const SPAN_MAX: Duration = Duration::from_secs(10_000 * 366 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_survives() {
        for ms in [i64::from(i32::MIN), -1, 0, 1, 1_795_500_000_123, Timestamp::MAX.as_millis()] {
            let at = Timestamp::from_millis(ms);
            assert_eq!(timestamp(system_time(at)), at, "{ms}");
        }
    }

    #[test]
    fn a_microsecond_short_of_it_is_the_millisecond_before() {
        let at = UNIX_EPOCH + Duration::from_micros(5_999);
        assert_eq!(timestamp(at), Timestamp::from_millis(5));
    }

    #[test]
    fn a_tick_survives() {
        for number in [0, 1, 1_795_500_000_123 << 16] {
            assert_eq!(tick(bigint(Tick(number))), Tick(number));
        }
        assert_eq!(bigint(Tick(u64::MAX)), i64::MAX);
    }
}
