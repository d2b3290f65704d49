//! What a forward-authentication policy requires of a session, and how claims become headers.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::csrf::CsrfMode;
use crate::limits::{CLAIM_HEADER_BYTES_MAX, CLAIM_NAME_BYTES_MAX, TOKEN_LEEWAY};
use crate::types::Timestamp;
use crate::uri::percent_encode;

/// A policy named in the settings; a live session is required by every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Claims that the session must have, all of them.
    pub require: Vec<Requirement>,
    /// How long ago the user may have proved who they are.
    pub max_age: Option<Duration>,
    /// How well the user must have proved it.
    pub acr: Option<String>,
    /// Whether an unsafe request needs a CSRF token of ours too.
    pub csrf: CsrfMode,
}

/// A claim and the value that it must have, as in `role:admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The claim's name.
    pub claim: String,
    /// The value's text.
    pub value: String,
}

/// Why a session doesn't meet a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefusal {
    /// A required claim is missing or has another value.
    #[error("the session lacks a claim that the policy requires")]
    InsufficientClaims,
    /// The user must prove again, or better, who they are (RFC 9470).
    #[error("the policy requires a more recent or a stronger authentication")]
    ReauthenticationRequired,
}

/// What of a session a policy looks at.
#[derive(Clone, Copy, Debug)]
pub struct Assurance<'a> {
    /// The session's claims, its subject's included.
    pub claims: &'a Map<String, Value>,
    /// When the user last proved who they are.
    pub auth_time: Timestamp,
    /// How well they did.
    pub acr: Option<&'a str>,
}

impl Policy {
    /// The policy `default`: a live session and nothing else.
    pub const fn any_session() -> Self {
        Self { require: Vec::new(), max_age: None, acr: None, csrf: CsrfMode::Origin }
    }

    /// Whether a session meets this at `now`.
    ///
    /// Claims are looked at first: signing in again would not mend them.
    pub fn check(&self, session: Assurance<'_>, now: Timestamp) -> Result<(), PolicyRefusal> {
        if !self.require.iter().all(|requirement| requirement.is_met(session.claims)) {
            return Err(PolicyRefusal::InsufficientClaims);
        }
        let recent = self.max_age.is_none_or(|max_age| is_recent(session.auth_time, max_age, now));
        let strong = self.acr.as_deref().is_none_or(|acr| reaches(session.acr, acr));
        if recent && strong { Ok(()) } else { Err(PolicyRefusal::ReauthenticationRequired) }
    }
}

impl Requirement {
    /// Takes `claim:value`. The first colon parts them, so a value may hold more.
    pub fn parse(text: &str) -> Result<Self, MalformedRequirement> {
        match text.split_once(':') {
            Some((claim, value)) if !claim.is_empty() && !value.is_empty() => {
                Ok(Self { claim: claim.to_owned(), value: value.to_owned() })
            }
            Some(_) | None => Err(MalformedRequirement),
        }
    }

    /// Whether the claims hold it: the value itself, or an array with the value in it.
    fn is_met(&self, claims: &Map<String, Value>) -> bool {
        match claims.get(&self.claim) {
            Some(Value::Array(elements)) => {
                elements.iter().any(|element| has_text(element, &self.value))
            }
            Some(value) => has_text(value, &self.value),
            None => false,
        }
    }
}

/// The text is no requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a claim and its value, like \"role:admin\"")]
pub struct MalformedRequirement;

/// Whether a value is this text: a string exactly; an integer by its decimal digits; `true` and
/// `false`. A fraction has too many spellings to be compared as text; null, objects and arrays in
/// arrays are never a value.
fn has_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string == text,
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string() == text,
        Value::Bool(true) => text == "true",
        Value::Bool(false) => text == "false",
        Value::Number(_) | Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// An instant further ahead than the clocks of two nodes may be apart can't be believed.
fn is_recent(auth_time: Timestamp, max_age: Duration, now: Timestamp) -> bool {
    auth_time <= now.plus(TOKEN_LEEWAY) && now.since(auth_time) <= max_age
}

/// `aal1`, `aal2`, `aal3` (NIST SP 800-63B-4) are steps of one ladder; any other name is met by
/// itself alone.
fn reaches(acr: Option<&str>, required: &str) -> bool {
    match (acr.and_then(aal), aal(required)) {
        (Some(level), Some(required)) => level >= required,
        (Some(_), None) | (None, Some(_)) | (None, None) => acr == Some(required),
    }
}

fn aal(acr: &str) -> Option<u8> {
    match acr {
        "aal1" => Some(1),
        "aal2" => Some(2),
        "aal3" => Some(3),
        _ => None,
    }
}

/// A claim that goes to the upstream in a header of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    claim: String,
    header: String,
}

/// A setting `forward_auth.claim_headers` that can't be served; says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedClaimHeader {
    /// The name can't be part of a header's name.
    #[error("\"{0}\" can't be a header: letters, digits, hyphens and underscores only")]
    Name(String),
    /// Two claims would be one header.
    #[error("\"{0}\" and another claim would be the same header")]
    Collision(String),
}

