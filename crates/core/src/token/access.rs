//! Access tokens (RFC 9068): their claims, issued and verified.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{TokenRefusal, decode_base64url, jws};
use crate::json::{self, Map};
use crate::keys::{KeyRing, SigningKey};
use crate::limits::{JWT_BYTES_MAX, TIMESTAMP_MS_MAX, TOKEN_LEEWAY};
use crate::store_key::CryptoFault;
use crate::types::{Partition, Sid, Subject, Timestamp};

/// What an access token says. All of it is required, but for `act`.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessClaims {
    /// `iss`: the authority.
    pub issuer: String,
    /// `sub`: whom the session is for.
    pub subject: Subject,
    /// `aud`: whom the token is for. One value is written as text, several as an array; both are
    /// read (RFC 7519 section 4.1.3). Never empty.
    pub audience: Vec<String>,
    /// `exp`, in whole seconds like all instants of a token.
    pub expires_at: Timestamp,
    /// `nbf`.
    pub not_before: Timestamp,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `jti`, as [`new_jti`] makes them.
    pub jti: String,
    /// `sid`: the session.
    pub sid: Sid,
    /// `auth_time`: when the user last proved who they are.
    pub auth_time: Timestamp,
    /// `amr`: how they did (RFC 8176).
    pub amr: Vec<String>,
    /// `acr`: how far that is to be trusted.
    pub acr: String,
    /// `epoch`: the subject's count of "sign out everywhere" when the session was opened.
    pub epoch: u64,
    /// `act.sub`: who acts as the subject (RFC 8693 section 4.1).
    pub actor: Option<Subject>,
    /// All other claims: the session's own, and those that the configuration adds.
    pub claims: Map,
}

/// What a token is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// The one `iss`, exactly.
    pub issuer: &'a str,
    /// The token must be for one of these.
    pub audiences: &'a [String],
    /// A token that is for one of these belongs elsewhere, whatever else it is for: a gateway's
    /// assertion must not pass for a credential of its user (RFC 9068 section 5).
    pub foreign_audiences: &'a [String],
    /// The instant of the check.
    pub now: Timestamp,
}

/// Issues a token: the claims, signed.
///
/// Instants are rounded down to seconds. The registered names always have the values of `claims`,
/// then those of `extra` count, then the session's own.
pub fn issue(
    key: &SigningKey,
    claims: &AccessClaims,
    extra: &ExtraClaims,
) -> Result<String, IssueFault> {
    let payload = Value::Object(to_members(claims, extra)).to_string();
    let text = jws::sign(key, payload.as_bytes())?;
    if text.len() > JWT_BYTES_MAX { Err(IssueFault::TooLarge) } else { Ok(text) }
}

/// Why no token was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueFault {
    /// The claims make it longer than any verifier would read.
    #[error("the claims are too large for a token")]
    TooLarge,
    /// The cryptographic library failed.
    #[error(transparent)]
    Crypto(#[from] CryptoFault),
}

/// Takes a token that is genuine, well-formed, ours, and for us, at `expected.now`.
///
/// `exp`, `nbf` and `iat` have a leeway of [`TOKEN_LEEWAY`]. An array in `aud` may name others
/// besides us. A token that is only too old comes back in [`TokenRefusal::Expired`], verified.
pub fn verify(
    text: &str,
    ring: &KeyRing,
    expected: &Expectation<'_>,
) -> Result<AccessClaims, TokenRefusal> {
    let payload = jws::open(text, ring, expected.now)?;
    let members = json::parse_object(&payload).map_err(|_| TokenRefusal::Invalid)?;
    let claims = from_members(members).ok_or(TokenRefusal::Invalid)?;
    let names = |ours: &[String]| claims.audience.iter().any(|aud| ours.contains(aud));
    let horizon = expected.now.plus(TOKEN_LEEWAY);
    if claims.issuer != expected.issuer {
        Err(TokenRefusal::Invalid)
    } else if names(expected.foreign_audiences) {
        Err(TokenRefusal::WrongType)
    } else if !names(expected.audiences)
        || claims.not_before > horizon
        || claims.issued_at > horizon
    {
        Err(TokenRefusal::Invalid)
    } else if expected.now >= claims.expires_at.plus(TOKEN_LEEWAY) {
        Err(TokenRefusal::Expired(Box::new(claims)))
    } else {
        Ok(claims)
    }
}

