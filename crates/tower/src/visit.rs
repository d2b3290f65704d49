//! What is known of one request, shared by the layer, the extractors and the guards.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloakroom_core::cookie::CookieKind;
use cloakroom_core::csrf::{CsrfRefusal, CsrfRules, MethodClass, NextStep, Origin, check_origin};
use cloakroom_core::given::Given;
use cloakroom_core::guard::{Fault, Pass, Presented, Stored, Via};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::return_to::{ReturnRules, ReturnTo};
use cloakroom_core::session::{Client, Object};
use cloakroom_core::types::Secret;
use http::header::{ACCEPT, COOKIE, HeaderValue, ORIGIN, USER_AGENT};
use http::{Method, Uri, request};
use serde_json::Value;

use crate::client::{address_of, agent_of, peer_of};
use crate::credential::{Bearer, SEC_FETCH_SITE, request_origin, session_cookie};
use crate::error::Error;
use crate::layer::{House, NOWHERE};

/// Whether there is a session, and if not, why.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// There is.
    Live(Arc<Pass>),
    /// There is none, and this is what a place that needs one answers. `bearer`: a bearer token was
    /// presented and is no good; it decides, so there will be no other session in this request.
    Nobody { why: Refusal, bearer: bool },
    /// Nobody can tell.
    Unknown(Fault),
}

/// One request's session and what has been done to it so far.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) standing: Standing,
    /// The session cookie that proved the session, or that this answer sets.
    pub(crate) cookie: Option<Secret<String>>,
    /// The data as loaded.
    pub(crate) stored: Option<Arc<Stored>>,
    /// What was set and, by `None`, removed since.
    pub(crate) changes: BTreeMap<String, Option<Value>>,
    /// The `Set-Cookie` line of the answer.
    pub(crate) set_cookie: Option<String>,
    /// Whether the session was over when its changes were to be written.
    pub(crate) ended: bool,
}

/// A request's session, for whoever handles it. Clones are one.
#[derive(Clone)]
pub(crate) struct Visit(Arc<Inside>);

struct Inside {
    house: Arc<House>,
    method: Method,
    uri: Uri,
    /// Whether it is sent to the sign-in page, where there is one, in place of a refusal.
    wants_page: bool,
    /// Whether a token is to be asked of it: only looked at where the next step is one.
    is_browser: bool,
    provenance: Result<NextStep, CsrfRefusal>,
    agent: Option<HeaderValue>,
    ip: Option<IpAddr>,
    state: Mutex<State>,
}

impl Visit {
    /// Looks at a request and, where it presents a credential, asks the authority about it.
    pub(crate) async fn of(house: &Arc<House>, parts: &request::Parts) -> Self {
        let names = house.cookies.names();
        let cookie = session_cookie(&parts.headers, names);
        let (standing, cookie) = match (Bearer::of(&parts.headers), cookie) {
            (Bearer::Token(token), _) => (ask(house, Presented::Access(token)).await, None),
            (Bearer::Malformed, _) => (Standing::nobody(Refusal::TokenInvalid, true), None),
            (Bearer::Absent, Given::One(cookie)) => {
                let standing = ask(house, Presented::Cookie(cookie)).await;
                (standing, Some(Secret::new(cookie.to_owned())))
            }
            (Bearer::Absent, Given::Absent | Given::Several) => {
                (Standing::nobody(Refusal::CredentialsRequired, false), None)
            }
        };
        let state = State {
            standing,
            cookie,
            stored: None,
            changes: BTreeMap::new(),
            set_cookie: None,
            ended: false,
        };
        let provenance = provenance(house, parts);
        Self(Arc::new(Inside {
            house: Arc::clone(house),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            wants_page: house.sign_in_page.is_some() && wants_page(parts),
            is_browser: provenance == Ok(NextStep::Token) && is_browser(&parts.headers),
            provenance,
            agent: parts.headers.get(USER_AGENT).cloned(),
            ip: peer_of(&parts.extensions)
                .map(|peer| address_of(&parts.headers, peer, &house.trusted_proxies)),
            state: Mutex::new(state),
        }))
    }

