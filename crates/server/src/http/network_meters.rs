//! How much each network has asked without being anybody: counted per node, in bounded memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cloakroom_core::network::Network;
use cloakroom_core::rate::{Admission, Quota};
use cloakroom_core::types::Timestamp;
use moka::sync::Cache;

/// Networks counted at once; beyond, those that asked least recently start anew.
const NETWORKS_MAX: u64 = 100_000;

/// The setting `limit.network` and what is counted under it.
#[derive(Debug)]
pub struct NetworkMeters {
    quota: Quota,
    states: Cache<Network, Arc<AtomicU64>>,
}

impl NetworkMeters {
    /// Nothing counted yet.
    pub fn new(quota: Quota) -> Self {
        let states =
            Cache::builder().max_capacity(NETWORKS_MAX).time_to_idle(quota.window()).build();
        Self { quota, states }
    }

    /// The quota.
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// How many networks are counted right now, about, and how many may be.
    pub fn room(&self) -> (u64, u64) {
        (self.states.entry_count(), NETWORKS_MAX)
    }

    /// Counts one request of a network.
    pub fn admit(&self, network: Network, now: Timestamp) -> Admission {
        let state = self.states.get_with(network, || Arc::new(AtomicU64::new(Quota::FRESH)));
        let mut seen = state.load(Ordering::Relaxed);
        loop {
            let admission = self.quota.admit(seen, now);
            let Admission::Admitted { state: next, .. } = admission else { return admission };
            match state.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return admission,
                Err(other) => seen = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j8_an_ipv6_network_is_one_however_many_addresses_it_uses() {
        let meters = NetworkMeters::new("2/1m".parse().expect("a quota"));
        let now = Timestamp::from_secs(1_800_000_000);
        let admitted = |address: &str| {
            let address: std::net::IpAddr = address.parse().expect("an address");
            matches!(meters.admit(Network::of(address), now), Admission::Admitted { .. })
        };
        assert!(admitted("2001:db8::1") && admitted("2001:db8::2"));
        assert!(!admitted("2001:db8::3"));
        assert!(admitted("2001:db8:0:1::1"));
    }
}
