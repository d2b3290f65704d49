//! Credentials: what they look like, and whether one is genuine.

pub mod access;
mod jws;
pub mod opaque;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use self::access::AccessClaims;

/// Why a credential was not taken. Says nothing about the state of its session.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TokenRefusal {
    /// Forged, mistyped, malformed, foreign, or not valid yet.
    #[error("the token is invalid")]
    Invalid,
    /// A credential, by its looks, of another kind than belongs here.
    #[error("the token is of another kind")]
    WrongType,
    /// An access token of ours that was right in everything but is over.
    #[error("the token has expired")]
    Expired(Box<AccessClaims>),
    /// An access token that verifies under a key that has been revoked.
    #[error("the token's key has been revoked")]
    KeyRevoked,
}

/// What a text looks like. Proves nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// It has the prefix of an opaque credential.
    Opaque(opaque::OpaqueKind),
    /// Three parts, the first of which can be the start of a JSON object.
    Jwt,
    /// As long as a CSRF token and in its alphabet.
    Csrf,
    /// Nothing known.
    Unknown,
}

impl Looks {
    /// Tells what `text` looks like.
    pub fn of(text: &str) -> Self {
        let prefixed =
            opaque::OpaqueKind::ALL.into_iter().find(|kind| text.starts_with(kind.prefix()));
        if let Some(kind) = prefixed {
            Self::Opaque(kind)
        } else if text.starts_with("ey") && text.bytes().filter(|&byte| byte == b'.').count() == 2 {
            Self::Jwt
        } else if text.len() == CSRF_TOKEN_CHARS && decode_base64url(text).is_some() {
            Self::Csrf
        } else {
            Self::Unknown
        }
    }
}

/// Base64url without padding, in its one canonical spelling (RFC 4648 sections 3.5 and 5).
fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// A CSRF token is base64url of 48 bytes.
pub(crate) const CSRF_TOKEN_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use super::opaque::OpaqueKind;
    use super::*;

    #[test]
    fn a10_each_kind_of_credential_is_told_by_its_looks() {
        assert_eq!(Looks::of("cks_x"), Looks::Opaque(OpaqueKind::Session));
        assert_eq!(Looks::of("ckr_x"), Looks::Opaque(OpaqueKind::Refresh));
        assert_eq!(Looks::of("cka_x"), Looks::Opaque(OpaqueKind::ApiKey));
        assert_eq!(Looks::of("eyJ.eyJ.x"), Looks::Jwt);
        assert_eq!(Looks::of(&"A".repeat(64)), Looks::Csrf);
        for text in ["", "CKS_x", "a.b.c", "eyJ.eyJ", "eyJ.a.b.c.d", &"=".repeat(64)] {
            assert_eq!(Looks::of(text), Looks::Unknown, "{text:?}");
        }
    }
}
