//! Key pairs, prepared once: signing, verifying, and their public form.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use aws_lc_rs::{agreement, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Algorithm, Hs256Secret, KeyFault, Kid};
use crate::store_key::CryptoFault;
use crate::types::Secret;

/// A key that signs, with the header that all its tokens carry.
pub struct SigningKey {
    kid: Kid,
    algorithm: Algorithm,
    public: Vec<u8>,
    header: String,
    signer: Signer,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Hmac(Box<hmac::Key>),
}

impl SigningKey {
    /// Makes a key from `seed`.
    ///
    /// RSA (3072 bits) is the exception: the library draws its primes from its own generator.
    pub fn generate(algorithm: Algorithm, seed: &Secret<[u8; 32]>) -> Result<Self, KeyFault> {
        let signer = match algorithm {
            Algorithm::EdDsa => Signer::Ed25519(
                Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| CryptoFault)?,
            ),
            Algorithm::Es256 => Signer::P256(p256_from_seed(seed)?),
            Algorithm::Rs256 => {
                Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa3072).map_err(|_| CryptoFault)?)
            }
            Algorithm::Hs256 => return Err(KeyFault::SharedSecret),
        };
        Ok(Self::new(signer))
    }

    /// Reads a private key in PKCS#8.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, KeyFault> {
        let signer = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(pkcs8).map(Signer::Ed25519),
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map(Signer::P256)
            }
            Algorithm::Rs256 => RsaKeyPair::from_pkcs8(pkcs8).map(Signer::Rsa),
            Algorithm::Hs256 => return Err(KeyFault::SharedSecret),
        };
        signer.map(Self::new).map_err(|_| KeyFault::Malformed)
    }

    /// The key of a secret that is shared with a backend. Its kid tells nothing of the secret that
    /// a token would not.
    pub fn shared(secret: &Hs256Secret) -> Self {
        Self::new(Signer::Hmac(Box::new(secret.hmac_key())))
    }

    /// The private key in PKCS#8, to be sealed.
    pub fn to_pkcs8(&self) -> Result<Secret<Vec<u8>>, KeyFault> {
        let bytes = match &self.signer {
            Signer::Ed25519(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Signer::P256(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Signer::Rsa(pair) => {
                pair.as_der().map(|der: Pkcs8V1Der<'static>| der.as_ref().to_vec())
            }
            Signer::Hmac(_) => return Err(KeyFault::SharedSecret),
        };
        Ok(Secret::new(bytes.map_err(|_| CryptoFault)?))
    }

    /// Its id.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// Its one algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its public part, as a record keeps it. Empty for HS256, which has none.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The encoded header of every token that this key signs.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }

    /// Signs `message`; the form is that of JWS (RFC 7518 section 3.4: `r ‖ s` for ECDSA).
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoFault> {
        match &self.signer {
            Signer::Ed25519(pair) => {
                pair.try_sign(message).map(|signature| signature.as_ref().to_vec())
            }
            Signer::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec()),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
                    .map(|()| signature)
            }
            Signer::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
        }
        .map_err(|_| CryptoFault)
    }

    fn new(signer: Signer) -> Self {
        let (algorithm, public) = match &signer {
            Signer::Ed25519(pair) => (Algorithm::EdDsa, pair.public_key().as_ref().to_vec()),
            Signer::P256(pair) => (Algorithm::Es256, pair.public_key().as_ref().to_vec()),
            Signer::Rsa(pair) => (Algorithm::Rs256, pair.public_key().as_ref().to_vec()),
            Signer::Hmac(_) => (Algorithm::Hs256, Vec::new()),
        };
        let kid = match &signer {
            Signer::Ed25519(_) | Signer::P256(_) | Signer::Rsa(_) => kid_of_public(&public),
            Signer::Hmac(key) => kid_of_shared(key),
        };
        let header = json!({"alg": algorithm.name(), "kid": kid.as_str(), "typ": "at+jwt"});
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        Self { kid, algorithm, public, header, signer }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?}, {})", self.kid, self.algorithm)
    }
}

/// A key that verifies, prepared.
pub struct VerifyingKey {
    kid: Kid,
    algorithm: Algorithm,
    verifier: Verifier,
}

