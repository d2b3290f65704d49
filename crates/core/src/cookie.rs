//! Our three cookies: their names, how they are read, and the lines that set and clear them.

use std::fmt::Write as _;
use std::time::Duration;

use crate::given::Given;
use crate::limits::HOST_BYTES_MAX;

/// The cookies that we set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieKind {
    /// The session's credential.
    Session,
    /// The refresh token of a `split` session.
    Refresh,
    /// What a CSRF token is bound to before sign-in.
    Csrf,
}

/// `SameSite` of a cookie (RFC 6265bis section 5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Sent with same-site requests only.
    Strict,
    /// Sent with top-level navigations too.
    Lax,
    /// Sent always: for pages embedded in another site.
    None,
}

impl SameSite {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// The settings `cookie.*` and `server.base_path`.
#[derive(Clone, Debug)]
pub struct CookieSettings {
    /// Whether cookies are for TLS only. False is for a listener on loopback.
    pub secure: bool,
    /// For the session and csrf cookies. The refresh cookie is `Strict` unless this is `None`.
    pub same_site: SameSite,
    /// The site that all its hosts share the cookies of.
    pub domain: Option<String>,
    /// Whether a cookie belongs to the embedding site's jar (CHIPS).
    pub partitioned: bool,
    /// Where the public endpoints are, for the refresh cookie's path.
    pub base_path: String,
}

/// Settings that no browser would take, or that don't mean one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieConflict {
    /// Browsers drop a cookie with `SameSite=None` and without `Secure`.
    #[error("cookie.same_site = \"None\" needs cookie.secure")]
    NoneWithoutSecure,
    /// Browsers drop a cookie with `Partitioned` and without `Secure`.
    #[error("cookie.partitioned needs cookie.secure")]
    PartitionedWithoutSecure,
    /// The domain is not a lower-case name of two labels or more.
    #[error(
        "cookie.domain must be a lower-case domain such as \"example.com\", without a dot first"
    )]
    Domain,
    /// The path can't be an attribute.
    #[error("server.base_path must begin with a slash, not end with one, and be a plain path")]
    BasePath,
}

/// Makes the lines that set and clear our cookies, and knows their names.
#[derive(Clone, Debug)]
pub struct Cookies(CookieSettings);

impl Cookies {
    /// Takes settings that go together.
    pub fn new(settings: CookieSettings) -> Result<Self, CookieConflict> {
        if settings.same_site == SameSite::None && !settings.secure {
            return Err(CookieConflict::NoneWithoutSecure);
        }
        if settings.partitioned && !settings.secure {
            return Err(CookieConflict::PartitionedWithoutSecure);
        }
        if settings.domain.as_deref().is_some_and(|domain| !is_domain(domain)) {
            return Err(CookieConflict::Domain);
        }
        if !is_base_path(&settings.base_path) {
            return Err(CookieConflict::BasePath);
        }
        Ok(Self(settings))
    }

    /// The same settings with another `SameSite` and `Secure`.
    pub fn with(&self, same_site: SameSite, secure: bool) -> Result<Self, CookieConflict> {
        Self::new(CookieSettings { same_site, secure, ..self.0.clone() })
    }

    /// Their `SameSite`, but for the refresh cookie's.
    pub const fn same_site_setting(&self) -> SameSite {
        self.0.same_site
    }

    /// Whether they are for TLS only.
    pub const fn are_secure(&self) -> bool {
        self.0.secure
    }

    /// The names that our cookies have under these settings.
    ///
    /// A prefix says only what is true: `__Host-` means no `Domain`, `Path=/` and `Secure`.
    pub const fn names(&self) -> CookieNames {
        match (self.0.secure, self.0.domain.is_some()) {
            (true, false) => CookieNames {
                session: "__Host-session",
                refresh: "__Secure-refresh",
                csrf: "__Host-csrf",
            },
            (true, true) => CookieNames {
                session: "__Secure-session",
                refresh: "__Secure-refresh",
                csrf: "__Secure-csrf",
            },
            (false, _) => CookieNames { session: "session", refresh: "refresh", csrf: "csrf" },
        }
    }

    /// The `Set-Cookie` line that gives `kind` this value. Without `max_age` it lives as long as
    /// the browser; either way the server decides how long it counts.
    ///
    /// `value` is one of our own tokens: base64url and underscores, so it needs no quoting.
    pub fn set(&self, kind: CookieKind, value: &str, max_age: Option<Duration>) -> String {
        let settings = &self.0;
        let mut line = format!("{}={value}; Path={}", self.names().of(kind), self.path(kind));
        if let Some(domain) = &settings.domain {
            line.push_str("; Domain=");
            line.push_str(domain);
        }
        if let Some(max_age) = max_age {
            // Writing to a string can't fail.
            let _ = write!(line, "; Max-Age={}", max_age.as_secs());
        }
        if settings.secure {
            line.push_str("; Secure");
        }
        line.push_str("; HttpOnly; SameSite=");
        line.push_str(self.same_site(kind).as_str());
        if settings.partitioned {
            line.push_str("; Partitioned");
        }
        line
    }