/// Whether a text that was refused asks for a key that the ring doesn't have, so that a newer ring
/// may say otherwise.
pub fn names_unknown_key(text: &str, ring: &KeyRing, now: Timestamp) -> bool {
    text.len() <= JWT_BYTES_MAX && jws::names_unknown_key(text, ring, now)
}

/// The id of the key that a token says it was signed with. Proves nothing: it is for whoever has to
/// fetch keys, to tell whether it has this one.
pub fn named_key(text: &str) -> Option<String> {
    jws::named_key(text)
}

/// A token id: its partition and 16 random bytes, in base64url.
pub fn new_jti(partition: Partition, entropy: [u8; 16]) -> String {
    let mut bytes = [0; JTI_BYTES];
    bytes[..2].copy_from_slice(&partition.0.to_be_bytes());
    bytes[2..].copy_from_slice(&entropy);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The partition that a token id names, if it is one. A made-up id may name one that doesn't exist.
pub fn jti_partition(jti: &str) -> Option<Partition> {
    let bytes: [u8; JTI_BYTES] = decode_base64url(jti)?.try_into().ok()?;
    Some(Partition(u16::from_be_bytes([bytes[0], bytes[1]])))
}

/// The names that a session's own claims can't have: what the token says of itself, what other
/// standards give a meaning that we don't vouch for, and what JavaScript trips over.
pub const REGISTERED: [&str; 23] = [
    "__proto__",
    "acr",
    "act",
    "alg",
    "amr",
    "aud",
    "auth_time",
    "azp",
    "client_id",
    "cnf",
    "constructor",
    "epoch",
    "exp",
    "iat",
    "iss",
    "jti",
    "may_act",
    "nbf",
    "prototype",
    "scope",
    "sid",
    "sub",
    "typ",
];

/// A claim that may not be set; says which, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member:?} {why}")]
pub struct ClaimRefused {
    /// The claim's name.
    pub member: String,
    /// Why it is refused, without its value.
    pub why: &'static str,
}

/// Whether all these may be a session's or a user's own claims.
pub fn check_claims(claims: &Map) -> Result<(), ClaimRefused> {
    claims.keys().try_for_each(|name| check_name(name))
}

fn check_name(name: &str) -> Result<(), ClaimRefused> {
    let refused = |why| Err(ClaimRefused { member: name.chars().take(64).collect(), why });
    if REGISTERED.contains(&name) {
        refused("is a registered name")
    } else if name.is_empty() {
        refused("must not be empty")
    } else {
        Ok(())
    }
}

/// Claims that the configuration adds to every token (`token.extra_claims`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExtraClaims(Vec<(String, ClaimSource)>);

#[derive(Clone, Debug, PartialEq)]
enum ClaimSource {
    Constant(Value),
    Subject,
    Sid,
    Epoch,
    /// The session's own claim of this name.
    Claim(String),
}

impl ExtraClaims {
    /// Reads the configuration's table: a value is a constant, unless it is a text that starts with
    /// `$`: `$subject`, `$sid`, `$epoch`, or `$claims.<name>` for the session's own claim of that
    /// name (left out where the session has none). `$$…` is the text with one `$`.
    pub fn parse(table: &Map) -> Result<Self, ClaimRefused> {
        check_claims(table)?;
        let source = |(name, value): (&String, &Value)| {
            let refused = || ClaimRefused {
                member: name.clone(),
                why: "names no source: $subject, $sid, $epoch or $claims.<name>",
            };
            let source = match value {
                Value::String(text) => source_of_text(text).ok_or_else(refused)?,
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_) => ClaimSource::Constant(value.clone()),
            };
            Ok((name.clone(), source))
        };
        table.iter().map(source).collect::<Result<_, _>>().map(Self)
    }

    fn add_to(&self, members: &mut Map, claims: &AccessClaims) {
        for (name, source) in &self.0 {
            let value = match source {
                ClaimSource::Constant(value) => Some(value.clone()),
                ClaimSource::Subject => Some(claims.subject.as_str().into()),
                ClaimSource::Sid => Some(claims.sid.to_string().into()),
                ClaimSource::Epoch => Some(claims.epoch.into()),
                ClaimSource::Claim(name) => claims.claims.get(name).cloned(),
            };
            if let Some(value) = value {
                members.insert(name.clone(), value);
            }
        }
    }
}

