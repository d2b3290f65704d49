//! `/auth/verify` and `/auth/verify/{policy}`: the decision for HTTP gateways.
//!
//! Never sets a cookie, never rotates, reads no body, and doesn't look at the query: gateways pass
//! the visitor's own along.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use cloakroom::{Error, Verified, Via};
use cloakroom_core::cookie::without_own;
use cloakroom_core::csrf::{CsrfRules, NextStep, check_forwarded, check_token};
use cloakroom_core::forwarded::{ForwardedHeaders, OriginalMethod, OriginalRequest};
use cloakroom_core::policy::{Assurance, Policy};
use cloakroom_core::return_to::{ReturnRules, ReturnTo};
use hyper::header::{ACCEPT, ALLOW, COOKIE, HeaderName, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};

use crate::gate::{Presented, prove, request_origin};
use crate::http::{Asked, header};
use crate::problem::Problem;
use crate::site::{Meter, Site};

const X_AUTH_COOKIE: HeaderName = HeaderName::from_static("x-auth-cookie");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
/// Headers of an answer with one claim header or two: the map needn't grow on the way.
const ANSWER_HEADERS: usize = 20;
/// What is answered to TRACE and CONNECT, which no gateway passes on.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Answers a gateway. Without a policy: the path named one that isn't there.
pub(crate) async fn answer(
    site: &Site,
    asked: &Asked,
    parts: &Parts,
    policy: Option<&Policy>,
) -> Response {
    let Some(policy) = policy else { return Problem::not_found().into_response() };
    if matches!(parts.method, Method::TRACE | Method::CONNECT) {
        let mut response = Problem::method_not_allowed().into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
        return response;
    }
    let original = match original_of(asked, &parts.headers) {
        Ok(original) => original,
        Err(problem) => return problem.into_response(),
    };
    match decide(site, asked, &parts.headers, &original, policy).await {
        Ok(response) => response,
        Err(problem) => sign_in_instead(site, &parts.headers, &original, &problem)
            .unwrap_or_else(|| problem.into_response()),
    }
}

/// The visitor's own request. Of a peer that isn't trusted nothing is believed: its method counts
/// as unsafe.
fn original_of(asked: &Asked, headers: &HeaderMap) -> Result<OriginalRequest, Problem> {
    let forwarded = if asked.peer.trusted {
        ForwardedHeaders {
            method: header(headers, X_FORWARDED_METHOD),
            host: header(headers, X_FORWARDED_HOST),
            uri: header(headers, X_FORWARDED_URI),
            proto: header(headers, X_FORWARDED_PROTO),
            original_method: header(headers, X_ORIGINAL_METHOD),
            original_url: header(headers, X_ORIGINAL_URL),
        }
    } else {
        ForwardedHeaders::default()
    };
    Ok(OriginalRequest::parse(&forwarded)?)
}

async fn decide(
    site: &Site,
    asked: &Asked,
    headers: &HeaderMap,
    original: &OriginalRequest,
    policy: &Policy,
) -> Result<Response, Problem> {
    let presented = Presented::of(headers, site.cookies.names());
    let verified = match prove(site, &presented).await {
        Ok(verified) => verified,
        Err(error @ Error::Refused(_)) if !presented.is_nothing() => {
            site.admit_nobody(asked, headers)?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    match verified.via {
        Via::Cookie | Via::Refresh => check_csrf(site, headers, original, policy, &verified)?,
        Via::Access(_) => {}
    }
    site.admit(asked, verified.meters(), Meter::Verify)?;
    verified.user()?;
    let assertion = site.authority.assertion(&verified).await?;
    let make = || site.identities.make(&verified, assertion.expose());
    // Nobody else keeps anything with an assertion; were it so, the headers are made anew.
    let made;
    let identity = match assertion.shown(make) {
        Some(identity) => identity,
        None => {
            made = make();
            &made
        }
    };
    let session = &verified.session;
    let assurance = Assurance {
        claims: identity.claims(),
        auth_time: session.auth_time,
        acr: Some(&session.acr),
    };
    policy.check(assurance, site.authority.now())?;
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = HeaderMap::with_capacity(ANSWER_HEADERS);
    identity.apply(response.headers_mut());
    response.headers_mut().insert(X_AUTH_COOKIE, other_cookies(site, headers));
    Ok(response)
}

/// Steps 1 to 3 on the visitor's own request, and the token where the policy wants ours.
fn check_csrf(
    site: &Site,
    headers: &HeaderMap,
    original: &OriginalRequest,
    policy: &Policy,
    verified: &Verified,
) -> Result<(), Problem> {
    let forwarded = original.origin();
    let rules = CsrfRules {
        own_origin: forwarded.as_ref().unwrap_or(&site.config.server.origin),
        mode: policy.csrf,
        ..site.csrf_rules()
    };
    match check_forwarded(request_origin(headers, original.method.class()), rules)? {
        NextStep::Passed => Ok(()),
        NextStep::Token => {
            let key = site.authority.csrf_key(verified.session.sid);
            Ok(check_token(&key, header(headers, "x-csrf-token"))?)
        }
    }
}

/// The visitor's cookies less our own, for the gateway to pass on.
fn other_cookies(site: &Site, headers: &HeaderMap) -> HeaderValue {
    let lines = headers.get_all(COOKIE).iter().map(|line| line.as_bytes());
    let line = without_own(lines, site.cookies.names());
    let mut value = HeaderValue::try_from(line).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Sends a visitor who wanted a page to sign in, and back afterwards, where that is set up.
fn sign_in_instead(
    site: &Site,
    headers: &HeaderMap,
    original: &OriginalRequest,
    problem: &Problem,
) -> Option<Response> {
    let sign_in = site.config.forward_auth.sign_in_url.as_ref()?.as_str();
    let wants_page = original.method == OriginalMethod::Get && accepts_html(headers);
    if problem.status() != StatusCode::UNAUTHORIZED || !wants_page {
        return None;
    }
    let location = match return_to(site, original) {
        Some(place) => {
            let mark = if sign_in.contains('?') { '&' } else { '?' };
            format!("{sign_in}{mark}return_to={}", place.as_query_value())
        }
        None => sign_in.to_owned(),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(LOCATION, HeaderValue::try_from(location).ok()?);
    Some(response)
}

/// Where the visitor wanted to go, if one may return there. A gateway believes its visitor's
/// `Host`; this doesn't.
fn return_to(site: &Site, original: &OriginalRequest) -> Option<ReturnTo> {
    let own = &site.config.server.origin;
    let rules = ReturnRules {
        own,
        allowed: &site.config.forward_auth.allowed_return_origins,
        base_path: site.config.server.base_path.as_str(),
    };
    let local = original.origin().is_some_and(|origin| origin == *own);
    let place = if local { original.uri.clone() } else { original.url() };
    ReturnTo::parse(&place?, rules)
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',').any(|range| {
                range
                    .split(';')
                    .next()
                    .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
            })
        })
    })
}
