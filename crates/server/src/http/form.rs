//! Form bodies, as RFC 6749 wants them: no parameter twice.

use std::collections::BTreeMap;

use super::urlencoded;
use crate::problem::Problem;

/// The parameters of a form. Those that nobody asks for are ignored (RFC 6749 section 3.2).
#[derive(Debug)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a form.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Problem> {
        urlencoded::parse(text, "the form").map(Self)
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
