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
    if PUBLISHED.iter().any(|published| published.eq_ignore_ascii_case(text)) {
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

/// Whether the bytes repeat with a period, count up or down, follow the keyboard, climb as a
/// generator's do, or are few.
fn is_regular(bytes: &[u8]) -> bool {
    let periodic =
        (1..=bytes.len() / 2).any(|period| bytes[period..] == bytes[..bytes.len() - period]);
    let steps = bytes.windows(2).filter(|pair| is_step(pair[0], pair[1])).count();
    periodic
        || steps * 2 > bytes.len()
        || distinct(bytes) < DISTINCT_MIN
        || climbs(bytes)
        || hex_text(bytes).is_some_and(|text| climbs(&text))
}

/// Whether `next` is beside `one` in the character set or on a keyboard.
fn is_step(one: u8, next: u8) -> bool {
    let pair = [one.to_ascii_lowercase(), next.to_ascii_lowercase()];
    let back = [pair[1], pair[0]];
    one.abs_diff(next) <= 1
        || KEYBOARD.iter().any(|row| row.windows(2).any(|keys| keys == pair || keys == back))
}

/// Whether every other character is mostly three or four above the one before: a much used page
/// that claims to draw keys hands out pieces of one such series, and guides print them in
/// hexadecimal.
fn climbs(bytes: &[u8]) -> bool {
    let climbing =
        bytes.windows(3).filter(|three| (3..=4).contains(&three[2].wrapping_sub(three[0]))).count();
    climbing * 2 > bytes.len()
}

/// The printable text that `bytes` are the hexadecimal form of. No 32 random bytes are printable.
fn hex_text(bytes: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let text: Option<Vec<u8>> = bytes
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    text.filter(|text| text.iter().all(u8::is_ascii_graphic))
}

fn distinct(bytes: &[u8]) -> usize {
    bytes.iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// Fewer different characters than this in 32 are no chance: hexadecimal has 14 on average.
const DISTINCT_MIN: usize = 8;
/// What must be left beside well-known words.
const REST_CHARS_MIN: usize = 20;

/// Secrets that documents print.
const PUBLISHED: [&str; 5] = [
    // RFC 7515 appendix A.1, as base64url text.
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    // RFC 7520 section 3.5, as base64url text.
    "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
    // The samples of a page that decodes tokens.
    "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
    // The security tutorial of a Python framework.
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    // A Java framework's tutorials.
    "3cfa76ef14937c1c0ea519f8fc057a80fcd04a7420f8e8bcd0a7567c272e007b",
];

/// Keys that lie beside each other: rows, and columns as they are typed downwards.
const KEYBOARD: [&[u8]; 16] = [
    b"1234567890",
    b"qwertyuiop",
    b"asdfghjkl",
    b"zxcvbnm",
    b"qwertzuiop",
    b"yxcvbnm",
    b"1qaz",
    b"2wsx",
    b"3edc",
    b"4rfv",
    b"5tgb",
    b"6yhn",
    b"7ujm",
    b"8ik",
    b"9ol",
    b"0p",
];

/// What placeholders are made of, longer words before those that they contain.
const WORDS: [&str; 52] = [
    "development",
    "placeholder",
    "production",
    "programmer",
    "characters",
    "character",
    "secretkey",
    "cloakroom",
    "signature",
    "changeme",
    "changeit",
    "insecure",
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
    "secure",
    "super",
    "ultra",
    "hello",
    "world",
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
    "best",
    "only",
    "test",
    "your",
    "that",
    "with",
    "this",
    "and",
    "the",
    "for",
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
            "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
            "3CFA76EF14937C1C0EA519F8FC057A80FCD04A7420F8E8BCD0A7567C272E007B",
            "my-32-character-ultra-secure-and-ultra-long-secret",
            "iamthebestprogrammerintheworldxyz",
            "JWTSecretKeyForDevelopmentOnly123456",
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
            "qwertyuiopasdfghjklzxcvbnm123456".into(),
            "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,".into(),
            "MNBVCXZLKJHGFDSAPOIUYTREWQ098765".into(),
            "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970".into(),
            "@NcRfUjXn2r5u8x/A?D(G+KbPdSgVkYp".into(),
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
