//! The original request of forward authentication, as a gateway describes it.
//!
//! Only headers from a trusted proxy belong here; whoever reads them checks the peer first
//! (`network::is_trusted`).

use crate::csrf::MethodClass;
use crate::given::Header;
use crate::limits::FORWARDED_URI_BYTES_MAX;
use crate::origin::{Origin, Scheme, split_url};
use crate::uri::escaped_bytes;

/// The headers by which gateways describe the original request.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardedHeaders<'a> {
    /// `X-Forwarded-Method`
    pub method: Header<'a>,
    /// `X-Forwarded-Host`
    pub host: Header<'a>,
    /// `X-Forwarded-Uri`
    pub uri: Header<'a>,
    /// `X-Forwarded-Proto`
    pub proto: Header<'a>,
    /// `X-Original-Method`
    pub original_method: Header<'a>,
    /// `X-Original-URL`
    pub original_url: Header<'a>,
}

/// The request that a visitor made to the gateway, as far as the gateway says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRequest {
    /// Its method.
    pub method: OriginalMethod,
    /// The scheme that the visitor used.
    pub scheme: Option<Scheme>,
    /// `host` or `host:port`, in lower case.
    pub host: Option<String>,
    /// Path and query; begins with one slash.
    pub uri: Option<String>,
}

/// The method of the original request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalMethod {
    /// GET
    Get,
    /// HEAD
    Head,
    /// OPTIONS
    Options,
    /// Any other, an unknown one, or none given: it may change something.
    Unsafe,
}