    pub(crate) fn house(&self) -> &House {
        &self.0.house
    }

    pub(crate) fn client(&self) -> Client {
        Client { ip: self.0.ip, user_agent: agent_of(self.0.agent.as_ref()), label: None }
    }

    /// Held for moments only, never while somebody is awaited.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something waits to be written when the handler has answered.
    pub(crate) fn has_changes(&self) -> bool {
        !self.state().changes.is_empty()
    }

    /// Whether this request may sign somebody in. One that another site's page sent would put the
    /// visitor into a stranger's account; with a session the layer has checked its token, without
    /// one a browser has none to show.
    pub(crate) fn check_sign_in(&self) -> Result<(), CsrfRefusal> {
        let next = self.0.provenance?;
        let checked = matches!(&self.state().standing, Standing::Live(pass) if is_by_cookie(pass));
        match next {
            NextStep::Token if self.0.is_browser && !checked => Err(CsrfRefusal::TokenMissing),
            NextStep::Token | NextStep::Passed => Ok(()),
        }
    }

    /// Steps 1 to 3 of the CSRF check.
    pub(crate) fn provenance(&self) -> Result<NextStep, CsrfRefusal> {
        self.0.provenance
    }

    /// The live session, if there is one; an error where nobody can tell, or where a bad bearer
    /// token decides.
    pub(crate) fn live(&self) -> Result<Option<Arc<Pass>>, Error> {
        match &self.state().standing {
            Standing::Live(pass) => Ok(Some(Arc::clone(pass))),
            Standing::Nobody { why, bearer: true } => Err(why.clone().into()),
            Standing::Nobody { bearer: false, .. } => Ok(None),
            Standing::Unknown(fault) => Err(fault.clone().into()),
        }
    }

    /// The live session of a user. Who is nobody is told why, or sent to the sign-in page.
    pub(crate) fn user(&self) -> Result<Arc<Pass>, Error> {
        let why = match &self.state().standing {
            Standing::Live(pass) if pass.subject.is_some() => return Ok(Arc::clone(pass)),
            Standing::Live(_) => Refusal::CredentialsRequired,
            Standing::Nobody { why, bearer: true } => return Err(why.clone().into()),
            Standing::Nobody { why, bearer: false } => why.clone(),
            Standing::Unknown(fault) => return Err(fault.clone().into()),
        };
        Err(self.unauthenticated(why))
    }

    /// The refusal, or the way to the sign-in page for a browser that wants to see a page.
    pub(crate) fn unauthenticated(&self, why: Refusal) -> Error {
        match &self.0.house.sign_in_page {
            Some(page) if self.0.wants_page => {
                let back = self.0.uri.path_and_query().map_or("/", |path| path.as_str());
                let joint = if page.contains('?') { '&' } else { '?' };
                Error::SignIn { location: format!("{page}{joint}return_to={}", encoded(back)) }
            }
            Some(_) | None => why.into(),
        }
    }

    /// What the request was, for a message.
    pub(crate) fn route(&self) -> String {
        format!("{} {}", self.0.method, self.0.uri.path())
    }

    /// Makes a session that was opened or refreshed the request's own.
    pub(crate) fn take(
        &self,
        pass: Pass,
        token: Secret<String>,
        max_age: Option<std::time::Duration>,
    ) {
        let line = self.house().cookies.set(CookieKind::Session, token.expose(), max_age);
        let mut state = self.state();
        state.standing = Standing::Live(Arc::new(pass));
        state.cookie = Some(token);
        state.stored = None;
        state.changes.clear();
        state.set_cookie = Some(line);
    }

    /// Forgets the session and has the browser forget its cookie.
    pub(crate) fn leave(&self) {
        let line = self.house().cookies.clear(CookieKind::Session);
        let mut state = self.state();
        let by_cookie = state.cookie.take().is_some();
        state.standing = Standing::nobody(Refusal::CredentialsRequired, false);
        state.stored = None;
        state.changes.clear();
        if by_cookie {
            state.set_cookie = Some(line);
        }
    }
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Visit({})", self.route())
    }
}

