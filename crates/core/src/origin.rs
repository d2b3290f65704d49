//! Web origins: scheme, host and port, compared as a whole.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::limits::{HOST_BYTES_MAX, HOST_LABEL_BYTES_MAX};

/// An origin of a web page (RFC 6454), `http` or `https` only.
///
/// Two are equal if scheme, host and port are; a port that is the scheme's default equals none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    scheme: Scheme,
    host: Host,
    port: u16,
}

/// The scheme of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// Its name in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The text is no origin; says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedOrigin(pub &'static str);

impl Origin {
    /// Takes an origin as a browser serialises it (RFC 6454 section 6.2): `https://app.example`.
    ///
    /// Lower-case ASCII only; no path, no user, no trailing dot, not `null`.
    pub fn parse(text: &str) -> Result<Self, MalformedOrigin> {
        let (scheme, authority) = split_scheme(text)?;
        Self::of_authority(scheme, authority)
    }

    /// Takes the value of an `Origin` header.
    pub fn parse_bytes(value: &[u8]) -> Result<Self, MalformedOrigin> {
        Self::parse(ascii(value)?)
    }

    /// The origin of a whole URL, as in a `Referer` header (RFC 9110 section 10.1.3).
    pub fn of_url(value: &[u8]) -> Result<Self, MalformedOrigin> {
        split_url(ascii(value)?).map(|(origin, _)| origin)
    }

    /// The origin of `scheme` at `host[:port]`.
    pub fn of_authority(scheme: Scheme, authority: &str) -> Result<Self, MalformedOrigin> {
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => scheme.default_port(),
        };
        Ok(Self { scheme, host: Host::parse(host)?, port })
    }

    /// Its scheme.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its `host`, or `host:port` where the port isn't the scheme's default.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Origin {
    type Err = MalformedOrigin;

    fn from_str(text: &str) -> Result<Self, MalformedOrigin> {
        Self::parse(text)
    }
}

/// Splits a URL in visible ASCII into its origin and what follows: nothing, or `/…`, `?…`, `#…`.
///
/// A backslash is refused: browsers read it as a slash, other parsers as part of a name.
pub(crate) fn split_url(url: &str) -> Result<(Origin, &str), MalformedOrigin> {
    if !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Err(MalformedOrigin("must be visible ASCII without a backslash"));
    }
    let (scheme, rest) = split_scheme(url)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    Ok((Origin::of_authority(scheme, authority)?, rest))
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Host {
    fn parse(text: &str) -> Result<Self, MalformedOrigin> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address = inner.parse().map_err(|_| MalformedOrigin("has a bad IPv6 address"))?;
            return Ok(Self::V6(address));
        }
        if text.len() > HOST_BYTES_MAX || !text.split('.').all(is_label) {
            return Err(MalformedOrigin("has a bad host name"));
        }
        // Browsers read a name whose last label is a number as an IPv4 address (WHATWG URL, "ends
        // in a number"), in octal and hexadecimal too: only the plain form has one meaning.
        if text.rsplit('.').next().is_some_and(is_number) {
            let address = text.parse().map_err(|_| MalformedOrigin("has a bad IPv4 address"))?;
            return Ok(Self::V4(address));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

fn ascii(value: &[u8]) -> Result<&str, MalformedOrigin> {
    str::from_utf8(value).map_err(|_| MalformedOrigin("must be ASCII"))
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), MalformedOrigin> {
    [Scheme::Https, Scheme::Http]
        .into_iter()
        .find_map(|scheme| {
            let rest = text.strip_prefix(scheme.as_str())?.strip_prefix("://")?;
            Some((scheme, rest))
        })
        .ok_or(MalformedOrigin("must begin with http:// or https://, in lower case"))
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), MalformedOrigin> {
    let host_end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(MalformedOrigin("has a bad host name")),
    }
}

fn parse_port(digits: &str) -> Result<u16, MalformedOrigin> {
    let bad = MalformedOrigin("has a bad port");
    let port = digits.parse::<u16>().map_err(|_| bad)?;
    // One port has one spelling: no plus sign, no leading zeros.
    if port == 0 || port.to_string() != digits { Err(bad) } else { Ok(port) }
}

fn is_label(label: &str) -> bool {
    (1..=HOST_LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_prints_as_browsers_serialise_it() {
        for (text, printed) in [
            ("https://app.example", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("http://app.example:443", "http://app.example:443"),
            ("http://localhost:7400", "http://localhost:7400"),
            ("http://127.0.0.1:7400", "http://127.0.0.1:7400"),
            ("http://[::1]:7400", "http://[::1]:7400"),
            ("http://[0:0::1]", "http://[::1]"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ] {
            let origin = Origin::parse(text).expect(text);
            assert_eq!(origin.to_string(), printed);
            assert_eq!(Origin::parse(printed), Ok(origin));
        }
    }

    #[test]
    fn what_has_two_readings_is_no_origin() {
        for bad in [
            "",
            "null",
            "https",
            "https:",
            "https:/",
            "https://",
            "https:///",
            "://app.example",
            "HTTPS://app.example",
            "https://App.example",
            "https://app.example.",
            "https://.example",
            "https://app..example",
            "https://app.example/",
            "https://app.example?",
            "https://app.example#",
            "https://user@app.example",
            "https://app.example@evil",
            "https://app.example:",
            "https://app.example:0",
            "https://app.example:0443",
            "https://app.example:+443",
            "https://app.example:65536",
            "https://app.example:443:443",
            "https://app.example:x",
            "https://bücher.example",
            "https://app%2eexample",
            "https://app.example\\",
            "https://app.example\t",
            " https://app.example",
            "https://app.example ",
            "https://a, https://b",
            "https://0x7f.1",
            "https://127.1",
            "https://2130706433",
            "https://0177.0.0.1",
            "https://app.0x1",
            "https://1.2.3.4.5",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://[fe80::1%25eth0]",
            "https://[1.2.3.4]",
            "https://[]",
            "file://app.example",
            "javascript://app.example",
            "ws://app.example",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad:?}");
        }
        let long = format!("https://{}", ["a"; 128].join("."));
        assert!(Origin::parse(&long).is_err());
        assert!(Origin::parse(&format!("https://{}.example", "a".repeat(64))).is_err());
    }

    #[test]
    fn every_part_of_an_origin_counts() {
        let own = Origin::parse("https://app.example").expect("well-formed");
        for other in [
            "http://app.example",
            "https://app.example:444",
            "https://app.example.evil.com",
            "https://evilapp.example",
            "https://example",
        ] {
            assert_ne!(Origin::parse(other), Ok(own.clone()), "{other}");
        }
    }

    #[test]
    fn a_url_has_the_origin_of_its_authority_alone() {
        let own = Origin::parse("https://app.example").expect("well-formed");
        for url in ["https://app.example", "https://app.example/x?y#z", "https://app.example:443?q"]
        {
            assert_eq!(Origin::of_url(url.as_bytes()), Ok(own.clone()), "{url}");
        }
        for url in ["https://app.example/é", "https://app.example\\x", "/x", "", "app.example"] {
            assert!(Origin::of_url(url.as_bytes()).is_err(), "{url}");
        }
    }
}
