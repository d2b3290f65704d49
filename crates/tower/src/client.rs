//! Who asks: the client's address and agent, cleaned and bounded.

use std::net::IpAddr;

use cloakroom_core::clean::clean_text;
use cloakroom_core::limits::USER_AGENT_CHARS_MAX;
use cloakroom_core::network::{IpNet, client_address};
use cloakroom_core::session::Client;
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::{Extensions, HeaderMap};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of a request's connection, for whoever serves without axum's `ConnectInfo`: put
/// it into the request's extensions, in front of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The other end of the connection, where somebody has told it.
pub(crate) fn peer_of(extensions: &Extensions) -> Option<IpAddr> {
    let told = extensions.get::<Peer>().map(|peer| peer.0);
    #[cfg(feature = "axum")]
    let told = told.or_else(|| {
        use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};
        use std::net::SocketAddr;

        let info = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        // What axum's own extractor takes in tests.
        let mock = || extensions.get::<MockConnectInfo<SocketAddr>>().map(|info| info.0);
        info.or_else(mock).map(|peer| peer.ip())
    });
    told
}

/// The client of a request from `peer`.
pub fn client_of(headers: &HeaderMap, peer: Option<IpAddr>, trusted: &[IpNet]) -> Client {
    let ip = peer.map(|peer| address_of(headers, peer, trusted));
    Client { ip, user_agent: agent_of(headers.get(USER_AGENT)), label: None }
}

/// The address of a request's client: the peer's, or what trusted proxies say of it.
pub fn address_of(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    // The map's iterator can't be walked from the end, which is where the proxies wrote.
    let lines: Vec<&[u8]> =
        headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.as_bytes()).collect();
    client_address(peer, trusted, lines)
}

/// A client's agent, fit to be kept.
pub(crate) fn agent_of(agent: Option<&HeaderValue>) -> Option<String> {
    let text = String::from_utf8_lossy(agent?.as_bytes());
    Some(clean_text(&text, USER_AGENT_CHARS_MAX)).filter(|agent| !agent.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m2_an_agent_is_kept_without_control_characters_and_bounded() {
        let mut headers = HeaderMap::new();
        let agent = format!("a\tb{}", "x".repeat(2 * USER_AGENT_CHARS_MAX));
        headers.insert(USER_AGENT, agent.parse().expect("a header value"));
        let client = client_of(&headers, Some([192, 0, 2, 1].into()), &[]);
        let agent = client.user_agent.expect("an agent");
        assert!(agent.starts_with("abx") && agent.len() == USER_AGENT_CHARS_MAX);
    }

    #[test]
    fn i1_a_forwarded_address_counts_from_trusted_peers_only() {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, "203.0.113.9".parse().expect("a header value"));
        let peer: IpAddr = [192, 0, 2, 1].into();
        let net: IpNet = "192.0.2.0/24".parse().expect("a network");
        assert_eq!(client_of(&headers, Some(peer), &[]).ip, Some(peer));
        assert_eq!(client_of(&headers, Some(peer), &[net]).ip, Some([203, 0, 113, 9].into()));
    }
}
