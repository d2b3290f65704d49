//! The one layer, and what an application decides about it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::cookie::{CookieConflict, Cookies, SameSite};
use cloakroom_core::csrf::{CsrfMode, Origin};
use cloakroom_core::guard::Guard;
use cloakroom_core::network::IpNet;
use cloakroom_core::origin::{MalformedOrigin, Scheme};
use cloakroom_core::rate::Quota;
use tower_layer::Layer;

use crate::meters::Meters;
use crate::service::CloakroomService;

/// `limit.session`: requests of one session.
const SESSION_QUOTA: (u32, Duration) = (100, Duration::from_secs(15 * 60));

/// Our own origin as long as nobody said which it is: no browser's page has it.
pub(crate) const NOWHERE: &str = "https://nowhere.invalid";

/// An option that can't be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The text is no origin.
    #[error("the origin {text:?} {why}")]
    Origin {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: MalformedOrigin,
    },
    /// Without TLS a cookie can be read and planted by whoever is on the way.
    #[error("{0} is neither https:// nor on loopback: its cookies would travel in the open")]
    InsecureOrigin(Origin),
    /// The text is no network, such as `10.0.0.0/8`.
    #[error("the trusted proxy {0:?} is no address or network, such as 10.0.0.0/8")]
    Proxy(String),
    /// Cookie options that don't go together.
    #[error(transparent)]
    Cookies(#[from] CookieConflict),
}

/// Everything that is the same for all requests.
pub(crate) struct House {
    pub(crate) guard: Arc<dyn Guard>,
    /// None can't be: what is unset is a name that nothing has.
    pub(crate) own_origin: Option<Origin>,
    pub(crate) allowed_origins: Vec<Origin>,
    pub(crate) csrf: Option<CsrfMode>,
    pub(crate) cookies: Cookies,
    pub(crate) sign_in_page: Option<String>,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) meters: Option<Meters>,
}

/// The layer: credential, session, CSRF, per-session limit, and then the handler.
///
/// Add it once, outermost, after all routes. What it learned of a request is there for
/// [`Session`](crate::Session), [`CurrentUser`](crate::CurrentUser) and the guards of
/// [`require`](crate::require); what they changed is written once when the handler has answered.
///
/// A request without any credential costs nothing but a look at its headers, and when the authority
/// can't be reached only what asks for a session is refused.
#[derive(Clone)]
#[must_use]
pub struct CloakroomLayer {
    guard: Arc<dyn Guard>,
    own_origin: Option<Origin>,
    allowed_origins: Vec<Origin>,
    csrf: Option<CsrfMode>,
    cookies: Cookies,
    sign_in_page: Option<String>,
    trusted_proxies: Vec<IpNet>,
    session_limit: Option<Quota>,
}

impl std::fmt::Debug for CloakroomLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloakroomLayer").field("origin", &self.own_origin).finish_non_exhaustive()
    }
}

impl CloakroomLayer {
    /// A layer that asks this authority.
    pub fn new(guard: Arc<dyn Guard>) -> Self {
        let (count, window) = SESSION_QUOTA;
        Self {
            guard,
            own_origin: Origin::parse(NOWHERE).ok(),
            allowed_origins: Vec::new(),
            csrf: Some(CsrfMode::Token),
            cookies: Cookies::default(),
            sign_in_page: None,
            trusted_proxies: Vec::new(),
            session_limit: Quota::new(count, window).ok(),
        }
    }

    /// Where browsers reach the application, as in `https://shop.example`.
    ///
    /// It names the cookie: `__Host-session`, or `session` where the origin is `http://` on
    /// loopback. Requests that carry the cookie must come from there. Left out, the cookie is
    /// `__Host-session`, and browsers too old to say `Sec-Fetch-Site` can't send forms.
    pub fn origin(mut self, origin: &str) -> Result<Self, SetupError> {
        let malformed = |why| SetupError::Origin { text: origin.to_owned(), why };
        let own = Origin::parse(origin).map_err(malformed)?;
        if own.scheme() == Scheme::Http && !is_loopback(&own) {
            return Err(SetupError::InsecureOrigin(own));
        }
        let same_site = self.cookies.same_site_setting();
        self.cookies = self.cookies.with(same_site, own.scheme() == Scheme::Https)?;
        self.own_origin = Some(own);
        Ok(self)
    }

