//! How often each session has asked: one integer for each, in this process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cloakroom_core::rate::{Admission, Quota, whole_seconds};
use cloakroom_core::types::{Sid, Timestamp};
use http::HeaderValue;

use crate::error::{Error, RateNote, header_value};

/// Locks among which the sessions are spread.
const SHARDS: usize = 16;
/// Sessions counted in a shard before those that say nothing any more are dropped.
const SHARD_SESSIONS_MAX: usize = 4096;

/// The state of a quota for each session.
pub(crate) struct Meters {
    name: &'static str,
    /// The header that tells of the quota, the same in every answer.
    policy: HeaderValue,
    quota: Quota,
    shards: [Mutex<HashMap<Sid, u64>>; SHARDS],
}

impl Meters {
    pub(crate) fn new(name: &'static str, quota: Quota) -> Self {
        let policy = header_value(&quota.policy_header(name));
        Self { name, policy, quota, shards: Default::default() }
    }

    /// Counts one request, and says what there is to tell about it.
    pub(crate) fn admit(&self, sid: Sid, now: Timestamp) -> Result<RateNote, Error> {
        let shard = usize::from(sid.as_bytes()[15]) % SHARDS;
        let mut states = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if states.len() >= SHARD_SESSIONS_MAX {
            make_room(&mut states, now);
        }
        let counted = states.entry(sid).or_insert(Quota::FRESH);
        let admission = self.quota.admit(*counted, now);
        let retry_after_secs = match admission {
            Admission::Admitted { state, .. } => {
                *counted = state;
                0
            }
            Admission::Refused { retry_after, .. } => whole_seconds(retry_after).max(1),
        };
        drop(states);
        let note = RateNote {
            policy: self.policy.clone(),
            state: header_value(&admission.header(self.name)),
            retry_after_secs,
        };
        match admission {
            Admission::Admitted { .. } => Ok(note),
            Admission::Refused { .. } => Err(Error::Limited(note)),
        }
    }
}

/// Drops what says no more than "fresh"; if that is nothing, those that are nearest to it. Only
/// sessions with a genuine credential come here, so a stranger can't push others out.
fn make_room(states: &mut HashMap<Sid, u64>, now: Timestamp) {
    states.retain(|_, state| Quota::forget_at(*state) > now);
    if states.len() >= SHARD_SESSIONS_MAX {
        let mut by_state: Vec<u64> = states.values().copied().collect();
        by_state.sort_unstable();
        let median = by_state.get(by_state.len() / 2).copied().unwrap_or(0);
        states.retain(|_, state| *state > median);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cloakroom_core::types::Partition;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn a_session_has_its_quota_and_no_more() {
        let meters = Meters::new("session", Quota::new(2, Duration::from_secs(60)).expect("valid"));
        let sid = |n| Sid::new(NOW, Partition(1), [n; 8]);
        assert!(meters.admit(sid(1), NOW).is_ok());
        assert!(meters.admit(sid(1), NOW).is_ok());
        assert!(matches!(meters.admit(sid(1), NOW), Err(Error::Limited(_))));
        assert!(meters.admit(sid(2), NOW).is_ok());
        assert!(meters.admit(sid(1), NOW.plus(Duration::from_secs(61))).is_ok());
    }

    #[test]
    fn k9_the_sessions_that_are_counted_are_bounded() {
        let meters = Meters::new("session", Quota::new(2, Duration::from_secs(60)).expect("valid"));
        for n in 0..200_000u64 {
            let sid = Sid::new(NOW, Partition(1), n.to_be_bytes());
            assert!(meters.admit(sid, NOW).is_ok());
        }
        for shard in &meters.shards {
            assert!(shard.lock().expect("unpoisoned").len() <= SHARD_SESSIONS_MAX);
        }
    }
}
