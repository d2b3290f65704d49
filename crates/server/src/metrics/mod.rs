//! What a node counts, and `GET /metrics`.
//!
//! Counting is an addition to an atomic that was there since the start; names, labels and text come
//! about only when somebody asks. No label holds a subject, a session, an address or a path.

mod family;
mod gather;
mod process;
mod requests;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cloakroom_core::rate::Admission;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::config::Config;
use crate::http::{Asked, Door, RateNote};
use crate::problem::{Code, Problem};
use crate::site::Site;

pub use family::{Family, Kind, Measure, Snapshot, Value};
pub use gather::gather;
pub use requests::{Connected, DoorMeter, Seen};
pub use store::{Measured, StoreCalls};

/// The content type of OpenMetrics 1.0.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The last steps of section 5 of the HTTP contract, which can fail.
const CSRF_STEPS: [&str; 3] = ["2", "3", "4"];
/// What limits requests.
const LIMITS: [&str; 5] = ["session", "verify", "network", "login", "streams"];
/// How an API key was found.
const KEY_CHECKS: [&str; 4] = ["ok", "refused", "missing", "unavailable"];
/// What a node does without being asked.
const WORK: [&str; 8] = [
    "flush_touches",
    "flush_reports",
    "flush_key_uses",
    "tend_keys",
    "sweep",
    "sample_stats",
    "follow",
    "watch_store",
];

/// A counter for each of some names.
#[derive(Debug)]
struct Counted<const N: usize> {
    names: [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> Counted<N> {
    fn new(names: [&'static str; N]) -> Self {
        Self { names, counts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    fn add(&self, name: &str) {
        let place = self.names.iter().position(|known| *known == name);
        if let Some(count) = place.and_then(|place| self.counts.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn fill(&self, family: Family) -> Family {
        self.names.iter().zip(&self.counts).fold(family, |family, (name, count)| {
            family.count(&[name], count.load(Ordering::Relaxed))
        })
    }
}

/// What a node counts of its requests; the rest is the engine's.
#[derive(Debug)]
pub struct Metrics {
    public: Arc<DoorMeter>,
    admin: Arc<DoorMeter>,
    csrf: Counted<3>,
    limited: Counted<5>,
    keys: Counted<4>,
    failed_work: Counted<8>,
}

impl Metrics {
    /// Nothing counted yet, of the routes that this configuration has.
    pub fn new(config: &Config) -> Self {
        let most = config.server.max_connections;
        let public = crate::public::templates(config);
        Self {
            public: Arc::new(DoorMeter::new(Door::Public.name(), public, most)),
            admin: Arc::new(DoorMeter::new(Door::Admin.name(), crate::admin::templates(), most)),
            csrf: Counted::new(CSRF_STEPS),
            limited: Counted::new(LIMITS),
            keys: Counted::new(KEY_CHECKS),
            failed_work: Counted::new(WORK),
        }
    }

    /// What is counted of a listener.
    pub fn door(&self, door: Door) -> &Arc<DoorMeter> {
        match door {
            Door::Public => &self.public,
            Door::Admin => &self.admin,
        }
    }

    /// Counts a refused request by what refused it.
    pub(crate) fn refused(&self, problem: &Problem, asked: &Asked) {
        let code = problem.code();
        if code == Code::CsrfFailed {
            let step = problem.csrf_step().unwrap_or_default();
            self.csrf.add(&step.to_string());
        } else if code == Code::LoginThrottled {
            self.limited.add("login");
        } else if code == Code::RateLimited {
            let refuses = |note: &&RateNote| matches!(note.admission, Admission::Refused { .. });
            let note = asked.rate.get().filter(refuses);
            self.limited.add(note.map_or("streams", |note| note.name));
        }
    }

    /// Counts how an API key was found.
    pub(crate) fn key_checked<T>(&self, outcome: &Result<T, cloakroom::Error>) {
        self.keys.add(match outcome {
            Ok(_) => "ok",
            Err(cloakroom::Error::Refused(_)) => "refused",
            Err(cloakroom::Error::Unavailable(_) | cloakroom::Error::Overloaded) => "unavailable",
        });
    }

    /// Counts a request that should have had an API key and had none.
    pub(crate) fn key_missing(&self) {
        self.keys.add("missing");
    }

    /// Counts background work that failed.
    pub(crate) fn work_failed(&self, work: &str) {
        self.failed_work.add(work);
    }
}

/// All metrics, in the text format of OpenMetrics, which Prometheus reads.
pub(crate) async fn read(State(site): State<Arc<Site>>) -> Result<Response, Problem> {
    // The system's own files are read for it.
    let text = tokio::task::spawn_blocking(move || written(&site)).await;
    let text = text.ok().flatten();
    let text = text.ok_or_else(|| Problem::new(Code::Internal, "the metrics can't be written"))?;
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
    Ok(response)
}

fn written(site: &Site) -> Option<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(gather(site))));
    let mut text = String::new();
    text::encode(&mut text, &registry).ok()?;
    Some(text)
}
