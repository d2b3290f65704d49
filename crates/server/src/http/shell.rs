//! The outermost layer of both listeners: whatever happens inside, an answer leaves it whole.
//!
//! It gives every request an id, bounds its time, catches panics, writes problems down, and adds
//! the headers that every answer carries.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use cloakroom_core::given::Header;
use cloakroom_core::rate::Quota;
use cloakroom_store::Durability;
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, DATE, HOST, HeaderName,
    HeaderValue, REFERRER_POLICY, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, StatusCode, Version};
use tower::ServiceExt as _;

use super::ask::{Asked, Peer, QuotaName, RateNote, header};
use super::cors::{Cors, Grant};
use super::request_id::X_REQUEST_ID;
use super::watched::Watch;
use crate::forward::verify;
use crate::metrics::DoorMeter;
use crate::problem::{Code, Form, Problem};
use crate::site::Site;
use crate::telemetry::{Answered, RequestSpan};
use crate::view::durability_name;

/// Which listener a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The one that browsers reach.
    Public,
    /// The operator's.
    Admin,
}

impl Door {
    /// Its name, in metrics and log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Admin => "admin",
        }
    }
}

/// A listener's service.
pub struct Shell {
    site: Arc<Site>,
    door: Door,
    router: Router,
    cors: Cors,
    meter: Arc<DoorMeter>,
    /// The place of forward authentication by a named policy among what is counted.
    verify_place: Option<usize>,
    /// What `RateLimit-Policy` says of each quota.
    quotas: [HeaderValue; QuotaName::ALL.len()],
    /// The same of failed sign-ins, which the store counts.
    login_quota: HeaderValue,
}

impl Shell {
    /// Puts the shell around a listener's routes.
    pub fn new(site: Arc<Site>, door: Door, routes: Router<Arc<Site>>) -> Self {
        let cors = match door {
            Door::Public => Cors::new(&site.config.cors.allowed_origins),
            Door::Admin => Cors::new(&[]),
        };
        let router = routes.fallback(nothing_here).with_state(Arc::clone(&site));
        let limits = &site.config.limit;
        let quotas = QuotaName::ALL.map(|name| {
            let quota = match name {
                QuotaName::Session => limits.session,
                QuotaName::Verify => limits.verify,
                QuotaName::Network => limits.network,
            };
            policy_header(quota, name.name())
        });
        let login_quota = policy_header(limits.login, LOGIN);
        let meter = Arc::clone(site.metrics.door(door));
        let verify = format!("{}/verify/{{policy}}", site.config.server.base_path.as_str());
        let verify_place = meter.place(&verify);
        Self { site, door, router, cors, meter, verify_place, quotas, login_quota }
    }

    /// Whether there are answers without an end among its own.
    pub fn has_streams(&self) -> bool {
        self.door == Door::Admin
    }

    /// What is counted of this listener.
    pub fn meter(&self) -> &Arc<DoorMeter> {
        &self.meter
    }

