//! The store key: 32 bytes made with the store, from which every keyed thing in it is derived.
//!
//! The master key of the operator only wraps it; that it unwraps proves the master key right.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::{Zeroize as _, Zeroizing};

use crate::types::{Partition, Secret, Subject, same_bytes};

/// The length of the master key and of the store key, in bytes.
pub const KEY_BYTES: usize = 32;

/// A nonce for sealing; drawn at random for each use.
pub type SealNonce = [u8; NONCE_LEN];

/// The cryptographic library failed at something that never fails on sound input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct CryptoFault;

/// The operator's key, which wraps the store key and does nothing else.
#[derive(Clone, Debug)]
pub struct MasterKey(Secret<[u8; KEY_BYTES]>);

impl MasterKey {
    /// Takes charge of a key that was drawn.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Secret::new(bytes))
    }

    /// Reads 32 bytes from base64url, base64 (either with or without padding) or hexadecimal.
    ///
    /// Whoever reads a file trims its last newline first; here nothing is trimmed, but the error
    /// says what was there.
    pub fn parse(text: &str) -> Result<Self, MalformedMasterKey> {
        let decoded = decode_key(text).ok_or_else(|| MalformedMasterKey::describe(text))?;
        let mut bytes = [0; KEY_BYTES];
        bytes.copy_from_slice(&decoded);
        Ok(Self::from_bytes(bytes))
    }

    /// Its text for a key file: base64url without padding.
    pub fn encode(&self) -> Secret<String> {
        Secret::new(URL_SAFE_NO_PAD.encode(self.0.expose()))
    }
}

/// 32 bytes by whichever spelling the text has. No text has two: the lengths differ.
fn decode_key(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let decoded = match text.len() {
        64 => decode_hex(text)?,
        44 => URL_SAFE.decode(text).or_else(|_| STANDARD.decode(text)).ok()?,
        43 => URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?,
        _ => return None,
    };
    (decoded.len() == KEY_BYTES).then(|| Zeroizing::new(decoded))
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes()
        .chunks(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?))
        .collect()
}

/// The text is no master key; says what was read, but none of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a master key is 32 bytes in base64url, base64 or hexadecimal (43, 44 or 64 characters); {0}"
)]
pub struct MalformedMasterKey(String);

impl MalformedMasterKey {
    fn describe(text: &str) -> Self {
        let mut seen = format!("read {} characters", text.chars().count());
        let notes = [
            (text.is_empty(), "nothing at all"),
            (text.starts_with(['"', '\'']) || text.ends_with(['"', '\'']), "with quotes around"),
            (text.ends_with(['\n', '\r']), "with a newline at the end"),
            (text.trim() != text && !text.ends_with(['\n', '\r']), "with white space around"),
            (text.trim().contains(char::is_whitespace), "with white space inside"),
            (looks_like_path(text), "which looks like the path of a file: use master_key_file"),
            (matches!(text.len(), 43 | 44 | 64), "of the right length, but not in that alphabet"),
        ];
        for note in notes.iter().filter(|(applies, _)| *applies) {
            seen.push_str(", ");
            seen.push_str(note.1);
        }
        Self(seen)
    }
}

fn looks_like_path(text: &str) -> bool {
    // Base64 has slashes too, but no key of the right length gets here with one in front.
    text.starts_with(['/', '.', '~']) || text.contains(":\\") || text.ends_with(".key")
}

/// The store's own key.
#[derive(Clone, Debug)]
pub struct StoreKey(Secret<[u8; KEY_BYTES]>);

impl StoreKey {
    /// Takes charge of a key that was drawn when the store was made.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Secret::new(bytes))
    }

    /// Seals this key under the master key; `nonce` must never repeat under one master key.
    pub fn wrap(&self, master: &MasterKey, nonce: SealNonce) -> Result<WrappedKey, CryptoFault> {
        seal(&master.0, WRAP_CONTEXT, self.0.expose(), nonce).map(WrappedKey)
    }

    /// Opens a sealed store key.
    pub fn unwrap(wrapped: &WrappedKey, master: &MasterKey) -> Result<Self, WrongMasterKey> {
        let opened = open(&master.0, WRAP_CONTEXT, &wrapped.0).ok_or(WrongMasterKey)?;
        let bytes = <[u8; KEY_BYTES]>::try_from(opened.as_slice()).map_err(|_| WrongMasterKey)?;
        Ok(Self::from_bytes(bytes))
    }
}