    /// Another origin whose pages may send requests with the cookie.
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, SetupError> {
        let malformed = |why| SetupError::Origin { text: origin.to_owned(), why };
        self.allowed_origins.push(Origin::parse(origin).map_err(malformed)?);
        Ok(self)
    }

    /// `SameSite` of the cookie; `Lax` unless said otherwise.
    pub fn same_site(mut self, same_site: SameSite) -> Result<Self, SetupError> {
        self.cookies = self.cookies.with(same_site, self.cookies.are_secure())?;
        Ok(self)
    }

    /// Where browsers are sent when a page needs a sign-in; they come back by `return_to`. Without
    /// it they get 401 like everybody else.
    pub fn sign_in_page(mut self, path: &str) -> Self {
        self.sign_in_page = Some(path.to_owned());
        self
    }

    /// A proxy in front of the application, as an address or a network: what it says in
    /// `X-Forwarded-For` is believed. Call it once for each.
    ///
    /// The client's address is kept with a session, for its user's list of devices and the audit
    /// log. It is known where axum serves by
    /// `into_make_service_with_connect_info::<SocketAddr>()`, or where [`Peer`](crate::Peer) is put
    /// into the request.
    ///
    /// ```
    /// # fn example(layer: cloakroom_tower::CloakroomLayer)
    /// # -> Result<(), cloakroom_tower::SetupError> {
    /// let layer = layer.trusted_proxy("10.0.0.0/8")?.trusted_proxy("::1")?;
    /// # Ok(()) }
    /// ```
    pub fn trusted_proxy(mut self, network: &str) -> Result<Self, SetupError> {
        let address = || network.parse::<IpAddr>().map(IpNet::from);
        let parsed = network.parse::<IpNet>().or_else(|_| address());
        let parsed = parsed.map_err(|_| SetupError::Proxy(network.to_owned()))?;
        self.trusted_proxies.push(parsed);
        Ok(self)
    }

    /// Checks where unsafe requests come from, and asks for no token.
    ///
    /// Enough where every browser sends `Sec-Fetch-Site`, which all do since 2023.
    pub fn csrf_by_origin(mut self) -> Self {
        self.csrf = Some(CsrfMode::Origin);
        self
    }

    /// Leaves the CSRF check to somebody else. Nothing then stands between another site's form and
    /// your users' sessions but `SameSite`.
    pub fn without_csrf(mut self) -> Self {
        self.csrf = None;
        self
    }

    /// Requests of one session in a time, in this process; 100 in 15 minutes unless said otherwise.
    pub fn session_limit(mut self, quota: Quota) -> Self {
        self.session_limit = Some(quota);
        self
    }

    /// Leaves the per-session limit out.
    pub fn without_session_limit(mut self) -> Self {
        self.session_limit = None;
        self
    }

    fn house(&self) -> House {
        House {
            guard: Arc::clone(&self.guard),
            own_origin: self.own_origin.clone(),
            allowed_origins: self.allowed_origins.clone(),
            csrf: self.csrf,
            cookies: self.cookies.clone(),
            sign_in_page: self.sign_in_page.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            meters: self.session_limit.map(|quota| Meters::new("session", quota)),
        }
    }
}

impl<S> Layer<S> for CloakroomLayer {
    type Service = CloakroomService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CloakroomService::new(inner, Arc::new(self.house()))
    }
}

/// Whether an origin is on this machine (RFC 6761 section 6.3, RFC 1122 section 3.2.1.3).
fn is_loopback(origin: &Origin) -> bool {
    let authority = origin.authority();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => &authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_without_secure_stay_on_this_machine() {
        for (origin, loopback) in [
            ("http://127.0.0.1:3000", true),
            ("http://localhost", true),
            ("http://[::1]:3000", true),
            ("http://[::1]", true),
            ("http://127.0.0.1.example", false),
            ("http://localhost.example", false),
            ("http://192.0.2.1:3000", false),
            ("http://[2001:db8::1]", false),
        ] {
            let parsed = Origin::parse(origin).expect("an origin");
            assert_eq!(is_loopback(&parsed), loopback, "{origin}");
        }
    }
}
