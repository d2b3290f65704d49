//! Text that strangers wrote, made fit to be written down.

use crate::token::CSRF_TOKEN_CHARS;

/// Text without control characters and without what looks like a credential of ours, cut to a
/// length: fit for a log line and for an event.
pub fn clean_text(text: &str, chars_max: usize) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    if !holds_credential(&clean) {
        return clean.chars().take(chars_max).collect();
    }
    let words = clean.split_inclusive(|c: char| !is_token_char(c));
    let masked = words.map(|word| if holds_credential(word) { MASK } else { word });
    masked.flat_map(str::chars).take(chars_max).collect()
}

/// What stands in the place of a credential that somebody put where it doesn't belong.
const MASK: &str = "[credential] ";
/// Shorter ones can't be any.
const CREDENTIAL_CHARS_MIN: usize = 40;

/// Whether some word of a text looks like a credential of ours, which nothing may write down.
pub fn holds_credential(text: &str) -> bool {
    text.split(|c: char| !is_token_char(c)).any(is_credential)
}

/// Judges a word, and what stands in it behind something else: a client may have put a name of its
/// own before the credential.
fn is_credential(word: &str) -> bool {
    if word.len() < CREDENTIAL_CHARS_MIN {
        return false;
    }
    let is_opaque =
        |prefix: &str| word.find(prefix).is_some_and(|at| word.len() - at >= CREDENTIAL_CHARS_MIN);
    let is_jwt = word.contains("eyJ") && word.bytes().filter(|byte| *byte == b'.').count() >= 2;
    is_jwt || PREFIXES.into_iter().any(is_opaque) || word.split('.').any(holds_csrf_token)
}

/// Whether a word can hold a CSRF token, which has no prefix: 48 random bytes in base64url. Those
/// have letters of both cases, which digests and other ids in hexadecimal don't.
fn holds_csrf_token(word: &str) -> bool {
    word.len() >= CSRF_TOKEN_CHARS
        && word.bytes().any(|byte| byte.is_ascii_lowercase())
        && word.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// What opaque credentials start with: of sessions, refresh tokens, API keys and resets.
const PREFIXES: [&str; 4] = ["cks_", "ckr_", "cka_", "ckp_"];

const fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::USER_AGENT_CHARS_MAX;

    #[test]
    fn m1_a_credential_in_an_agent_is_not_kept() {
        let opaque = format!("cks_{}", "Ab1-_".repeat(16));
        let token = format!("eyJ{0}.eyJ{0}.{0}", "Ab1-_".repeat(8));
        for (given, kept) in [
            (format!("tool/1 ({opaque}; x) ok"), "tool/1 ([credential]  x) ok"),
            (format!("Bearer {token}"), "Bearer [credential] "),
            (format!("{}/2 ok", "Ab1-_".repeat(13)), "[credential] 2 ok"),
            (format!("csrf.{};", "aB".repeat(32)), "[credential] "),
            (format!("my-ckp_{};x", "a".repeat(43)), "[credential] x"),
            (format!("x-{token}"), "[credential] "),
            ("cks_short eyJ.eyJ.x".to_owned(), "cks_short eyJ.eyJ.x"),
            (format!("Mozilla/5.0 {}", "a".repeat(64)), &format!("Mozilla/5.0 {}", "a".repeat(64))),
        ] {
            assert_eq!(clean_text(&given, USER_AGENT_CHARS_MAX), kept);
        }
    }
}
