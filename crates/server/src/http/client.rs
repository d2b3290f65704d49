//! Who asks: the client's address and agent, cleaned and bounded.

use std::net::IpAddr;

use cloakroom_core::limits::USER_AGENT_CHARS_MAX;
use cloakroom_core::network::{IpNet, client_address};
use cloakroom_core::session::Client;
use cloakroom_core::token::Looks;
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

/// Text without control characters and without what looks like a credential of ours, cut to a
/// length: fit for a log line and for an event.
pub(crate) fn clean_text(text: &str, chars_max: usize) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    if !holds_credential(&clean) {
        return clean.chars().take(chars_max).collect();
    }
    let words = clean.split_inclusive(|c: char| !is_token_char(c));
    let masked = words.map(|word| if holds_credential(word) { MASK } else { word });
    masked.flat_map(str::chars).take(chars_max).collect()
}

/// What stands in the place of a credential that somebody put where it doesn't belong.
const MASK: &str = "[credential] ";
/// Shorter ones can't be any.
const CREDENTIAL_CHARS_MIN: usize = 40;

/// Whether some word of a text looks like a credential of ours, which nothing may write down.
pub(super) fn holds_credential(text: &str) -> bool {
    let looks = |word: &str| match Looks::of(word) {
        Looks::Opaque(_) | Looks::Jwt => word.len() >= CREDENTIAL_CHARS_MIN,
        Looks::Csrf | Looks::Unknown => false,
    };
    text.split(|c: char| !is_token_char(c)).any(looks)
}

const fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
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
    fn m1_a_credential_in_an_agent_is_not_kept() {
        let opaque = format!("cks_{}", "Ab1-_".repeat(16));
        let token = format!("eyJ{0}.eyJ{0}.{0}", "Ab1-_".repeat(8));
        for (given, kept) in [
            (format!("tool/1 ({opaque}; x) ok"), "tool/1 ([credential]  x) ok"),
            (format!("Bearer {token}"), "Bearer [credential] "),
            ("cks_short eyJ.eyJ.x".to_owned(), "cks_short eyJ.eyJ.x"),
            (format!("Mozilla/5.0 {}", "a".repeat(64)), &format!("Mozilla/5.0 {}", "a".repeat(64))),
        ] {
            assert_eq!(clean_text(&given, USER_AGENT_CHARS_MAX), kept);
        }
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
