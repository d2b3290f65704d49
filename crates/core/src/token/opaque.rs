//! Session tokens, refresh tokens and API keys: random, tagged, and meaningless to their holders.
//!
//! Text: a prefix, then base64url of `format · sid · lineage · generation · secret · tag`. The tag
//! is over prefix and all bytes before it, so junk and a token under another's prefix are refused
//! without a look into the store.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::{Looks, TokenRefusal};
use crate::store_key::{DerivedKeys, TAG_BYTES};
use crate::types::{Secret, Sid, TokenHash};

/// The kinds of opaque credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpaqueKind {
    /// A session cookie's value, `cks_`.
    Session,
    /// A refresh token, `ckr_`.
    Refresh,
    /// An API key, `cka_`.
    ApiKey,
}

impl OpaqueKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Session, Self::Refresh, Self::ApiKey];

    /// What its text starts with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Session => "cks_",
            Self::Refresh => "ckr_",
            Self::ApiKey => "cka_",
        }
    }
}

/// An opaque credential whose tag was right, or which was just made.
#[derive(Clone, Debug)]
pub struct OpaqueToken {
    /// What it is for.
    pub kind: OpaqueKind,
    /// The session it belongs to; an API key's own id.
    pub sid: Sid,
    /// Counts the fresh starts of the session's credentials (step-up, password change).
    pub lineage: u32,
    /// Counts the rotations within the lineage.
    pub generation: u32,
    /// What only its holder knows.
    pub secret: Secret<[u8; SECRET_BYTES]>,
}

impl OpaqueToken {
    /// Its text, to be shown once.
    pub fn encode(&self, keys: &DerivedKeys) -> Secret<String> {
        let prefix = self.kind.prefix();
        let mut bytes = Zeroizing::new([0; TOTAL_BYTES]);
        bytes[..PREFIX_BYTES].copy_from_slice(prefix.as_bytes());
        bytes[FORMAT_AT] = FORMAT;
        bytes[SID_AT..LINEAGE_AT].copy_from_slice(self.sid.as_bytes());
        bytes[LINEAGE_AT..GENERATION_AT].copy_from_slice(&self.lineage.to_be_bytes());
        bytes[GENERATION_AT..SECRET_AT].copy_from_slice(&self.generation.to_be_bytes());
        bytes[SECRET_AT..TAG_AT].copy_from_slice(self.secret.expose());
        let tag = keys.tag(&bytes[..TAG_AT]);
        bytes[TAG_AT..].copy_from_slice(&tag);
        let mut text = String::with_capacity(TEXT_CHARS);
        text.push_str(prefix);
        URL_SAFE_NO_PAD.encode_string(&bytes[FORMAT_AT..], &mut text);
        Secret::new(text)
    }

    /// Takes a text that has to be a credential of `kind`, if its tag is right.
    pub fn parse(kind: OpaqueKind, text: &str, keys: &DerivedKeys) -> Result<Self, TokenRefusal> {
        let Some(body) = text.strip_prefix(kind.prefix()) else {
            return Err(match Looks::of(text) {
                Looks::Opaque(_) | Looks::Jwt | Looks::Csrf => TokenRefusal::WrongType,
                Looks::Unknown => TokenRefusal::Invalid,
            });
        };
        Self::parse_body(kind, body, keys).ok_or(TokenRefusal::Invalid)
    }

    /// What is kept of the secret at rest.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.secret.expose())
    }

    fn parse_body(kind: OpaqueKind, body: &str, keys: &DerivedKeys) -> Option<Self> {
        // The length is public, and checked first so that no input costs more than a token.
        if body.len() != TEXT_CHARS - PREFIX_BYTES {
            return None;
        }
        let mut bytes = Zeroizing::new([0; TOTAL_BYTES]);
        bytes[..PREFIX_BYTES].copy_from_slice(kind.prefix().as_bytes());
        let decoded = URL_SAFE_NO_PAD.decode_slice(body, &mut bytes[FORMAT_AT..]).ok()?;
        let genuine = decoded == TOTAL_BYTES - FORMAT_AT
            && keys.verify_tag(&bytes[..TAG_AT], &bytes[TAG_AT..])
            && bytes[FORMAT_AT] == FORMAT;
        if !genuine {
            return None;
        }
        Some(Self {
            kind,
            sid: Sid::from_bytes(bytes[SID_AT..LINEAGE_AT].try_into().ok()?),
            lineage: u32::from_be_bytes(bytes[LINEAGE_AT..GENERATION_AT].try_into().ok()?),
            generation: u32::from_be_bytes(bytes[GENERATION_AT..SECRET_AT].try_into().ok()?),
            secret: Secret::new(bytes[SECRET_AT..TAG_AT].try_into().ok()?),
        })
    }
}

/// The length of a credential's secret part, in bytes.
pub const SECRET_BYTES: usize = 32;
/// The length of an opaque credential's text, in characters.
pub const TEXT_CHARS: usize = PREFIX_BYTES + 87;

