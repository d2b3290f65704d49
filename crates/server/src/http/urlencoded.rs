//! `a=b&c=d`, as queries and forms have it (WHATWG URL section 5.1), read one way only.

use std::collections::BTreeMap;

use crate::problem::Problem;

/// The parameters of such a text. One spelling error, or a name twice, and nothing of it counts:
/// whoever reads it elsewhere may have taken it for something else.
///
/// `what` is malformed then, as in "the form".
pub(crate) fn parse(text: &[u8], what: &str) -> Result<BTreeMap<String, String>, Problem> {
    let malformed = || Problem::malformed(format!("{what} is malformed"));
    let text = str::from_utf8(text).map_err(|_| malformed())?;
    let mut parameters = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name).ok_or_else(malformed)?;
        let value = decode(value).ok_or_else(malformed)?;
        if parameters.insert(name, value).is_some() {
            return Err(Problem::malformed("a parameter is there twice"));
        }
    }
    Ok(parameters)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h6_a_text_is_read_one_way_or_not_at_all() {
        let read = parse(b"a=b%2Bc+d&&e&%66==", "the query").expect("parameters");
        let read: Vec<_> = read.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(read, [("a", "b+c d"), ("e", ""), ("f", "=")]);
        assert!(parse(b"", "the query").is_ok_and(|none| none.is_empty()));
        for bad in [&b"a=%"[..], b"a=%2", b"a=%zz", b"a=%+2", b"a=%ff", b"%c3=1", b"a=\xff"] {
            let told = parse(bad, "the query").expect_err("malformed");
            assert_eq!(told, Problem::malformed("the query is malformed"), "{bad:?}");
        }
        for twice in ["a=1&a=1", "a=1&%61=2", "a&a="] {
            let told = parse(twice.as_bytes(), "the form").expect_err("malformed");
            assert_eq!(told, Problem::malformed("a parameter is there twice"), "{twice}");
        }
    }
}
