//! Tells the server which sessions are in use here, in batches: it isn't asked about each request,
//! and idle timeouts and lists of devices are right all the same.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use cloakroom_core::types::Sid;
use quick_cache::sync::Cache;
use reqwest::Method;
use serde_json::{Value, json};

use crate::remote::Inner;

/// How often the uses are told.
const EVERY: Duration = Duration::from_secs(1);
/// Sessions in one telling.
const BATCH: usize = 1_000;
/// Uses that wait to be told, at most; beyond, the session's next use asks for room again.
const WAITING_MAX: usize = 100_000;
/// A session's use is told this often at most; more often only where its idle timeout is short.
pub(crate) const SLACK_MAX: Duration = Duration::from_secs(30);
/// Sessions of which is remembered when their use was told.
const NOTED: usize = 50_000;

const PATH: [&str; 4] = ["admin", "v1", "sessions", "touch"];

/// Uses on their way to the server.
pub(crate) struct Touches {
    noted: Cache<[u8; 16], Duration>,
    waiting: Mutex<BTreeSet<Sid>>,
}

impl Default for Touches {
    fn default() -> Self {
        Self { noted: Cache::new(NOTED), waiting: Mutex::default() }
    }
}

impl Touches {
    /// Notes a use at `now`, by the steady clock, unless one was noted less than `slack` ago.
    pub(crate) fn note(&self, sid: Sid, slack: Duration, now: Duration) {
        let noted = self.noted.get(sid.as_bytes());
        if noted.is_some_and(|at| now.saturating_sub(at) < slack.min(SLACK_MAX)) {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.len() < WAITING_MAX {
            waiting.insert(sid);
            drop(waiting);
            self.known(sid, now);
        }
    }

    /// Notes that the server knows of a use at `now`: it has just been asked about the session.
    pub(crate) fn known(&self, sid: Sid, now: Duration) {
        self.noted.insert(*sid.as_bytes(), now);
    }

    fn take(&self) -> Vec<Sid> {
        let mut waiting = self.waiting();
        let batch: Vec<Sid> = waiting.iter().copied().take(BATCH).collect();
        batch.iter().for_each(|sid| {
            waiting.remove(sid);
        });
        batch
    }

    /// They couldn't be told: they wait for the next time, as far as there is room.
    fn put_back(&self, batch: Vec<Sid>) {
        let mut waiting = self.waiting();
        let room = WAITING_MAX.saturating_sub(waiting.len());
        waiting.extend(batch.into_iter().take(room));
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeSet<Sid>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells until nobody holds the other end.
pub(crate) async fn tell(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        loop {
            let batch = inner.touches.take();
            if batch.is_empty() {
                break;
            }
            let sids: Vec<Value> = batch.iter().map(|sid| sid.to_string().into()).collect();
            let body = json!({ "sids": sids });
            let told = inner.asker.ask(Method::POST, &PATH, body.as_object()).await;
            if !told.is_ok_and(|reply| reply.status.is_success()) {
                inner.touches.put_back(batch);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cloakroom_core::types::{Partition, Timestamp};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn sid(n: u64) -> Sid {
        Sid::new(Timestamp::from_secs(1_800_000_000), Partition(1), n.to_be_bytes())
    }

    #[test]
    fn a_use_is_told_once_in_its_slack() {
        let (touches, at) = (Touches::default(), Duration::from_secs(100));
        touches.note(sid(1), HOUR, at);
        touches.note(sid(1), HOUR, at + Duration::from_secs(29));
        touches.note(sid(2), HOUR, at);
        assert_eq!(touches.take(), [sid(1), sid(2)]);
        touches.note(sid(1), HOUR, at + Duration::from_secs(29));
        assert_eq!(touches.take(), []);
        touches.note(sid(1), HOUR, at + SLACK_MAX);
        // A short idle timeout wants to hear of it earlier.
        touches.note(sid(2), Duration::from_secs(1), at + Duration::from_secs(2));
        assert_eq!(touches.take(), [sid(1), sid(2)]);
    }

    #[test]
    fn what_the_server_was_asked_about_needs_no_telling() {
        let (touches, at) = (Touches::default(), Duration::from_secs(100));
        touches.known(sid(1), at);
        touches.note(sid(1), HOUR, at + Duration::from_secs(1));
        assert_eq!(touches.take(), []);
    }

    #[test]
    fn uses_that_could_not_be_told_wait_and_are_bounded() {
        let touches = Touches::default();
        for n in 0..(WAITING_MAX as u64 + 5) {
            touches.note(sid(n), HOUR, Duration::from_secs(100));
        }
        let batch = touches.take();
        assert_eq!((batch.len(), touches.waiting().len()), (BATCH, WAITING_MAX - BATCH));
        touches.put_back(batch);
        assert_eq!(touches.waiting().len(), WAITING_MAX);
        touches.put_back(vec![sid(u64::MAX)]);
        assert_eq!(touches.waiting().len(), WAITING_MAX);
    }
}
