//! What a request presents: a bearer token, our cookies, and where it came from.

use std::fmt;

use cloakroom_core::cookie::{CookieNames, OwnCookies};
use cloakroom_core::csrf::{MethodClass, RequestOrigin};
use cloakroom_core::given::{Given, Header};
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, ORIGIN, REFERER};

pub(crate) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A header that a request may give once.
pub fn header(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Header<'_> {
    headers.get_all(name).iter().map(|value| value.as_bytes()).collect()
}

/// The `Authorization` header, as far as it means us.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// None, or another scheme, which is the application's own business.
    Absent,
    /// A token.
    Token(&'a str),
    /// A bearer token that isn't one, or two headers. It counts, as a bad one: who sends it
    /// doesn't mean to be known by a cookie.
    Malformed,
}

impl fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Token(_) => "Token(..)",
            Self::Malformed => "Malformed",
        })
    }
}

impl<'a> Bearer<'a> {
    /// Reads the header (RFC 6750 section 2.1). The scheme is taken in any case (RFC 9110 section
    /// 11.1), parted from the token by one space.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let value = match header(headers, AUTHORIZATION) {
            Header::Absent => return Self::Absent,
            Header::Several => return Self::Malformed,
            Header::One(value) => value,
        };
        let Some((scheme, rest)) = value.split_at_checked(SCHEME.len()) else {
            return Self::Absent;
        };
        if !scheme.eq_ignore_ascii_case(SCHEME) || rest.first().is_some_and(is_token_byte) {
            return Self::Absent;
        }
        let token = rest.strip_prefix(b" ").and_then(|token| str::from_utf8(token).ok());
        match token {
            Some(token) if !token.is_empty() => Self::Token(token),
            Some(_) | None => Self::Malformed,
        }
    }
}

const SCHEME: &[u8] = b"Bearer";

/// Whether a scheme's name goes on with this byte (RFC 9110 section 5.6.2).
fn is_token_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// The session cookie among a request's cookies. Two are none: whichever was picked, an attacker on
/// a sibling domain could have planted it.
pub(crate) fn session_cookie(headers: &HeaderMap, names: CookieNames) -> Given<&str> {
    let lines = headers.get_all(COOKIE).iter().map(|line| line.as_bytes());
    OwnCookies::parse(lines, names).session
}

/// The parts of a request that tell where it came from.
pub fn request_origin(headers: &HeaderMap, method: MethodClass) -> RequestOrigin<'_> {
    RequestOrigin {
        method,
        sec_fetch_site: header(headers, SEC_FETCH_SITE),
        origin: header(headers, ORIGIN),
        referer: header(headers, REFERER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(values: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = http::HeaderValue::from_bytes(value).expect("a header value");
            headers.append(AUTHORIZATION, value);
        }
        match Bearer::of(&headers) {
            Bearer::Token(token) => token.to_owned(),
            Bearer::Absent => "absent".to_owned(),
            Bearer::Malformed => "malformed".to_owned(),
        }
    }

    #[test]
    fn d10_whatever_says_bearer_counts_as_one() {
        assert_eq!(bearer(&[]), "absent");
        assert_eq!(bearer(&[b"Bearer x"]), "x");
        assert_eq!(bearer(&[b"bEARER x"]), "x");
        for bad in [&b"Bearer"[..], b"Bearer ", b"Bearer\tx", b"Bearer,x", b"Bearer \xff"] {
            assert_eq!(bearer(&[bad]), "malformed", "{bad:?}");
        }
        assert_eq!(bearer(&[b"Bearer x", b"Bearer x"]), "malformed");
        assert_eq!(bearer(&[b"Basic x", b"Bearer x"]), "malformed");
        for other in [&b"Basic x"[..], b"Bearers x", b"Bear", b"", b"DPoP Bearer"] {
            assert_eq!(bearer(&[other]), "absent", "{other:?}");
        }
        // The second blank is part of the token, which no token of ours has.
        assert_eq!(bearer(&[b"Bearer  x"]), " x");
    }
}