impl ClaimHeader {
    /// The headers for a list of claims: `X-Auth-Claim-` and the claim's name.
    ///
    /// An underscore becomes a hyphen: gateways drop header names with underscores, or take them
    /// for the ones with hyphens. Two claims that would be one header are refused.
    pub fn parse_all(claims: &[String]) -> Result<Vec<Self>, MalformedClaimHeader> {
        let mut headers: Vec<Self> = Vec::with_capacity(claims.len());
        for claim in claims {
            let header = claim_header_name(claim)?;
            if headers.iter().any(|other| other.header.eq_ignore_ascii_case(&header)) {
                return Err(MalformedClaimHeader::Collision(claim.clone()));
            }
            headers.push(Self { claim: claim.clone(), header });
        }
        Ok(headers)
    }

    /// The claim's name.
    pub fn claim(&self) -> &str {
        &self.claim
    }

    /// The header's name.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// The header's value for a session with these claims. It is there in every answer, empty for
    /// a session without the claim: an absent one would let the client's own through.
    pub fn value(&self, claims: &Map<String, Value>) -> String {
        claims.get(&self.claim).map(encode_claim_header).unwrap_or_default()
    }
}

/// The name of the header for a claim: `X-Auth-Claim-<name>`, underscores as hyphens.
pub fn claim_header_name(claim: &str) -> Result<String, MalformedClaimHeader> {
    let plain = claim.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if claim.is_empty() || claim.len() > CLAIM_NAME_BYTES_MAX || !plain {
        return Err(MalformedClaimHeader::Name(claim.to_owned()));
    }
    Ok(format!("X-Auth-Claim-{}", claim.replace('_', "-")))
}

/// A claim's value as a header's: percent-encoded UTF-8 of its text.
///
/// Visible ASCII stays, but for `%` and `,`; an array is its elements joined by commas, so a
/// comma in a value can't make two of one. Null is empty; an object, or an array within an array,
/// is its compact JSON, encoded. A value over `CLAIM_HEADER_BYTES_MAX` is left empty, as if the
/// session had no such claim: half a value would mean something else.
pub fn encode_claim_header(value: &Value) -> String {
    let encoded = match value {
        Value::Array(elements) => elements.iter().map(encode_element).collect::<Vec<_>>().join(","),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            encode_element(value)
        }
    };
    if encoded.len() <= CLAIM_HEADER_BYTES_MAX { encoded } else { String::new() }
}

