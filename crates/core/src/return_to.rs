//! Where a browser goes after sign-in: a page of ours or of a listed origin, and nowhere else.

use std::fmt;

use crate::limits::RETURN_TO_BYTES_MAX;
use crate::origin::{Origin, split_url};
use crate::uri::{escaped_bytes, is_unreserved, percent_encode};

/// A place that is safe to send a browser to; only [`ReturnTo::parse`] makes one.
///
/// A local path, or a URL of the own or a listed origin. Visible ASCII, so it can stand in a
/// header; a template escapes it like any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnTo(String);

/// Where one may return to.
#[derive(Clone, Copy, Debug)]
pub struct ReturnRules<'a> {
    /// `server.origin`.
    pub own: &'a Origin,
    /// `forward_auth.allowed_return_origins`.
    pub allowed: &'a [Origin],
    /// `server.base_path`, where our own endpoints are.
    pub base_path: &'a str,
}

impl ReturnTo {
    /// The first page, for when nothing better was asked for.
    pub fn home() -> Self {
        Self("/".to_owned())
    }

    /// Takes a place in exactly one spelling, as it stands after form or query decoding.
    ///
    /// Stricter than browsers are lenient: what two parsers could read as two places is refused.
    pub fn parse(raw: &str, rules: ReturnRules<'_>) -> Option<Self> {
        if raw.len() > RETURN_TO_BYTES_MAX || !raw.bytes().all(is_plain) || !is_harmless(raw) {
            return None;
        }
        let (ours, rest) = if raw.starts_with('/') {
            (true, raw)
        } else {
            let (origin, rest) = split_url(raw).ok()?;
            let ours = origin == *rules.own;
            (ours || rules.allowed.contains(&origin)).then_some((ours, rest))?
        };
        let path = rest.split(['?', '#']).next()?;
        // A browser reads `//host` as a URL of that host, also once dot segments are taken out.
        if path.starts_with("//") || has_dot_segment(path) {
            return None;
        }
        if ours && is_endpoint(path, rules.base_path) {
            return None;
        }
        Some(Self(raw.to_owned()))
    }

    /// The place, for a `Location` header or a link.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The place as the value of a query parameter.
    pub fn as_query_value(&self) -> String {
        percent_encode(&self.0, is_unreserved)
    }
}

