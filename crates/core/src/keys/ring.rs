//! The key ring: which key signs, which verify, and when each takes the next step.
//!
//! Nothing here changes a key; plans are lists of changes to commit to partition 0, where one of
//! several nodes wins and the others follow.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::material::public_jwk;
use super::{Algorithm, Hs256Secret, KeyFault, KeyRecord, KeyState, Kid, SigningKey, VerifyingKey};
use crate::limits::{JWKS_CACHE, KEY_SIGNING_LAG, TOKEN_LEEWAY};
use crate::store_key::DerivedKeys;
use crate::types::Timestamp;

/// What the operator wants of signing keys.
#[derive(Clone, Copy, Debug)]
pub struct KeyRules {
    /// The algorithm that tokens are signed with.
    pub algorithm: Algorithm,
    /// How long one key signs.
    pub rotation: Duration,
    /// The longest life of any token signed.
    pub access_ttl: Duration,
}

/// The role that a key is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshKey {
    /// To be published now and to sign later.
    Next,
    /// To sign at once, since there is nothing else to sign with.
    Active,
}

/// One change to commit. All changes of one plan belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// Make a key with [`KeyRecord::generate`] and store it.
    Generate(Algorithm, FreshKey),
    /// Store this record in place of the one with its kid.
    Put(KeyRecord),
    /// Forget this key: nothing that it signed can still be valid.
    Remove(Kid),
}

/// Why the next key can't take over now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotateRefused {
    /// Tokens are signed with a secret of the configuration.
    #[error("an HS256 secret is changed in the configuration")]
    SharedSecret,
    /// The next key has not been published long enough for every verifier to know it.
    #[error("the next key has been published for too short a time")]
    NotYet {
        /// From when on it may sign.
        at: Timestamp,
    },
}

/// Why a key can't be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeRefused {
    /// There is no key of this kid.
    #[error("no such key")]
    Unknown,
    /// It is a secret of the configuration.
    #[error("an HS256 secret is changed in the configuration")]
    SharedSecret,
}

/// All keys that there are, prepared.
#[derive(Debug)]
pub struct KeyRing {
    entries: BTreeMap<Kid, Entry>,
    shared: Option<VerifyingKey>,
    signer: Option<SigningKey>,
}

#[derive(Debug)]
struct Entry {
    record: KeyRecord,
    verifying: VerifyingKey,
}

