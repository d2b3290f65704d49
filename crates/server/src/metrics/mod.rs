//! What a node counts, and `GET /metrics`.
//!
//! Counting is an addition to an atomic that was there since the start; names, labels and text come
//! about only when somebody asks. No label holds a subject, a session, an address or a path.

mod counted;
mod family;
mod gather;
mod process;
mod requests;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cloakroom_core::csrf::CsrfRefusal;
use cloakroom_core::rate::Admission;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::config::Config;
use crate::http::{Asked, Door, QuotaName, RateNote};
use crate::problem::{Code, Problem};
use crate::serve::Chore;
use crate::site::Site;

use counted::Counted;

pub(crate) use counted::{Countable, counted};
pub use family::{Family, Kind, Measure, Snapshot, Value};
pub use gather::gather;
pub use requests::{Connected, DoorMeter, Seen};

/// The content type of OpenMetrics 1.0.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
counted! {
    /// The steps of section 5 of the HTTP contract that can fail.
    enum CsrfStep {
        /// Where the request came from isn't told, or is another site.
        Site = "2",
        /// It came from another origin.
        Origin = "3",
        /// Its token is missing or another session's.
        Token = "4",
    }
}

impl From<CsrfRefusal> for CsrfStep {
    fn from(refusal: CsrfRefusal) -> Self {
        match refusal {
            CsrfRefusal::RepeatedHeader | CsrfRefusal::NoProvenance | CsrfRefusal::FetchSite => {
                Self::Site
            }
            CsrfRefusal::Origin | CsrfRefusal::Referer => Self::Origin,
            CsrfRefusal::TokenMissing | CsrfRefusal::TokenInvalid => Self::Token,
        }
    }
}

counted! {
    /// What limits requests.
    enum Limit {
        /// `limit.session`.
        Session = "session",
        /// `limit.verify`.
        Verify = "verify",
        /// `limit.network`.
        Network = "network",
        /// Failed sign-ins.
        Login = "login",
        /// Streams at once.
        Streams = "streams",
    }
}

impl From<QuotaName> for Limit {
    fn from(name: QuotaName) -> Self {
        match name {
            QuotaName::Session => Self::Session,
            QuotaName::Verify => Self::Verify,
            QuotaName::Network => Self::Network,
        }
    }
}

counted! {
    /// How an API key was found.
    enum KeyCheck {
        /// It stands.
        Ok = "ok",
        /// It is none, or is over.
        Refused = "refused",
        /// The request had none.
        Missing = "missing",
        /// Nobody can tell.
        Unavailable = "unavailable",
    }
}

/// What a node counts of its requests; the rest is the engine's.
#[derive(Debug)]
pub struct Metrics {
    public: Arc<DoorMeter>,
    admin: Arc<DoorMeter>,
    csrf: Counted<CsrfStep>,
    limited: Counted<Limit>,
    keys: Counted<KeyCheck>,
    failed_work: Counted<Chore>,
}

impl Metrics {
    /// Nothing counted yet, of the routes that this configuration has.
    pub fn new(config: &Config) -> Self {
        let most = config.server.max_connections;
        let public = crate::public::templates(config);
        Self {
            public: Arc::new(DoorMeter::new(Door::Public.name(), public, most)),
            admin: Arc::new(DoorMeter::new(Door::Admin.name(), crate::admin::templates(), most)),
            csrf: Counted::new(),
            limited: Counted::new(),
            keys: Counted::new(),
            failed_work: Counted::new(),
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
            problem.csrf_refusal().into_iter().for_each(|refusal| self.csrf.add(refusal.into()));
        } else if code == Code::LoginThrottled {
            self.limited.add(Limit::Login);
        } else if code == Code::RateLimited {
            let refuses = |note: &&RateNote| matches!(note.admission, Admission::Refused { .. });
            let note = asked.rate.get().filter(refuses);
            self.limited.add(note.map_or(Limit::Streams, |note| note.quota.into()));
        }
    }

    /// Counts how an API key was found.
    pub(crate) fn key_checked<T>(&self, outcome: &Result<T, cloakroom::Error>) {
        self.keys.add(match outcome {
            Ok(_) => KeyCheck::Ok,
            Err(cloakroom::Error::Refused(_)) => KeyCheck::Refused,
            Err(cloakroom::Error::Unavailable(_) | cloakroom::Error::Overloaded) => {
                KeyCheck::Unavailable
            }
        });
    }

    /// Counts a request that should have had an API key and had none.
    pub(crate) fn key_missing(&self) {
        self.keys.add(KeyCheck::Missing);
    }

    /// Counts background work that failed.
    pub(crate) fn work_failed(&self, chore: Chore) {
        self.failed_work.add(chore);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn counts<K: Countable>(counted: &Counted<K>) -> Vec<(String, Value)> {
        let family = counted.fill(Family::counter("name", "help", &["label"]));
        family.points.into_iter().map(|(labels, value)| (labels.concat(), value)).collect()
    }

    #[test]
    fn every_piece_of_work_that_fails_is_counted_under_its_name() {
        let failed = Counted::new();
        let all = Chore::ALWAYS.into_iter().chain(Chore::SHARED);
        for chore in all {
            failed.add(chore);
            let one = (Chore::NAMES[chore.place()].to_owned(), Value::Count(1));
            assert!(counts(&failed).contains(&one), "{chore:?}");
        }
        assert!(counts(&failed).iter().all(|(_, count)| *count == Value::Count(1)));
        assert!(counts(&failed).iter().any(|(name, _)| name == "watch_hold"));
    }

    #[test]
    fn a_refused_request_is_counted_by_the_step_that_it_names() {
        for refusal in [
            CsrfRefusal::RepeatedHeader,
            CsrfRefusal::NoProvenance,
            CsrfRefusal::FetchSite,
            CsrfRefusal::Origin,
            CsrfRefusal::Referer,
            CsrfRefusal::TokenMissing,
            CsrfRefusal::TokenInvalid,
        ] {
            let name = CsrfStep::NAMES[CsrfStep::from(refusal).place()];
            assert_eq!(name, refusal.step().to_string());
        }
    }
}
