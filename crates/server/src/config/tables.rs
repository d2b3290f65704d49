//! The settings that are tables: policies, caps by assurance, extra claims.

use std::collections::BTreeMap;
use std::time::Duration;

use cloakroom_core::csrf::CsrfMode;
use cloakroom_core::policy::{ClaimHeader, Policy, Requirement};
use cloakroom_core::token::access::ExtraClaims;

use super::value::{Fault, Found, Raw, Setting, Shape, many, one};

/// The named policies of forward authentication; `default` is always among them.
#[derive(Clone, Debug)]
pub struct Policies(BTreeMap<String, Policy>);

impl Policies {
    /// The policy of `/auth/verify`.
    pub const DEFAULT: &'static str = "default";
    /// A policy's name, in characters.
    const NAME_CHARS_MAX: usize = 64;

    /// The policy of this name.
    pub fn find(&self, name: &str) -> Option<&Policy> {
        self.0.get(name)
    }

    /// All of them with their names, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Policy)> {
        self.0.iter().map(|(name, policy)| (name.as_str(), policy))
    }

    fn judge_name(name: &str) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !name.is_empty() && name.len() <= Self::NAME_CHARS_MAX && name.chars().all(plain) {
            Ok(())
        } else {
            Err("has a policy name that isn't 1 to 64 letters, digits, `-` or `_`".to_owned())
        }
    }
}

impl Setting for Policies {
    const SHAPE: Shape = Shape::Map(2);

    fn gather(found: &[Found<'_>]) -> Result<Self, Vec<Fault>> {
        let mut policies = BTreeMap::from([(Self::DEFAULT.to_owned(), Policy::any_session())]);
        let mut faults = Vec::new();
        for item in found {
            if let Err(text) = policy_member(&mut policies, item) {
                faults.push(Fault::of(item, text));
            }
        }
        if faults.is_empty() { Ok(Self(policies)) } else { Err(faults) }
    }
}

fn policy_member(policies: &mut BTreeMap<String, Policy>, found: &Found<'_>) -> Result<(), String> {
    let [name, rest @ ..] = found.sub else {
        return Err("is a table of policies by name".to_owned());
    };
    Policies::judge_name(name)?;
    let policy = policies.entry(name.clone()).or_insert_with(Policy::any_session);
    let member = match (rest, found.raw) {
        ([], Raw::Table(members)) if members.is_empty() => return Ok(()),
        ([member], _) => member.as_str(),
        _ => return Err("is a policy such as `{ require = [\"role:admin\"] }`".to_owned()),
    };
    match member {
        "require" => policy.require = requirements(found.raw)?,
        "max_age" => policy.max_age = Some(one::<Duration>(found.raw)?),
        "acr" => policy.acr = Some(one::<String>(found.raw)?),
        "csrf" => policy.csrf = one::<CsrfMode>(found.raw)?,
        // A mistyped member would be a requirement that nobody checks.
        _ => {
            return Err("is no member of a policy; those are `require`, `max_age`, `acr`, `csrf`"
                .to_owned());
        }
    }
    Ok(())
}

/// Reads `["role:admin"]`: claims and the values that they must have or hold.
fn requirements(raw: &Raw) -> Result<Vec<Requirement>, String> {
    let texts = many::<String>(raw).map_err(|faults| faults.join("; "))?;
    texts
        .iter()
        .map(|text| Requirement::parse(text).map_err(|why| format!("has `{text}`, which {why}")))
        .collect()
}

/// How long a session of some assurance may live at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AalCap {
    /// Without activity.
    pub idle: Duration,
    /// Altogether.
    pub absolute: Duration,
}

/// The caps by the session's `acr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AalCaps(BTreeMap<String, AalCap>);

impl AalCaps {
    /// The cap on sessions with this `acr`.
    pub fn find(&self, acr: &str) -> Option<AalCap> {
        self.0.get(acr).copied()
    }

    /// All of them by `acr`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, AalCap)> {
        self.0.iter().map(|(acr, cap)| (acr.as_str(), *cap))
    }
}

impl Setting for AalCaps {
    const SHAPE: Shape = Shape::Map(2);

    fn gather(found: &[Found<'_>]) -> Result<Self, Vec<Fault>> {
        let mut halves: BTreeMap<&str, (Option<Duration>, Option<Duration>)> = BTreeMap::new();
        let mut faults = Vec::new();
        for item in found {
            let [acr, member] = item.sub else {
                faults.push(Fault::of(item, "is a cap such as `{ idle = \"1h\" }`"));
                continue;
            };
            let half = halves.entry(acr).or_default();
            match (member.as_str(), one::<Duration>(item.raw)) {
                ("idle", Ok(span)) => half.0 = Some(span),
                ("absolute", Ok(span)) => half.1 = Some(span),
                ("idle" | "absolute", Err(text)) => faults.push(Fault::of(item, text)),
                _ => faults.push(Fault::of(item, "is neither `idle` nor `absolute`")),
            }
        }
        let mut caps = BTreeMap::new();
        for (acr, half) in halves {
            match half {
                (Some(idle), Some(absolute)) if !idle.is_zero() && idle <= absolute => {
                    caps.insert(acr.to_owned(), AalCap { idle, absolute });
                }
                // Its own fault may be the reason that a half is missing.
                _ if !faults.is_empty() => {}
                _ => faults.push(Fault {
                    sub: vec![acr.to_owned()],
                    text: "needs `idle` and `absolute`, the former above zero and no longer"
                        .to_owned(),
                }),
            }
        }
        if faults.is_empty() { Ok(Self(caps)) } else { Err(faults) }
    }
}

impl Setting for ExtraClaims {
    const SHAPE: Shape = Shape::Map(1);

    fn gather(found: &[Found<'_>]) -> Result<Self, Vec<Fault>> {
        let mut claims = serde_json::Map::new();
        let mut faults = Vec::new();
        for item in found {
            match (item.sub, item.raw.to_json()) {
                ([name], Some(value)) => {
                    claims.insert(name.clone(), value);
                }
                ([_], None) => faults.push(Fault::of(item, "has a value that JSON can't say")),
                _ => faults.push(Fault::of(item, "is a table of claims")),
            }
        }
        match Self::parse(&claims) {
            Ok(extra) if faults.is_empty() => Ok(extra),
            Ok(_) => Err(faults),
            Err(refused) => {
                faults.push(Fault { sub: vec![refused.member], text: refused.why.to_owned() });
                Err(faults)
            }
        }
    }
}

/// The claims that get an identity header of their own each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimHeaders(Vec<ClaimHeader>);

impl ClaimHeaders {
    /// All of them, in the order of the setting.
    pub fn as_slice(&self) -> &[ClaimHeader] {
        &self.0
    }
}

impl Setting for ClaimHeaders {
    const SHAPE: Shape = Shape::List;

    fn gather(found: &[Found<'_>]) -> Result<Self, Vec<Fault>> {
        let Some(item) = found.first() else {
            return Ok(Self::default());
        };
        let claims = Vec::<String>::gather(found)?;
        ClaimHeader::parse_all(&claims)
            .map(Self)
            .map_err(|why| vec![Fault::of(item, format!("is refused: {why}"))])
    }
}
