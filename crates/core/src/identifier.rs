//! The name that a user signs in with: one account, however it is typed.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;

use crate::limits::IDENTIFIER_BYTES_MAX;

/// A name such as `ada@example.com`, as typed and in the form that is compared.
///
/// Equality is that of the normal form, so two spellings of a name share one account and one
/// throttle.
#[derive(Clone)]
pub struct Identifier {
    display: String,
    /// Invariant: trimmed, NFKC, lower case; normalising it again changes nothing.
    normal: String,
}

/// The text can't be an identifier; says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedIdentifier {
    /// Nothing is left of it.
    #[error("must not be empty")]
    Empty,
    /// It is over `IDENTIFIER_BYTES_MAX`, as typed or normalised.
    #[error("must be at most 320 bytes")]
    TooLong,
    /// A character that doesn't show, or that changes how others show.
    #[error("must have no control, line-breaking or invisible characters")]
    Invisible,
    /// It has no stable normal form.
    #[error("must be ordinary text")]
    Unstable,
}

impl Identifier {
    /// Takes a name as typed: blanks around it, case and Unicode width don't matter.
    pub fn parse(raw: &str) -> Result<Self, MalformedIdentifier> {
        if raw.len() > IDENTIFIER_BYTES_MAX {
            return Err(MalformedIdentifier::TooLong);
        }
        let display = raw.trim();
        if display.is_empty() {
            return Err(MalformedIdentifier::Empty);
        }
        let normal = normal_form(display)?;
        if normal.is_empty() {
            return Err(MalformedIdentifier::Empty);
        }
        if normal.len() > IDENTIFIER_BYTES_MAX {
            return Err(MalformedIdentifier::TooLong);
        }
        if display.chars().chain(normal.chars()).any(is_invisible) {
            return Err(MalformedIdentifier::Invisible);
        }
        Ok(Self { display: display.to_owned(), normal })
    }

    /// The name as its user typed it, for showing.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// The name in the form that is compared and looked up.
    pub fn normal(&self) -> &str {
        &self.normal
    }
}

impl PartialEq for Identifier {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}

impl Eq for Identifier {}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name is personal: logs know their users by subject.
        f.write_str("Identifier(..)")
    }
}

/// Trims, composes (NFKC) and lower-cases until that changes nothing: each step can undo another.
fn normal_form(text: &str) -> Result<String, MalformedIdentifier> {
    let mut normal = normalise_once(text);
    for _ in 0..ROUNDS_MAX {
        let again = normalise_once(&normal);
        if again == normal {
            return Ok(normal);
        }
        normal = again;
    }
    Err(MalformedIdentifier::Unstable)
}

fn normalise_once(text: &str) -> String {
    let lower: String = text.nfkc().flat_map(char::to_lowercase).map(unify_sigma).collect();
    lower.nfkc().collect::<String>().trim().to_owned()
}

/// The final form of the Greek sigma is the same letter; lower-casing a capital can't tell.
const fn unify_sigma(letter: char) -> char {
    match letter {
        'ς' => 'σ',
        other => other,
    }
}

/// Control characters, line and paragraph separators, and those of the format characters (Cf) that
/// are invisible or reorder text: with them two names that look alike would be two accounts.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

const ROUNDS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> String {
        Identifier::parse(raw).expect(raw).normal().to_owned()
    }

    #[test]
    fn j8_spellings_of_one_name_are_one_identifier() {
        let ada = normal("ada@example.com");
        for raw in [
            "ADA@Example.COM",
            "  ada@example.com\t",
            "\u{a0}ada@example.com\u{3000}",
            "ａｄａ＠ｅｘａｍｐｌｅ．ｃｏｍ",
            "ada@example.com\r\n",
            "𝐚𝐝𝐚@example.com",
        ] {
            assert_eq!(normal(raw), ada, "{raw:?}");
        }
        assert_eq!(normal("Zoë"), normal("zoe\u{308}"));
        assert_eq!(normal("ΣΟΦΟΣ"), normal("σοφος"));
        assert_eq!(normal("STRAẞE"), normal("straße"));
        assert_eq!(normal("\u{212a}im"), "kim");
    }

    #[test]
    fn j8_what_is_another_name_stays_another() {
        for (one, other) in [
            ("ada+x@example.com", "ada@example.com"),
            ("a.da@example.com", "ada@example.com"),
            ("m\u{131}ke", "mike"),
            ("straße", "strasse"),
            ("ada lovelace", "adalovelace"),
        ] {
            assert_ne!(normal(one), normal(other));
        }
    }

    #[test]
    fn the_typed_form_is_kept_for_showing() {
        let identifier = Identifier::parse(" Ada@Example.com ").expect("a name");
        assert_eq!(identifier.display(), "Ada@Example.com");
        assert_eq!(identifier.normal(), "ada@example.com");
        assert_eq!(format!("{identifier:?}"), "Identifier(..)");
    }

    #[test]
    fn malformed_names_are_refused_with_the_reason() {
        let long = "x".repeat(321);
        // One character of three bytes that NFKC makes eighteen letters of.
        let growing = "\u{fdfa}".repeat(20);
        for (raw, why) in [
            ("", MalformedIdentifier::Empty),
            (" \t\u{3000}", MalformedIdentifier::Empty),
            (long.as_str(), MalformedIdentifier::TooLong),
            (growing.as_str(), MalformedIdentifier::TooLong),
            ("a\0b", MalformedIdentifier::Invisible),
            ("a\nb", MalformedIdentifier::Invisible),
            ("a\u{200b}b", MalformedIdentifier::Invisible),
            ("a\u{202e}b", MalformedIdentifier::Invisible),
            ("a\u{ad}b", MalformedIdentifier::Invisible),
            ("a\u{2028}b", MalformedIdentifier::Invisible),
            ("a\u{1b}[31m", MalformedIdentifier::Invisible),
        ] {
            assert_eq!(Identifier::parse(raw).err(), Some(why), "{raw:?}");
        }
        assert!(Identifier::parse(&"x".repeat(320)).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn normalising_twice_is_normalising_once(raw in any::<String>()) {
            if let Ok(identifier) = Identifier::parse(&raw) {
                let again = Identifier::parse(identifier.normal()).map(|again| again.normal);
                prop_assert_eq!(again.as_deref(), Ok(identifier.normal()));
                let shown = Identifier::parse(identifier.display());
                prop_assert_eq!(shown, Ok(identifier));
            }
        }
    }

    #[test]
    fn every_single_character_has_a_stable_form_or_a_reason() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            match Identifier::parse(&format!("a{c}b")) {
                Ok(_) => {}
                Err(why) => assert_eq!(why, MalformedIdentifier::Invisible, "{c:?}"),
            }
        }
    }
}
