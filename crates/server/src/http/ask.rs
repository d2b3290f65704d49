//! A request as a handler gets it: its parts, its body unread, and who asks.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::body::Body;
use axum::extract::{FromRequest, MatchedPath, Request};
use cloakroom::Context;
use cloakroom_core::event::Actor;
use cloakroom_core::given::Header;
use cloakroom_core::network::{IpNet, Network, is_trusted};
use cloakroom_core::rate::Admission;
pub use cloakroom_tower::header;
use cloakroom_tower::{address_of, client_of};
use hyper::header::AsHeaderName;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

use super::body::{self, Need};
use super::form::Form;
use super::members::Members;
use super::request_id::RequestId;
use crate::problem::Problem;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address; loopback for a Unix socket.
    pub address: IpAddr,
    /// Whether what it forwards is believed (`server.trusted_proxies`).
    pub trusted: bool,
}

impl Peer {
    /// The peer at an address.
    pub fn new(address: IpAddr, trusted: &[IpNet]) -> Self {
        Self { address, trusted: is_trusted(address, trusted) }
    }
}

/// What the shell knows of a request before anybody reads it.
#[derive(Debug)]
pub struct Asked {
    /// Its id.
    pub id: RequestId,
    /// Where it came from.
    pub peer: Peer,
    /// What limited it, for the answer's headers.
    pub rate: OnceLock<RateNote>,
    /// The route it was given to, where its path alone doesn't tell.
    pub route: OnceLock<MatchedPath>,
}

impl Asked {
    /// A request with these headers from `peer`.
    pub fn new(headers: &HeaderMap, peer: Peer) -> Self {
        Self { id: RequestId::of(headers), peer, rate: OnceLock::new(), route: OnceLock::new() }
    }

    /// The network that an unauthenticated request is counted for.
    pub fn network(&self, headers: &HeaderMap, trusted: &[IpNet]) -> Network {
        if self.peer.trusted {
            Network::of(address_of(headers, self.peer.address, trusted))
        } else {
            Network::of(self.peer.address)
        }
    }
}

/// The quotas of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaName {
    /// What one session asks for itself.
    Session,
    /// What is verified of one session.
    Verify,
    /// What a network asks that is nobody.
    Network,
}

impl QuotaName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Session, Self::Verify, Self::Network];

    /// Its name in headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Verify => "verify",
            Self::Network => "network",
        }
    }
}

/// A quota that was asked, and its answer.
#[derive(Clone, Copy, Debug)]
pub struct RateNote {
    /// Which.
    pub quota: QuotaName,
    /// What it said.
    pub admission: Admission,
}

/// A request on its way into a handler.
#[derive(Debug)]
pub struct Ask {
    parts: Parts,
    /// Locked by nobody; a body alone can't be shared between threads, which handlers' futures are.
    body: Mutex<Body>,
    asked: Arc<Asked>,
}

impl Ask {
    /// Its method.
    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The query, without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    /// What the shell knows of it.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The value of a header, or that it is absent or repeated.
    pub fn header(&self, name: impl AsHeaderName) -> Header<'_> {
        header(&self.parts.headers, name)
    }

    /// Who asks, as the engine wants to know it.
    pub fn context(&self, actor: Actor, trusted: &[IpNet]) -> Context {
        Context {
            actor,
            client: client_of(&self.parts.headers, Some(self.asked.peer.address), trusted),
            request_id: Some(self.asked.id.as_str().to_owned()),
        }
    }

    /// Reads the body as one JSON object.
    pub async fn members(&mut self, need: Need) -> Result<Members, Problem> {
        let body = self.take_body();
        body::members(&self.parts.headers, body, need).await
    }

    /// Reads the body as a form; below `/oauth2` a query is refused with it.
    pub async fn form(&mut self) -> Result<Form, Problem> {
        let body = self.take_body();
        body::form(&self.parts, body).await
    }

    fn take_body(&mut self) -> Body {
        std::mem::take(self.body.get_mut().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Send + Sync> FromRequest<S> for Ask {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        let (mut parts, body) = request.into_parts();
        let asked = parts.extensions.remove::<Arc<Asked>>().unwrap_or_else(|| {
            // Only a router without its shell comes here; nobody is trusted then.
            let peer = Peer { address: IpAddr::from([0, 0, 0, 0]), trusted: false };
            Arc::new(Asked::new(&parts.headers, peer))
        });
        if let Some(route) = parts.extensions.get::<MatchedPath>() {
            // The guard of the admin listener may have noted it already.
            let _ = asked.route.set(route.clone());
        }
        Ok(Self { parts, body: Mutex::new(body), asked })
    }
}
