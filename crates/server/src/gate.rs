//! The chain before a handler: credential, session, CSRF, limit, user.
//!
//! How a credential and a request's origin are read is the library's own way.

use cloakroom::{Credential, Error, Verified, Via};
use cloakroom_core::cookie::{CookieNames, OwnCookies};
use cloakroom_core::csrf::{
    CsrfRefusal, MethodClass, NextStep, check_origin, check_sign_in, check_token,
};
use cloakroom_core::event::Actor;
use cloakroom_core::given::{Given, Header};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::types::Sid;
pub(crate) use cloakroom_tower::{Bearer, request_origin};
use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderName};

use crate::http::Ask;
use crate::problem::Problem;
pub(crate) use crate::site::Meter;
use crate::site::Site;

const X_CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");

/// What a request presents, before any of it is believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    /// Its bearer token.
    pub(crate) bearer: Bearer<'a>,
    /// Our cookies.
    pub(crate) cookies: OwnCookies<'a>,
}

impl<'a> Presented<'a> {
    /// What a request with these headers presents.
    pub(crate) fn of(headers: &'a HeaderMap, names: CookieNames) -> Self {
        let lines = headers.get_all(COOKIE).iter().map(|line| line.as_bytes());
        Self { bearer: Bearer::of(headers), cookies: OwnCookies::parse(lines, names) }
    }

    /// Whether it presents nothing that could be a session's.
    pub(crate) fn is_nothing(&self) -> bool {
        self.bearer == Bearer::Absent && self.cookies.session.is_absent()
    }
}

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// What limits the session; none: its network is limited.
    pub(crate) meter: Option<Meter>,
    /// Whether a session before any sign-in may come in.
    pub(crate) nobody: Nobody,
}

/// What becomes of an anonymous session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nobody {
    /// It is shown.
    Shown,
    /// It is nobody: 401.
    Refused,
}

impl Rules {
    /// What most routes ask: a user, counted by `limit.session`.
    pub(crate) const USER: Self = Self { meter: Some(Meter::Session), nobody: Nobody::Refused };
    /// To sign out everywhere: a thief who spends what a session may ask for must not hinder it.
    pub(crate) const SIGN_OUT: Self = Self { meter: None, nobody: Nobody::Refused };
}

/// The whole chain: a live session whose request may go on to its handler, or why not.
///
/// A bearer token decides where there is one, good or bad: falling back to a cookie would let
/// whoever can add a header choose who is asking.
pub(crate) async fn authenticate(
    site: &Site,
    ask: &Ask,
    rules: Rules,
) -> Result<Verified, Problem> {
    let presented = Presented::of(ask.headers(), site.cookies.names());
    let verified = match prove(site, &presented).await {
        Ok(verified) => verified,
        Err(error) => return Err(refused_to_nobody(site, ask, error)),
    };
    if matches!(verified.via, Via::Cookie | Via::Refresh) {
        check_csrf(site, ask, verified.session.sid)?;
    }
    match rules.meter {
        Some(meter) => site.admit(ask.asked(), verified.meters(), meter)?,
        None => site.admit_network(ask)?,
    }
    match rules.nobody {
        Nobody::Shown => {}
        Nobody::Refused => {
            verified.user()?;
        }
    }
    Ok(verified)
}

/// Proves the session that a request presents.
///
/// Two session cookies are none: whichever was picked, an attacker on a sibling domain could have
/// planted it.
pub(crate) async fn prove(site: &Site, presented: &Presented<'_>) -> Result<Verified, Error> {
    match (presented.bearer, presented.cookies.session) {
        (Bearer::Token(token), _) => site.authority.verify(Credential::Access(token)).await,
        (Bearer::Malformed, _) => Err(Refusal::TokenInvalid.into()),
        (Bearer::Absent, Given::One(cookie)) => {
            site.authority.verify(Credential::Cookie(cookie)).await
        }
        (Bearer::Absent, Given::Absent | Given::Several) => {
            Err(Refusal::CredentialsRequired.into())
        }
    }
}