const FORMAT: u8 = 1;
const PREFIX_BYTES: usize = 4;
const FORMAT_AT: usize = PREFIX_BYTES;
const SID_AT: usize = FORMAT_AT + 1;
const LINEAGE_AT: usize = SID_AT + 16;
const GENERATION_AT: usize = LINEAGE_AT + 4;
const SECRET_AT: usize = GENERATION_AT + 4;
const TAG_AT: usize = SECRET_AT + SECRET_BYTES;
const TOTAL_BYTES: usize = TAG_AT + TAG_BYTES;
const _: () = assert!((TOTAL_BYTES - FORMAT_AT) * 4 <= (TEXT_CHARS - PREFIX_BYTES) * 3);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store_key::StoreKey;

    fn keys() -> DerivedKeys {
        DerivedKeys::derive(&StoreKey::from_bytes([7; 32]))
    }

    fn token(kind: OpaqueKind) -> OpaqueToken {
        OpaqueToken {
            kind,
            sid: Sid::from_bytes([1; 16]),
            lineage: 2,
            generation: u32::MAX,
            secret: Secret::new([3; 32]),
        }
    }

    #[test]
    fn a_token_comes_back_as_it_was_made() {
        for kind in OpaqueKind::ALL {
            let text = token(kind).encode(&keys());
            assert_eq!(text.expose().len(), TEXT_CHARS);
            let back = OpaqueToken::parse(kind, text.expose(), &keys()).expect("genuine");
            assert_eq!((back.kind, back.sid), (kind, Sid::from_bytes([1; 16])));
            assert_eq!((back.lineage, back.generation), (2, u32::MAX));
            assert_eq!(back.secret.expose(), &[3; 32]);
            assert!(back.hash().matches(&[3; 32]));
        }
    }

    #[test]
    fn a10_kinds_do_not_substitute_for_one_another() {
        for made in OpaqueKind::ALL {
            let text = token(made).encode(&keys());
            for asked in OpaqueKind::ALL.into_iter().filter(|asked| *asked != made) {
                let verdict = OpaqueToken::parse(asked, text.expose(), &keys());
                assert_eq!(verdict.err(), Some(TokenRefusal::WrongType));
                let renamed = text.expose().replacen(made.prefix(), asked.prefix(), 1);
                let verdict = OpaqueToken::parse(asked, &renamed, &keys());
                assert_eq!(verdict.err(), Some(TokenRefusal::Invalid));
            }
        }
        for other in ["eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.AAAA", &"A".repeat(64)] {
            let verdict = OpaqueToken::parse(OpaqueKind::Session, other, &keys());
            assert_eq!(verdict.err(), Some(TokenRefusal::WrongType));
        }
    }

    #[test]
    fn a12_an_id_is_no_credential() {
        let sid = Sid::from_bytes([1; 16]).to_string();
        for text in [sid.clone(), format!("cks_{sid}"), "cks_".into(), String::new()] {
            let verdict = OpaqueToken::parse(OpaqueKind::Session, &text, &keys());
            assert_eq!(verdict.err(), Some(TokenRefusal::Invalid));
        }
    }

    #[test]
    fn e5_an_opaque_token_has_one_spelling() {
        let text = token(OpaqueKind::Session).encode(&keys());
        let text = text.expose();
        let (body, last) = text.split_at(TEXT_CHARS - 1);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let siblings = alphabet.chars().map(|c| format!("{body}{c}"));
        let padded = [
            format!("{text}="),
            format!(" {text}"),
            format!("{text}\n"),
            format!("{text}A"),
            format!("{body}%3D"),
            text.replace(['-', '_'], "+"),
            text.to_uppercase(),
            body.to_owned(),
        ];
        let mut taken = 0;
        for other in siblings.chain(padded) {
            if OpaqueToken::parse(OpaqueKind::Session, &other, &keys()).is_ok() {
                assert_eq!(other, *text, "{last}");
                taken += 1;
            }
        }
        assert!(taken >= 1);
    }

    #[test]
    fn f9_a_flipped_bit_or_another_deployment_is_invalid() {
        let text = token(OpaqueKind::Refresh).encode(&keys());
        let bytes = URL_SAFE_NO_PAD.decode(&text.expose()[4..]).expect("base64url");
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let bent = format!("ckr_{}", URL_SAFE_NO_PAD.encode(bent));
            let verdict = OpaqueToken::parse(OpaqueKind::Refresh, &bent, &keys());
            assert_eq!(verdict.err(), Some(TokenRefusal::Invalid), "bit {bit}");
        }
        let others = DerivedKeys::derive(&StoreKey::from_bytes([8; 32]));
        let verdict = OpaqueToken::parse(OpaqueKind::Refresh, text.expose(), &others);
        assert_eq!(verdict.err(), Some(TokenRefusal::Invalid));
    }

    #[test]
    fn a_token_prints_no_secret() {
        let shown = format!("{:?}", token(OpaqueKind::Session));
        assert!(shown.contains("Secret(..)") && !shown.contains("3, 3"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_token_comes_back(
            sid: [u8; 16], lineage: u32, generation: u32, secret: [u8; 32], kind in 0..3usize,
        ) {
            let kind = OpaqueKind::ALL[kind];
            let sid = Sid::from_bytes(sid);
            let made = OpaqueToken { kind, sid, lineage, generation, secret: Secret::new(secret) };
            let back = OpaqueToken::parse(kind, made.encode(&keys()).expose(), &keys());
            let back = back.expect("genuine");
            prop_assert_eq!((back.sid, back.lineage), (sid, lineage));
            prop_assert_eq!((back.generation, back.secret.expose()), (generation, &secret));
        }

        #[test]
        fn junk_is_refused_and_panics_nowhere(
            text in "\\PC{0,120}|(cks_|ckr_|cka_)[A-Za-z0-9_-]{80,90}|(cks_)\\PC{87}",
        ) {
            for kind in OpaqueKind::ALL {
                prop_assert!(OpaqueToken::parse(kind, &text, &keys()).is_err());
            }
        }
    }
}