impl fmt::Display for ReturnTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Visible ASCII that no browser rewrites (WHATWG URL) and no page mistakes for markup.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>' | b'`')
}

/// Whether the escapes are whole and hide neither a control character nor one of the two CJK
/// characters whose last byte becomes CR or LF where a server narrows UTF-16 to bytes.
fn is_harmless(text: &str) -> bool {
    let narrowed = [[0xe5, 0x98, 0x8a], [0xe5, 0x98, 0x8d]];
    escaped_bytes(text).is_some_and(|bytes| {
        !bytes.iter().any(u8::is_ascii_control)
            && !bytes.windows(3).any(|window| narrowed.iter().any(|bad| bad == window))
    })
}

/// Whether a segment is `.` or `..`, also escaped: browsers take those out (WHATWG URL).
fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    })
}

/// Whether a path is one of our endpoints. They are no pages to return to, and the sign-in page
/// would lead back to itself; `devices` is a page.
fn is_endpoint(path: &str, base_path: &str) -> bool {
    match path.strip_prefix(base_path) {
        Some(_) if base_path.is_empty() => false,
        Some("/devices") | None => false,
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    fn with_rules<T>(test: impl Fn(ReturnRules<'_>) -> T) -> T {
        let own = Origin::parse("https://app.example").expect("well-formed");
        let allowed = [Origin::parse("https://shop.example:8443").expect("well-formed")];
        test(ReturnRules { own: &own, allowed: &allowed, base_path: "/auth" })
    }

    fn accepted(raw: &str) -> bool {
        with_rules(|rules| ReturnTo::parse(raw, rules).is_some())
    }

    /// Whether a browser on our sign-in page stays on an origin it may go to.
    fn stays(raw: &str) -> bool {
        let base = Url::parse("https://app.example/auth/sign-in").expect("a URL");
        base.join(raw).is_ok_and(|url| {
            let origin = url.origin().ascii_serialization();
            origin == "https://app.example" || origin == "https://shop.example:8443"
        })
    }

    #[test]
    fn o1_pages_of_ours_and_of_listed_origins_are_accepted() {
        for raw in [
            "/",
            "/ok",
            "/a/b?c=d&e=%2F#f",
            "/a//b",
            "/@user",
            "/redirect?u=//evil.com",
            "/?next=https://evil.com",
            "/caf%C3%A9",
            "/auth/devices",
            "/authors",
            "/auth-x",
            "https://app.example",
            "https://app.example/x",
            "https://app.example:443/x",
            "https://app.example?x",
            "https://shop.example:8443/cart",
            "/a/...",
            "/.well-known/x",
            "https://shop.example:8443/auth/logout",
            "/x?y=../..",
            "/a:b",
        ] {
            assert!(accepted(raw), "{raw}");
            assert!(stays(raw), "{raw}");
        }
        assert_eq!(ReturnTo::home().as_str(), "/");
    }

    #[test]
    fn o1_places_that_leave_are_refused() {
        for raw in [
            "//evil.com",
            "///evil.com",
            "/\\evil.com",
            "\\/\\/evil.com",
            "\\\\evil.com",
            "/%09/evil.com",
            "/\t/evil.com",
            "/\n/evil.com",
            "\n//evil.com",
            " //evil.com",
            "\u{1}//evil.com",
            "https:evil.com",
            "https:/evil.com",
            "https:///evil.com",
            "HtTpS://evil.com",
            "https://app.example@evil.com",
            "https://app.example.evil.com",
            "https://app.example%2eevil.com",
            "https://evil.com%2f.app.example",
            "https://evil.com\\@app.example",
            "https://app.example:443@evil.com:443/",
            "javascript:alert(1)",
            "JaVa\tscript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "/..//evil.com",
            "/.//evil.com",
            "/a/..//evil.com",
            "/%2e%2E//evil.com",
            "/%2e/x",
            "/%0d%0aSet-Cookie:x=y",
            "/%E5%98%8A%E5%98%8DSet-Cookie:x=y",
            "/x?a=%0D%0Ab",
            "https://app.example\u{3002}evil.com",
            "https://evil\u{ff0e}com",
            "//evil%E3%80%82com",
            "%2f%2fevil.com",
            "%252f%252fevil.com",
            "#@evil.com",
            "https://evil.com",
            "http://app.example/",
            "https://app.example:444/",
            "https://shop.example/",
            "https://app.example./",
            "ftp://app.example/",
            "blob:https://app.example/x",
        ] {
            assert!(!accepted(raw), "{raw:?}");
        }
    }

    #[test]
    fn o1_endpoints_and_places_of_two_readings_are_refused() {
        let long = format!("/{}", "x".repeat(10 * 1024));
        for raw in [
            "/auth/logout",
            "/auth/sign-in?return_to=/auth/sign-in",
            "/auth",
            "/auth/",
            "/auth/devices/",
            "https://app.example/auth/logout",
            "",
            "ok",
            "?x",
            "x//evil.com",
            "/%zz",
            "/%",
            "/é",
            "/a b",
            "/\"><script>",
            "/a/..",
            "/../auth/logout",
            "/a\0",
            "/%00",
            "https://app.example//x",
            "/ok\u{2028}",
            &long,
        ] {
            assert!(!accepted(raw), "{raw:?}");
        }
    }

    #[test]
    fn o5_a_place_in_a_query_is_encoded() {
        let place = with_rules(|rules| ReturnTo::parse("/a?b=c&d=%20#e", rules));
        let place = place.expect("a local path");
        assert_eq!(place.as_query_value(), "%2Fa%3Fb%3Dc%26d%3D%2520%23e");
    }

    /// Text made of the pieces that such attacks are made of.
    fn hostile() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "/",
            "//",
            "\\",
            ".",
            "..",
            "%2e",
            "%2f",
            "%5c",
            "@",
            ":",
            "?",
            "#",
            "https:",
            "https://",
            "HTTPS://",
            "app.example",
            "shop.example:8443",
            "evil.com",
            "javascript:",
            "\t",
            "\n",
            " ",
            "\u{0}",
            "%09",
            "%00",
            "\u{3002}",
            "[::1]",
            ":443",
            ":8443",
            ";",
            "a",
            "é",
            "auth",
            "xn--",
            "0x7f.1",
            "%",
            "&",
            "|",
            "^",
            "{",
            "\u{ad}",
        ]);
        prop::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn o1_a_browser_never_leaves_by_what_is_accepted(raw in hostile()) {
            prop_assert!(!accepted(&raw) || stays(&raw), "{raw:?}");
        }

        #[test]
        fn o1_any_text_is_judged_as_a_browser_would(raw in any::<String>()) {
            for raw in [raw.clone(), format!("/{raw}"), format!("https://app.example{raw}")] {
                prop_assert!(!accepted(&raw) || stays(&raw), "{raw:?}");
            }
        }
    }
}
