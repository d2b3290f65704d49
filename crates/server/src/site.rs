//! What all handlers share: the authority, the configuration, and what this node counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloakroom::{Authority, Meters};
use cloakroom_core::cookie::{CookieConflict, CookieSettings, Cookies};
use cloakroom_core::csrf::CsrfRules;
use cloakroom_core::network::IpNet;
use cloakroom_core::origin::Scheme;
use cloakroom_core::policy::Policy;
use cloakroom_core::rate::Admission;
use cloakroom_embedded::DirLock;

use crate::admin::Listeners;
use crate::config::{Config, Policies};
use crate::forward::identity::IdentityHeaders;
use crate::http::{Ask, Asked, NetworkMeters, QuotaName, RateNote};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::store::{NodeStore, StoreWatch};
use crate::telemetry::Telemetry;

/// The quota that a request of a session counts for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meter {
    /// `limit.session`
    Session,
    /// `limit.verify`
    Verify,
}

/// One node: an authority and how it is reached.
pub struct Site {
    /// The authority.
    pub authority: Authority<NodeStore>,
    /// What the operator decided.
    pub config: Config,
    /// Makes and names our cookies.
    pub cookies: Cookies,
    /// What networks asked without being anybody.
    pub networks: NetworkMeters,
    /// What this node knows of its store.
    pub store_watch: Arc<StoreWatch>,
    /// What is counted of requests.
    pub metrics: Metrics,
    /// Where traces go.
    pub(crate) telemetry: Telemetry,
    /// Who listens to streams.
    pub(crate) listeners: Listeners,
    /// What gateways are told of a session.
    pub(crate) identities: IdentityHeaders,
    /// The path of forward authentication, without a policy.
    verify_path: String,
    draining: AtomicBool,
    /// Keeps the data directory this node's own, where no store in it does.
    _lock: Option<DirLock>,
}

impl Site {
    /// Puts an authority behind HTTP. `lock`: of the data directory, held as long as this is.
    pub fn new(
        authority: Authority<NodeStore>,
        config: Config,
        store_watch: Arc<StoreWatch>,
        lock: Option<DirLock>,
    ) -> Result<Self, CookieConflict> {
        let base_path = config.server.base_path.as_str().to_owned();
        let cookies = Cookies::new(CookieSettings {
            secure: config.cookie.secure,
            same_site: config.cookie.same_site,
            domain: config.cookie.domain.clone(),
            partitioned: config.cookie.partitioned,
            base_path: base_path.clone(),
        })?;
        Ok(Self {
            authority,
            cookies,
            metrics: Metrics::new(&config),
            telemetry: Telemetry::start(config.telemetry.otlp_endpoint.as_deref()),
            networks: NetworkMeters::new(config.limit.network),
            listeners: Listeners::default(),
            identities: IdentityHeaders::new(&config.forward_auth),
            verify_path: format!("{base_path}/verify"),
            draining: AtomicBool::new(false),
            store_watch,
            _lock: lock,
            config,
        })
    }

    /// Networks whose `X-Forwarded-*` count.
    pub fn trusted(&self) -> &[IpNet] {
        &self.config.server.trusted_proxies
    }

    /// Whether browsers reach this over TLS.
    pub fn is_https(&self) -> bool {
        self.config.server.origin.scheme() == Scheme::Https
    }

    /// From where cookie-authenticated requests are taken.
    pub fn csrf_rules(&self) -> CsrfRules<'_> {
        CsrfRules {
            own_origin: &self.config.server.origin,
            allowed_origins: &self.config.csrf.allowed_origins,
            mode: self.config.csrf.mode,
        }
    }

    /// The policy that a path of forward authentication names; the inner `None`: an unknown one.
    ///
    /// Compared byte for byte: another spelling of the path is another path.
    pub(crate) fn policy_of_path(&self, path: &str) -> Option<Option<&Policy>> {
        let rest = path.strip_prefix(self.verify_path.as_str())?;
        let policies = &self.config.forward_auth.policies;
        match rest.strip_prefix('/') {
            Some(name) => Some(policies.find(name)),
            None if rest.is_empty() => Some(policies.find(Policies::DEFAULT)),
            None => None,
        }
    }

    /// Counts a request of nobody for its network.
    pub fn admit_network(&self, ask: &Ask) -> Result<(), Problem> {
        self.admit_nobody(ask.asked(), ask.headers())
    }

    pub(crate) fn admit_nobody(
        &self,
        asked: &Asked,
        headers: &hyper::HeaderMap,
    ) -> Result<(), Problem> {
        let network = asked.network(headers, self.trusted());
        let admission = self.networks.admit(network, self.authority.now());
        note(asked, RateNote { quota: QuotaName::Network, admission })
    }

    /// Counts a request of a session.
    pub(crate) fn admit(
        &self,
        asked: &Asked,
        meters: &Meters,
        meter: Meter,
    ) -> Result<(), Problem> {
        let limits = &self.config.limit;
        let now = self.authority.now();
        let (quota, admission) = match meter {
            Meter::Session => (QuotaName::Session, meters.admit_session(&limits.session, now)),
            Meter::Verify => (QuotaName::Verify, meters.admit_verify(&limits.verify, now)),
        };
        note(asked, RateNote { quota, admission })
    }

    /// Whether a request would be admitted for a session; counts nothing.
    pub(crate) fn expect_room(&self, asked: &Asked, meters: &Meters) -> Result<(), Problem> {
        let admission = meters.expect_session(&self.config.limit.session, self.authority.now());
        match admission {
            Admission::Admitted { .. } => Ok(()),
            Admission::Refused { .. } => {
                note(asked, RateNote { quota: QuotaName::Session, admission })
            }
        }
    }

    /// Whether this node is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Says that this node is about to stop.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Notes what a quota said for the answer's headers, and refuses if it did.
fn note(asked: &Asked, note: RateNote) -> Result<(), Problem> {
    // A second quota of one request is noted only if it refuses, which the first did not.
    let refused = Problem::of_admission(note.admission);
    let _ = asked.rate.set(note);
    refused.map_or(Ok(()), Err)
}