    /// The `Set-Cookie` line that removes `kind`. Name, path and flags are those that set it, or
    /// the browser would keep the cookie.
    pub fn clear(&self, kind: CookieKind) -> String {
        self.set(kind, "", Some(Duration::ZERO))
    }

    fn path(&self, kind: CookieKind) -> &str {
        match kind {
            CookieKind::Session | CookieKind::Csrf => "/",
            CookieKind::Refresh if self.0.base_path.is_empty() => "/",
            CookieKind::Refresh => &self.0.base_path,
        }
    }

    const fn same_site(&self, kind: CookieKind) -> SameSite {
        match (kind, self.0.same_site) {
            // Only our own pages refresh, so the strictest will do; but an embedded page that asks
            // for `None` would never get a strict cookie back.
            (CookieKind::Refresh, SameSite::Strict | SameSite::Lax) => SameSite::Strict,
            (CookieKind::Session | CookieKind::Csrf | CookieKind::Refresh, setting) => setting,
        }
    }
}

impl Default for Cookies {
    /// For TLS, `SameSite=Lax`, for one host, below `/`.
    fn default() -> Self {
        Self(CookieSettings {
            secure: true,
            same_site: SameSite::Lax,
            domain: None,
            partitioned: false,
            base_path: String::new(),
        })
    }
}

/// What our cookies are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieNames {
    session: &'static str,
    refresh: &'static str,
    csrf: &'static str,
}

impl CookieNames {
    /// The name of `kind`.
    pub const fn of(self, kind: CookieKind) -> &'static str {
        match kind {
            CookieKind::Session => self.session,
            CookieKind::Refresh => self.refresh,
            CookieKind::Csrf => self.csrf,
        }
    }

    /// Which of ours a name is: byte for byte, since an attacker on a sibling domain can plant
    /// `__host-session` or a look-alike, but not the prefixed name itself.
    fn kind_of(self, name: &[u8]) -> Option<CookieKind> {
        [CookieKind::Session, CookieKind::Refresh, CookieKind::Csrf]
            .into_iter()
            .find(|kind| self.of(*kind).as_bytes() == name)
    }
}

/// Our cookies in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnCookies<'a> {
    /// The session cookie.
    pub session: Given<&'a str>,
    /// The refresh cookie.
    pub refresh: Given<&'a str>,
    /// The csrf cookie.
    pub csrf: Given<&'a str>,
}

impl<'a> OwnCookies<'a> {
    /// Reads the request's `Cookie` lines; HTTP/2 may split them (RFC 9113 section 8.2.3).
    ///
    /// A value that isn't ASCII, or that stands beside a cookie `$Version`, counts as several:
    /// the latter makes some parsers read quotes and commas in another way (RFC 2965), and what
    /// two parsers read differently must not be a credential.
    pub fn parse(lines: impl IntoIterator<Item = &'a [u8]>, names: CookieNames) -> Self {
        let mut own = Self::default();
        let mut dialect = false;
        for (name, value) in lines.into_iter().flat_map(pairs).filter_map(split) {
            dialect |= is_dialect(name);
            if let Some(kind) = names.kind_of(name) {
                own.add(kind, value);
            }
        }
        if dialect { own.all_ambiguous() } else { own }
    }

    fn add(&mut self, kind: CookieKind, value: &'a [u8]) {
        let slot = match kind {
            CookieKind::Session => &mut self.session,
            CookieKind::Refresh => &mut self.refresh,
            CookieKind::Csrf => &mut self.csrf,
        };
        *slot = match str::from_utf8(value) {
            Ok(text) if text.is_ascii() => slot.and(text),
            Ok(_) | Err(_) => Given::Several,
        };
    }

    fn all_ambiguous(self) -> Self {
        let ambiguous = |cookie: Given<&'a str>| match cookie {
            Given::Absent => Given::Absent,
            Given::One(_) | Given::Several => Given::Several,
        };
        Self {
            session: ambiguous(self.session),
            refresh: ambiguous(self.refresh),
            csrf: ambiguous(self.csrf),
        }
    }
}

/// The request's cookies less our own, as one line for `X-Auth-Cookie`; may be empty.
///
/// `$Version` goes too, so that no upstream reads the rest in another dialect than we did.
pub fn without_own<'a>(lines: impl IntoIterator<Item = &'a [u8]>, names: CookieNames) -> Vec<u8> {
    let others: Vec<&[u8]> = lines
        .into_iter()
        .flat_map(pairs)
        .filter(|pair| !pair.is_empty())
        .filter(|pair| {
            split(pair).is_none_or(|(name, _)| names.kind_of(name).is_none() && !is_dialect(name))
        })
        .collect();
    others.join(&b"; "[..])
}

