//! The members of a JSON body, taken out one by one; what is left over is unknown.

use cloakroom_core::json::Map;
use cloakroom_core::types::Secret;
use serde_json::Value;

use crate::problem::Problem;

/// A JSON object that a request sent.
///
/// Each member is taken by name and type; [`Members::finish`] refuses those that nobody took.
/// A refusal names the member and never its value.
pub struct Members(Map);

impl Members {
    /// The members of an object.
    pub const fn new(map: Map) -> Self {
        Self(map)
    }

    /// A member of any type; `null` is a value too.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// A text that stays where it is; none where there is none.
    pub fn peek_text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A text that has to be there.
    pub fn text(&mut self, name: &str) -> Result<String, Problem> {
        self.opt_text(name)?.ok_or_else(|| missing(name))
    }

    /// A text that may be missing.
    pub fn opt_text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_))
            | Some(Value::Object(_)) => Err(ill_typed(name, "must be a string")),
        }
    }

    /// A text that may be missing or `null`, which mean the same.
    pub fn nullable_text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        if self.0.get(name).is_some_and(Value::is_null) {
            self.0.remove(name);
        }
        self.opt_text(name)
    }

    /// A secret that has to be there.
    pub fn secret(&mut self, name: &str) -> Result<Secret<String>, Problem> {
        self.text(name).map(Secret::new)
    }

    /// A secret that may be missing.
    pub fn opt_secret(&mut self, name: &str) -> Result<Option<Secret<String>>, Problem> {
        Ok(self.opt_text(name)?.map(Secret::new))
    }

    /// A boolean that may be missing.
    pub fn opt_bool(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_))
            | Some(Value::Object(_)) => Err(ill_typed(name, "must be true or false")),
        }
    }

    /// A whole number, not negative, that may be missing.
    pub fn opt_u64(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(ill_typed(name, "must be a whole number, 0 or more")),
            },
        }
    }

    /// An object that may be missing.
    pub fn opt_object(&mut self, name: &str) -> Result<Option<Map>, Problem> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_))
            | Some(Value::Array(_)) => Err(ill_typed(name, "must be an object")),
        }
    }

    /// A list of texts that may be missing.
    pub fn opt_texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Problem> {
        let refused = || ill_typed(name, "must be an array of strings");
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::Array(elements)) => elements
                .into_iter()
                .map(|element| element.as_str().map(str::to_owned).ok_or_else(refused))
                .collect::<Result<Vec<_>, _>>()
                .map(Some),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_))
            | Some(Value::Object(_)) => Err(refused()),
        }
    }

    /// All of the members, whatever they are called.
    pub fn into_object(self) -> Map {
        self.0
    }

    /// Refuses what is left over.
    pub fn finish(self) -> Result<(), Problem> {
        match self.0.keys().next() {
            Some(name) => Err(Problem::unknown_member(name)),
            None => Ok(()),
        }
    }
}

fn missing(name: &str) -> Problem {
    Problem::invalid_member(name, "is required")
}

fn ill_typed(name: &str, why: &'static str) -> Problem {
    Problem::invalid_member(name, why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::problem::Code;

    fn members(value: Value) -> Members {
        match value {
            Value::Object(map) => Members::new(map),
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn k4_what_nobody_asked_for_is_unknown() {
        let mut body = members(json!({"identifier": "ada", "is_admin": true}));
        assert_eq!(body.text("identifier").as_deref(), Ok("ada"));
        assert_eq!(body.finish(), Err(Problem::unknown_member("is_admin")));
    }

    #[test]
    fn k3_numbers_are_whole_and_not_negative() {
        for bad in [json!(-1), json!(1.5), json!("1"), json!(1e308), json!(null), json!(true)] {
            let refused = members(json!({"n": bad})).opt_u64("n").expect_err("no number");
            assert_eq!(refused.code(), Code::InvalidMember);
        }
        assert_eq!(members(json!({"n": u64::MAX})).opt_u64("n"), Ok(Some(u64::MAX)));
        assert_eq!(members(json!({})).opt_u64("n"), Ok(None));
    }

    #[test]
    fn null_is_a_value_unless_the_member_says_otherwise() {
        assert!(members(json!({"a": null})).opt_text("a").is_err());
        assert_eq!(members(json!({"a": null})).nullable_text("a"), Ok(None));
        assert!(members(json!({})).text("a").is_err());
        assert!(members(json!({"a": ["x", 1]})).opt_texts("a").is_err());
    }
}