/// A store key sealed under a master key: what the store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey(Vec<u8>);

impl WrappedKey {
    /// A wrapped key read back from a store. Whether it is sound shows when it is unwrapped.
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Its bytes, for a store: `format · nonce · sealed key and tag`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The store's key was wrapped by another master key, or has been damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the master key is not the one of this store")]
pub struct WrongMasterKey;

/// The keys derived from a store key, behind what they are for. None of them can be read.
#[derive(Clone)]
pub struct DerivedKeys {
    tag: hmac::Key,
    csrf: hmac::Key,
    partition: hmac::Key,
    ratchet: hmac::Key,
    identifier: hmac::Key,
    handle: hmac::Key,
    throttle: hmac::Key,
    idempotency: hmac::Key,
    wrapping: Secret<[u8; KEY_BYTES]>,
}

impl DerivedKeys {
    /// Derives all keys by HKDF-SHA-256 (RFC 5869), each with a label of its own.
    pub fn derive(store_key: &StoreKey) -> Self {
        let salt = hmac::Key::new(hmac::HMAC_SHA256, HKDF_SALT);
        let prk =
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&salt, store_key.0.expose()).as_ref());
        let key = |label| hmac::Key::new(hmac::HMAC_SHA256, expand(&prk, label).expose());
        Self {
            tag: key(b"token tag"),
            csrf: key(b"csrf"),
            partition: key(b"partition"),
            ratchet: key(b"refresh ratchet"),
            identifier: key(b"identifier"),
            handle: key(b"handle"),
            throttle: key(b"throttle"),
            idempotency: key(b"idempotency"),
            wrapping: expand(&prk, b"signing key wrapping"),
        }
    }

    /// The integrity tag of an opaque token's bytes.
    pub fn tag(&self, message: &[u8]) -> [u8; TAG_BYTES] {
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&hmac::sign(&self.tag, message).as_ref()[..TAG_BYTES]);
        tag
    }

    /// Whether `tag` is the tag of `message`, in constant time.
    pub fn verify_tag(&self, message: &[u8], tag: &[u8]) -> bool {
        same_bytes(&self.tag(message), tag)
    }

    /// Which of `partitions` partitions a subject lives in.
    pub fn partition_of(&self, subject: &Subject, partitions: u16) -> Partition {
        self.partition_of_bytes(subject.as_str().as_bytes(), partitions)
    }

    /// Which of `partitions` partitions something with this name lives in.
    pub fn partition_of_bytes(&self, name: &[u8], partitions: u16) -> Partition {
        let hash = mac(&self.partition, &[name]);
        let mut head = [0; 8];
        head.copy_from_slice(&hash[..8]);
        let number = u64::from_be_bytes(head) % u64::from(partitions.max(1));
        Partition(u16::try_from(number).unwrap_or(0))
    }

    /// The CSRF key of a session or of a `csrf` cookie, named by `context`.
    pub fn csrf_key(&self, context: &[u8]) -> Secret<[u8; KEY_BYTES]> {
        Secret::new(mac(&self.csrf, &[context]))
    }

    /// The next secret of a refresh lineage.
    ///
    /// The parts are joined as they are, so each must have a fixed length.
    pub fn ratchet(&self, parts: &[&[u8]]) -> Secret<[u8; KEY_BYTES]> {
        Secret::new(mac(&self.ratchet, parts))
    }

    /// Seals a signing key's private part for the store, bound to `context` (its kid).
    pub fn wrap_private(
        &self,
        context: &[u8],
        private: &[u8],
        nonce: SealNonce,
    ) -> Result<Vec<u8>, CryptoFault> {
        seal(&self.wrapping, context, private, nonce)
    }

    /// Opens what [`DerivedKeys::wrap_private`] sealed for the same `context`.
    pub fn unwrap_private(&self, context: &[u8], sealed: &[u8]) -> Option<Secret<Vec<u8>>> {
        open(&self.wrapping, context, sealed)
            .map(|mut opened| Secret::new(std::mem::take(&mut *opened)))
    }

    /// The key of an identifier's pointer, so that a dump of the store names nobody.
    pub fn identifier_hash(&self, identifier: &str) -> [u8; 32] {
        mac(&self.identifier, &[identifier.as_bytes()])
    }

    /// The key of a handle's pointer.
    pub fn handle_hash(&self, handle: &str) -> [u8; 32] {
        mac(&self.handle, &[handle.as_bytes()])
    }

    /// The key of a throttle's counter.
    pub fn throttle_hash(&self, name: &[u8]) -> [u8; 32] {
        mac(&self.throttle, &[name])
    }

    /// What is kept of an `Idempotency-Key`, bound to the generation it was presented with.
    pub fn idempotency_hash(&self, generation: u32, key: &str) -> [u8; 32] {
        mac(&self.idempotency, &[&generation.to_be_bytes(), key.as_bytes()])
    }
}

