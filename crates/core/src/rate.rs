//! Rate limits: GCRA as a pure function over one integer of state.
//!
//! The generic cell rate algorithm keeps the instant at which a full quota is back ("theoretical
//! arrival time"), here in microseconds since the Unix epoch. Each admission moves it by one
//! share of the window; a request is refused when it would move more than a quota ahead of now.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::{QUOTA_COUNT_MAX, QUOTA_WINDOW_MAX};
use crate::types::Timestamp;

/// How many in which time, as in `100/15m`.
///
/// So many may come at once; then one for each share of the window that passes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Invariant: 1 to `QUOTA_COUNT_MAX`.
    count: u32,
    /// Invariant: whole seconds, 1 s to `QUOTA_WINDOW_MAX`.
    window: Duration,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It goes through.
    Admitted {
        /// What to keep in place of the former state.
        state: u64,
        /// How many more would go through right now.
        remaining: u32,
        /// Until the whole quota is back.
        reset: Duration,
    },
    /// It doesn't; the state stays as it is.
    Refused {
        /// Until one goes through again.
        retry_after: Duration,
        /// Until the whole quota is back.
        reset: Duration,
    },
}

/// The text is no quota; says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedQuota(pub &'static str);

impl Quota {
    /// The state of whoever hasn't been seen.
    pub const FRESH: u64 = 0;

    /// A quota of `count` in `window`.
    pub fn new(count: u32, window: Duration) -> Result<Self, MalformedQuota> {
        if !(1..=QUOTA_COUNT_MAX).contains(&count) {
            return Err(MalformedQuota("the count must be 1 to 1000000"));
        }
        if window < Duration::from_secs(1) || window > QUOTA_WINDOW_MAX {
            return Err(MalformedQuota("the window must be 1s to 30d"));
        }
        Ok(Self { count, window: Duration::from_secs(window.as_secs()) })
    }

    /// How many go through at once.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The time in which a used-up quota is whole again.
    pub const fn window(self) -> Duration {
        self.window
    }

    /// Counts one request at `now`.
    pub fn admit(self, state: u64, now: Timestamp) -> Admission {
        let now = micros(now);
        let limit = now.saturating_add(self.span());
        // A state beyond the limit is from a clock that ran ahead: it means "used up", no more.
        let from = state.clamp(now, limit);
        let to = from.saturating_add(self.share());
        if to > limit {
            return Admission::Refused {
                retry_after: Duration::from_micros(to - limit),
                reset: Duration::from_micros(from - now),
            };
        }
        Admission::Admitted {
            state: to,
            remaining: u32::try_from((limit - to) / self.share()).unwrap_or(u32::MAX),
            reset: Duration::from_micros(to - now),
        }
    }

    /// The state as if one counted request had not come.
    pub fn give_back(self, state: u64) -> u64 {
        state.saturating_sub(self.share())
    }

    /// The instant from which a state says no more than [`Quota::FRESH`] and may be forgotten.
    pub fn forget_at(state: u64) -> Timestamp {
        Timestamp::from_millis(i64::try_from(state.div_ceil(1000)).unwrap_or(i64::MAX))
    }

    /// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    ///
    /// `name` is one of ours: lower-case letters, digits, hyphens.
    pub fn policy_header(self, name: &str) -> String {
        format!("\"{name}\";q={};w={}", self.count, self.window.as_secs())
    }

    /// The time that gives one request back, in microseconds. Rounded up, so that never more come
    /// back in a window than the quota has.
    fn share(self) -> u64 {
        micros_of(self.window).div_ceil(u64::from(self.count))
    }

    fn span(self) -> u64 {
        self.share() * u64::from(self.count)
    }
}

impl Admission {
    /// The value of `RateLimit` for the quota of this name.
    pub fn header(self, name: &str) -> String {
        let (remaining, reset) = match self {
            Self::Admitted { remaining, reset, .. } => (remaining, reset),
            Self::Refused { reset, .. } => (0, reset),
        };
        // Written in each answer, hence without the formatter.
        let mut text = String::with_capacity(name.len() + HEADER_CHARS_MAX);
        text.push('"');
        text.push_str(name);
        text.push_str("\";r=");
        push_decimal(&mut text, u64::from(remaining));
        text.push_str(";t=");
        push_decimal(&mut text, whole_seconds(reset));
        text
    }
}

/// Characters of a `RateLimit` value beside the quota's name, at most.
const HEADER_CHARS_MAX: usize = 2 + 3 + 10 + 3 + 20;

fn push_decimal(text: &mut String, number: u64) {
    if number >= 10 {
        push_decimal(text, number / 10);
    }
    // A digit is below ten, so it is one.
    text.push(char::from_digit(u32::try_from(number % 10).unwrap_or(0), 10).unwrap_or('0'));
}

/// A span in whole seconds, rounded up: for `Retry-After` (RFC 9110 section 10.2.3), where a second
/// too few would make an obedient client fail again.
pub const fn whole_seconds(span: Duration) -> u64 {
    if span.subsec_nanos() == 0 { span.as_secs() } else { span.as_secs().saturating_add(1) }
}

impl FromStr for Quota {
    type Err = MalformedQuota;

    fn from_str(text: &str) -> Result<Self, MalformedQuota> {
        let malformed = MalformedQuota("must be a count and a window, like 100/15m");
        let (count, window) = text.split_once('/').ok_or(malformed)?;
        let count = parse_digits(count).ok_or(malformed)?;
        let unit = window.chars().next_back().ok_or(malformed)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(MalformedQuota("the window's unit must be s, m, h or d")),
        };
        let number = window.strip_suffix(unit).and_then(parse_digits).ok_or(malformed)?;
        Self::new(count, Duration::from_secs(u64::from(number) * seconds))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.window.as_secs();
        let (number, unit) = match seconds {
            s if s % 86_400 == 0 => (s / 86_400, 'd'),
            s if s % 3600 == 0 => (s / 3600, 'h'),
            s if s % 60 == 0 => (s / 60, 'm'),
            s => (s, 's'),
        };
        write!(f, "{}/{number}{unit}", self.count)
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn micros(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0).saturating_mul(1000)
}

