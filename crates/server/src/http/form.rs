//! Form bodies, as RFC 6749 wants them: no parameter twice.

use std::collections::BTreeMap;

use crate::problem::Problem;

/// The parameters of a form. Those that nobody asks for are ignored (RFC 6749 section 3.2).
#[derive(Debug)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads `a=b&c=d` (WHATWG URL section 5.1), strictly: one spelling error, or a name twice, and
    /// nothing of it counts.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Problem> {
        let text = str::from_utf8(text).map_err(|_| malformed())?;
        let mut parameters = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.insert(name, value).is_some() {
                return Err(Problem::malformed("a parameter is there twice"));
            }
        }
        Ok(Self(parameters))
    }

    /// A parameter's value. An empty one counts as none (RFC 6749 section 3.2).
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// The same where it has to be there.
    pub fn require(&mut self, name: &'static str) -> Result<String, Problem> {
        self.take(name)
            .ok_or_else(|| Problem::malformed(format!("the parameter {name} is missing")))
    }
}

fn decode(text: &str) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = rest.next().and_then(hex).ok_or_else(malformed)?;
                let low = rest.next().and_then(hex).ok_or_else(malformed)?;
                high << 4 | low
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn malformed() -> Problem {
    Problem::malformed("the form is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h6_a_parameter_counts_once_and_with_a_value() {
        let mut form = Form::parse(b"token=a%2Bb+c&empty=&x").expect("a form");
        assert_eq!(form.take("token").as_deref(), Some("a+b c"));
        assert_eq!(form.take("empty"), None);
        assert_eq!(form.take("x"), None);
        assert_eq!(form.take("token"), None);
        for bad in ["a=1&a=1", "a=1&%61=2", "a=%", "a=%zz", "a=%2", "a=%ff", "a=\u{0}&a"] {
            assert!(Form::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