impl Standing {
    const fn nobody(why: Refusal, bearer: bool) -> Self {
        Self::Nobody { why, bearer }
    }
}

async fn ask(house: &House, credential: Presented<'_>) -> Standing {
    let bearer = matches!(credential, Presented::Access(_));
    match house.guard.verify(credential).await {
        Ok(pass) => Standing::Live(pass),
        Err(Fault::Refused(why)) if bearer => Standing::nobody(why, true),
        // A dead cookie counts as none, but why it is dead is worth telling.
        Err(Fault::Refused(why @ Refusal::SessionEnded(_))) => Standing::nobody(why, false),
        Err(Fault::Refused(_)) => Standing::nobody(Refusal::CredentialsRequired, false),
        Err(fault @ Fault::Unavailable { .. }) => Standing::Unknown(fault),
    }
}

fn provenance(house: &House, parts: &request::Parts) -> Result<NextStep, CsrfRefusal> {
    let (Some(mode), Some(own_origin)) = (house.csrf, &house.own_origin) else {
        return Ok(NextStep::Passed);
    };
    let rules = CsrfRules { own_origin, allowed_origins: &house.allowed_origins, mode };
    let method = MethodClass::of(parts.method.as_str());
    if method == MethodClass::Safe {
        // Step 1: no header is looked at.
        return Ok(NextStep::Passed);
    }
    check_origin(request_origin(&parts.headers, method), rules)
}

/// A client that sends no cookie, no `Origin` and no `Sec-Fetch-Site` is none.
fn is_browser(headers: &http::HeaderMap) -> bool {
    headers.contains_key(COOKIE)
        || headers.contains_key(ORIGIN)
        || headers.contains_key(SEC_FETCH_SITE)
}

/// Whether this is a browser that goes to a page.
fn wants_page(parts: &request::Parts) -> bool {
    const HTML: &[u8] = b"text/html";
    let accepts_html = |value: &HeaderValue| {
        value.as_bytes().windows(HTML.len()).any(|part| part.eq_ignore_ascii_case(HTML))
    };
    matches!(parts.method, Method::GET | Method::HEAD)
        && parts.headers.get_all(ACCEPT).iter().any(accepts_html)
}

/// A query's value: everything but letters, digits and `-._~` in percents (RFC 3986 section 2.3).
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Whether a session that an access token or a cookie proved is meant.
pub(crate) fn is_by_cookie(pass: &Pass) -> bool {
    match pass.via {
        Via::Cookie => true,
        Via::Access => false,
    }
}

/// The data with the changes made to it, key by key: each replaces what its key had.
pub(crate) fn changed(data: &Object, changes: &BTreeMap<String, Option<Value>>) -> Object {
    let mut data = data.clone();
    for (key, value) in changes {
        match value {
            Some(value) => data.insert(key.clone(), value.clone()),
            None => data.remove(key),
        };
    }
    data
}

/// A path of this site in a single spelling, as it came in a `return_to`; none for anything that
/// some browser would take elsewhere.
pub fn local_path(raw: &str) -> Option<&str> {
    let own = Origin::parse(NOWHERE).ok()?;
    let rules = ReturnRules { own: &own, allowed: &[], base_path: "/\u{0}" };
    raw.starts_with('/').then(|| ReturnTo::parse(raw, rules))?.map(|_| raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o1_a_place_to_come_back_to_is_on_this_site() {
        for good in ["/", "/account", "/a?b=/c", "/auth/x"] {
            assert_eq!(local_path(good), Some(good));
        }
        for bad in ["", "//evil.example", "/\\evil.example", "/.//evil.example", "/a/..//e", "x"] {
            assert_eq!(local_path(bad), None, "{bad}");
        }
        assert_eq!(local_path("https://nowhere.invalid/"), None);
        assert_eq!(local_path("javascript:alert(1)"), None);
    }
}