fn micros_of(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn parse_digits(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn quota(text: &str) -> Quota {
        text.parse().expect("well-formed")
    }

    /// How many of `tries` are admitted at `now`, and the state after.
    fn burst(quota: Quota, mut state: u64, now: Timestamp, tries: u32) -> (u32, u64) {
        let mut admitted = 0;
        for _ in 0..tries {
            if let Admission::Admitted { state: next, .. } = quota.admit(state, now) {
                state = next;
                admitted += 1;
            }
        }
        (admitted, state)
    }

    #[test]
    fn a_quota_is_a_count_and_a_window() {
        for text in
            ["100/15m", "3000/1m", "5/15m", "100/1h", "1/1s", "1000000/1s", "7/90s", "1/30d"]
        {
            assert_eq!(quota(text).to_string(), text);
        }
        for bad in [
            "",
            "/",
            "100",
            "100/",
            "/15m",
            "0/1m",
            "100/0s",
            "100/15",
            "100/15x",
            "100/m",
            "+1/1m",
            "1/+1m",
            "1/1mm",
            " 1/1m",
            "1/1m ",
            "1.5/1m",
            "1000001/1s",
            "1/31d",
            "99999999999/1m",
            "1/99999999999d",
            "1/1/1m",
            "１/1m",
        ] {
            assert!(bad.parse::<Quota>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn headers_say_what_is_left_and_when_all_is_back() {
        let quota = quota("100/15m");
        assert_eq!(quota.policy_header("session"), "\"session\";q=100;w=900");
        let first = quota.admit(Quota::FRESH, NOW);
        assert_eq!(first.header("session"), "\"session\";r=99;t=9");
        let (admitted, used_up) = burst(quota, Quota::FRESH, NOW, 200);
        assert_eq!(admitted, 100);
        let refused = quota.admit(used_up, NOW);
        assert_eq!(refused.header("session"), "\"session\";r=0;t=900");
        let (retry_after, reset) = (Duration::from_secs(9), Duration::from_secs(900));
        assert_eq!(refused, Admission::Refused { retry_after, reset });
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
    }

    #[test]
    fn what_is_given_back_can_be_used_again() {
        let quota = quota("5/15m");
        let (_, used_up) = burst(quota, Quota::FRESH, NOW, 5);
        assert_eq!(burst(quota, quota.give_back(used_up), NOW, 5).0, 1);
        assert_eq!(quota.give_back(Quota::FRESH), Quota::FRESH);
    }

    #[test]
    fn b7_a_clock_set_back_locks_nobody_out_for_long() {
        let quota = quota("5/15m");
        let (_, used_up) = burst(quota, Quota::FRESH, NOW.plus(Duration::from_secs(36_000)), 5);
        assert_eq!(burst(quota, used_up, NOW, 5).0, 0);
        match quota.admit(used_up, NOW) {
            Admission::Refused { retry_after, .. } => {
                assert_eq!(retry_after, Duration::from_secs(180));
            }
            Admission::Admitted { .. } => panic!("a used-up quota admitted"),
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_count_at_once(
            count in 1u32..200, window in 1u64..100_000, state: u64, now in 0i64..1 << 45,
        ) {
            let quota = Quota::new(count, Duration::from_secs(window)).expect("in bounds");
            let now = Timestamp::from_millis(now);
            prop_assert!(burst(quota, state, now, count + 50).0 <= count);
            prop_assert_eq!(burst(quota, Quota::FRESH, now, count + 50).0, count);
        }

        #[test]
        fn a_window_later_everything_is_back_and_no_more(
            count in 1u32..200, window in 1u64..100_000,
        ) {
            let quota = Quota::new(count, Duration::from_secs(window)).expect("in bounds");
            let (_, used_up) = burst(quota, Quota::FRESH, NOW, count);
            // The share is rounded up by less than a microsecond for each of the count.
            let later = NOW.plus(Duration::from_secs(window) + Duration::from_millis(1));
            prop_assert!(Quota::forget_at(used_up) <= later);
            prop_assert_eq!(burst(quota, used_up, later, count + 50).0, count);
        }

        #[test]
        fn over_any_time_no_more_than_the_burst_and_the_refill(
            count in 1u32..20,
            window in 1u64..100,
            steps in prop::collection::vec(0u64..5_000, 1..200),
        ) {
            let quota = Quota::new(count, Duration::from_secs(window)).expect("in bounds");
            let (mut state, mut now, mut admitted) = (Quota::FRESH, NOW, 0u64);
            for step in steps {
                now = now.plus(Duration::from_millis(step));
                let (more, next) = burst(quota, state, now, 1);
                (state, admitted) = (next, admitted + u64::from(more));
            }
            let refill = now.since(NOW).as_millis() * u128::from(count) / u128::from(window * 1000);
            prop_assert!(u128::from(admitted) <= u128::from(count) + refill);
        }

        #[test]
        fn k3_no_state_or_instant_overflows(state: u64, ms: i64, count in 1u32..=1_000_000) {
            let quota = Quota::new(count, Duration::from_secs(86_400)).expect("in bounds");
            let _ = quota.admit(state, Timestamp::from_millis(ms));
            let _ = quota.give_back(state);
            let _ = Quota::forget_at(state);
        }
    }
}