enum Verifier {
    Public(ParsedPublicKey),
    Hmac(Box<hmac::Key>),
}

impl VerifyingKey {
    /// Prepares a public key in the form that a record keeps. RSA takes 2048 to 8192 bits.
    pub fn from_public(algorithm: Algorithm, public: &[u8]) -> Result<Self, KeyFault> {
        let parsed = match algorithm {
            Algorithm::EdDsa if public.len() == 32 => ParsedPublicKey::new(&ED25519, public),
            // Uncompressed only: one key has one form, hence one kid.
            Algorithm::Es256 if public.len() == 65 && public[0] == 4 => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)
            }
            Algorithm::Rs256
                if rsa_modulus_bits(public).is_some_and(|bits| RSA_BITS.contains(&bits)) =>
            {
                ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
            }
            Algorithm::EdDsa | Algorithm::Es256 | Algorithm::Rs256 => {
                return Err(KeyFault::Malformed);
            }
            Algorithm::Hs256 => return Err(KeyFault::SharedSecret),
        };
        let verifier = Verifier::Public(parsed.map_err(|_| KeyFault::Malformed)?);
        Ok(Self { kid: kid_of_public(public), algorithm, verifier })
    }

    /// The key of a secret that is shared with a backend.
    pub fn shared(secret: &Hs256Secret) -> Self {
        let key = secret.hmac_key();
        let kid = kid_of_shared(&key);
        Self { kid, algorithm: Algorithm::Hs256, verifier: Verifier::Hmac(Box::new(key)) }
    }

    /// Its id.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// Its one algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature` is this key's on `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
            Verifier::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({:?}, {})", self.kid, self.algorithm)
    }
}

/// A public key as a member of a JWK set (RFC 7517); none for what has no public part.
pub(super) fn public_jwk(algorithm: Algorithm, kid: &Kid, public: &[u8]) -> Option<Value> {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut jwk = match algorithm {
        Algorithm::EdDsa => json!({"kty": "OKP", "crv": "Ed25519", "x": text(public)}),
        Algorithm::Es256 => {
            let (x, y) = public.get(1..65)?.split_at(32);
            json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)})
        }
        Algorithm::Rs256 => {
            let (n, e) = rsa_components(public)?;
            json!({"kty": "RSA", "n": text(n), "e": text(e)})
        }
        Algorithm::Hs256 => return None,
    };
    jwk["kid"] = kid.as_str().into();
    jwk["alg"] = algorithm.name().into();
    jwk["use"] = "sig".into();
    Some(jwk)
}

/// Derives a P-256 key: the first candidate that is a scalar of the curve (FIPS 186-5 A.2.2).
fn p256_from_seed(seed: &Secret<[u8; 32]>) -> Result<EcdsaKeyPair, KeyFault> {
    let expander = hmac::Key::new(hmac::HMAC_SHA256, seed.expose());
    // One candidate in 2^32 is out of range, so a second one is never seen.
    for counter in 0..=u8::MAX {
        let candidate =
            hmac::sign(&expander, &[b"cloakroom P-256 ".as_slice(), &[counter]].concat());
        let scalar = candidate.as_ref();
        let public = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, scalar)
            .ok()
            .and_then(|key| key.compute_public_key().ok());
        if let Some(public) = public {
            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                scalar,
                public.as_ref(),
            );
            return pair.map_err(|_| CryptoFault.into());
        }
    }
    Err(CryptoFault.into())
}

fn kid_of_public(public: &[u8]) -> Kid {
    kid_of_digest(digest::digest(&digest::SHA256, public).as_ref())
}

fn kid_of_shared(key: &hmac::Key) -> Kid {
    kid_of_digest(hmac::sign(key, b"cloakroom kid").as_ref())
}

fn kid_of_digest(digest: &[u8]) -> Kid {
    Kid::new(&URL_SAFE_NO_PAD.encode(&digest[..KID_BYTES]))
}

