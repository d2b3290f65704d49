//! Who asks: the client's address and agent, cleaned and bounded.

use std::net::IpAddr;

use cloakroom_core::limits::USER_AGENT_CHARS_MAX;
use cloakroom_core::network::{IpNet, client_address};
use cloakroom_core::session::Client;
use hyper::HeaderMap;
use hyper::header::USER_AGENT;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The client of a request from `peer`.
pub(crate) fn client_of(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Client {
    let agent = headers.get(USER_AGENT).map(|agent| {
        let text = String::from_utf8_lossy(agent.as_bytes());
        clean_text(&text, USER_AGENT_CHARS_MAX)
    });
    Client {
        ip: Some(address_of(headers, peer, trusted)),
        user_agent: agent.filter(|agent| !agent.is_empty()),
        label: None,
    }
}

/// The address of a request's client.
pub(crate) fn address_of(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    // The map's iterator can't be walked from the end, which is where the proxies wrote.
    let lines: Vec<&[u8]> =
        headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.as_bytes()).collect();
    client_address(peer, trusted, lines)
}

/// Text without control characters, cut to a length: fit for a log line and for an event.
pub(crate) fn clean_text(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m2_an_agent_is_kept_without_control_characters_and_bounded() {
        let mut headers = HeaderMap::new();
        let agent = format!("a\tb{}", "x".repeat(2 * USER_AGENT_CHARS_MAX));
        headers.insert(USER_AGENT, agent.parse().expect("a header value"));
        let client = client_of(&headers, [192, 0, 2, 1].into(), &[]);
        let agent = client.user_agent.expect("an agent");
        assert!(agent.starts_with("abx") && agent.len() == USER_AGENT_CHARS_MAX);
    }

    #[test]
    fn i1_a_forwarded_address_counts_from_trusted_peers_only() {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, "203.0.113.9".parse().expect("a header value"));
        let peer: IpAddr = [192, 0, 2, 1].into();
        let net: IpNet = "192.0.2.0/24".parse().expect("a network");
        assert_eq!(client_of(&headers, peer, &[]).ip, Some(peer));
        assert_eq!(client_of(&headers, peer, &[net]).ip, Some([203, 0, 113, 9].into()));
    }
}
