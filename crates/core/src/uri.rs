//! Percent-encoding (RFC 3986 section 2.1), as far as the rules need it.

/// Encodes every byte for which `keep` is false.
pub(crate) fn percent_encode(text: &str, keep: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii() && keep(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(hex_digit(byte >> 4));
            encoded.push(hex_digit(byte & 0x0f));
        }
    }
    encoded
}

/// The bytes that `text` escapes, or nothing if a `%` isn't followed by two hexadecimal digits.
pub(crate) fn escaped_bytes(text: &str) -> Option<Vec<u8>> {
    text.split('%')
        .skip(1)
        .map(|rest| {
            let digits = rest.get(..2)?;
            // `from_str_radix` takes a sign.
            let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if hex { u8::from_str_radix(digits, 16).ok() } else { None }
        })
        .collect()
}

/// Whether a byte means nothing in a URL and so never needs an escape (RFC 3986 section 2.3).
pub(crate) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_two_hexadecimal_digits() {
        assert_eq!(percent_encode("a/ü%", is_unreserved), "a%2F%C3%BC%25");
        assert_eq!(escaped_bytes("/a%2Fb%c3x"), Some(vec![0x2f, 0xc3]));
        assert_eq!(escaped_bytes("/plain"), Some(vec![]));
        for bad in ["%", "/%z", "/%zz", "/%2", "/%+2", "/%%20", "/%2é"] {
            assert_eq!(escaped_bytes(bad), None, "{bad}");
        }
    }
}
