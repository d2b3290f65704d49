//! How much each network has asked without being anybody: counted per node, in bounded memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cloakroom_core::network::Network;
use cloakroom_core::rate::{Admission, Quota};
use cloakroom_core::types::Timestamp;
use quick_cache::sync::Cache;

/// Networks counted at once; beyond, some that didn't ask again start anew.
const NETWORKS_MAX: usize = 100_000;

/// The setting `limit.network` and what is counted under it.
#[derive(Debug)]
pub struct NetworkMeters {
    quota: Quota,
    states: Cache<Network, Arc<AtomicU64>>,
}

impl NetworkMeters {
    /// Nothing counted yet.
    pub fn new(quota: Quota) -> Self {
        // A count whose window is over is as good as none: nothing has to go away in time.
        Self { quota, states: Cache::new(NETWORKS_MAX) }
    }

    /// The quota.
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// How many networks are counted, and how many may be.
    pub fn room(&self) -> (usize, usize) {
        (self.states.len(), NETWORKS_MAX)
    }

    /// Counts one request of a network.
    pub fn admit(&self, network: Network, now: Timestamp) -> Admission {
        let fresh = || Ok::<_, Infallible>(Arc::new(AtomicU64::new(Quota::FRESH)));
        let state = match self.states.get_or_insert_with(&network, fresh) {
            Ok(state) => state,
            Err(never) => match never {},
        };
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

    #[test]
    fn a_network_starts_anew_when_its_window_is_over() {
        let meters = NetworkMeters::new("2/1m".parse().expect("a quota"));
        let admitted = |secs: i64| {
            let now = Timestamp::from_secs(1_800_000_000 + secs);
            let network = Network::of(std::net::IpAddr::from([192, 0, 2, 1]));
            matches!(meters.admit(network, now), Admission::Admitted { .. })
        };
        assert!(admitted(0) && admitted(0) && !admitted(0));
        assert!(admitted(120) && admitted(120) && !admitted(120));
    }

    #[test]
    fn however_many_networks_ask_no_more_than_so_many_are_remembered() {
        let meters = NetworkMeters::new("2/1m".parse().expect("a quota"));
        let now = Timestamp::from_secs(1_800_000_000);
        let most = u32::try_from(NETWORKS_MAX).expect("small");
        for number in 0..most + most / 2 {
            meters.admit(Network::of(std::net::IpAddr::from(number.to_be_bytes())), now);
        }
        let (remembered, room) = meters.room();
        assert!(remembered <= room && remembered > room / 2, "{remembered}");
    }
}
