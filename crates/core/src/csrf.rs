//! Cross-site request forgery: where a request came from, and tokens that only our pages know.
//!
//! The steps are those of section 5 of the HTTP contract. Steps 1 to 3 look at the request's
//! method and headers ([`check_origin`]), step 4 at its token ([`check_token`]).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::given::Header;
pub use crate::origin::Origin;
use crate::types::{Secret, same_bytes};

/// The parts of a request that tell where it came from.
#[derive(Clone, Copy, Debug)]
pub struct RequestOrigin<'a> {
    /// What the method may do.
    pub method: MethodClass,
    /// `Sec-Fetch-Site` (W3C Fetch Metadata section 2.3).
    pub sec_fetch_site: Header<'a>,
    /// `Origin` (RFC 6454 section 7).
    pub origin: Header<'a>,
    /// `Referer` (RFC 9110 section 10.1.3).
    pub referer: Header<'a>,
}

/// Whether a method may change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodClass {
    /// GET, HEAD and OPTIONS: they change nothing, so nobody gains by forging one.
    Safe,
    /// Every other method, known or not.
    Unsafe,
}

impl MethodClass {
    /// The class of a method's name. Names are case-sensitive (RFC 9110 section 9.1).
    pub fn of(method: &str) -> Self {
        match method {
            "GET" | "HEAD" | "OPTIONS" => Self::Safe,
            _ => Self::Unsafe,
        }
    }
}

/// What is allowed where.
#[derive(Clone, Copy, Debug)]
pub struct CsrfRules<'a> {
    /// The origin that the request was sent to, from the settings or a trusted proxy: never from
    /// a header that the client chooses.
    pub own_origin: &'a Origin,
    /// `csrf.allowed_origins`: origins besides our own.
    pub allowed_origins: &'a [Origin],
    /// Whether step 4 follows.
    pub mode: CsrfMode,
}

/// The setting `csrf.mode`, or a forward-authentication policy's `csrf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsrfMode {
    /// The origin is checked and a token is needed.
    Token,
    /// The origin is checked and that is all.
    Origin,
}

/// What a request that stood steps 1 to 3 needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing: it passed.
    Passed,
    /// Step 4: its token goes to [`check_token`].
    Token,
}

/// A refused request, by the step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrfRefusal {
    /// One of the three headers is there more than once.
    #[error("step 2: Sec-Fetch-Site, Origin or Referer is repeated")]
    RepeatedHeader,
    /// Forward authentication, and nothing tells where the original request came from.
    #[error("step 2: the request has none of Sec-Fetch-Site, Origin and Referer")]
    NoProvenance,
    /// `Sec-Fetch-Site` names another site, and the origin isn't listed.
    #[error("step 2: Sec-Fetch-Site is not same-origin or none, and the Origin is not allowed")]
    FetchSite,
    /// `Origin` is another one.
    #[error("step 3: the Origin is not this one and not allowed")]
    Origin,
    /// `Referer` is a page of another origin.
    #[error("step 3: the origin of the Referer is not this one and not allowed")]
    Referer,
    /// There is no token.
    #[error("step 4: X-CSRF-Token is missing")]
    TokenMissing,
    /// The token isn't this session's, or isn't one.
    #[error("step 4: X-CSRF-Token was not issued for this session")]
    TokenInvalid,
}

impl CsrfRefusal {
    /// The step that failed: 2, 3 or 4 of section 5 of the HTTP contract.
    pub const fn step(self) -> u8 {
        match self {
            Self::RepeatedHeader | Self::NoProvenance | Self::FetchSite => 2,
            Self::Origin | Self::Referer => 3,
            Self::TokenMissing | Self::TokenInvalid => 4,
        }
    }

    /// The text for the error's `detail`. Holds nothing that the request gave.
    pub fn detail(self) -> String {
        self.to_string()
    }
}

/// Steps 1 to 3 for a request that carries one of our cookies.
pub fn check_origin(
    request: RequestOrigin<'_>,
    rules: CsrfRules<'_>,
) -> Result<NextStep, CsrfRefusal> {
    match request.method {
        MethodClass::Safe => Ok(NextStep::Passed),
        MethodClass::Unsafe => check_provenance(request, rules),
    }
}

/// Steps 1 to 3 for a sign-in, which needs no cookie.
///
/// A client without any cookie, `Origin` and `Sec-Fetch-Site` is no browser and needs no token.
pub fn check_sign_in(
    request: RequestOrigin<'_>,
    rules: CsrfRules<'_>,
    sent_any_cookie: bool,
) -> Result<NextStep, CsrfRefusal> {
    let next = check_origin(request, rules)?;
    let browser =
        sent_any_cookie || !request.origin.is_absent() || !request.sec_fetch_site.is_absent();
    Ok(if browser { next } else { NextStep::Passed })
}

