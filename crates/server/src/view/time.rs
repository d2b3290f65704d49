//! Instants as both listeners write them.

use cloakroom_core::types::Timestamp;

/// An instant as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_rfc_3339_in_utc() {
        assert_eq!(rfc3339(Timestamp::from_millis(1_800_000_000_120)), "2027-01-15T08:00:00.120Z");
        assert_eq!(rfc3339(Timestamp::EPOCH), "1970-01-01T00:00:00.000Z");
        // The calendar that writes them down ends a day before ours.
        assert!(rfc3339(Timestamp::MAX).starts_with("9999-12-30T"));
    }
}