fn encode_element(value: &Value) -> String {
    let keep = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b',');
    match value {
        Value::Null => String::new(),
        Value::String(text) => percent_encode(text, keep),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            percent_encode(&value.to_string(), keep)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn claims(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    fn requiring(text: &str) -> Policy {
        let require = vec![Requirement::parse(text).expect("well-formed")];
        Policy { require, ..Policy::any_session() }
    }

    fn check(policy: &Policy, value: Value) -> Result<(), PolicyRefusal> {
        let claims = claims(value);
        policy.check(Assurance { claims: &claims, auth_time: NOW, acr: None }, NOW)
    }

    #[test]
    fn i8_claims_are_compared_exactly() {
        let policy = requiring("role:admin");
        for met in [
            json!({"role": "admin"}),
            json!({"role": ["admin"]}),
            json!({"role": ["user", "admin"], "x": 1}),
        ] {
            assert_eq!(check(&policy, met.clone()), Ok(()), "{met}");
        }
        for short in [
            json!({}),
            json!({"role": "administrator"}),
            json!({"role": {"admin": 1}}),
            json!({"role": " admin"}),
            json!({"role": "Admin"}),
            json!({"role": "admin "}),
            json!({"role": null}),
            json!({"role": true}),
            json!({"role": [["admin"]]}),
            json!({"role": "user,admin"}),
            json!({"role": []}),
            json!({"role": ""}),
            json!({"Role": "admin"}),
            json!({"role": [{"admin": true}]}),
            json!({"admin": "role"}),
        ] {
            let refused = Err(PolicyRefusal::InsufficientClaims);
            assert_eq!(check(&policy, short.clone()), refused, "{short}");
        }
    }

    #[test]
    fn i8_numbers_and_booleans_have_one_text() {
        assert_eq!(check(&requiring("level:5"), json!({"level": 5})), Ok(()));
        assert_eq!(check(&requiring("level:-5"), json!({"level": [-5]})), Ok(()));
        assert_eq!(check(&requiring("staff:true"), json!({"staff": true})), Ok(()));
        for (text, value) in [
            ("level:5", json!({"level": 5.0})),
            ("level:5.0", json!({"level": 5.0})),
            ("level:05", json!({"level": 5})),
            ("staff:1", json!({"staff": true})),
            ("staff:true", json!({"staff": 1})),
            ("x:null", json!({"x": null})),
        ] {
            let refused = Err(PolicyRefusal::InsufficientClaims);
            assert_eq!(check(&requiring(text), value), refused, "{text}");
        }
    }

    #[test]
    fn i8_every_requirement_must_be_met() {
        let mut policy = requiring("role:admin");
        policy.require.push(Requirement::parse("team:urn:x:y").expect("well-formed"));
        assert_eq!(check(&policy, json!({"role": "admin", "team": "urn:x:y"})), Ok(()));
        let refused = Err(PolicyRefusal::InsufficientClaims);
        assert_eq!(check(&policy, json!({"role": "admin"})), refused);
        for bad in ["", "role", "role:", ":admin", ":"] {
            assert_eq!(Requirement::parse(bad), Err(MalformedRequirement), "{bad}");
        }
    }

    #[test]
    fn b6_max_age_counts_from_auth_time() {
        let policy = Policy { max_age: Some(Duration::from_secs(2)), ..Policy::any_session() };
        let none = Map::new();
        let at = |ms: i64| {
            let auth_time = Timestamp::from_millis(NOW.as_millis() - ms);
            policy.check(Assurance { claims: &none, auth_time, acr: None }, NOW)
        };
        assert_eq!(at(0), Ok(()));
        assert_eq!(at(2000), Ok(()));
        assert_eq!(at(-5000), Ok(()));
        assert_eq!(at(2001), Err(PolicyRefusal::ReauthenticationRequired));
        assert_eq!(at(-5001), Err(PolicyRefusal::ReauthenticationRequired));
    }

    #[test]
    fn b4_acr_levels_are_a_ladder_and_other_names_are_exact() {
        let none = Map::new();
        for (required, acr, met) in [
            ("aal2", Some("aal2"), true),
            ("aal2", Some("aal3"), true),
            ("aal2", Some("aal1"), false),
            ("aal1", None, false),
            ("aal2", Some("AAL3"), false),
            ("aal2", Some("aal4"), false),
            ("aal2", Some("phr"), false),
            ("phr", Some("phr"), true),
            ("phr", Some("aal3"), false),
            ("phr", None, false),
        ] {
            let policy = Policy { acr: Some(required.into()), ..Policy::any_session() };
            let checked = policy.check(Assurance { claims: &none, auth_time: NOW, acr }, NOW);
            assert_eq!(checked.is_ok(), met, "{required} {acr:?}");
        }
    }

    #[test]
    fn claims_are_refused_before_anybody_is_sent_to_sign_in_again() {
        let policy = Policy { acr: Some("aal3".into()), ..requiring("role:admin") };
        assert_eq!(check(&policy, json!({})), Err(PolicyRefusal::InsufficientClaims));
    }

    #[test]
    fn i7_values_cannot_leave_their_header() {
        for (value, encoded) in [
            (json!("user"), "user"),
            (json!("a@b.example"), "a@b.example"),
            (json!("a\r\nX-Auth-Subject: root"), "a%0D%0AX-Auth-Subject:%20root"),
            (json!("a\u{0}b"), "a%00b"),
            (json!("Zoë 100%"), "Zo%C3%AB%20100%25"),
            (json!(" admin"), "%20admin"),
            (json!(["a", "b,c", 1, true, null]), "a,b%2Cc,1,true,"),
            (json!("a,b"), "a%2Cb"),
            (json!([]), ""),
            (json!(null), ""),
            (json!(-7), "-7"),
            (json!({"a": [1, "é"]}), "{\"a\":[1%2C\"%C3%A9\"]}"),
            (json!([["x"]]), "[\"x\"]"),
            (json!("x".repeat(4096)), ""),
            (json!("\u{2028}\u{202e}\u{85}"), "%E2%80%A8%E2%80%AE%C2%85"),
        ] {
            assert_eq!(encode_claim_header(&value), encoded);
        }
    }

    #[test]
    fn i7_names_become_headers_or_are_refused() {
        assert_eq!(claim_header_name("role").as_deref(), Ok("X-Auth-Claim-role"));
        assert_eq!(claim_header_name("user_id").as_deref(), Ok("X-Auth-Claim-user-id"));
        for bad in ["", "a b", "a:b", "a\r\nb", "a.b", "é", "a/b", &"x".repeat(65)] {
            assert!(claim_header_name(bad).is_err(), "{bad:?}");
        }
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert!(ClaimHeader::parse_all(&names(&["role", "user_id"])).is_ok());
        for twice in [["user_id", "user-id"], ["role", "Role"], ["role", "role"]] {
            assert!(ClaimHeader::parse_all(&names(&twice)).is_err(), "{twice:?}");
        }
    }

    #[test]
    fn i4_a_claim_that_is_missing_has_an_empty_header() {
        let headers = ClaimHeader::parse_all(&["role".to_owned()]).expect("well-formed");
        assert_eq!(headers[0].value(&Map::new()), "");
        assert_eq!(headers[0].value(&claims(json!({"role": "user"}))), "user");
        assert_eq!((headers[0].claim(), headers[0].header()), ("role", "X-Auth-Claim-role"));
    }

    proptest! {
        #[test]
        fn i7_any_text_is_visible_ascii_in_a_header(text in any::<String>()) {
            let encoded = encode_claim_header(&Value::String(text));
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
