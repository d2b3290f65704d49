//! Guards: layers for routes that ask for more than a session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::csrf::CsrfMode;
use cloakroom_core::guard::Pass;
use cloakroom_core::policy::{Assurance, Policy, PolicyRefusal, Requirement};
use cloakroom_core::rate::Quota;
use cloakroom_core::refusal::Refusal;
use http::{Request, Response};
use http_body_util::{Either, Full};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::{Error, RateNote};
use crate::meters::Meters;
use crate::service::ResponseBody;
use crate::visit::Visit;

/// Lets only signed-in users in.
///
/// ```
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use cloakroom_tower::{require_auth, testing};
/// use tower::ServiceExt as _;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let app: Router = Router::new()
///     .route("/account", get(async || "yours").layer(require_auth()))
///     .layer(testing::layer());
/// let ask = async |request: axum::http::request::Builder| {
///     let request = request.body(Body::empty()).unwrap();
///     app.clone().oneshot(request).await.unwrap().status().as_u16()
/// };
/// assert_eq!(ask(Request::get("/account")).await, 401);
/// assert_eq!(ask(testing::signed_in("ada").get("/account")).await, 200);
/// # });
/// ```
pub fn require_auth() -> Require {
    Require::default()
}

/// Lets only users in whose session has this claim with this value, or with an array that holds it:
/// 403 `insufficient_claims` else.
///
/// ```
/// use axum::{Router, body::Body, routing::get};
/// use cloakroom_tower::{require_claim, testing};
/// use tower::ServiceExt as _;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let app: Router = Router::new()
///     .route("/admin", get(async || "welcome").layer(require_claim("role", "admin")))
///     .layer(testing::layer());
/// let ask = async |user: testing::TestRequest| {
///     let request = user.get("/admin").body(Body::empty()).unwrap();
///     app.clone().oneshot(request).await.unwrap().status().as_u16()
/// };
/// assert_eq!(ask(testing::signed_in("ada").claim("role", "admin")).await, 200);
/// assert_eq!(ask(testing::signed_in("bob").claim("role", "user")).await, 403);
/// # });
/// ```
pub fn require_claim(claim: &str, value: &str) -> Require {
    Require::default().claim(claim, value)
}

/// Lets only users in who proved who they are within this time: 401 `reauthentication_required`
/// else. Signing in again does.
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, routing::post};
/// use cloakroom_tower::require_recent_auth;
///
/// let lately = require_recent_auth(Duration::from_secs(300));
/// let app: Router = Router::new().route("/wipe", post(async || "gone").layer(lately));
/// ```
pub fn require_recent_auth(max_age: Duration) -> Require {
    Require::default().recent_auth(max_age)
}

/// Lets each session in so often in this process: 429 `rate_limited` beyond. Requests without a
/// session go on uncounted; put [`require_auth`] outside where there must be none.
///
/// ```
/// use axum::{Router, body::Body, routing::get};
/// use cloakroom_tower::core::rate::Quota;
/// use cloakroom_tower::{rate_limit, require_auth, testing};
/// use tower::ServiceExt as _;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let five = "5/1m".parse::<Quota>().unwrap();
/// let app: Router = Router::new()
///     .route("/search", get(async || "found").layer((require_auth(), rate_limit("search", five))))
///     .layer(testing::layer());
/// for expected in [200, 200, 200, 200, 200, 429] {
///     let request = testing::signed_in("ada").get("/search").body(Body::empty()).unwrap();
///     assert_eq!(app.clone().oneshot(request).await.unwrap().status(), expected);
/// }
/// # });
/// ```
pub fn rate_limit(name: &'static str, quota: Quota) -> RateLimit {
    RateLimit { meters: Arc::new(Meters::new(name, quota)) }
}

/// A layer that lets in whom its requirements allow.
#[derive(Clone, Debug)]
#[must_use]
pub struct Require {
    policy: Arc<Policy>,
}

