//! The secret that HS256 shares with one backend, and why most that are typed by hand won't do.

use aws_lc_rs::hmac;

use crate::limits::HS256_SECRET_BYTES_MIN;
use crate::types::Secret;

/// A secret for HS256: the bytes of the configured text, as the other side's library takes them.
#[derive(Clone, Debug)]
pub struct Hs256Secret(Secret<String>);

/// The text is no secret to sign with; says why, but none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hs256Refused {
    /// Shorter than the hash (RFC 7518 section 3.2).
    #[error("must be at least 32 bytes")]
    TooShort,
    /// Published as an example, or made of words that stand in every guide.
    #[error("is a well-known example or placeholder; draw 32 random bytes instead")]
    WellKnown,
    /// Repeats, counts, or uses only a few characters.
    #[error("is too regular to be a secret; draw 32 random bytes instead")]
    TooRegular,
}

impl Hs256Secret {
    /// Takes a secret of 32 bytes at least that is not known or guessable at sight.
    ///
    /// A signature gives everybody who sees a token the means to try secrets at leisure, so what
    /// stands in lists must be refused at the start.
    pub fn parse(text: &str) -> Result<Self, Hs256Refused> {
        let secret = Self(Secret::new(text.to_owned()));
        if text.len() < HS256_SECRET_BYTES_MIN {
            Err(Hs256Refused::TooShort)
        } else if is_well_known(text) {
            Err(Hs256Refused::WellKnown)
        } else if is_regular(text.as_bytes()) {
            Err(Hs256Refused::TooRegular)
        } else {
            Ok(secret)
        }
    }

    /// The prepared key.
    pub(super) fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.expose().as_bytes())
    }
}

/// Whether little is left of `text` without the words that placeholders are made of.
fn is_well_known(text: &str) -> bool {
    if PUBLISHED.contains(&text) {
        return true;
    }
    let mut plain: String =
        text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let before = plain.len();
    for word in WORDS {
        plain = plain.replace(word, "");
    }
    // A random text has none of the words in it and is not judged by its length.
    plain.len() < before
        && (plain.len() < REST_CHARS_MIN || distinct(plain.as_bytes()) < DISTINCT_MIN)
}

/// Whether the bytes repeat with a period, count up or down, or are few.
fn is_regular(bytes: &[u8]) -> bool {
    let periodic =
        (1..=bytes.len() / 2).any(|period| bytes[period..] == bytes[..bytes.len() - period]);
    let steps = bytes.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    periodic || steps * 2 > bytes.len() || distinct(bytes) < DISTINCT_MIN
}

fn distinct(bytes: &[u8]) -> usize {
    bytes.iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// Fewer different characters than this in 32 are no chance: hexadecimal has 14 on average.
const DISTINCT_MIN: usize = 8;
/// What must be left beside well-known words.
const REST_CHARS_MIN: usize = 20;

/// Secrets that documents print.
const PUBLISHED: [&str; 3] = [
    // RFC 7515 appendix A.1, as base64url text.
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    // RFC 7520 section 3.5, as base64url text.
    "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
    // The samples of a page that decodes tokens.
    "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
];

/// What placeholders are made of, longer words before those that they contain.
const WORDS: [&str; 36] = [
    "placeholder",
    "secretkey",
    "cloakroom",
    "signature",
    "changeme",
    "changeit",
    "replaceme",
    "password",
    "something",
    "atleast",
    "minimum",
    "example",
    "default",
    "replace",
    "signing",
    "random",
    "string",
    "secret",
    "change",
    "super",
    "token",
    "shared",
    "valid",
    "please",
    "bytes",
    "admin",
    "here",
    "bits",
    "byte",
    "long",
    "your",
    "that",
    "with",
    "this",
    "jwt",
    "key",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e11_a_short_or_well_known_secret_is_refused() {
        for text in ["", "secret", &"x7".repeat(15), "5f3a9c0e7b1d48268fae93c0d1b7e42"] {
            assert_eq!(Hs256Secret::parse(text).err(), Some(Hs256Refused::TooShort), "{text}");
        }
        for text in [
            "a-string-secret-at-least-256-bits-long",
            "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
            "your-256-bit-secret-your-256-bit-secret",
            PUBLISHED[0],
            PUBLISHED[1],
            "change-me-change-me-please-32-bytes!",
            "changeme000000000000000000000000",
            "secret00000000000000000000000000",
            "super-secret-jwt-signing-key-1234567890",
            "my_super_secret_key_please_change_it",
            "cloakroom-hs256-secret-cloakroom",
            "this-is-a-random-string-with-32-bytes",
        ] {
            assert_eq!(Hs256Secret::parse(text).err(), Some(Hs256Refused::WellKnown), "{text}");
        }
        for text in [
            "x".repeat(32),
            "\0".repeat(40),
            "ab".repeat(16),
            "hunter2-".repeat(4),
            "abcdefghijklmnopqrstuvwxyz012345".into(),
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ654321".into(),
            "0123456789abcdef0123456789abcdef".into(),
        ] {
            assert_eq!(Hs256Secret::parse(&text).err(), Some(Hs256Refused::TooRegular), "{text}");
        }
    }

    #[test]
    fn e11_a_drawn_secret_is_taken() {
        for text in [
            "5f3a9c0e7b1d48268fae93c0d1b7e42c",
            "b0Jr9XvTq3mLw8ZcYf5Kd2Hs7Pn4Ga6E",
            "q1Zl-0yT_8uEwXo4VbR7nKjG5sDh2mCiPfA3xQ9vBtU",
            "acme-shop-secret-9f3b1c7de20a4856b7",
            "correct horse battery staple, and then some",
        ] {
            assert!(Hs256Secret::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_secret_prints_nothing() {
        let secret = Hs256Secret::parse("5f3a9c0e7b1d48268fae93c0d1b7e42c").expect("sound");
        assert_eq!(format!("{secret:?}"), "Hs256Secret(Secret(..))");
    }
}