impl fmt::Debug for DerivedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKeys(..)")
    }
}

/// HKDF-Expand (RFC 5869 section 2.3) for one block, which is all that 32 bytes need.
fn expand(prk: &hmac::Key, label: &[u8]) -> Secret<[u8; KEY_BYTES]> {
    Secret::new(mac(prk, &[HKDF_INFO_PREFIX, label, &[1]]))
}

/// HMAC-SHA-256 over the parts joined.
fn mac(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// AES-256-GCM: `format · nonce · ciphertext · tag`, with format and context authenticated.
fn seal(
    key: &Secret<[u8; KEY_BYTES]>,
    context: &[u8],
    plain: &[u8],
    nonce: SealNonce,
) -> Result<Vec<u8>, CryptoFault> {
    let cipher = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| CryptoFault)?;
    let mut text = plain.to_vec();
    let sealed = LessSafeKey::new(cipher).seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        sealing_aad(context),
        &mut text,
    );
    if sealed.is_err() {
        text.zeroize();
        return Err(CryptoFault);
    }
    Ok([&[SEAL_FORMAT][..], &nonce, &text].concat())
}

fn open(
    key: &Secret<[u8; KEY_BYTES]>,
    context: &[u8],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (&format, rest) = sealed.split_first()?;
    if format != SEAL_FORMAT || rest.len() < NONCE_LEN {
        return None;
    }
    let (nonce, text) = rest.split_at(NONCE_LEN);
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let cipher = UnboundKey::new(&AES_256_GCM, key.expose()).ok()?;
    let mut text = Zeroizing::new(text.to_vec());
    let plain_len =
        LessSafeKey::new(cipher).open_in_place(nonce, sealing_aad(context), &mut text).ok()?.len();
    text.truncate(plain_len);
    Some(text)
}

fn sealing_aad(context: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&[SEAL_FORMAT][..], context].concat())
}

/// The length of an opaque token's tag, in bytes.
pub const TAG_BYTES: usize = 8;
/// The format of everything sealed here.
const SEAL_FORMAT: u8 = 1;
const WRAP_CONTEXT: &[u8] = b"cloakroom store key";
const HKDF_SALT: &[u8] = b"cloakroom v1";
const HKDF_INFO_PREFIX: &[u8] = b"cloakroom v1 ";

#[cfg(test)]
mod tests {
    use aws_lc_rs::hkdf;
    use proptest::prelude::*;

    use super::*;

    fn keys() -> DerivedKeys {
        DerivedKeys::derive(&StoreKey::from_bytes([7; 32]))
    }

    #[test]
    fn a_master_key_is_read_in_every_usual_spelling() {
        let bytes = std::array::from_fn(|i| 0xFB ^ u8::try_from(i).unwrap_or(0));
        let key = MasterKey::from_bytes(bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [
            key.encode().expose().clone(),
            URL_SAFE.encode(bytes),
            STANDARD.encode(bytes),
            STANDARD_NO_PAD.encode(bytes),
            hex.to_uppercase(),
            hex,
        ] {
            let read = MasterKey::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.0.expose(), &bytes);
        }
    }

    #[test]
    fn a_malformed_master_key_is_described_but_not_repeated() {
        let good = MasterKey::from_bytes([9; 32]).encode();
        let good = good.expose();
        for (text, said) in [
            (String::new(), "nothing at all"),
            (format!("\"{good}\""), "read 45 characters, with quotes"),
            (format!("{good}\n"), "with a newline at the end"),
            (format!(" {good}"), "with white space around"),
            (format!("{} {}", &good[..20], &good[20..]), "white space inside"),
            ("/etc/cloakroom/master.key".to_owned(), "path of a file"),
            ("g".repeat(64), "not in that alphabet"),
            (format!("{}=", &good[..42]), "right length"),
            ("é".repeat(32), "read 32 characters"),
        ] {
            let error = MasterKey::parse(&text).expect_err(&text).to_string();
            assert!(error.contains(said), "{text:?}: {error}");
            assert!(!error.contains(&good[..20]), "{error}");
        }
    }

