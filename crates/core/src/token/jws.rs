//! Compact JWS (RFC 7515 section 7.1), as strictly as our own tokens allow.
//!
//! There is nothing to negotiate: the header has exactly `alg`, `kid` and `typ`, the key is one of
//! the ring's, and the key fixes the algorithm (RFC 8725 section 3.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{Looks, TokenRefusal, decode_base64url};
use crate::json;
use crate::keys::{KeyRing, Known, SigningKey};
use crate::limits::JWT_BYTES_MAX;
use crate::store_key::CryptoFault;
use crate::types::Timestamp;

/// Signs a payload under the header that the key's tokens all carry.
pub(super) fn sign(key: &SigningKey, payload: &[u8]) -> Result<String, CryptoFault> {
    let mut text = String::with_capacity(key.header().len() + payload.len() * 4 / 3 + 128);
    text.push_str(key.header());
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut text);
    let signature = key.sign(text.as_bytes())?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Ok(text)
}

/// The payload of a text that is one of our tokens. Says nothing about what the payload claims.
pub(super) fn open(text: &str, ring: &KeyRing, now: Timestamp) -> Result<Vec<u8>, TokenRefusal> {
    if text.len() > JWT_BYTES_MAX {
        return Err(TokenRefusal::Invalid);
    }
    match Looks::of(text) {
        Looks::Opaque(_) | Looks::Csrf => return Err(TokenRefusal::WrongType),
        Looks::Jwt | Looks::Unknown => {}
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(TokenRefusal::Invalid)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenRefusal::Invalid)?;
    let decode = |part| decode_base64url(part).ok_or(TokenRefusal::Invalid);
    // A fourth part leaves a dot in the payload, which is none of base64url's alphabet.
    let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
    let header = Header::parse(&header)?;
    let (key, revoked) = match ring.known(&header.kid, now) {
        Some(Known::Good(key)) => (key, false),
        Some(Known::Revoked(key)) => (key, true),
        None => return Err(TokenRefusal::Invalid),
    };
    if key.algorithm().name() != header.alg || !key.verify(signed.as_bytes(), &signature) {
        return Err(TokenRefusal::Invalid);
    }
    // Only now: who can't sign learns nothing about keys, and no other typ passes for ours.
    if revoked {
        return Err(TokenRefusal::KeyRevoked);
    }
    if is_access_token_type(&header.typ) { Ok(payload) } else { Err(TokenRefusal::WrongType) }
}

/// Whether a text asks for a key that the ring doesn't have. Proves nothing about it.
pub(super) fn names_unknown_key(text: &str, ring: &KeyRing, now: Timestamp) -> bool {
    let header = text.split_once('.').and_then(|(header, _)| decode_base64url(header));
    let header = header.and_then(|header| Header::parse(&header).ok());
    header.is_some_and(|header| ring.known(&header.kid, now).is_none())
}

/// The key that a text names, if it is one of our tokens by its form. Proves nothing.
pub(super) fn named_key(text: &str) -> Option<String> {
    if text.len() > JWT_BYTES_MAX {
        return None;
    }
    let (header, _) = text.split_once('.')?;
    Header::parse(&decode_base64url(header)?).ok().map(|header| header.kid)
}

struct Header {
    alg: String,
    kid: String,
    typ: String,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, TokenRefusal> {
        let mut members = json::parse_object(bytes).map_err(|_| TokenRefusal::Invalid)?;
        let mut text = |name: &str| match members.remove(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) | None => Err(TokenRefusal::Invalid),
        };
        let header = Self { alg: text("alg")?, kid: text("kid")?, typ: text("typ")? };
        // crit, jwk, jku, x5c, b64, zip, cty …: nothing of it is ours (RFC 8725 section 3.10).
        if members.is_empty() { Ok(header) } else { Err(TokenRefusal::Invalid) }
    }
}

/// RFC 9068 section 4 with RFC 7515 section 4.1.9: media types have no case.
fn is_access_token_type(typ: &str) -> bool {
    typ.eq_ignore_ascii_case("at+jwt") || typ.eq_ignore_ascii_case("application/at+jwt")
}
