//! Signing keys: what one is, how one is kept, and the ring that turns them over.

mod hs256;
mod jwks;
mod material;
mod ring;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

pub use self::hs256::{Hs256Refused, Hs256Secret};
pub use self::material::{SigningKey, VerifyingKey};
pub(crate) use self::ring::Known;
pub use self::ring::{FreshKey, KeyChange, KeyRing, KeyRules, RevokeRefused, RotateRefused};

use crate::limits::JWKS_CACHE;
use crate::store_key::{CryptoFault, DerivedKeys, SealNonce};
use crate::types::{Secret, Timestamp};

/// A signature algorithm. One key has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037), the default. Known by this name only, not as `Ed25519` (RFC 9864).
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4).
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3).
    Rs256,
    /// HMAC-SHA-256 (RFC 7518 section 3.2), with a secret that the operator shares.
    Hs256,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 4] = [Self::EdDsa, Self::Es256, Self::Rs256, Self::Hs256];

    /// Its registered name, as in the header's `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }

    /// The algorithm of this name, exactly.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A key's id: public, and derived from the key itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid(Arc<str>);

impl Kid {
    /// A kid read back from a store, or asked for by an operator. It need not exist.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Kid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// Published, so that verifiers know it by the time it signs.
    Next,
    /// Signs and verifies.
    Active,
    /// Verifies until the last token it signed has expired.
    Retired,
    /// Verifies nothing any more.
    Revoked,
}

impl KeyState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Next, Self::Active, Self::Retired, Self::Revoked];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }

    /// The state of this name, exactly.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A signing key as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id.
    pub kid: Kid,
    /// Its one algorithm; never HS256, whose secret is the operator's and in no store.
    pub algorithm: Algorithm,
    /// Where it is in its life.
    pub state: KeyState,
    /// When it was made, and published.
    pub created_at: Timestamp,
    /// From when on it may sign (next), or since when it has signed.
    pub activates_at: Timestamp,
    /// When it stopped signing. Invariant: set exactly in the states retired and revoked.
    pub retires_at: Option<Timestamp>,
    /// When the last token it signed is over and the record can go. Set with `retires_at`.
    pub removed_at: Option<Timestamp>,
    /// The public key: 32 raw bytes (EdDSA), the uncompressed point (ES256), or a PKCS#1
    /// `RSAPublicKey` in DER (RS256).
    pub public: Vec<u8>,
    /// The private key in PKCS#8, sealed under the store key. Empty once the key is revoked.
    pub private: Vec<u8>,
}

/// What making a key consumes.
#[derive(Clone, Debug)]
pub struct KeyEntropy {
    /// The key's own randomness. RSA can't be made from it: the library draws its own.
    pub seed: Secret<[u8; 32]>,
    /// The nonce under which the private key is sealed.
    pub nonce: SealNonce,
}

/// A key could not be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The bytes are no key of that algorithm.
    #[error("the bytes are no key of that algorithm")]
    Malformed,
    /// The private key was sealed under another store key, for another kid, or is damaged.
    #[error("the private key can't be unsealed")]
    Sealed,
    /// HS256 keys come from the configuration only.
    #[error("an HS256 key is neither made nor stored")]
    SharedSecret,
    /// The cryptographic library failed.
    #[error(transparent)]
    Crypto(#[from] CryptoFault),
}

impl KeyRecord {
    /// Makes a key at `now`, its private part sealed.
    pub fn generate(
        algorithm: Algorithm,
        fresh: FreshKey,
        entropy: &KeyEntropy,
        keys: &DerivedKeys,
        now: Timestamp,
    ) -> Result<Self, KeyFault> {
        let key = SigningKey::generate(algorithm, &entropy.seed)?;
        let pkcs8 = key.to_pkcs8()?;
        let context = sealing_context(algorithm, key.kid());
        let private = keys.wrap_private(context.as_bytes(), pkcs8.expose(), entropy.nonce)?;
        let (state, activates_at) = match fresh {
            FreshKey::Next => (KeyState::Next, now.plus(JWKS_CACHE)),
            FreshKey::Active => (KeyState::Active, now),
        };
        Ok(Self {
            kid: key.kid().clone(),
            algorithm,
            state,
            created_at: now,
            activates_at,
            retires_at: None,
            removed_at: None,
            public: key.public().to_vec(),
            private,
        })
    }