/// Steps 1 to 3 for the original request of forward authentication.
///
/// There an unsafe request without any of the three headers is refused: a gateway that drops them
/// must not become a way around the check.
pub fn check_forwarded(
    request: RequestOrigin<'_>,
    rules: CsrfRules<'_>,
) -> Result<NextStep, CsrfRefusal> {
    let silent = request.sec_fetch_site.is_absent()
        && request.origin.is_absent()
        && request.referer.is_absent();
    match request.method {
        MethodClass::Safe => Ok(NextStep::Passed),
        MethodClass::Unsafe if silent => Err(CsrfRefusal::NoProvenance),
        MethodClass::Unsafe => check_provenance(request, rules),
    }
}

/// Makes a token from a session's CSRF key and 16 fresh random bytes.
///
/// The random part differs on every answer, so that compression can't be made to reveal a token
/// bit by bit (BREACH).
pub fn issue_token(key: &Secret<[u8; 32]>, random: [u8; 16]) -> String {
    let mut token = [0; TOKEN_BYTES];
    token[..RANDOM_BYTES].copy_from_slice(&random);
    token[RANDOM_BYTES..].copy_from_slice(mac(key, &random).as_ref());
    URL_SAFE_NO_PAD.encode(token)
}

/// Step 4: whether the `X-CSRF-Token` was made with this session's key.
pub fn check_token(key: &Secret<[u8; 32]>, token: Header<'_>) -> Result<(), CsrfRefusal> {
    let text = match token {
        Header::Absent => return Err(CsrfRefusal::TokenMissing),
        Header::Several => return Err(CsrfRefusal::TokenInvalid),
        Header::One(text) => text,
    };
    let mut bytes = [0; TOKEN_BYTES];
    // 48 bytes are 64 characters without a rest, so each token has one spelling.
    if text.len() != TOKEN_CHARS || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).is_err() {
        return Err(CsrfRefusal::TokenInvalid);
    }
    let (random, tag) = bytes.split_at(RANDOM_BYTES);
    if same_bytes(mac(key, random).as_ref(), tag) { Ok(()) } else { Err(CsrfRefusal::TokenInvalid) }
}

/// Steps 2 and 3, then what the mode asks for.
fn check_provenance(
    request: RequestOrigin<'_>,
    rules: CsrfRules<'_>,
) -> Result<NextStep, CsrfRefusal> {
    let RequestOrigin { method: _, sec_fetch_site, origin, referer } = request;
    match (sec_fetch_site, origin, referer) {
        (Header::Several, _, _) | (_, Header::Several, _) | (_, _, Header::Several) => {
            return Err(CsrfRefusal::RepeatedHeader);
        }
        (Header::One(b"same-origin" | b"none"), _, _) => {}
        (Header::One(_), Header::One(origin), _) if is_listed(origin, rules) => {}
        (Header::One(_), _, _) => return Err(CsrfRefusal::FetchSite),
        // `Origin: null` is a foreign origin, not a missing one: it never falls back to `Referer`.
        (Header::Absent, Header::One(origin), _) => {
            allow(Origin::parse_bytes(origin), rules).ok_or(CsrfRefusal::Origin)?;
        }
        (Header::Absent, Header::Absent, Header::One(referer)) => {
            allow(Origin::of_url(referer), rules).ok_or(CsrfRefusal::Referer)?;
        }
        (Header::Absent, Header::Absent, Header::Absent) => {}
    }
    Ok(match rules.mode {
        CsrfMode::Token => NextStep::Token,
        CsrfMode::Origin => NextStep::Passed,
    })
}

fn is_listed(origin: &[u8], rules: CsrfRules<'_>) -> bool {
    Origin::parse_bytes(origin).is_ok_and(|origin| rules.allowed_origins.contains(&origin))
}

fn allow<E>(origin: Result<Origin, E>, rules: CsrfRules<'_>) -> Option<()> {
    let origin = origin.ok()?;
    (origin == *rules.own_origin || rules.allowed_origins.contains(&origin)).then_some(())
}

fn mac(key: &Secret<[u8; 32]>, random: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), random)
}