/// The cookie pairs of one line, without the blanks after the semicolon; nothing else is trimmed.
fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b';').map(|pair| {
        let blanks = pair.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        pair.split_at(blanks).1
    })
}

fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let (name, value) = pair.split_at(at);
    Some((name, value.split_first()?.1))
}

const fn is_dialect(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"$Version")
}

fn is_domain(domain: &str) -> bool {
    domain.len() <= HOST_BYTES_MAX
        && domain.contains('.')
        && domain.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        })
        && domain.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn is_base_path(path: &str) -> bool {
    let plain = |segment: &str| {
        !segment.is_empty()
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~'))
    };
    match path.strip_prefix('/') {
        Some(rest) => rest.split('/').all(plain),
        None => path.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> CookieSettings {
        CookieSettings {
            secure: true,
            same_site: SameSite::Lax,
            domain: None,
            partitioned: false,
            base_path: "/auth".into(),
        }
    }

    fn cookies(settings: CookieSettings) -> Cookies {
        Cookies::new(settings).expect("settings go together")
    }

    fn read<'a>(lines: &[&'a str]) -> OwnCookies<'a> {
        OwnCookies::parse(lines.iter().map(|line| line.as_bytes()), cookies(settings()).names())
    }

    const DAY: Option<Duration> = Some(Duration::from_secs(86_400));

    #[test]
    fn c1_lines_are_exactly_these() {
        let plain = || CookieSettings { secure: false, ..settings() };
        let shared = || CookieSettings { domain: Some("example.com".into()), ..settings() };
        let embedded =
            || CookieSettings { same_site: SameSite::None, partitioned: true, ..settings() };
        let strict = || CookieSettings { same_site: SameSite::Strict, ..settings() };
        use CookieKind::{Csrf, Refresh, Session};
        for (made, line) in [
            (
                cookies(settings()).set(Session, "V", None),
                "__Host-session=V; Path=/; Secure; HttpOnly; SameSite=Lax",
            ),
            (
                cookies(settings()).set(Session, "V", DAY),
                "__Host-session=V; Path=/; Max-Age=86400; Secure; HttpOnly; SameSite=Lax",
            ),
            (
                cookies(settings()).set(Refresh, "V", DAY),
                "__Secure-refresh=V; Path=/auth; Max-Age=86400; Secure; HttpOnly; SameSite=Strict",
            ),
            (
                cookies(settings()).set(Csrf, "V", None),
                "__Host-csrf=V; Path=/; Secure; HttpOnly; SameSite=Lax",
            ),
            (cookies(plain()).set(Session, "V", None), "session=V; Path=/; HttpOnly; SameSite=Lax"),
            (
                cookies(plain()).set(Refresh, "V", None),
                "refresh=V; Path=/auth; HttpOnly; SameSite=Strict",
            ),
            (cookies(plain()).set(Csrf, "V", None), "csrf=V; Path=/; HttpOnly; SameSite=Lax"),
            (
                cookies(shared()).set(Session, "V", DAY),
                "__Secure-session=V; Path=/; Domain=example.com; Max-Age=86400; Secure; HttpOnly; \
                 SameSite=Lax",
            ),
            (
                cookies(embedded()).set(Refresh, "V", None),
                "__Secure-refresh=V; Path=/auth; Secure; HttpOnly; SameSite=None; Partitioned",
            ),
            (
                cookies(strict()).set(Session, "V", None),
                "__Host-session=V; Path=/; Secure; HttpOnly; SameSite=Strict",
            ),
        ] {
            assert_eq!(made, line);
        }
    }

    #[test]
    fn c1_clearing_differs_in_value_and_max_age_only() {
        for kind in [CookieKind::Session, CookieKind::Refresh, CookieKind::Csrf] {
            let cookies = cookies(settings());
            let set = cookies.set(kind, "V", DAY);
            let cleared = set.replace("=V;", "=;").replace("Max-Age=86400", "Max-Age=0");
            assert_eq!(cookies.clear(kind), cleared);
        }
    }

    #[test]
    fn c2_names_are_compared_byte_for_byte() {
        assert_eq!(read(&["__Host-session=V"]).session, Given::One("V"));
        assert_eq!(read(&["a=b;__Host-session=V;\t c=d"]).session, Given::One("V"));
        for line in [
            "__host-session=V",
            "__HOST-SESSION=V",
            "session=V",
            "__Secure-session=V",
            "\u{2000}__Host-session=V",
            "\u{85}__Host-session=V",
            "=__Host-session=V",
            "__Host-session =V",
            "__Host-session",
            "__Host-session%3DV",
            "\u{a0}__Host-session=V",
            "a=b,__Host-session=V",
            "a=\"b; __Host-sessio=V\"",
        ] {
            assert_eq!(read(&[line]).session, Given::Absent, "{line:?}");
        }
        // The value is what stands there: quotes, blanks and all, so it is no token of ours.
        assert_eq!(read(&["__Host-session=\"V\""]).session, Given::One("\"V\""));
        assert_eq!(read(&["__Host-session=V ; a=b"]).session, Given::One("V "));
        assert_eq!(read(&["__Host-session= V"]).session, Given::One(" V"));
        for lines in [
            &["$Version=1; __Host-session=V"][..],
            &["__Host-session=V; $version=1"],
            &["$Version=1", "__Host-session=V"],
            &["__Host-session=V\u{e9}"],
        ] {
            assert_eq!(read(lines).session, Given::Several, "{lines:?}");
        }
    }

    #[test]
    fn c3_two_of_one_name_are_never_picked_from() {
        for lines in [
            &["__Host-session=A; __Host-session=B"][..],
            &["__Host-session=B; __Host-session=A"],
            &["__Host-session=A; __Host-session=A"],
            &["__Host-session=A", "x=y; __Host-session=B"],
        ] {
            assert_eq!(read(lines).session, Given::Several, "{lines:?}");
        }
        let own = read(&["__Host-session=A", "__Secure-refresh=R", "__Host-csrf=C"]);
        let (session, refresh, csrf) = (Given::One("A"), Given::One("R"), Given::One("C"));
        assert_eq!(own, OwnCookies { session, refresh, csrf });
        let own = read(&["__Secure-refresh=R; __Host-session=A; __Secure-refresh=S"]);
        assert_eq!((own.session, own.refresh), (session, Given::Several));
    }

    #[test]
    fn c4_prefixes_drop_to_what_is_true() {
        let shared = CookieSettings { domain: Some("example.com".into()), ..settings() };
        let names = cookies(shared).names();
        for kind in [CookieKind::Session, CookieKind::Refresh, CookieKind::Csrf] {
            assert!(names.of(kind).starts_with("__Secure-"));
        }
        for (settings, conflict) in [
            (
                CookieSettings { secure: false, same_site: SameSite::None, ..settings() },
                CookieConflict::NoneWithoutSecure,
            ),
            (
                CookieSettings { secure: false, partitioned: true, ..settings() },
                CookieConflict::PartitionedWithoutSecure,
            ),
        ] {
            assert_eq!(Cookies::new(settings).err(), Some(conflict));
        }
        for domain in ["", ".example.com", "com", "example.com.", "Example.com", "10.0.0.1", "a.b;"]
        {
            let settings = CookieSettings { domain: Some(domain.into()), ..settings() };
            assert_eq!(Cookies::new(settings).err(), Some(CookieConflict::Domain), "{domain}");
        }
        for base_path in ["auth", "/auth/", "/", "/a;b", "/a b", "//auth", "/a/../b", "/a\n"] {
            let settings = CookieSettings { base_path: base_path.into(), ..settings() };
            assert_eq!(Cookies::new(settings).err(), Some(CookieConflict::BasePath), "{base_path}");
        }
    }

    #[test]
    fn c6_junk_cookies_do_not_hide_ours() {
        let junk = (0..180).map(|n| format!("junk{n}={n}")).collect::<Vec<_>>().join("; ");
        let line = format!("{junk}; __Host-session=V; {junk}");
        assert_eq!(read(&[&line]).session, Given::One("V"));
        for odd in ["", ";", ";;;", "=", "==", "; ;=;", "\0=\0"] {
            assert_eq!(read(&[odd]), OwnCookies::default(), "{odd:?}");
        }
    }

    #[test]
    fn c7_without_remember_there_is_no_expiry_in_the_line() {
        let line = cookies(settings()).set(CookieKind::Session, "V", None);
        assert!(!line.contains("Max-Age") && !line.contains("Expires"));
    }

    #[test]
    fn i12_what_the_upstream_gets_has_none_of_ours() {
        let names = cookies(settings()).names();
        let rest = |lines: &[&'static str]| {
            let line = without_own(lines.iter().map(|line| line.as_bytes()), names);
            String::from_utf8(line).expect("ASCII in, ASCII out")
        };
        assert_eq!(
            rest(&["a=1; __Host-session=V; b=\"2\"", "__Secure-refresh=R", "c"]),
            "a=1; b=\"2\"; c"
        );
        assert_eq!(rest(&["__Host-session=A; __Host-session=B; __Host-csrf=C"]), "");
        assert_eq!(rest(&["$Version=1; a=1", "session=theirs"]), "a=1; session=theirs");
        assert_eq!(rest(&[]), "");
    }
}