/// A key that a token names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known<'a> {
    /// What it signed counts.
    Good(&'a VerifyingKey),
    /// What it signed doesn't count any more.
    Revoked(&'a VerifyingKey),
}

impl KeyRing {
    /// Prepares the keys of a store, and the secret that the configuration shares, if any.
    ///
    /// With a shared secret that one signs, and the stored keys only verify.
    pub fn new(
        records: Vec<KeyRecord>,
        keys: &DerivedKeys,
        shared: Option<&Hs256Secret>,
    ) -> Result<Self, KeyFault> {
        let signer = match (shared, latest_active(records.iter())) {
            (Some(secret), _) => Some(SigningKey::shared(secret)),
            (None, Some(record)) => Some(record.signing_key(keys)?),
            (None, None) => None,
        };
        let entry = |record: KeyRecord| {
            let verifying = record.verifying_key()?;
            Ok((record.kid.clone(), Entry { record, verifying }))
        };
        let entries = records.into_iter().map(entry).collect::<Result<_, KeyFault>>()?;
        Ok(Self { entries, shared: shared.map(VerifyingKey::shared), signer })
    }

    /// A ring that only verifies.
    pub(super) fn verifying(records: Vec<KeyRecord>) -> Result<Self, KeyFault> {
        let entry = |record: KeyRecord| {
            let verifying = record.verifying_key()?;
            Ok((record.kid.clone(), Entry { record, verifying }))
        };
        let entries = records.into_iter().map(entry).collect::<Result<_, KeyFault>>()?;
        Ok(Self { entries, shared: None, signer: None })
    }

    /// Whether it has a key of this id.
    pub fn has(&self, kid: &str) -> bool {
        let shared = self.shared.as_ref().is_some_and(|key| key.kid().as_str() == kid);
        shared || self.entries.contains_key(kid)
    }

    /// Takes keys out, by their ids.
    pub fn without(&mut self, revoked: impl Fn(&str) -> bool) {
        self.entries.retain(|kid, _| !revoked(kid.as_str()));
    }

    /// The key that signs, unless none has been made yet.
    pub fn signer(&self) -> Option<&SigningKey> {
        self.signer.as_ref()
    }

    /// The stored keys, sorted by kid.
    pub fn records(&self) -> impl Iterator<Item = &KeyRecord> {
        self.entries.values().map(|entry| &entry.record)
    }

    /// The public key set (RFC 7517 section 5): next, active, and retired ones that still verify.
    pub fn jwks(&self, now: Timestamp) -> Value {
        let published = |record: &&KeyRecord| match record.state {
            KeyState::Next | KeyState::Active => true,
            KeyState::Retired => !is_over(record, now),
            KeyState::Revoked => false,
        };
        let jwk = |record: &KeyRecord| public_jwk(record.algorithm, &record.kid, &record.public);
        let keys: Vec<Value> = self.records().filter(published).filter_map(jwk).collect();
        json!({ "keys": keys })
    }

    /// What is due at `now`, at the first start too. Empty when nothing is.
    pub fn plan(&self, now: Timestamp, rules: &KeyRules) -> Vec<KeyChange> {
        let roles = self.roles(rules);
        let mut changes = self.housekeeping(now, rules, &roles);
        if rules.algorithm == Algorithm::Hs256 {
            return changes;
        }
        match (roles.active, roles.next) {
            (Some(active), Some(next)) => {
                let due = active.algorithm != rules.algorithm
                    || now >= active.activates_at.plus(rules.rotation);
                if due && now >= ready_at(next) {
                    changes.extend(succeed(active, next, now, rules));
                }
            }
            (Some(_), None) => {
                changes.push(KeyChange::Generate(rules.algorithm, FreshKey::Next));
            }
            (None, next) => changes.extend(replace_active(next, now, rules)),
        }
        changes
    }

    /// Lets the next key take over now, if verifiers know it.
    pub fn rotate_now(
        &self,
        now: Timestamp,
        rules: &KeyRules,
    ) -> Result<Vec<KeyChange>, RotateRefused> {
        if rules.algorithm == Algorithm::Hs256 {
            return Err(RotateRefused::SharedSecret);
        }
        let roles = self.roles(rules);
        match (roles.active, roles.next) {
            (Some(active), Some(next)) if now >= ready_at(next) => {
                Ok(succeed(active, next, now, rules).into())
            }
            (Some(_), Some(next)) => Err(RotateRefused::NotYet { at: ready_at(next) }),
            (Some(_), None) => Err(RotateRefused::NotYet { at: now.plus(JWKS_CACHE) }),
            (None, _) => Ok(self.plan(now, rules)),
        }
    }

    /// Makes a key verify nothing any more, at once. If it was the active one, the next key takes
    /// over although it may be unknown to some verifiers yet; without one a new key is made.
    ///
    /// Revoking a revoked key changes nothing.
    pub fn revoke(
        &self,
        kid: &str,
        now: Timestamp,
        rules: &KeyRules,
    ) -> Result<Vec<KeyChange>, RevokeRefused> {
        if self.shared.as_ref().is_some_and(|key| key.kid().as_str() == kid) {
            return Err(RevokeRefused::SharedSecret);
        }
        let record = &self.entries.get(kid).ok_or(RevokeRefused::Unknown)?.record;
        if record.state == KeyState::Revoked {
            return Ok(Vec::new());
        }
        let mut changes = vec![KeyChange::Put(revoked(record, now, rules))];
        if rules.algorithm == Algorithm::Hs256 {
            return Ok(changes);
        }
        let roles = self.roles(rules);
        let is = |role: Option<&KeyRecord>| role.is_some_and(|other| other.kid == record.kid);
        if is(roles.active) {
            changes.extend(replace_active(roles.next, now, rules));
        } else if is(roles.next) {
            changes.push(KeyChange::Generate(rules.algorithm, FreshKey::Next));
        }
        Ok(changes)
    }

    /// The key of this kid, unless it is unknown or past its time.
    pub(crate) fn known(&self, kid: &str, now: Timestamp) -> Option<Known<'_>> {
        if let Some(key) = self.shared.as_ref().filter(|key| key.kid().as_str() == kid) {
            return Some(Known::Good(key));
        }
        let entry = self.entries.get(kid)?;
        match entry.record.state {
            // A token of the next key comes from a node that has already seen it take over.
            KeyState::Next | KeyState::Active => Some(Known::Good(&entry.verifying)),
            KeyState::Retired if is_over(&entry.record, now) => None,
            KeyState::Retired => Some(Known::Good(&entry.verifying)),
            KeyState::Revoked => Some(Known::Revoked(&entry.verifying)),
        }
    }

    /// Who plays which part. What is active or next besides is surplus.
    fn roles(&self, rules: &KeyRules) -> Roles<'_> {
        let next = self
            .records()
            .filter(|record| record.state == KeyState::Next)
            .filter(|record| record.algorithm == rules.algorithm)
            .min_by_key(|record| (record.created_at, &record.kid));
        Roles { active: latest_active(self.records()), next }
    }

    /// Removes what is over and puts away what is surplus.
    fn housekeeping(&self, now: Timestamp, rules: &KeyRules, roles: &Roles<'_>) -> Vec<KeyChange> {
        let is = |role: Option<&KeyRecord>, record: &KeyRecord| {
            role.is_some_and(|other| other.kid == record.kid)
        };
        let change = |record: &KeyRecord| match record.state {
            KeyState::Retired | KeyState::Revoked => {
                is_over(record, now).then(|| KeyChange::Remove(record.kid.clone()))
            }
            KeyState::Next => {
                (!is(roles.next, record)).then(|| KeyChange::Remove(record.kid.clone()))
            }
            KeyState::Active => (!is(roles.active, record) || rules.algorithm == Algorithm::Hs256)
                .then(|| KeyChange::Put(retired(record, now, rules))),
        };
        self.records().filter_map(change).collect()
    }
}

