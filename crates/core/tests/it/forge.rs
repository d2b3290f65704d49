//! A forger's workshop: real keys, and tokens with any header and any payload.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, signature::KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::json::Map;
use cloakroom_core::keys::{
    Algorithm, FreshKey, Hs256Secret, KeyChange, KeyEntropy, KeyRecord, KeyRing, KeyRules, Kid,
};
use cloakroom_core::store_key::{DerivedKeys, StoreKey};
use cloakroom_core::token::TokenRefusal;
use cloakroom_core::token::access::{
    AccessClaims, Expectation, ExtraClaims, issue, new_jti, verify,
};
use cloakroom_core::types::{Partition, Secret, Sid, Subject, Timestamp};

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(crate) const ISSUER: &str = "https://auth.example";
pub(crate) const SECRET: &str = "5f3a9c0e7b1d48268fae93c0d1b7e42c";

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An authority with one key, and somebody who holds that key and signs what he likes.
pub(crate) struct Forge {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Kid,
    pub(crate) public: Vec<u8>,
    keys: DerivedKeys,
    records: Vec<KeyRecord>,
    pub(crate) ring: KeyRing,
    signer: Signer,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Hmac(Box<hmac::Key>),
}

impl Forge {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let keys = DerivedKeys::derive(&StoreKey::from_bytes([7; 32]));
        if algorithm == Algorithm::Hs256 {
            return Self::hs256(keys);
        }
        let entropy = KeyEntropy { seed: Secret::new([1; 32]), nonce: [1; 12] };
        let record =
            KeyRecord::generate(algorithm, FreshKey::Active, &entropy, &keys, NOW).expect("makes");
        let pkcs8 = record.signing_key(&keys).and_then(|key| key.to_pkcs8()).expect("unseals");
        let pkcs8 = pkcs8.expose();
        let signer = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(pkcs8).map(Signer::Ed25519),
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map(Signer::P256)
            }
            Algorithm::Rs256 => RsaKeyPair::from_pkcs8(pkcs8).map(Signer::Rsa),
            Algorithm::Hs256 => unreachable!("made above"),
        };
        let records = vec![record.clone()];
        Self {
            algorithm,
            kid: record.kid,
            public: record.public,
            ring: KeyRing::new(records.clone(), &keys, None).expect("prepares"),
            keys,
            records,
            signer: signer.expect("reads"),
        }
    }

    fn hs256(keys: DerivedKeys) -> Self {
        let secret = Hs256Secret::parse(SECRET).expect("sound");
        let ring = KeyRing::new(Vec::new(), &keys, Some(&secret)).expect("prepares");
        Self {
            algorithm: Algorithm::Hs256,
            kid: ring.signer().expect("signs").kid().clone(),
            public: Vec::new(),
            keys,
            records: Vec::new(),
            ring,
            signer: Signer::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()))),
        }
    }

    pub(crate) fn all() -> [Self; 4] {
        Algorithm::ALL.map(Self::new)
    }

    /// The same authority after the key was revoked.
    pub(crate) fn revoke(&mut self) {
        let rules = KeyRules {
            algorithm: self.algorithm,
            rotation: Duration::from_secs(86_400),
            access_ttl: Duration::from_secs(900),
        };
        for change in self.ring.revoke(self.kid.as_str(), NOW, &rules).expect("is there") {
            match change {
                KeyChange::Put(record) => self.records = vec![record],
                KeyChange::Generate(..) | KeyChange::Remove(_) => {}
            }
        }
        self.ring = KeyRing::new(self.records.clone(), &self.keys, None).expect("prepares");
    }

    /// A header with these raw members; `{kid}` stands for the key's own.
    pub(crate) fn header(&self, members: &str) -> String {
        format!("{{{}}}", members.replace("{kid}", self.kid.as_str()))
    }

    pub(crate) fn good_header(&self) -> String {
        let alg = self.algorithm.name();
        self.header(&format!(r#""alg":"{alg}","kid":"{{kid}}","typ":"at+jwt""#))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.signer {
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::P256(pair) => {
                pair.sign(&SystemRandom::new(), message).expect("signs").as_ref().to_vec()
            }
            Signer::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                assert_eq!(pair.public_key().as_ref(), self.public);
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut out)
                    .expect("signs");
                out
            }
            Signer::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
        }
    }

    /// A validly signed token of any two parts.
    pub(crate) fn token(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        self.signed(&encode(header), &encode(payload))
    }

    /// A validly signed token of any two parts, encoded in whatever way.
    pub(crate) fn signed(&self, header: &str, payload: &str) -> String {
        let message = format!("{header}.{payload}");
        let signature = encode(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    pub(crate) fn good(&self) -> String {
        self.token(self.good_header(), Payload::good().text())
    }

    pub(crate) fn verdict(&self, token: &str) -> Result<AccessClaims, TokenRefusal> {
        self.verdict_at(token, NOW)
    }

    pub(crate) fn verdict_at(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<AccessClaims, TokenRefusal> {
        let (audiences, foreign) = (["cloakroom".to_owned()], ["upstream".to_owned()]);
        let expected =
            Expectation { issuer: ISSUER, audiences: &audiences, foreign_audiences: &foreign, now };
        verify(token, &self.ring, &expected)
    }

    /// Issues as the authority does.
    pub(crate) fn issue(&self, claims: &AccessClaims, extra: &ExtraClaims) -> String {
        issue(self.ring.signer().expect("signs"), claims, extra).expect("issues")
    }

    /// That the token is refused as invalid, and a good one is still taken.
    pub(crate) fn assert_invalid(&self, token: &str, what: &str) {
        let algorithm = self.algorithm;
        assert_eq!(self.verdict(token), Err(TokenRefusal::Invalid), "{algorithm}: {what}");
        assert!(self.verdict(&self.good()).is_ok(), "{algorithm}: control of {what}");
    }
}

/// A payload as raw JSON members, so that any of them can be malformed.
#[derive(Clone)]
pub(crate) struct Payload(Vec<(String, String)>);

impl Payload {
    pub(crate) fn good() -> Self {
        let now = NOW.as_secs();
        let members = [
            ("iss", format!("{ISSUER:?}")),
            ("sub", r#""usr_1""#.to_owned()),
            ("aud", r#""cloakroom""#.to_owned()),
            ("exp", (now + 900).to_string()),
            ("nbf", (now - 5).to_string()),
            ("iat", now.to_string()),
            ("jti", format!("{:?}", new_jti(Partition(7), [9; 16]))),
            ("sid", format!("{:?}", sid().to_string())),
            ("auth_time", (now - 60).to_string()),
            ("amr", r#"["pwd"]"#.to_owned()),
            ("acr", r#""aal1""#.to_owned()),
            ("epoch", "3".to_owned()),
            ("role", r#""user""#.to_owned()),
        ];
        Self(members.map(|(name, raw)| (name.to_owned(), raw)).into())
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.retain(|member| member.0 != name);
        self
    }

    pub(crate) fn with(self, name: &str, raw: &str) -> Self {
        self.without(name).and(name, raw)
    }

    /// Adds a member, whether there is one of that name already or not.
    pub(crate) fn and(mut self, name: &str, raw: &str) -> Self {
        self.0.push((name.to_owned(), raw.to_owned()));
        self
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|member| member.0.clone()).collect()
    }

    pub(crate) fn text(&self) -> String {
        let members: Vec<_> =
            self.0.iter().map(|(name, raw)| format!("\"{name}\":{raw}")).collect();
        format!("{{{}}}", members.join(","))
    }
}

pub(crate) fn sid() -> Sid {
    Sid::new(NOW, Partition(7), [5; 8])
}

/// The claims of [`Payload::good`], as the authority would issue them.
pub(crate) fn good_claims() -> AccessClaims {
    AccessClaims {
        issuer: ISSUER.to_owned(),
        subject: Subject::parse("usr_1").expect("sound"),
        audience: vec!["cloakroom".to_owned()],
        expires_at: NOW.plus(Duration::from_secs(900)),
        not_before: NOW.minus(Duration::from_secs(5)),
        issued_at: NOW,
        jti: new_jti(Partition(7), [9; 16]),
        sid: sid(),
        auth_time: NOW.minus(Duration::from_secs(60)),
        amr: vec!["pwd".to_owned()],
        acr: "aal1".to_owned(),
        epoch: 3,
        actor: None,
        claims: Map::from_iter([("role".to_owned(), "user".into())]),
    }
}
