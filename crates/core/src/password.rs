//! Which passwords may be chosen, and the one form in which they are hashed.
//!
//! Length and a list of what everybody chooses, no rules of composition (NIST SP 800-63B-4
//! section 3.1.1.2, OWASP ASVS 6.2).

use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization as _;

use crate::identifier::Identifier;
use crate::limits::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MAX_LEAST, PASSWORD_CHARS_MIN_LEAST};
use crate::types::Secret;

/// `password.min_length` and `password.max_length`, in characters (code points after NFC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordRules {
    min: usize,
    max: usize,
}

/// Bounds that no deployment may set; says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnsafePasswordRules(pub &'static str);

/// A password that may not be chosen, and why. Holds nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRejected {
    /// Fewer characters than `min`.
    #[error("must be at least {min} characters")]
    TooShort {
        /// `password.min_length`
        min: usize,
    },
    /// More characters than `max`.
    #[error("must be at most {max} characters")]
    TooLong {
        /// `password.max_length`
        max: usize,
    },
    /// It is among what attackers try first.
    #[error("is among the most common passwords")]
    Common,
    /// It is little more than the name of this service or of its user.
    #[error("must be more than the name of the service or of its user")]
    ContextWord,
}

impl PasswordRules {
    /// Takes a shortest and a longest length.
    pub fn new(min: usize, max: usize) -> Result<Self, UnsafePasswordRules> {
        if min < PASSWORD_CHARS_MIN_LEAST {
            return Err(UnsafePasswordRules("the shortest length must be at least 8"));
        }
        if max < PASSWORD_CHARS_MAX_LEAST || max < min {
            return Err(UnsafePasswordRules(
                "the longest length must be at least 64, and no less than the shortest",
            ));
        }
        if max > PASSWORD_BYTES_MAX / 4 {
            return Err(UnsafePasswordRules("the longest length must be at most 1024"));
        }
        Ok(Self { min, max })
    }

    /// The shortest length, in characters.
    pub const fn min(self) -> usize {
        self.min
    }

    /// The longest length, in characters.
    pub const fn max(self) -> usize {
        self.max
    }

    /// Whether a password is worth a hash at sign-in: a longer one can't have been chosen.
    pub fn is_worth_hashing(self, password: &Secret<String>) -> bool {
        chars_up_to(password.expose(), self.max) <= self.max
    }
}

/// The form in which a password is hashed: NFC of all of it.
///
/// Nothing is trimmed, folded or cut off (NIST SP 800-63B-4 section 3.1.1.2); NFC alone, so that
/// one password typed on two keyboards is one.
pub fn normalise(password: &str) -> Secret<String> {
    // Room for all of it at once: growing would leave copies behind in freed memory.
    let mut normal = String::with_capacity(password.len().saturating_mul(NFC_GROWTH_MAX));
    normal.extend(password.nfc());
    Secret::new(normal)
}

/// Whether a normalised password may be chosen by the user of this name.
pub fn check_new(
    password: &Secret<String>,
    identifier: &Identifier,
    rules: PasswordRules,
) -> Result<(), PasswordRejected> {
    let text = password.expose();
    let length = chars_up_to(text, rules.max);
    if length < rules.min {
        return Err(PasswordRejected::TooShort { min: rules.min });
    }
    if length > rules.max {
        return Err(PasswordRejected::TooLong { max: rules.max });
    }
    if is_common(text) {
        return Err(PasswordRejected::Common);
    }
    if is_about(text, SERVICE_NAME) || names_of(identifier).any(|name| is_about(text, &name)) {
        return Err(PasswordRejected::ContextWord);
    }
    Ok(())
}

/// Characters of a text, counted no further than one beyond `bound`.
fn chars_up_to(text: &str, bound: usize) -> usize {
    text.chars().take(bound.saturating_add(1)).count()
}

/// Whether the list holds the password, in any case, also with a few digits or signs at its end.
fn is_common(password: &str) -> bool {
    let lower = Secret::new(password.to_lowercase());
    let whole = lower.expose().as_str();
    let stem = whole.trim_end_matches(|c: char| !c.is_alphabetic());
    let short_tail = whole.len() - stem.len() <= TAIL_BYTES_MAX;
    is_listed(whole) || (short_tail && is_listed(stem))
}

fn is_listed(lower: &str) -> bool {
    COMMON.binary_search(&lower).is_ok()
}

/// Whether a password holds `word` and has fewer letters besides it: `cloakroom2026`, but not a
/// sentence with a cloakroom in it. Case, digits and signs don't hide a word.
fn is_about(password: &str, word: &str) -> bool {
    let (password, word) = (letters_and_digits(password), letters_and_digits(word));
    let word_length = word.expose().chars().count();
    if word_length < CONTEXT_WORD_CHARS_MIN || !password.expose().contains(word.expose()) {
        return false;
    }
    let rest = Secret::new(password.expose().replace(word.expose(), ""));
    rest.expose().chars().filter(|c| c.is_alphabetic()).count() < word_length
}

fn letters_and_digits(text: &str) -> Secret<String> {
    Secret::new(text.nfkc().flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric()).collect())
}

/// The user's name, and for an address also what stands before the `@`.
fn names_of(identifier: &Identifier) -> impl Iterator<Item = String> {
    let whole = identifier.normal();
    let local = whole.split_once('@').map(|(local, _)| local.to_owned());
    std::iter::once(whole.to_owned()).chain(local)
}

