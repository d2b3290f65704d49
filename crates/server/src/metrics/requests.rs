//! Requests, counted by listener, route, method and status: every handle is made at the start, so
//! that counting is a search in a sorted list and a few additions.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloakroom::Histogram;
use hyper::Method;

use super::family::{Family, Value, level_of};

/// Statuses that are counted one by one.
const STATUSES: [u16; 24] = [
    200, 201, 204, 301, 302, 303, 304, 400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 415, 422,
    429, 431, 500, 501, 503,
];
/// Methods that are counted one by one.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
/// What every other status and method is counted as.
const OTHER: &str = "other";
/// The route of requests that no route was found for.
pub(super) const UNMATCHED: &str = "unmatched";

/// What is counted of one route.
#[derive(Debug)]
struct RouteMeter {
    route: String,
    counts: [[AtomicU64; STATUSES.len() + 1]; METHODS.len() + 1],
    spans: Histogram,
}

impl RouteMeter {
    fn new(route: String) -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { route, counts: std::array::from_fn(|_| zeros()), spans: Histogram::default() }
    }
}

/// What is counted of one listener.
#[derive(Debug)]
pub struct DoorMeter {
    name: &'static str,
    /// Sorted by route; the first is [`UNMATCHED`], whose place it takes by its name.
    routes: Vec<RouteMeter>,
    unmatched: RouteMeter,
    in_flight: AtomicI64,
    connections: AtomicI64,
    accepted: AtomicU64,
    connections_max: usize,
}

/// A request that is being answered; dropped unfinished where its client went away.
pub struct Seen<'a> {
    door: &'a DoorMeter,
    method: usize,
    began: Instant,
}

/// A connection, counted until this is dropped.
#[derive(Debug)]
pub struct Connected(Arc<DoorMeter>);

impl DoorMeter {
    pub(super) fn new(name: &'static str, mut routes: Vec<String>, connections_max: usize) -> Self {
        routes.sort_unstable();
        routes.dedup();
        Self {
            name,
            routes: routes.into_iter().map(RouteMeter::new).collect(),
            unmatched: RouteMeter::new(UNMATCHED.to_owned()),
            in_flight: AtomicI64::new(0),
            connections: AtomicI64::new(0),
            accepted: AtomicU64::new(0),
            connections_max,
        }
    }

    /// The place of a route, by its template.
    pub fn place(&self, route: &str) -> Option<usize> {
        self.routes.binary_search_by(|meter| meter.route.as_str().cmp(route)).ok()
    }

    /// The template at a place.
    pub fn route(&self, place: Option<usize>) -> &str {
        place.and_then(|place| self.routes.get(place)).map_or(UNMATCHED, |meter| &meter.route)
    }

    /// Begins to count a request.
    pub fn begin(&self, method: &Method) -> Seen<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let known = METHODS.iter().position(|known| *known == method.as_str());
        Seen { door: self, method: known.unwrap_or(METHODS.len()), began: Instant::now() }
    }

    /// Counts a connection until what this gives is dropped.
    pub fn connect(self: &Arc<Self>) -> Connected {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(self))
    }
}

impl Seen<'_> {
    /// Counts the answer; says how long it took.
    pub fn finish(self, place: Option<usize>, status: u16) -> Duration {
        let took = self.began.elapsed();
        let found = place.and_then(|place| self.door.routes.get(place));
        let meter = found.unwrap_or(&self.door.unmatched);
        let status = STATUSES.binary_search(&status).unwrap_or(STATUSES.len());
        if let Some(count) = meter.counts.get(self.method).and_then(|row| row.get(status)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        meter.spans.observe(took);
        took
    }
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        self.door.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The metrics of both listeners.
pub(super) fn families(doors: [&DoorMeter; 2]) -> Vec<Family> {
    let mut requests = Family::counter(
        "cloakroom_http_requests",
        "Requests answered",
        &["listener", "route", "method", "status"],
    );
    let mut spans = Family::spans(
        "cloakroom_http_request_duration",
        "How long answers took, up to their headers",
        &["listener", "route"],
    );
    let mut in_flight = Family::gauge(
        "cloakroom_http_requests_in_flight",
        "Requests being answered",
        &["listener"],
    );
    let mut open = Family::gauge("cloakroom_connections", "Connections open", &["listener"]);
    let mut most = Family::gauge(
        "cloakroom_connections_limit",
        "Connections that may be open (server.max_connections)",
        &["listener"],
    );
    let mut accepted =
        Family::counter("cloakroom_connections_accepted", "Connections taken", &["listener"]);
    for door in doors {
        let name = door.name;
        for meter in door.routes.iter().chain([&door.unmatched]) {
            let distribution = meter.spans.read();
            if distribution.count() == 0 {
                continue;
            }
            spans = spans.with(&[name, &meter.route], Value::Spans(distribution));
            for (method, row) in METHODS.iter().chain([&OTHER]).zip(&meter.counts) {
                let texts = STATUSES.iter().map(u16::to_string).chain([OTHER.to_owned()]);
                for (status, count) in texts.zip(row) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        requests = requests.count(&[name, &meter.route, method, &status], count);
                    }
                }
            }
        }
        let level = |gauge: &AtomicI64| level_of(gauge.load(Ordering::Relaxed).max(0));
        in_flight = in_flight.level(&[name], level(&door.in_flight));
        open = open.level(&[name], level(&door.connections));
        most = most.level(&[name], level_of(door.connections_max));
        accepted = accepted.count(&[name], door.accepted.load(Ordering::Relaxed));
    }
    vec![requests, spans, in_flight, open, most, accepted]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_sorted_so_that_they_are_found() {
        assert!(STATUSES.is_sorted());
    }

    #[test]
    fn m6_whatever_is_asked_the_series_stay_few() {
        let door = DoorMeter::new("public", vec!["/auth/session".to_owned()], 10);
        for round in 0..1000 {
            let method = Method::from_bytes(format!("M{round}").as_bytes()).expect("a method");
            door.begin(&method).finish(door.place(&format!("/x/{round}")), 100 + round);
        }
        door.begin(&Method::GET).finish(door.place("/auth/session"), 200);
        let families = families([&door, &door]);
        assert!(families[0].points.len() <= 2 * (STATUSES.len() + 2), "{:?}", families[0]);
        assert_eq!(families[2].points[0].1, Value::Level(0.0));
    }
}