    /// Answers a request.
    pub async fn answer<B>(&self, peer: Peer, request: Request<B>) -> Response
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let asked = Arc::new(Asked::new(request.headers(), peer));
        let path = request.uri().path();
        let form = if path.starts_with("/oauth2/") { Form::OAuth } else { Form::Details };
        let policy = match self.door {
            Door::Public => self.site.policy_of_path(path),
            Door::Admin => None,
        };
        let method = request.method().clone();
        let seen = self.meter.begin(&method);
        let mut place = self.meter.place(path);
        let trace = self.site.telemetry.request(request.headers());
        let mut unread = false;
        let (mut response, grant) = match policy {
            _ if !names_one_host(&request) => (one_host_only(), Grant::Silent),
            // Before the router and without its boxes: gateways ask this for every request.
            Some(policy) => {
                place = place.or(self.verify_place.filter(|_| policy.is_some()));
                let (parts, body) = request.into_parts();
                unread = parts.version <= Version::HTTP_11 && !body.is_end_stream();
                let work = pin!(verify::answer(&self.site, &asked, &parts, policy));
                (self.traced(trace.as_ref(), work).await, Grant::Silent)
            }
            None => {
                let grant = self.cors.grant(request.headers());
                let response = match grant.preflight(request.method(), request.headers()) {
                    Some(response) => response,
                    None => {
                        let (parts, body) = request.into_parts();
                        let (body, watch) = Watch::over(Body::new(body), parts.version);
                        let request = Request::from_parts(parts, body);
                        let work = pin!(self.route(&asked, request));
                        let response = self.traced(trace.as_ref(), work).await;
                        unread = watch.is_unread();
                        response
                    }
                };
                (response, grant)
            }
        };
        let problem = self.finish(&mut response, &asked, form);
        let place =
            place.or_else(|| asked.route.get().and_then(|route| self.meter.place(route.as_str())));
        let took = seen.finish(place, response.status().as_u16());
        self.tell(&asked, &method, place, response.status(), took, problem.as_ref());
        if let Some(trace) = trace {
            trace.end(&Answered {
                listener: self.door.name(),
                method: method.as_str(),
                route: self.meter.route(place),
                status: response.status().as_u16(),
                request_id: asked.id.as_str(),
                code: problem.as_ref().map(|problem| problem.code().as_str()),
            });
        }
        grant.apply(response.headers_mut());
        if unread {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Does guarded work within a request's span, if it has one.
    ///
    /// Pinned by the caller: a future that takes another by value holds it twice, and all of it is
    /// moved about for each request.
    async fn traced(
        &self,
        trace: Option<&RequestSpan>,
        work: Pin<&mut impl Future<Output = Response>>,
    ) -> Response {
        match trace {
            Some(trace) => trace.scope(self.guard(work)).await,
            None => self.guard(work).await,
        }
    }

    async fn route(&self, asked: &Arc<Asked>, mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(Arc::clone(asked));
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Bounds the time of some work and turns its panic into an answer.
    async fn guard(&self, mut work: Pin<&mut impl Future<Output = Response>>) -> Response {
        let caught = poll_fn(|cx| {
            // What a panic leaves behind is dropped soon, unseen.
            match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
                Err(_) => Poll::Ready(None),
            }
        });
        let mut caught = pin!(caught);
        // Most answers are there at once: no timer is made for them.
        let done = match poll_fn(|cx| Poll::Ready(caught.as_mut().poll(cx))).await {
            Poll::Ready(done) => Ok(done),
            Poll::Pending => {
                tokio::time::timeout(self.site.config.server.request_timeout, caught).await
            }
        };
        match done {
            Ok(Some(response)) => response,
            Ok(None) => {
                tracing::error!("a handler panicked");
                Problem::new(Code::Internal, "something went wrong here").into_response()
            }
            Err(_) => {
                let detail = "the request took longer than server.request_timeout";
                Problem::new(Code::Overloaded, detail).into_response()
            }
        }
    }

    /// The request's line in the log.
    fn tell(
        &self,
        asked: &Asked,
        method: &Method,
        place: Option<usize>,
        status: StatusCode,
        took: Duration,
        problem: Option<&Problem>,
    ) {
        /// One line; with its level it is made only where that is wanted.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: REQUESTS,
                    $level,
                    request_id = asked.id.as_str(),
                    listener = self.door.name(),
                    method = method.as_str(),
                    route = self.meter.route(place),
                    status = status.as_u16(),
                    took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                    code = problem.map(|problem| problem.code().as_str()),
                    fault = problem.and_then(Problem::fault),
                    "request"
                )
            };
        }
        if status.is_server_error() {
            line!(tracing::Level::WARN);
        } else {
            line!(tracing::Level::DEBUG);
        }
    }

    /// Completes an answer; gives what was wrong.
    fn finish(&self, response: &mut Response, asked: &Asked, form: Form) -> Option<Problem> {
        let problem = response.extensions_mut().remove::<Problem>();
        // The router answers a wrong method by itself, with the header `Allow`.
        let wrong_method = problem.is_none() && response.status() == StatusCode::METHOD_NOT_ALLOWED;
        let problem = problem.or_else(|| wrong_method.then(Problem::method_not_allowed));
        if let Some(problem) = &problem {
            self.site.metrics.refused(problem, asked);
            problem.write(response, asked.id.as_str(), form);
        }
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, asked.id.header());
        // The time that tokens and lifetimes are counted by; else the library says the system's.
        if let Some(date) = self.site.store_watch.date()
            && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(date))
        {
            headers.insert(DATE, date);
        }
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        for (name, value) in &SECURITY {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if self.site.is_https() {
            headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
        }
        bound_durability(headers, self.site.store_watch.promise());
        match &problem {
            Some(problem) if problem.code() == Code::LoginThrottled => self.login_headers(headers),
            Some(_) | None => {
                if let Some(note) = asked.rate.get() {
                    self.rate_headers(headers, *note);
                }
            }
        }
        problem
    }

    /// Of failed sign-ins no more are left until the time to come back at.
    fn login_headers(&self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.login_quota.clone());
        let until = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).unwrap_or("1");
        if let Ok(value) = HeaderValue::try_from(format!("\"{LOGIN}\";r=0;t={until}")) {
            headers.insert(RATE_LIMIT, value);
        }
    }

    fn rate_headers(&self, headers: &mut HeaderMap, note: RateNote) {
        if let Some(policy) = self.quotas.get(note.quota as usize) {
            headers.insert(RATE_LIMIT_POLICY, policy.clone());
        }
        if let Ok(value) = HeaderValue::try_from(note.admission.header(note.quota.name())) {
            headers.insert(RATE_LIMIT, value);
        }
    }
}

