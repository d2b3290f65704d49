//! Whose address counts: the client's behind trusted proxies, and the network it is limited by.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use ipnet::IpNet;

use crate::limits::FORWARDED_HOPS_MAX;

/// What a client address is limited by: an IPv4 address, or the /64 of an IPv6 one, since whoever
/// has one address of a /64 has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// One IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 prefix of 64 bits; the rest is zero.
    V6(Ipv6Addr),
}

impl Network {
    /// The network of an address. An IPv4-mapped IPv6 address is the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                Self::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(prefix) => write!(f, "{prefix}/64"),
        }
    }
}

/// Whether what a peer forwards is believed (`server.trusted_proxies`).
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// The address of the client: the peer's, or what trusted proxies say in `X-Forwarded-For`.
///
/// The lines are walked from the right, since each proxy appends whom it heard; what stands left of
/// the first address that isn't a trusted proxy's was written by the client. An entry that can't be
/// read ends the walk at the proxy which passed it on.
pub fn client_address<'a, I>(peer: IpAddr, trusted: &[IpNet], forwarded_for: I) -> IpAddr
where
    I: IntoIterator<Item = &'a [u8]>,
    I::IntoIter: DoubleEndedIterator,
{
    let mut address = peer.to_canonical();
    let entries = forwarded_for
        .into_iter()
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','))
        .take(FORWARDED_HOPS_MAX);
    for entry in entries {
        if !is_trusted(address, trusted) {
            break;
        }
        match parse_entry(entry) {
            Some(earlier) => address = earlier,
            None => break,
        }
    }
    address
}

/// Reads `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]`, and either with a port: some proxies add it.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let address: IpAddr = if let Some(rest) = text.strip_prefix('[') {
        let (inner, port) = rest.split_once(']')?;
        is_port_or_nothing(port).then_some(())?;
        IpAddr::V6(inner.parse().ok()?)
    } else if let Ok(address) = text.parse() {
        address
    } else {
        let (host, port) = text.split_once(':')?;
        port.parse::<u16>().ok()?;
        IpAddr::V4(host.parse().ok()?)
    };
    Some(address.to_canonical())
}

fn is_port_or_nothing(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn client(peer: &str, lines: &[&'static str]) -> String {
        let trusted =
            ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|net| net.parse().expect("a prefix"));
        client_address(ip(peer), &trusted, lines.iter().map(|line| line.as_bytes())).to_string()
    }

    #[test]
    fn j8_ipv6_is_counted_by_prefix_and_mapped_ipv4_as_ipv4() {
        for (address, network) in [
            ("203.0.113.9", "203.0.113.9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(Network::of(ip(address)).to_string(), network);
        }
    }

    #[test]
    fn i1_an_untrusted_peer_is_the_client_whatever_it_forwards() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &["10.0.0.1, 10.0.0.2"]), "203.0.113.9");
        let none = client_address(ip("10.0.0.1"), &[], [&b"198.51.100.1"[..]]);
        assert_eq!(none, ip("10.0.0.1"));
    }

    #[test]
    fn i1_forwarded_addresses_are_walked_from_the_right() {
        for (lines, address) in [
            (&["198.51.100.1"][..], "198.51.100.1"),
            (&["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
            (&["1.2.3.4, 198.51.100.1 ,10.0.0.7"], "198.51.100.1"),
            (&["1.2.3.4", "198.51.100.1", "10.0.0.7"], "198.51.100.1"),
            (&["198.51.100.1:4711"], "198.51.100.1"),
            (&["[2001:db8::9]:4711, 10.9.9.9"], "2001:db8::9"),
            (&["2001:db8::9, 2001:db8:ffff::1"], "2001:db8::9"),
            (&["::ffff:198.51.100.1, ::ffff:10.1.1.1"], "198.51.100.1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", lines), address, "{lines:?}");
            assert_eq!(client("::ffff:10.0.0.1", lines), address, "{lines:?}");
        }
    }

    #[test]
    fn an_unreadable_entry_ends_the_walk() {
        for entry in
            ["unknown", "", "_hidden", "1.2.3", "1.2.3.4:x", "[::1", "[1.2.3.4]", "é", "1.2.3.4/8"]
        {
            let line = format!("198.51.100.1, {entry}, 10.0.0.7");
            let trusted = ["10.0.0.0/8".parse().expect("a prefix")];
            let found = client_address(ip("10.0.0.1"), &trusted, [line.as_bytes()]);
            assert_eq!(found, ip("10.0.0.7"), "{entry:?}");
        }
    }

    #[test]
    fn a_walk_is_bounded() {
        let line = ["10.0.0.2"; 10_000].join(",");
        let line = format!("198.51.100.1,{line}");
        let trusted = ["10.0.0.0/8".parse().expect("a prefix")];
        let found = client_address(ip("10.0.0.1"), &trusted, [line.as_bytes()]);
        assert_eq!(found, ip("10.0.0.2"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_address(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let trusted = ["0.0.0.0/0".parse().expect("a prefix")];
            let _ = client_address(ip("10.0.0.1"), &trusted, [&line[..]]);
        }
    }
}
