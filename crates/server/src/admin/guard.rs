//! Who may ask what on the admin listener.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use cloakroom::ApiKeyIdentity;
use cloakroom_core::event::Actor;
use cloakroom_core::given::Given;
use cloakroom_core::origin::{Origin, Scheme};
use cloakroom_core::refusal::Refusal;
use cloakroom_tower::Bearer;
use hyper::header::{HOST, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Uri};

use super::query::Query;
use super::{Endpoint, ROUTES, Reads};
use crate::config::Listener;
use crate::http::{Asked, header, refuse_body};
use crate::problem::{Code, Problem};
use crate::site::Site;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Whatever the key has: it need only be one.
    Any,
    /// See sessions.
    SessionsRead,
    /// Open, change and end sessions.
    SessionsWrite,
    /// See users and subjects.
    UsersRead,
    /// Change users and subjects.
    UsersWrite,
    /// See, rotate and revoke signing keys.
    Keys,
    /// Read the audit log.
    Events,
    /// Everything.
    Admin,
}

impl Scope {
    /// The scopes that a key can have.
    pub const ALL: [Self; 7] = [
        Self::SessionsRead,
        Self::SessionsWrite,
        Self::UsersRead,
        Self::UsersWrite,
        Self::Keys,
        Self::Events,
        Self::Admin,
    ];

    /// Its name; none for [`Scope::Any`], which is no scope of a key.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::SessionsRead => Some("sessions:read"),
            Self::SessionsWrite => Some("sessions:write"),
            Self::UsersRead => Some("users:read"),
            Self::UsersWrite => Some("users:write"),
            Self::Keys => Some("keys"),
            Self::Events => Some("events"),
            Self::Admin => Some("admin"),
        }
    }

    /// Whether a key with `scopes` may do what needs this one.
    pub fn is_covered(self, scopes: &[String]) -> bool {
        let has = |scope: Self| scopes.iter().any(|held| Some(held.as_str()) == scope.name());
        self == Self::Any || has(self) || has(Self::Admin)
    }
}

/// Who asks, as events name them.
pub(super) fn actor_of(identity: &ApiKeyIdentity) -> Actor {
    if identity.is_root { Actor::Operator } else { Actor::ApiKey(identity.id.clone()) }
}

/// Lets a request in whose key has the scope that its endpoint needs.
pub(super) async fn require_scope(
    State(site): State<Arc<Site>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    if let (Some(asked), Some(route)) =
        (parts.extensions.get::<Arc<Asked>>(), parts.extensions.get::<MatchedPath>())
    {
        // Nobody before this notes it.
        let _ = asked.route.set(route.clone());
    }
    let identity = authenticate(&site, &parts).await?;
    let path = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let mut body = body;
    // Where there is no such endpoint the router says so.
    if let Some(endpoint) = path.and_then(|path| endpoint_at(&parts.method, path)) {
        check_scope(endpoint.scope, &identity)?;
        body = refuse_unread(endpoint.reads, &parts, body).await?;
    }
    parts.extensions.insert(identity);
    Ok(next.run(Request::from_parts(parts, body)).await)
}

fn endpoint_at(method: &Method, path: &str) -> Option<&'static Endpoint> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|endpoint| *endpoint.method == *method && endpoint.path == path)
}

fn check_scope(scope: Scope, identity: &ApiKeyIdentity) -> Result<(), Problem> {
    if scope.is_covered(&identity.scopes) {
        return Ok(());
    }
    let name = scope.name().unwrap_or_default();
    let detail = format!("this needs a key with the scope {name}");
    Err(Problem::new(Code::InsufficientScope, detail))
}

/// Refuses a query or a body that the endpoint doesn't read; gives the body that it does.
async fn refuse_unread(reads: Reads, parts: &Parts, body: Body) -> Result<Body, Problem> {
    match reads {
        Reads::Nothing | Reads::Body => {
            Query::parse(parts.uri.query().unwrap_or_default())?.finish()?;
        }
        Reads::Query => {}
    }
    match reads {
        Reads::Nothing | Reads::Query => {
            refuse_body(&parts.headers, body).await?;
            Ok(Body::empty())
        }
        Reads::Body => Ok(body),
    }
}

async fn authenticate(site: &Site, parts: &Parts) -> Result<ApiKeyIdentity, Problem> {
    let refused = match key_of(&parts.headers) {
        Some(key) => {
            let checked = match key {
                Ok(key) => site.authority.authenticate_api_key(key).await,
                Err(refusal) => Err(refusal.into()),
            };
            site.metrics.key_checked(&checked);
            match checked {
                Ok(identity) => return Ok(identity),
                Err(error) => Problem::from(error),
            }
        }
        None => {
            site.metrics.key_missing();
            Problem::new(Code::CredentialsRequired, "an API key is required")
        }
    };
    // Whoever guesses is counted, and slowed down, for its network.
    if let Some(asked) = parts.extensions.get::<Arc<Asked>>() {
        site.admit_nobody(asked, &parts.headers)?;
    }
    Err(refused)
}

/// The bearer token of a request; a key anywhere else doesn't count.
fn key_of(headers: &HeaderMap) -> Option<Result<&str, Refusal>> {
    match Bearer::of(headers) {
        Bearer::Absent => None,
        Bearer::Token(key) => Some(Ok(key)),
        Bearer::Malformed => Some(Err(Refusal::TokenInvalid)),
    }
}