fn policy_header(quota: Quota, name: &str) -> HeaderValue {
    let text = quota.policy_header(name);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// Keeps an answer from promising more than the store does.
///
/// What was over already was ended by an earlier commit, whose promise nobody knows any more; the
/// engine calls it durable, since nothing had to be written for it.
fn bound_durability(headers: &mut HeaderMap, promise: Durability) {
    if let Some(said) = headers.get_mut(DURABILITY)
        && said.as_bytes() == durability_name(Durability::Durable).as_bytes()
    {
        *said = HeaderValue::from_static(durability_name(promise));
    }
}

/// Whether a request names its host in one way (RFC 9112 section 3.2). With two names, whoever
/// stands in front may have judged another request than the one that is answered here.
fn names_one_host<B>(request: &Request<B>) -> bool {
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    match (header(request.headers(), HOST.as_str()), authority) {
        (Header::Several, _) => false,
        (Header::One(host), Some(authority)) => host.eq_ignore_ascii_case(authority),
        (Header::One(_), None) | (Header::Absent, Some(_)) => true,
        (Header::Absent, None) => request.version() < Version::HTTP_11,
    }
}

fn one_host_only() -> Response {
    let mut response = Problem::malformed("the request must name one host").into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// An answer with a JSON body.
pub fn json(status: StatusCode, body: &impl serde::Serialize) -> Response {
    let Ok(text) = serde_json::to_vec(body) else {
        return Problem::new(Code::Internal, "the answer can't be written down").into_response();
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn nothing_here() -> Problem {
    Problem::not_found()
}

/// The target of the lines of requests: `RUST_LOG=info,cloakroom::request=debug` shows them all.
const REQUESTS: &str = "cloakroom::request";
/// What a store promises about an ending.
const DURABILITY: HeaderName = HeaderName::from_static("cloakroom-durability");
const REQUEST_ID: HeaderName = HeaderName::from_static(X_REQUEST_ID);
/// The name of `limit.login` in those headers.
const LOGIN: &str = "login";
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Two years, as the preload lists ask for.
const HSTS: &str = "max-age=63072000";

/// What every answer says unless it says otherwise: nothing in it is a page, a script or for
/// another site's page to embed.
static SECURITY: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    ),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::get;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::config::{Flags, Loaded, Surroundings};

    async fn site(directory: &tempfile::TempDir) -> Arc<Site> {
        let variables = [
            ("CLOAKROOM_STORE__URL", "memory:"),
            ("CLOAKROOM_STORE__PARTITIONS", "1"),
            ("CLOAKROOM_SERVER__REQUEST_TIMEOUT", "50ms"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let surroundings = Surroundings { variables: variables.into(), ..Surroundings::bare() };
        let flags = Flags { config: None, data: Some(directory.path().to_owned()) };
        let config = Loaded::read(&flags, &surroundings).outcome.expect("a good configuration");
        Arc::new(crate::serve::open(*config).await.expect("a node"))
    }

    async fn answer(path: &'static str) -> (StatusCode, String) {
        let directory = tempfile::TempDir::new().expect("a directory");
        let routes = Router::new()
            .route("/panic", get(async || -> &'static str { panic!("the password is hunter2") }))
            .route("/slow", get(async || tokio::time::sleep(Duration::from_secs(60)).await));
        let shell = Shell::new(site(&directory).await, Door::Public, routes);
        let peer = Peer::new([127, 0, 0, 1].into(), &[]);
        let request = Request::get(path).header(HOST, "x").body(Body::empty()).expect("a request");
        let response = shell.answer(peer, request).await;
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn a_request_takes_little_memory_along() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let shell = Shell::new(site(&directory).await, Door::Public, Router::new());
        let peer = Peer::new([127, 0, 0, 1].into(), &[]);
        let request = Request::get("/auth/verify").body(Body::empty()).expect("a request");
        // It is moved three times before it is first polled.
        let bytes = size_of_val(&shell.answer(peer, request));
        assert!(bytes < 4 * 1024, "{bytes} bytes");
    }

    fn code(body: &str) -> serde_json::Value {
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        body["code"].clone()
    }

    #[tokio::test]
    async fn k11_a_panic_is_an_answer_and_tells_nothing() {
        let (status, body) = answer("/panic").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(code(&body), "internal");
        assert!(!body.contains("hunter2"), "{body}");
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_answered_all_the_same() {
        let (status, body) = answer("/slow").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(code(&body), "overloaded");
    }
}