/// Modulus and exponent of a PKCS#1 `RSAPublicKey` (RFC 8017 appendix A.1.1), without sign bytes.
fn rsa_components(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, rest) = der_element(0x30, der)?;
    let (modulus, sequence) = der_element(0x02, sequence)?;
    let (exponent, end) = der_element(0x02, sequence)?;
    let unsigned = |bytes| <[u8]>::strip_prefix(bytes, &[0]).unwrap_or(bytes);
    (rest.is_empty() && end.is_empty()).then(|| (unsigned(modulus), unsigned(exponent)))
}

fn rsa_modulus_bits(der: &[u8]) -> Option<usize> {
    let (modulus, _) = rsa_components(der)?;
    let leading = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    (modulus.len() * 8).checked_sub(leading)
}

/// The content of the DER element with this tag at the start of `input`, and what follows it.
fn der_element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[first, length], rest) = input.split_first_chunk::<2>()?;
    if first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7F => (usize::from(length), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// RSA keys that verify, in bits of the modulus.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// A kid is this many bytes of a digest, in base64url.
const KID_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(byte: u8) -> Secret<[u8; 32]> {
        Secret::new([byte; 32])
    }

    #[test]
    fn a_seed_makes_one_key_and_another_seed_another() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let make = |byte| SigningKey::generate(algorithm, &seed(byte)).expect("generates");
            assert_eq!(make(1).public(), make(1).public());
            assert_ne!(make(1).kid(), make(2).kid());
            assert_eq!(make(1).kid().as_str().len(), 16);
        }
    }

    #[test]
    fn e11_a_generated_rsa_key_has_3072_bits_and_survives_pkcs8() {
        let key = SigningKey::generate(Algorithm::Rs256, &seed(1)).expect("generates");
        assert_eq!(rsa_modulus_bits(key.public()), Some(3072));
        let pkcs8 = key.to_pkcs8().expect("serialises");
        let back = SigningKey::from_pkcs8(Algorithm::Rs256, pkcs8.expose()).expect("reads");
        assert_eq!(back.kid(), key.kid());
        let verifying = VerifyingKey::from_public(Algorithm::Rs256, key.public()).expect("fits");
        assert!(verifying.verify(b"m", &back.sign(b"m").expect("signs")));
        assert!(!verifying.verify(b"n", &back.sign(b"m").expect("signs")));
        let jwk = public_jwk(Algorithm::Rs256, key.kid(), key.public()).expect("has one");
        assert_eq!(jwk["e"], "AQAB");
        assert_eq!(jwk["n"].as_str().map(str::len), Some(512));
    }

    #[test]
    fn a_key_of_another_algorithm_is_malformed() {
        let ed25519 = SigningKey::generate(Algorithm::EdDsa, &seed(1)).expect("generates");
        let p256 = SigningKey::generate(Algorithm::Es256, &seed(1)).expect("generates");
        for (algorithm, key) in [
            (Algorithm::Es256, &ed25519),
            (Algorithm::Rs256, &ed25519),
            (Algorithm::EdDsa, &p256),
            (Algorithm::Rs256, &p256),
        ] {
            let pkcs8 = key.to_pkcs8().expect("serialises");
            let private = SigningKey::from_pkcs8(algorithm, pkcs8.expose());
            assert_eq!(private.err(), Some(KeyFault::Malformed));
            let public = VerifyingKey::from_public(algorithm, key.public());
            assert_eq!(public.err(), Some(KeyFault::Malformed));
        }
        let compressed = [&[2 + (p256.public()[64] & 1)], &p256.public()[1..33]].concat();
        for public in [&compressed[..], &[], &[4], &[0x30, 0x82], &[4; 65]] {
            for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
                assert!(VerifyingKey::from_public(algorithm, public).is_err());
            }
        }
    }

    #[test]
    fn a_public_jwk_has_the_members_of_its_type() {
        for (algorithm, kty) in [(Algorithm::EdDsa, "OKP"), (Algorithm::Es256, "EC")] {
            let key = SigningKey::generate(algorithm, &seed(1)).expect("generates");
            let jwk = public_jwk(algorithm, key.kid(), key.public()).expect("has one");
            assert_eq!(jwk["kty"], kty);
            assert_eq!(jwk["kid"], key.kid().as_str());
            assert_eq!(jwk["x"].as_str().map(str::len), Some(43));
        }
        assert!(public_jwk(Algorithm::Hs256, &Kid::new("k"), &[]).is_none());
    }
}