/// Refuses what a browser would send for a page that isn't this listener's own: a name that
/// somebody else's DNS points here (rebinding), or another site's origin.
pub(super) async fn require_own_name(
    State(site): State<Arc<Site>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let headers = request.headers();
    let authority = authority_of(request.uri(), headers);
    if !site.is_admin_name(authority) {
        let detail = "the Host isn't this listener's own nor in server.admin_hosts";
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let scheme = if site.config.admin_tls.is_some() { Scheme::Https } else { Scheme::Http };
    let own = match header(headers, ORIGIN.as_str()) {
        Given::Absent => true,
        Given::One(value) => {
            let given = Origin::parse_bytes(value).ok();
            given.is_some() && given == Origin::of_authority(scheme, authority).ok()
        }
        Given::Several => false,
    };
    if !own {
        return Err(Problem::new(Code::Forbidden, "a foreign Origin has no business here"));
    }
    Ok(next.run(request).await)
}

/// The name that a request was sent to: HTTP/2's `:authority`, else `Host`. That there is one, and
/// that both are the same, is seen to before any route.
fn authority_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let host = || headers.get(HOST).and_then(|host| str::from_utf8(host.as_bytes()).ok());
    uri.authority().map(Authority::as_str).or_else(host).unwrap_or_default()
}

impl Site {
    /// Whether the admin listener may be addressed by this `host[:port]`.
    ///
    /// The port isn't compared: rebinding needs a name, and a container's ports are mapped.
    fn is_admin_name(&self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else { return false };
        let known = self.config.server.admin_hosts.iter();
        if known.map(|name| name.as_str()).any(|name| name.eq_ignore_ascii_case(host)) {
            return true;
        }
        is_own_name(host, &self.config.server.admin)
    }
}

/// Whether a listener is addressed by its own address, or by `localhost` where it is on this
/// machine.
fn is_own_name(host: &str, listener: &Listener) -> bool {
    let local = host.eq_ignore_ascii_case("localhost");
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    match listener {
        Listener::Unix(_) => local,
        Listener::Tcp(address) => {
            let ip = address.ip().to_canonical();
            match literal.map(|literal| literal.to_canonical()) {
                None => local && (ip.is_loopback() || ip.is_unspecified()),
                Some(literal) if ip.is_loopback() => literal.is_loopback(),
                // No DNS can make a page of somebody else's have an address for its host.
                Some(literal) => ip.is_unspecified() || literal == ip,
            }
        }
    }
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host_of(authority: &str) -> Option<&str> {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, port) = authority.split_at(end);
        return (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(host);
    }
    match authority.split_once(':') {
        None => Some(authority),
        Some((host, port)) => is_port(port).then_some(host),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::AUTHORIZATION;

    use super::*;

    fn tcp(text: &str) -> Listener {
        Listener::Tcp(text.parse().expect("an address"))
    }

    #[test]
    fn l6_only_the_listeners_own_names_are_its_names() {
        let own = |authority: &str, listener: &Listener| {
            host_of(authority).is_some_and(|host| is_own_name(host, listener))
        };
        let loopback = tcp("127.0.0.1:7401");
        for name in
            ["127.0.0.1:7401", "localhost:7401", "LOCALHOST", "[::1]:7401", "localhost:8401"]
        {
            assert!(own(name, &loopback), "{name}");
        }
        for name in [
            "evil.example:7401",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7401",
            "10.0.0.9:7401",
            "localhost:7401:80",
            "localhost@evil.example",
            "[::1]evil",
            "[::1",
            "",
            ":7401",
        ] {
            assert!(!own(name, &loopback), "{name}");
        }
        let everywhere = tcp("0.0.0.0:7401");
        assert!(own("10.0.0.9:7401", &everywhere) && own("localhost", &everywhere));
        assert!(!own("evil.example:7401", &everywhere));
        let one = tcp("10.0.0.9:7401");
        assert!(own("10.0.0.9", &one) && !own("10.0.0.8", &one) && !own("localhost", &one));
        assert!(own("localhost", &Listener::Unix("/run/x".into())));
    }

    #[test]
    fn l1_a_scope_covers_itself_and_admin_covers_all() {
        for scope in Scope::ALL {
            let held = |scope: Scope| vec![scope.name().unwrap_or_default().to_owned()];
            assert!(scope.is_covered(&held(scope)) && scope.is_covered(&held(Scope::Admin)));
            for other in Scope::ALL.into_iter().filter(|o| *o != scope && *o != Scope::Admin) {
                assert!(!scope.is_covered(&held(other)), "{other:?} covers {scope:?}");
            }
            assert!(!scope.is_covered(&[]));
            assert!(Scope::Any.is_covered(&[]));
        }
    }

    #[test]
    fn l5_a_key_counts_as_bearer_token_only() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().expect("a header value"));
            }
            key_of(&headers).map(|key| key.map(str::to_owned))
        };
        assert_eq!(of(&["Bearer cka_x"]), Some(Ok("cka_x".to_owned())));
        assert_eq!(of(&["bearer cka_x"]), Some(Ok("cka_x".to_owned())));
        for other in [&["Basic Y2thX3g6"][..], &["cka_x"], &[], &["Basic cka_x"]] {
            assert_eq!(of(other), None, "{other:?}");
        }
        for bad in [&["Bearer cka_x", "Bearer cka_x"][..], &["Bearer"], &["Bearer "]] {
            assert_eq!(of(bad), Some(Err(Refusal::TokenInvalid)), "{bad:?}");
        }
    }
}
