//! Who listens to streams: how many by each key, and whether the key is still one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cloakroom::ApiKeyIdentity;

use crate::problem::{Code, Problem};
use crate::site::Site;

/// Streams open at once by one key.
const STREAMS_PER_KEY_MAX: usize = 1024;
/// Streams open at once on one node.
const STREAMS_MAX: usize = 4096;
/// How long a look at a key counts; all its streams share it.
const LOOK: Duration = Duration::from_millis(500);

/// The streams that are open on this node.
#[derive(Debug, Default)]
pub struct Listeners(Mutex<HashMap<String, Keyed>>);

#[derive(Debug)]
struct Keyed {
    open: usize,
    looked_at: Instant,
    stands: bool,
}

/// One open stream, counted until this is dropped.
pub(super) struct Seat {
    site: Arc<Site>,
    identity: ApiKeyIdentity,
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Keyed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Counts one more stream of a key, within the bounds.
    pub(super) fn take(site: &Arc<Site>, identity: &ApiKeyIdentity) -> Result<Self, Problem> {
        let mut listeners = site.listeners.lock();
        let all: usize = listeners.values().map(|keyed| keyed.open).sum();
        let own = listeners.get(&identity.id).map_or(0, |keyed| keyed.open);
        if all >= STREAMS_MAX {
            return Err(Problem::new(Code::Overloaded, "too many streams are open"));
        }
        if own >= STREAMS_PER_KEY_MAX {
            return Err(Problem::rate_limited(Duration::from_secs(1)));
        }
        let fresh = || Keyed { open: 0, looked_at: Instant::now(), stands: true };
        listeners.entry(identity.id.clone()).or_insert_with(fresh).open += 1;
        drop(listeners);
        Ok(Self { site: Arc::clone(site), identity: identity.clone() })
    }

    /// Whether the stream's key is still one. Where nobody can tell it is what it was: then
    /// nothing new is told either.
    pub(super) async fn stands(&self) -> bool {
        let known = {
            let mut listeners = self.site.listeners.lock();
            let Some(keyed) = listeners.get_mut(&self.identity.id) else { return false };
            let is_recent = keyed.looked_at.elapsed() < LOOK;
            if !is_recent {
                keyed.looked_at = Instant::now();
            }
            (is_recent || !keyed.stands).then_some(keyed.stands)
        };
        if let Some(known) = known {
            return known;
        }
        let Ok(stands) = self.site.authority.api_key_stands(&self.identity).await else {
            return true;
        };
        if let Some(keyed) = self.site.listeners.lock().get_mut(&self.identity.id) {
            keyed.stands = stands;
        }
        stands
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut listeners = self.site.listeners.lock();
        if let Some(keyed) = listeners.get_mut(&self.identity.id) {
            keyed.open = keyed.open.saturating_sub(1);
            if keyed.open == 0 {
                listeners.remove(&self.identity.id);
            }
        }
    }
}