const RANDOM_BYTES: usize = 16;
const TOKEN_BYTES: usize = RANDOM_BYTES + 32;
const TOKEN_CHARS: usize = 64;
const _: () = assert!(TOKEN_BYTES.is_multiple_of(3) && TOKEN_CHARS == TOKEN_BYTES / 3 * 4);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PASS: Result<NextStep, CsrfRefusal> = Ok(NextStep::Token);

    fn header(values: &[&'static str]) -> Header<'static> {
        values.iter().map(|value| value.as_bytes()).collect()
    }

    fn post(
        site: &[&'static str],
        origin: &[&'static str],
        referer: &[&'static str],
    ) -> RequestOrigin<'static> {
        RequestOrigin {
            method: MethodClass::Unsafe,
            sec_fetch_site: header(site),
            origin: header(origin),
            referer: header(referer),
        }
    }

    fn with_rules<T>(mode: CsrfMode, test: impl Fn(CsrfRules<'_>) -> T) -> T {
        let own_origin = Origin::parse("https://app.example").expect("well-formed");
        let allowed = [Origin::parse("https://partner.example:8443").expect("well-formed")];
        test(CsrfRules { own_origin: &own_origin, allowed_origins: &allowed, mode })
    }

    fn check(request: RequestOrigin<'_>) -> Result<NextStep, CsrfRefusal> {
        with_rules(CsrfMode::Token, |rules| check_origin(request, rules))
    }

    #[test]
    fn d1_unsafe_methods_need_a_token_and_safe_ones_nothing() {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let request = RequestOrigin {
                method: MethodClass::of(method),
                ..post(&["cross-site"], &["https://evil.example"], &[])
            };
            assert_eq!(check(request), Ok(NextStep::Passed), "{method}");
        }
        for method in ["POST", "PUT", "DELETE", "TRACE", "get", "GET ", "FOO", ""] {
            assert_eq!(MethodClass::of(method), MethodClass::Unsafe, "{method}");
        }
        assert_eq!(check(post(&["same-origin"], &[], &[])), PASS);
        assert_eq!(check(post(&["none"], &[], &[])), PASS);
        assert_eq!(check(post(&[], &[], &[])), PASS);
    }

    #[test]
    fn d2_a_fetch_site_other_than_ours_is_refused() {
        for site in [
            "same-site",
            "cross-site",
            "Same-Origin",
            "same-origin, cross-site",
            "",
            "self",
            "same-origin ",
            "none;",
        ] {
            let refused = Err(CsrfRefusal::FetchSite);
            assert_eq!(check(post(&[site], &[], &[])), refused, "{site}");
            // Neither the own origin nor a listed `Referer` makes up for it.
            let request =
                post(&[site], &["https://app.example"], &["https://partner.example:8443/"]);
            assert_eq!(check(request), refused, "{site}");
            let listed = post(&[site], &["https://partner.example:8443"], &[]);
            assert_eq!(check(listed), PASS, "{site}");
        }
        for request in [
            post(&["same-origin", "same-origin"], &[], &[]),
            post(&["same-origin", "cross-site"], &["https://partner.example:8443"], &[]),
            post(&["same-origin"], &["https://app.example", "https://app.example"], &[]),
            post(&[], &["https://app.example"], &["https://app.example/", "https://evil/"]),
        ] {
            assert_eq!(check(request), Err(CsrfRefusal::RepeatedHeader));
        }
    }

    #[test]
    fn d3_origin_null_is_foreign() {
        for origin in ["null", "", "Null"] {
            let request = post(&[], &[origin], &["https://app.example/"]);
            assert_eq!(check(request), Err(CsrfRefusal::Origin), "{origin:?}");
        }
    }

    #[test]
    fn d4_origins_are_compared_whole() {
        for origin in ["https://app.example", "https://app.example:443"] {
            assert_eq!(check(post(&[], &[origin], &[])), PASS, "{origin}");
        }
        assert_eq!(check(post(&[], &["https://partner.example:8443"], &[])), PASS);
        for origin in [
            "http://app.example",
            "https://app.example.evil.com",
            "https://evilapp.example",
            "https://app.example:444",
            "https://app.example@evil",
            "https://APP.example.",
            "https://app.example.",
            "https://app.example/",
            "https://partner.example",
            "http://partner.example:8443",
            "https://app.example https://evil.example",
        ] {
            assert_eq!(check(post(&[], &[origin], &[])), Err(CsrfRefusal::Origin), "{origin}");
        }
    }

    #[test]
    fn d5_referer_is_parsed_and_not_compared_by_prefix() {
        for referer in ["https://app.example/", "https://app.example/a?b", "https://app.example"] {
            assert_eq!(check(post(&[], &[], &[referer])), PASS, "{referer}");
        }
        for referer in [
            "https://evil/?https://app.example/",
            "https://app.example.evil/",
            "https://app.example@evil/",
            "https://evil\\@app.example/",
            "http://app.example/",
            "about:blank",
            "",
            "https://app.example:444/",
            "https://evil/#https://app.example/",
        ] {
            let refused = Err(CsrfRefusal::Referer);
            assert_eq!(check(post(&[], &[], &[referer])), refused, "{referer}");
        }
    }

    #[test]
    fn d6_the_own_origin_is_the_rules_own() {
        // Nothing in `RequestOrigin` can say what the own origin is; a request that agrees with
        // itself about `evil` is foreign.
        let request = post(&[], &["http://evil"], &["http://evil/"]);
        assert_eq!(check(request), Err(CsrfRefusal::Origin));
    }

    #[test]
    fn d7_a_token_belongs_to_one_key_and_never_repeats() {
        let key = Secret::new([7; 32]);
        let tokens: BTreeSet<String> =
            (0..1000u128).map(|n| issue_token(&key, n.to_be_bytes())).collect();
        assert_eq!(tokens.len(), 1000);
        let token = issue_token(&key, [1; 16]);
        let one = |text: &str| check_token(&key, Header::One(text.as_bytes()));
        assert_eq!(one(&token), Ok(()));
        let other = Secret::new([8; 32]);
        let refused = Err(CsrfRefusal::TokenInvalid);
        assert_eq!(check_token(&other, Header::One(token.as_bytes())), refused);
        for at in 0..token.len() {
            let mut flipped = token.clone().into_bytes();
            flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(check_token(&key, Header::One(&flipped)), refused, "{at}");
            assert_eq!(one(&token[..at]), refused, "{at}");
        }
        for bad in [format!("{token}="), format!("{token}A"), format!(" {token}"), "~".repeat(64)] {
            assert_eq!(one(&bad), refused, "{bad}");
        }
        assert_eq!(check_token(&key, Header::Several), refused);
        assert_eq!(check_token(&key, Header::Absent), Err(CsrfRefusal::TokenMissing));
    }

    #[test]
    fn d8_sign_in_needs_a_token_from_whatever_may_be_a_browser() {
        let check = |request, cookie| {
            with_rules(CsrfMode::Token, |rules| check_sign_in(request, rules, cookie))
        };
        assert_eq!(check(post(&[], &[], &[]), false), Ok(NextStep::Passed));
        assert_eq!(check(post(&[], &[], &[]), true), PASS);
        assert_eq!(check(post(&["same-origin"], &[], &[]), false), PASS);
        assert_eq!(check(post(&[], &["https://app.example"], &[]), false), PASS);
        let foreign = post(&["cross-site"], &["https://evil.example"], &[]);
        assert_eq!(check(foreign, true), Err(CsrfRefusal::FetchSite));
        let referred = post(&[], &[], &["https://evil.example/"]);
        assert_eq!(check(referred, false), Err(CsrfRefusal::Referer));
    }

    #[test]
    fn d14_origin_mode_skips_the_token_and_nothing_else() {
        let check = |request| with_rules(CsrfMode::Origin, |rules| check_origin(request, rules));
        assert_eq!(check(post(&["same-origin"], &[], &[])), Ok(NextStep::Passed));
        assert_eq!(check(post(&[], &[], &[])), Ok(NextStep::Passed));
        assert_eq!(check(post(&["cross-site"], &[], &[])), Err(CsrfRefusal::FetchSite));
        assert_eq!(check(post(&[], &["null"], &[])), Err(CsrfRefusal::Origin));
    }

    #[test]
    fn i2_a_forwarded_unsafe_request_must_tell_where_it_came_from() {
        let check = |request| with_rules(CsrfMode::Origin, |rules| check_forwarded(request, rules));
        assert_eq!(check(post(&[], &[], &[])), Err(CsrfRefusal::NoProvenance));
        let safe = RequestOrigin { method: MethodClass::Safe, ..post(&[], &[], &[]) };
        assert_eq!(check(safe), Ok(NextStep::Passed));
        assert_eq!(check(post(&["same-origin"], &[], &[])), Ok(NextStep::Passed));
        assert_eq!(check(post(&[], &["https://app.example"], &[])), Ok(NextStep::Passed));
        assert_eq!(check(post(&[], &[], &["https://app.example/x"])), Ok(NextStep::Passed));
        assert_eq!(check(post(&["same-site"], &[], &[])), Err(CsrfRefusal::FetchSite));
        let token = with_rules(CsrfMode::Token, |rules| {
            check_forwarded(post(&["same-origin"], &[], &[]), rules)
        });
        assert_eq!(token, PASS);
    }

    #[test]
    fn a_refusal_names_its_step() {
        assert!(CsrfRefusal::FetchSite.detail().starts_with("step 2:"));
        assert!(CsrfRefusal::Origin.detail().starts_with("step 3:"));
        assert!(CsrfRefusal::TokenInvalid.detail().starts_with("step 4:"));
    }
}
