//! A key ring made of a public key set (RFC 7517): for those who only verify.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{Algorithm, KeyFault, KeyRecord, KeyRing, KeyState, VerifyingKey};
use crate::types::Timestamp;

/// Keys of a set; many more than a sane rotation leaves.
const KEYS_MAX: usize = 64;

impl KeyRing {
    /// The keys of a set that our own authorities publish. A key of another kind, or one that bears
    /// another's id, is left out; a text that is no key set is refused.
    pub fn of_jwks(set: &Value) -> Result<Self, KeyFault> {
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeyFault::Malformed)?;
        if keys.len() > KEYS_MAX {
            return Err(KeyFault::Malformed);
        }
        Self::verifying(keys.iter().filter_map(Value::as_object).filter_map(record).collect())
    }
}

/// A key as a record without its private part.
fn record(jwk: &Map<String, Value>) -> Option<KeyRecord> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let algorithm = Algorithm::parse(text("alg")?)?;
    let public = match (algorithm, text("kty")?, text("crv")) {
        (Algorithm::EdDsa, "OKP", Some("Ed25519")) => bytes("x")?,
        (Algorithm::Es256, "EC", Some("P-256")) => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            let whole = x.len() == 32 && y.len() == 32;
            whole.then(|| [&[4], x.as_slice(), &y].concat())?
        }
        (Algorithm::Rs256, "RSA", None) => rsa_public_key(&bytes("n")?, &bytes("e")?)?,
        (Algorithm::EdDsa | Algorithm::Es256 | Algorithm::Rs256 | Algorithm::Hs256, _, _) => {
            return None;
        }
    };
    let kid = VerifyingKey::from_public(algorithm, &public).ok()?.kid().clone();
    // An id that isn't the key's own would let one key answer for another.
    (text("kid")? == kid.as_str()).then_some(KeyRecord {
        kid,
        algorithm,
        state: KeyState::Active,
        created_at: Timestamp::EPOCH,
        activates_at: Timestamp::EPOCH,
        retires_at: None,
        removed_at: None,
        public,
        private: Vec::new(),
    })
}

/// A PKCS#1 `RSAPublicKey` in DER (RFC 8017 appendix A.1.1).
fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let content = [unsigned_integer(modulus)?, unsigned_integer(exponent)?].concat();
    element(0x30, &content)
}

fn unsigned_integer(bytes: &[u8]) -> Option<Vec<u8>> {
    // The shortest form, with a zero before what would be a sign.
    let first = bytes.first().filter(|first| **first != 0)?;
    let sign: &[u8] = if first & 0x80 == 0 { &[] } else { &[0] };
    element(0x02, &[sign, bytes].concat())
}

fn element(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(content.len()).ok()?.to_be_bytes();
    let head = match length {
        [0, short @ 0..=0x7F] => vec![tag, short],
        [0, long] => vec![tag, 0x81, long],
        [high, low] => vec![tag, 0x82, high, low],
    };
    Some([head, content.to_vec()].concat())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::keys::SigningKey;
    use crate::keys::material::public_jwk;
    use crate::types::Secret;

    fn published(algorithm: Algorithm) -> (SigningKey, Value) {
        let key = SigningKey::generate(algorithm, &Secret::new([7; 32])).expect("a key");
        let jwk = public_jwk(algorithm, key.kid(), key.public()).expect("public");
        (key, jwk)
    }

    #[test]
    fn what_an_authority_publishes_is_read_back() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
            let (key, jwk) = published(algorithm);
            let ring = KeyRing::of_jwks(&json!({"keys": [jwk]})).expect("a key set");
            let records: Vec<_> = ring.records().collect();
            assert_eq!(records.len(), 1, "{algorithm}");
            assert_eq!(records[0].public, key.public(), "{algorithm}");
            assert!(ring.signer().is_none());
        }
    }

    #[test]
    fn e2_a_key_under_anothers_id_or_of_another_kind_is_none() {
        let (_, jwk) = published(Algorithm::EdDsa);
        for (name, value) in [
            ("kid", json!("other")),
            ("kid", Value::Null),
            ("alg", json!("HS256")),
            ("alg", json!("ES256")),
            ("kty", json!("oct")),
            ("crv", json!("Ed448")),
            ("x", json!("AAAA")),
        ] {
            let mut changed = jwk.clone();
            changed[name] = value;
            let ring = KeyRing::of_jwks(&json!({"keys": [changed]})).expect("a key set");
            assert_eq!(ring.records().count(), 0, "{name}");
        }
        for bad in [json!({}), json!([]), json!({"keys": {}}), json!({"keys": vec![1; 65]})] {
            assert!(KeyRing::of_jwks(&bad).is_err(), "{bad}");
        }
    }
}