    #[test]
    fn g11_only_the_right_master_key_unwraps_the_store_key() {
        let (right, wrong) = (MasterKey::from_bytes([1; 32]), MasterKey::from_bytes([2; 32]));
        let wrapped = StoreKey::from_bytes([3; 32]).wrap(&right, [4; 12]).expect("wraps");
        assert_eq!(wrapped.as_bytes().len(), 1 + 12 + 32 + 16);
        let back = StoreKey::unwrap(&wrapped, &right).expect("unwraps");
        assert_eq!(back.0.expose(), &[3; 32]);
        assert_eq!(StoreKey::unwrap(&wrapped, &wrong).err(), Some(WrongMasterKey));
        for i in 0..wrapped.as_bytes().len() {
            let mut bent = wrapped.as_bytes().to_vec();
            bent[i] ^= 1;
            assert!(StoreKey::unwrap(&WrappedKey::from_bytes(bent), &right).is_err());
            let cut = wrapped.as_bytes()[..i].to_vec();
            assert!(StoreKey::unwrap(&WrappedKey::from_bytes(cut), &right).is_err());
        }
    }

    #[test]
    fn derivation_is_hkdf() {
        struct Length;
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                KEY_BYTES
            }
        }
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, HKDF_SALT).extract(&[7; 32]);
        let mut key = [0; KEY_BYTES];
        prk.expand(&[HKDF_INFO_PREFIX, b"csrf"], Length)
            .and_then(|okm| okm.fill(&mut key))
            .expect("expands");
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), b"context");
        assert_eq!(keys().csrf_key(b"context").expose(), expected.as_ref());
    }

    #[test]
    fn each_purpose_has_its_own_key() {
        let keys = keys();
        let made = [
            mac(&keys.tag, &[b"x"]),
            *keys.csrf_key(b"x").expose(),
            mac(&keys.partition, &[b"x"]),
            *keys.ratchet(&[b"x"]).expose(),
            keys.identifier_hash("x"),
            keys.handle_hash("x"),
            keys.throttle_hash(b"x"),
            mac(&keys.idempotency, &[b"x"]),
            *keys.wrapping.expose(),
        ];
        for (i, one) in made.iter().enumerate() {
            assert!(made[i + 1..].iter().all(|other| one != other));
        }
        assert_ne!(keys.idempotency_hash(1, "k"), keys.idempotency_hash(2, "k"));
    }

    #[test]
    fn a_wrapped_private_key_opens_for_its_own_context_only() {
        let keys = keys();
        let sealed = keys.wrap_private(b"kid-1", b"private", [1; 12]).expect("seals");
        assert_eq!(keys.unwrap_private(b"kid-1", &sealed).expect("opens").expose(), b"private");
        assert!(keys.unwrap_private(b"kid-2", &sealed).is_none());
        let others = DerivedKeys::derive(&StoreKey::from_bytes([8; 32]));
        assert!(others.unwrap_private(b"kid-1", &sealed).is_none());
    }

    #[test]
    fn nothing_prints_a_key() {
        assert_eq!(format!("{:?}", keys()), "DerivedKeys(..)");
        assert!(!format!("{:?}", StoreKey::from_bytes([7; 32])).contains('7'));
        assert!(!format!("{:?}", MasterKey::from_bytes([7; 32])).contains('7'));
    }

    proptest! {
        #[test]
        fn a_partition_is_in_range_and_stable(name in ".{0,40}", partitions in any::<u16>()) {
            let partition = keys().partition_of_bytes(name.as_bytes(), partitions);
            prop_assert!(partition.0 < partitions.max(1));
            prop_assert_eq!(partition, keys().partition_of_bytes(name.as_bytes(), partitions));
        }

        #[test]
        fn no_master_key_text_panics(text in ".{0,70}") {
            let _verdict = MasterKey::parse(&text);
        }
    }
}