const SERVICE_NAME: &str = "cloakroom";
/// A shorter name is in too many words to say anything.
const CONTEXT_WORD_CHARS_MIN: usize = 3;
const TAIL_BYTES_MAX: usize = 4;
/// UTF-8 grows at most threefold under NFC (Unicode Standard Annex 15, section 9).
const NFC_GROWTH_MAX: usize = 3;

/// What attackers try first: known words, keyboard walks and their systematic variants. One a line,
/// in lower case, of 8 characters or more, in byte order.
static COMMON: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> Identifier {
        Identifier::parse("ada.lovelace@example.com").expect("a name")
    }

    fn check(password: &str, min: usize) -> Result<(), PasswordRejected> {
        let rules = PasswordRules::new(min, 256).expect("in bounds");
        check_new(&normalise(password), &ada(), rules)
    }

    #[test]
    fn j3_nothing_is_trimmed_folded_or_cut_off() {
        for password in [" a ", "a\0b", "A", "ﬁ", &"x".repeat(5000), "\u{a0}", "a\r\n", "Ａ"] {
            assert_eq!(normalise(password).expose(), password);
        }
        assert_ne!(normalise("a\0b").expose(), normalise("a\0c").expose());
        assert_eq!(normalise("e\u{301}").expose(), normalise("\u{e9}").expose());
        assert_eq!(normalise("\u{1112}\u{1161}\u{11ab}").expose(), "\u{d55c}");
    }

    #[test]
    fn j4_length_counts_code_points() {
        assert_eq!(check(&"😀".repeat(64), 15), Ok(()));
        assert_eq!(check("walnut-orbit-9", 15), Err(PasswordRejected::TooShort { min: 15 }));
        assert_eq!(check("walnut-orbit-97", 15), Ok(()));
        assert_eq!(check(&"é".repeat(256), 15), Ok(()));
        let too_long = Err(PasswordRejected::TooLong { max: 256 });
        assert_eq!(check(&"é".repeat(257), 15), too_long);
        assert_eq!(check(&"x".repeat(64 * 1024), 15), too_long);
        // 15 code points as typed, but fewer after NFC.
        assert_eq!(check("e\u{301}aaaaaaaaaaaaa", 15), Err(PasswordRejected::TooShort { min: 15 }));
        for none_of_a_kind in ["alllowercaseletterswork", "739104628351960", "               !"] {
            assert_eq!(check(none_of_a_kind, 15), Ok(()), "{none_of_a_kind}");
        }
    }

    #[test]
    fn j4_bounds_stay_within_the_standards() {
        assert!(PasswordRules::new(7, 256).is_err());
        assert!(PasswordRules::new(15, 63).is_err());
        assert!(PasswordRules::new(65, 64).is_err());
        assert!(PasswordRules::new(15, 1025).is_err());
        let rules = PasswordRules::new(8, 64).expect("in bounds");
        assert_eq!((rules.min(), rules.max()), (8, 64));
    }

    #[test]
    fn j4_common_passwords_are_refused_in_any_case_and_with_a_tail() {
        for common in [
            "password",
            "Password1",
            "qwertyuiop",
            "12345678",
            "iloveyou",
            "correcthorsebatterystaple",
            "PASSWORD123!",
            "1q2w3e4r5t6y",
            "passwordpassword",
            "123456789012345",
            "letmeinletmein!!",
            "qwertyuiopasdfghjkl",
        ] {
            assert_eq!(check(common, 8), Err(PasswordRejected::Common), "{common}");
        }
        for fine in ["password of the walnut tree", "correcthorse walnut", "sunshine84629471"] {
            assert_eq!(check(fine, 8), Ok(()), "{fine}");
        }
    }

    #[test]
    fn j4_the_name_of_service_or_user_is_not_a_password() {
        for named in [
            "cloakroom2026",
            "Cloakroom!Cloakroom!",
            "c-l-o-a-k-r-o-o-m-1234",
            "my cloakroom 2026",
            "ada.lovelace@example.com",
            "AdaLovelace1815!",
            "lovelace.ada.lovelace",
        ] {
            assert_eq!(check(named, 8), Err(PasswordRejected::ContextWord), "{named}");
        }
        assert_eq!(check("the cloakroom has nine odd umbrellas", 8), Ok(()));
        assert_eq!(check("ada lovelace wrote programs in 1843", 8), Ok(()));
    }

    #[test]
    fn j4_the_list_is_long_sorted_and_of_use() {
        assert!(COMMON.len() >= 3000, "{}", COMMON.len());
        assert!(COMMON.is_sorted_by(|left, right| left < right));
        for entry in COMMON.iter() {
            assert!(entry.chars().count() >= 8, "{entry}");
            assert_eq!(entry.to_lowercase(), *entry);
            assert_eq!(entry.trim(), *entry);
        }
        // With the default shortest length only these matter.
        assert!(COMMON.iter().filter(|entry| entry.len() >= 15).count() >= 500);
    }

    #[test]
    fn j6_a_password_that_cannot_have_been_chosen_is_not_hashed() {
        let rules = PasswordRules::new(15, 256).expect("in bounds");
        assert!(rules.is_worth_hashing(&normalise(&"x".repeat(256))));
        assert!(!rules.is_worth_hashing(&normalise(&"x".repeat(64 * 1024))));
        assert!(rules.is_worth_hashing(&normalise("short")));
    }
}