    /// Unseals the private key.
    pub fn signing_key(&self, keys: &DerivedKeys) -> Result<SigningKey, KeyFault> {
        let context = sealing_context(self.algorithm, &self.kid);
        let pkcs8 =
            keys.unwrap_private(context.as_bytes(), &self.private).ok_or(KeyFault::Sealed)?;
        let key = SigningKey::from_pkcs8(self.algorithm, pkcs8.expose())?;
        if key.kid() == &self.kid { Ok(key) } else { Err(KeyFault::Malformed) }
    }

    /// Prepares the public key.
    pub fn verifying_key(&self) -> Result<VerifyingKey, KeyFault> {
        let key = VerifyingKey::from_public(self.algorithm, &self.public)?;
        // A record under another's name would let one key's revocation miss it.
        if key.kid() == &self.kid { Ok(key) } else { Err(KeyFault::Malformed) }
    }
}

/// Binds a sealed private key to its record, so that two can't be exchanged in a store.
fn sealing_context(algorithm: Algorithm, kid: &Kid) -> String {
    format!("signing key {algorithm} {kid}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_key::StoreKey;

    fn keys() -> DerivedKeys {
        DerivedKeys::derive(&StoreKey::from_bytes([7; 32]))
    }

    fn record(algorithm: Algorithm, seed: u8) -> KeyRecord {
        let entropy = KeyEntropy { seed: Secret::new([seed; 32]), nonce: [seed; 12] };
        KeyRecord::generate(algorithm, FreshKey::Next, &entropy, &keys(), Timestamp::EPOCH)
            .expect("generates")
    }

    #[test]
    fn names_are_exact() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.name()), Some(algorithm));
        }
        for name in ["", "none", "eddsa", "Ed25519", "ES256K", "ES384", "PS256", "HS512", "RS256 "]
        {
            assert_eq!(Algorithm::parse(name), None, "{name}");
        }
        for state in KeyState::ALL {
            assert_eq!(KeyState::parse(state.name()), Some(state));
        }
    }

    #[test]
    fn a_record_gives_back_the_key_it_was_made_of() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let record = record(algorithm, 1);
            let signing = record.signing_key(&keys()).expect("unseals");
            assert_eq!(signing.kid(), &record.kid);
            assert_eq!(signing.public(), record.public);
            assert_eq!(record.activates_at, Timestamp::from_secs(300));
            let verifying = record.verifying_key().expect("prepares");
            let signature = signing.sign(b"message").expect("signs");
            assert!(verifying.verify(b"message", &signature));
            assert!(!verifying.verify(b"massage", &signature));
        }
    }

    #[test]
    fn a_sealed_private_key_can_not_change_places() {
        let (one, two) = (record(Algorithm::EdDsa, 1), record(Algorithm::EdDsa, 2));
        let exchanged = KeyRecord { private: two.private.clone(), ..one.clone() };
        assert_eq!(exchanged.signing_key(&keys()).err(), Some(KeyFault::Sealed));
        let others = DerivedKeys::derive(&StoreKey::from_bytes([8; 32]));
        assert_eq!(one.signing_key(&others).err(), Some(KeyFault::Sealed));
        let renamed = KeyRecord { kid: two.kid, ..one };
        assert_eq!(renamed.verifying_key().err(), Some(KeyFault::Malformed));
    }

    #[test]
    fn an_hs256_key_is_neither_made_nor_stored() {
        let entropy = KeyEntropy { seed: Secret::new([1; 32]), nonce: [1; 12] };
        let made = KeyRecord::generate(
            Algorithm::Hs256,
            FreshKey::Active,
            &entropy,
            &keys(),
            Timestamp::EPOCH,
        );
        assert_eq!(made, Err(KeyFault::SharedSecret));
    }

    #[test]
    fn a_record_prints_no_private_key() {
        let record = record(Algorithm::EdDsa, 1);
        let key = record.signing_key(&keys()).expect("unseals");
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("SigningKey({:?}, EdDSA)", record.kid.as_str()));
    }
}