struct Roles<'a> {
    active: Option<&'a KeyRecord>,
    next: Option<&'a KeyRecord>,
}

fn latest_active<'a>(records: impl Iterator<Item = &'a KeyRecord>) -> Option<&'a KeyRecord> {
    records
        .filter(|record| record.state == KeyState::Active)
        .max_by_key(|record| (record.activates_at, &record.kid))
}

/// When every verifier that honours the cache time of the key set knows this next key.
fn ready_at(next: &KeyRecord) -> Timestamp {
    next.activates_at.max(next.created_at.plus(JWKS_CACHE))
}

fn is_over(record: &KeyRecord, now: Timestamp) -> bool {
    record.removed_at.is_some_and(|at| at <= now)
}

fn succeed(
    active: &KeyRecord,
    next: &KeyRecord,
    now: Timestamp,
    rules: &KeyRules,
) -> [KeyChange; 3] {
    [
        KeyChange::Put(retired(active, now, rules)),
        KeyChange::Put(activated(next, now)),
        KeyChange::Generate(rules.algorithm, FreshKey::Next),
    ]
}

fn replace_active(next: Option<&KeyRecord>, now: Timestamp, rules: &KeyRules) -> [KeyChange; 2] {
    let successor = match next {
        Some(next) => KeyChange::Put(activated(next, now)),
        None => KeyChange::Generate(rules.algorithm, FreshKey::Active),
    };
    [successor, KeyChange::Generate(rules.algorithm, FreshKey::Next)]
}

fn activated(record: &KeyRecord, now: Timestamp) -> KeyRecord {
    KeyRecord { state: KeyState::Active, activates_at: now, ..record.clone() }
}

fn retired(record: &KeyRecord, now: Timestamp, rules: &KeyRules) -> KeyRecord {
    KeyRecord {
        state: KeyState::Retired,
        retires_at: Some(now),
        removed_at: Some(last_token_over(now, rules)),
        ..record.clone()
    }
}

fn revoked(record: &KeyRecord, now: Timestamp, rules: &KeyRules) -> KeyRecord {
    KeyRecord {
        state: KeyState::Revoked,
        retires_at: record.retires_at.or(Some(now)),
        removed_at: record.removed_at.or(Some(last_token_over(now, rules))),
        private: Vec::new(),
        ..record.clone()
    }
}

/// When nothing that a key signed until `stopped_at` can be accepted any more. A node that has not
/// heard yet may sign a little longer.
fn last_token_over(stopped_at: Timestamp, rules: &KeyRules) -> Timestamp {
    stopped_at.plus(KEY_SIGNING_LAG).plus(rules.access_ttl).plus(TOKEN_LEEWAY)
}

#[cfg(test)]
mod tests;