fn source_of_text(text: &str) -> Option<ClaimSource> {
    let Some(name) = text.strip_prefix('$') else {
        return Some(ClaimSource::Constant(text.into()));
    };
    match name {
        "subject" => Some(ClaimSource::Subject),
        "sid" => Some(ClaimSource::Sid),
        "epoch" => Some(ClaimSource::Epoch),
        other if other.starts_with('$') => Some(ClaimSource::Constant(other.into())),
        other => {
            let own = other.strip_prefix("claims.").filter(|own| check_name(own).is_ok())?;
            Some(ClaimSource::Claim(own.to_owned()))
        }
    }
}

fn to_members(claims: &AccessClaims, extra: &ExtraClaims) -> Map {
    let mut members = claims.claims.clone();
    extra.add_to(&mut members, claims);
    // Every entry refuses these names already; a token must be right even if one forgot.
    members.retain(|name, _| check_name(name).is_ok());
    let audience = match claims.audience.as_slice() {
        [one] => one.as_str().into(),
        several => several.into(),
    };
    let registered = [
        ("iss", claims.issuer.as_str().into()),
        ("sub", claims.subject.as_str().into()),
        ("aud", audience),
        ("exp", claims.expires_at.as_secs().into()),
        ("nbf", claims.not_before.as_secs().into()),
        ("iat", claims.issued_at.as_secs().into()),
        ("jti", claims.jti.as_str().into()),
        ("sid", claims.sid.to_string().into()),
        ("auth_time", claims.auth_time.as_secs().into()),
        ("amr", claims.amr.as_slice().into()),
        ("acr", claims.acr.as_str().into()),
        ("epoch", claims.epoch.into()),
    ];
    members.extend(registered.map(|(name, value): (&str, Value)| (name.to_owned(), value)));
    if let Some(actor) = &claims.actor {
        members.insert("act".to_owned(), json!({"sub": actor.as_str()}));
    }
    members
}

/// The typed claims; none if one is missing, ill-typed or out of range.
fn from_members(mut members: Map) -> Option<AccessClaims> {
    let mut claims = AccessClaims {
        issuer: text(members.remove("iss")?)?,
        subject: Subject::parse(&text(members.remove("sub")?)?).ok()?,
        audience: audience(members.remove("aud")?)?,
        expires_at: instant(&members.remove("exp")?)?,
        not_before: instant(&members.remove("nbf")?)?,
        issued_at: instant(&members.remove("iat")?)?,
        jti: text(members.remove("jti")?).filter(|jti| jti_partition(jti).is_some())?,
        sid: text(members.remove("sid")?)?.parse().ok()?,
        auth_time: instant(&members.remove("auth_time")?)?,
        amr: texts(members.remove("amr")?)?,
        acr: text(members.remove("acr")?)?,
        epoch: members.remove("epoch")?.as_u64()?,
        actor: members.remove("act").map_or(Some(None), |act| actor(act).map(Some))?,
        claims: Map::new(),
    };
    check_claims(&members).ok()?;
    claims.claims = members;
    Some(claims)
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

fn texts(value: Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => values.into_iter().map(text).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            None
        }
    }
}

fn audience(value: Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text]),
        other => texts(other).filter(|texts| !texts.is_empty()),
    }
}

/// `act` with a `sub` and nothing else, as we write it.
fn actor(value: Value) -> Option<Subject> {
    match value {
        Value::Object(mut act) => {
            let subject = Subject::parse(&text(act.remove("sub")?)?).ok()?;
            act.is_empty().then_some(subject)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            None
        }
    }
}

/// A `NumericDate` (RFC 7519 section 2) as we write it: an integer, of no year past 9999. Anything
/// else would be a claim that some verifiers read and others skip.
fn instant(value: &Value) -> Option<Timestamp> {
    let secs = value.as_u64().and_then(|secs| i64::try_from(secs).ok())?;
    (secs <= TIMESTAMP_MS_MAX / 1000).then(|| Timestamp::from_secs(secs))
}

impl AccessClaims {
    /// How much longer the token lasts at `now`, without leeway.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.expires_at.since(now)
    }
}

const JTI_BYTES: usize = 18;