/// The gateway's description can't be trusted to mean one thing; names the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedForwarded {
    /// The header is there more than once.
    #[error("{0} is repeated")]
    Repeated(&'static str),
    /// The value isn't what the header holds.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// Two headers say different things.
    #[error("{0} contradicts another header")]
    Contradictory(&'static str),
}

impl OriginalRequest {
    /// Reads the headers; none of them has to be there.
    pub fn parse(headers: &ForwardedHeaders<'_>) -> Result<Self, MalformedForwarded> {
        let method = parse_methods(headers)?;
        let scheme = once(headers.proto, PROTO)?.map(parse_scheme).transpose()?;
        let host = once(headers.host, HOST)?.map(parse_host).transpose()?;
        let uri = once(headers.uri, URI)?.map(|uri| parse_uri(uri, URI)).transpose()?;
        let described = Self { method, scheme, host, uri };
        match once(headers.original_url, URL)? {
            Some(url) => described.agreeing_with(url),
            None => Ok(described),
        }
    }

    /// The origin that the visitor addressed, if the gateway named both parts.
    pub fn origin(&self) -> Option<Origin> {
        Origin::of_authority(self.scheme?, self.host.as_deref()?).ok()
    }

    /// The URL that the visitor addressed, if the gateway named all parts.
    pub fn url(&self) -> Option<String> {
        Some(format!("{}{}", self.origin()?, self.uri.as_deref()?))
    }

    /// Fills in what `X-Original-URL` says, if nothing said otherwise before.
    fn agreeing_with(self, url: &str) -> Result<Self, MalformedForwarded> {
        let malformed = MalformedForwarded::Malformed(URL);
        let (origin, rest) = split_url(url).map_err(|_| malformed)?;
        let uri = match rest.chars().next() {
            None => "/".to_owned(),
            Some('?') => format!("/{rest}"),
            Some(_) => rest.to_owned(),
        };
        let uri = parse_uri(&uri, URL)?;
        let scheme = origin.scheme();
        let agrees = self.scheme.is_none_or(|said| said == scheme)
            && self.uri.is_none_or(|said| said == uri)
            && self.host.is_none_or(|said| {
                Origin::of_authority(scheme, &said).is_ok_and(|said| said == origin)
            });
        if !agrees {
            return Err(MalformedForwarded::Contradictory(URL));
        }
        Ok(Self {
            method: self.method,
            scheme: Some(scheme),
            host: Some(origin.authority()),
            uri: Some(uri),
        })
    }
}

impl OriginalMethod {
    /// What the method may do.
    pub const fn class(self) -> MethodClass {
        match self {
            Self::Get | Self::Head | Self::Options => MethodClass::Safe,
            Self::Unsafe => MethodClass::Unsafe,
        }
    }
}

const METHOD: &str = "X-Forwarded-Method";
const HOST: &str = "X-Forwarded-Host";
const URI: &str = "X-Forwarded-Uri";
const PROTO: &str = "X-Forwarded-Proto";
const ORIGINAL_METHOD: &str = "X-Original-Method";
const URL: &str = "X-Original-URL";

fn once<'a>(header: Header<'a>, name: &'static str) -> Result<Option<&'a str>, MalformedForwarded> {
    match header {
        Header::Absent => Ok(None),
        Header::Several => Err(MalformedForwarded::Repeated(name)),
        Header::One(value) => {
            str::from_utf8(value).map(Some).map_err(|_| MalformedForwarded::Malformed(name))
        }
    }
}

fn parse_methods(headers: &ForwardedHeaders<'_>) -> Result<OriginalMethod, MalformedForwarded> {
    let forwarded = once(headers.method, METHOD)?;
    let original = once(headers.original_method, ORIGINAL_METHOD)?;
    let (method, name) = match (forwarded, original) {
        (None, None) => return Ok(OriginalMethod::Unsafe),
        (Some(method), None) => (method, METHOD),
        (None, Some(method)) => (method, ORIGINAL_METHOD),
        (Some(method), Some(other)) if method == other => (method, METHOD),
        (Some(_), Some(_)) => return Err(MalformedForwarded::Contradictory(ORIGINAL_METHOD)),
    };
    if method.is_empty() || !method.bytes().all(is_token_byte) {
        return Err(MalformedForwarded::Malformed(name));
    }
    Ok(match method {
        "GET" => OriginalMethod::Get,
        "HEAD" => OriginalMethod::Head,
        "OPTIONS" => OriginalMethod::Options,
        _ => OriginalMethod::Unsafe,
    })
}

fn parse_scheme(proto: &str) -> Result<Scheme, MalformedForwarded> {
    match proto {
        // A WebSocket's handshake is an HTTP request, and its page's origin says so too.
        "https" | "wss" => Ok(Scheme::Https),
        "http" | "ws" => Ok(Scheme::Http),
        _ => Err(MalformedForwarded::Malformed(PROTO)),
    }
}

fn parse_host(host: &str) -> Result<String, MalformedForwarded> {
    let host = host.to_ascii_lowercase();
    match Origin::of_authority(Scheme::Https, &host) {
        Ok(_) => Ok(host),
        Err(_) => Err(MalformedForwarded::Malformed(HOST)),
    }
}

/// Takes a path with a query, as a browser sends it.
///
/// `//host` is refused: joined to nothing it would be another host's URL.
fn parse_uri(uri: &str, name: &'static str) -> Result<String, MalformedForwarded> {
    let path = uri.split('?').next().unwrap_or(uri);
    let well_formed = uri.len() <= FORWARDED_URI_BYTES_MAX
        && path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains('\\')
        && uri.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && escaped_bytes(uri).is_some();
    if well_formed { Ok(uri.to_owned()) } else { Err(MalformedForwarded::Malformed(name)) }
}

/// A character of a token (RFC 9110 section 5.6.2), as a method's name is.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(value: &str) -> Header<'_> {
        Header::One(value.as_bytes())
    }

    fn full<'a>() -> ForwardedHeaders<'a> {
        ForwardedHeaders {
            method: one("GET"),
            host: one("App.example"),
            uri: one("/a%20b?c=d|e"),
            proto: one("https"),
            ..ForwardedHeaders::default()
        }
    }

    #[test]
    fn a_whole_description_gives_the_url() {
        let request = OriginalRequest::parse(&full()).expect("well-formed");
        assert_eq!(request.method, OriginalMethod::Get);
        assert_eq!(request.url().as_deref(), Some("https://app.example/a%20b?c=d|e"));
        let by_url = ForwardedHeaders {
            original_url: one("https://app.example:443/a%20b?c=d|e"),
            original_method: one("GET"),
            ..ForwardedHeaders::default()
        };
        assert_eq!(OriginalRequest::parse(&by_url), Ok(request.clone()));
        let both = ForwardedHeaders { original_url: by_url.original_url, ..full() };
        assert_eq!(OriginalRequest::parse(&both), Ok(request));
        let nothing = OriginalRequest::parse(&ForwardedHeaders::default()).expect("nothing said");
        assert_eq!((nothing.url(), nothing.origin()), (None, None));
    }

    #[test]
    fn i2_a_method_that_is_not_known_to_be_safe_is_unsafe() {
        for method in ["POST", "post", "PoST", "get", "FOO", "DELETE", "TRACE", "CONNECT"] {
            let headers = ForwardedHeaders { method: one(method), ..full() };
            let request = OriginalRequest::parse(&headers).expect(method);
            assert_eq!(request.method, OriginalMethod::Unsafe, "{method}");
        }
        let missing = ForwardedHeaders { method: Header::Absent, ..full() };
        let request = OriginalRequest::parse(&missing).expect("nothing said");
        assert_eq!(request.method.class(), MethodClass::Unsafe);
        for (method, class) in [
            ("GET", MethodClass::Safe),
            ("HEAD", MethodClass::Safe),
            ("OPTIONS", MethodClass::Safe),
        ] {
            let headers = ForwardedHeaders { method: one(method), ..full() };
            let request = OriginalRequest::parse(&headers).expect(method);
            assert_eq!(request.method.class(), class);
        }
    }

    #[test]
    fn i2_a_doubled_or_contradictory_method_is_malformed() {
        for method in ["DELETE ", "", "GET, POST", "GET,POST", " GET", "GET\0", "GÉT"] {
            let headers = ForwardedHeaders { method: one(method), ..full() };
            let refused = Err(MalformedForwarded::Malformed(METHOD));
            assert_eq!(OriginalRequest::parse(&headers), refused, "{method:?}");
        }
        let doubled = ForwardedHeaders { method: Header::Several, ..full() };
        assert_eq!(OriginalRequest::parse(&doubled), Err(MalformedForwarded::Repeated(METHOD)));
        let contrary = ForwardedHeaders { original_method: one("POST"), ..full() };
        let refused = Err(MalformedForwarded::Contradictory(ORIGINAL_METHOD));
        assert_eq!(OriginalRequest::parse(&contrary), refused);
        let agreeing = ForwardedHeaders { original_method: one("GET"), ..full() };
        assert!(OriginalRequest::parse(&agreeing).is_ok());
    }

    #[test]
    fn i6_a_malformed_uri_is_refused() {
        let long = format!("/{}", "x".repeat(8 * 1024));
        for uri in [
            "%",
            "/%zz",
            "/%",
            "/%2",
            "http://[::1",
            "//x",
            "//",
            "/\\x",
            "\\x",
            "/a b",
            "/a\0",
            "/a\tb",
            "",
            "*",
            "x",
            "?x",
            "/a#b",
            "/é",
            "/a\r\nb",
            "javascript:alert(1)",
            &long,
        ] {
            let headers = ForwardedHeaders { uri: one(uri), ..full() };
            let refused = Err(MalformedForwarded::Malformed(URI));
            assert_eq!(OriginalRequest::parse(&headers), refused, "{uri:?}");
        }
        for header in [
            ForwardedHeaders { uri: Header::Several, ..full() },
            ForwardedHeaders { host: Header::Several, ..full() },
            ForwardedHeaders { proto: Header::Several, ..full() },
            ForwardedHeaders { original_url: Header::Several, ..full() },
            ForwardedHeaders { original_method: Header::Several, ..full() },
        ] {
            let parsed = OriginalRequest::parse(&header);
            assert!(matches!(parsed, Err(MalformedForwarded::Repeated(_))), "{header:?}");
        }
    }

    #[test]
    fn i6_a_malformed_host_proto_or_url_is_refused() {
        for host in ["", "a b", "a,b", "a, b", "a/b", "user@a", "a.", "[::1", "a:0", "a:x", "é"] {
            let headers = ForwardedHeaders { host: one(host), ..full() };
            let refused = Err(MalformedForwarded::Malformed(HOST));
            assert_eq!(OriginalRequest::parse(&headers), refused, "{host:?}");
        }
        for proto in ["", "HTTPS", "https,http", "javascript", "ftp", "https:"] {
            let headers = ForwardedHeaders { proto: one(proto), ..full() };
            let refused = Err(MalformedForwarded::Malformed(PROTO));
            assert_eq!(OriginalRequest::parse(&headers), refused, "{proto:?}");
        }
        for url in [
            "",
            "/x",
            "//x",
            "x",
            "http://[::1",
            "ftp://a/",
            "https://",
            "https://a@b/",
            "https://a/%zz",
            "https://a//x",
            "https://a/#x",
            "https://a/ b",
            "https://a\\b",
        ] {
            let headers =
                ForwardedHeaders { original_url: one(url), ..ForwardedHeaders::default() };
            let refused = Err(MalformedForwarded::Malformed(URL));
            assert_eq!(OriginalRequest::parse(&headers), refused, "{url:?}");
        }
    }

    #[test]
    fn i6_an_original_url_that_disagrees_is_refused() {
        for url in [
            "http://app.example/a%20b?c=d|e",
            "https://evil.example/a%20b?c=d|e",
            "https://app.example:444/a%20b?c=d|e",
            "https://app.example/a%20b?c=d",
            "https://app.example",
            "https://app.example?c=d|e",
        ] {
            let headers = ForwardedHeaders { original_url: one(url), ..full() };
            let refused = Err(MalformedForwarded::Contradictory(URL));
            assert_eq!(OriginalRequest::parse(&headers), refused, "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..64)) {
            let value = Header::One(&value[..]);
            for headers in [
                ForwardedHeaders { method: value, ..full() },
                ForwardedHeaders { host: value, ..full() },
                ForwardedHeaders { uri: value, ..full() },
                ForwardedHeaders { original_url: value, ..full() },
            ] {
                let _ = OriginalRequest::parse(&headers);
            }
        }
    }
}