/// A layer that counts the requests of each session.
#[derive(Clone)]
#[must_use]
pub struct RateLimit {
    meters: Arc<Meters>,
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RateLimit")
    }
}

impl Default for Require {
    fn default() -> Self {
        Self { policy: Arc::new(Policy::any_session()) }
    }
}

impl Require {
    /// Requires a claim too.
    pub fn claim(mut self, claim: &str, value: &str) -> Self {
        let requirement = Requirement { claim: claim.to_owned(), value: value.to_owned() };
        Arc::make_mut(&mut self.policy).require.push(requirement);
        self
    }

    /// Requires a recent sign-in too.
    pub fn recent_auth(mut self, max_age: Duration) -> Self {
        Arc::make_mut(&mut self.policy).max_age = Some(max_age);
        self
    }

    /// Requires a strong sign-in too, as in `aal2`.
    pub fn assurance(mut self, acr: &str) -> Self {
        Arc::make_mut(&mut self.policy).acr = Some(acr.to_owned());
        self
    }

    fn check(&self, visit: &Visit) -> Result<(), Error> {
        let pass = visit.user()?;
        check(&self.policy, &pass, visit)
    }
}

fn check(policy: &Policy, pass: &Pass, visit: &Visit) -> Result<(), Error> {
    debug_assert_eq!(policy.csrf, CsrfMode::Origin, "the layer has checked that");
    let assurance =
        Assurance { claims: &pass.claims, auth_time: pass.auth_time, acr: Some(&pass.acr) };
    policy.check(assurance, visit.house().guard.now()).map_err(|refused| match refused {
        PolicyRefusal::InsufficientClaims => Refusal::InsufficientClaims.into(),
        PolicyRefusal::ReauthenticationRequired => {
            visit.unauthenticated(Refusal::ReauthenticationRequired)
        }
    })
}

impl<S> Layer<S> for Require {
    type Service = Guarded<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded { inner, check: self.clone() }
    }
}

impl<S> Layer<S> for RateLimit {
    type Service = Guarded<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded { inner, check: self.clone() }
    }
}

/// A service behind a guard.
#[derive(Clone, Debug)]
pub struct Guarded<S, C> {
    inner: S,
    check: C,
}

/// What a guard looks at before it lets a request in.
pub(crate) trait Check {
    const NAME: &'static str;

    fn pass(&self, visit: &Visit) -> Result<Option<RateNote>, Error>;
}

impl Check for Require {
    const NAME: &'static str = "a guard";

    fn pass(&self, visit: &Visit) -> Result<Option<RateNote>, Error> {
        self.check(visit).map(|()| None)
    }
}

impl Check for RateLimit {
    const NAME: &'static str = "rate_limit";

    fn pass(&self, visit: &Visit) -> Result<Option<RateNote>, Error> {
        match visit.live()? {
            Some(pass) => self.meters.admit(pass.sid, visit.house().guard.now()).map(Some),
            None => Ok(None),
        }
    }
}

impl<S, C, B, R> Service<Request<B>> for Guarded<S, C>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    C: Check,
    R: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let checked = match request.extensions().get::<Visit>() {
            Some(visit) => self.check.pass(visit),
            None => Err(missing_layer(C::NAME, request.method(), request.uri())),
        };
        match checked {
            Ok(note) => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let mut response = answer.await?.map(Either::Left);
                    if let Some(note) = note {
                        note.write(response.headers_mut());
                    }
                    Ok(response)
                })
            }
            Err(error) => {
                let refusal: Response<Full<Bytes>> = error.to_response();
                Box::pin(std::future::ready(Ok(refusal.map(Either::Right))))
            }
        }
    }
}

pub(crate) fn missing_layer(used: &'static str, method: &http::Method, uri: &http::Uri) -> Error {
    Error::MissingLayer { used, route: format!("{method} {}", uri.path()) }
}