/// The live session of one of the cookies, if there is one: a dead cookie counts as none.
///
/// For the places that take an anonymous session, and a `split` page that was reloaded and has
/// nothing but its refresh cookie.
pub(crate) async fn of_cookies(
    site: &Site,
    cookies: &OwnCookies<'_>,
) -> Result<Option<Verified>, Problem> {
    let session = one(cookies.session).map(Credential::Cookie);
    let refresh = one(cookies.refresh).map(Credential::Refresh);
    for credential in [session, refresh].into_iter().flatten() {
        match site.authority.verify(credential).await {
            Ok(verified) => return Ok(Some(verified)),
            Err(Error::Refused(_)) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(None)
}

pub(crate) fn one<T>(given: Given<T>) -> Option<T> {
    match given {
        Given::One(value) => Some(value),
        Given::Absent | Given::Several => None,
    }
}

/// Why nobody gets in: counted for the network first, and perhaps refused for that alone.
pub(crate) fn refused_to_nobody(site: &Site, ask: &Ask, error: Error) -> Problem {
    match error {
        Error::Refused(_) => site.admit_network(ask).err().unwrap_or_else(|| error.into()),
        Error::Unavailable(_) | Error::Overloaded => error.into(),
    }
}

/// Section 5 of the contract for a request that one of our cookies authenticates.
pub(crate) fn check_csrf(site: &Site, ask: &Ask, sid: Sid) -> Result<(), Problem> {
    match check_provenance(site, ask)? {
        NextStep::Passed => Ok(()),
        NextStep::Token => {
            Ok(check_token(&site.authority.csrf_key(sid), ask.header(X_CSRF_TOKEN))?)
        }
    }
}

/// Steps 1 to 3 alone.
pub(crate) fn check_provenance(site: &Site, ask: &Ask) -> Result<NextStep, Problem> {
    let method = MethodClass::of(ask.method().as_str());
    Ok(check_origin(request_origin(ask.headers(), method), site.csrf_rules())?)
}

/// The same for a sign-in, which may come with no session at all: its token is then bound to the
/// `csrf` cookie, so that nobody can sign a victim's browser in as somebody else.
pub(crate) async fn check_sign_in_csrf(site: &Site, ask: &Ask) -> Result<(), Problem> {
    let method = MethodClass::of(ask.method().as_str());
    let origin = request_origin(ask.headers(), method);
    let any_cookie = ask.headers().contains_key(COOKIE);
    match check_sign_in(origin, site.csrf_rules(), any_cookie)? {
        NextStep::Passed => return Ok(()),
        NextStep::Token => {}
    }
    let presented = Presented::of(ask.headers(), site.cookies.names());
    match of_cookies(site, &presented.cookies).await? {
        Some(verified) => {
            let key = site.authority.csrf_key(verified.session.sid);
            Ok(check_token(&key, ask.header(X_CSRF_TOKEN))?)
        }
        None => Ok(check_pre_token(site, ask, presented.cookies.csrf)?),
    }
}

fn check_pre_token(site: &Site, ask: &Ask, cookie: Given<&str>) -> Result<(), CsrfRefusal> {
    let token = match ask.header(X_CSRF_TOKEN) {
        Header::Absent => return Err(CsrfRefusal::TokenMissing),
        Header::Several => return Err(CsrfRefusal::TokenInvalid),
        Header::One(token) => str::from_utf8(token).map_err(|_| CsrfRefusal::TokenInvalid)?,
    };
    let bound = one(cookie).is_some_and(|cookie| site.authority.check_pre_csrf(cookie, token));
    if bound { Ok(()) } else { Err(CsrfRefusal::TokenInvalid) }
}

/// Who acts in a request of this session.
pub(crate) fn actor_of(verified: &Verified) -> Actor {
    Actor::User(verified.session.subject.clone())
}
