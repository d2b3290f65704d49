//! JSON as strictly as the wire demands: one meaning for each text, or a refusal.
//!
//! `serde_json` reads it; what it would let pass (the last of two equal members wins) is refused
//! here, since two readers of one text must never see two different things.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use crate::limits::JSON_DEPTH_MAX;

/// An object: its members, sorted by name.
pub type Map = serde_json::Map<String, Value>;

/// Why a text isn't acceptable JSON. No value of the text is ever repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON (RFC 8259) in UTF-8 without a byte order mark, or something follows the value, or a
    /// number is out of range.
    #[error("malformed JSON at line {line}, column {column}")]
    Malformed {
        /// Line of the first fault, from 1.
        line: usize,
        /// Column of the first fault, in bytes.
        column: usize,
    },
    /// An object names this member twice, if perhaps in two spellings.
    #[error("the member {0:?} is there twice")]
    Doubled(String),
    /// Arrays and objects nest deeper than [`JSON_DEPTH_MAX`].
    #[error("nested deeper than 64 levels")]
    TooDeep,
    /// The value is none of the kind that belongs here.
    #[error("must be an object")]
    NotAnObject,
}

/// Reads one JSON object.
pub fn parse_object(text: &[u8]) -> Result<Map, JsonError> {
    match parse_value(text)? {
        Value::Object(map) => Ok(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(JsonError::NotAnObject)
        }
    }
}

/// Reads one JSON value of any kind.
pub fn parse_value(text: &[u8]) -> Result<Value, JsonError> {
    let fault = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Node { depth: 0, fault: &fault }.deserialize(&mut reader);
    read.and_then(|value| reader.end().map(|()| value)).map_err(|error| {
        let malformed = JsonError::Malformed { line: error.line(), column: error.column() };
        fault.take().unwrap_or(malformed)
    })
}

/// Applies a JSON Merge Patch (RFC 7396 section 2): null removes, objects merge, all else replaces.
///
/// Recurses as deep as `patch`, which the parser bounds; the result is no deeper than the deeper of
/// the two.
pub fn merge_patch(target: &mut Map, patch: &Map) {
    for (name, change) in patch {
        match change {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(inner) => {
                let slot = target.entry(name.as_str()).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(map) = slot {
                    merge_patch(map, inner);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(name.clone(), change.clone());
            }
        }
    }
}

/// One value to be read, `depth` containers down. A fault that serde's error can't carry is put
/// into `fault`.
#[derive(Clone, Copy)]
struct Node<'a> {
    depth: usize,
    fault: &'a RefCell<Option<JsonError>>,
}

impl Node<'_> {
    /// What stands inside this one, unless that is too deep.
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= JSON_DEPTH_MAX {
            return Err(self.refuse(JsonError::TooDeep));
        }
        Ok(Node { depth: self.depth + 1, fault: self.fault })
    }

    fn refuse<E: serde::de::Error>(self, fault: JsonError) -> E {
        self.fault.replace(Some(fault));
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                let shown = name.chars().take(NAME_CHARS_SHOWN).collect();
                return Err(self.refuse(JsonError::Doubled(shown)));
            }
            let value = members.next_value_seed(inner)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

/// A doubled member's name is shown this long.
const NAME_CHARS_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn k1_doubled_members_are_refused_at_any_depth_and_in_any_spelling() {
        assert!(parse_object(br#"{"a":1,"b":{"a":2}}"#).is_ok());
        for (text, name) in [
            (r#"{"a":1,"a":1}"#, "a"),
            (r#"{"exp":1,"e\u0078p":2}"#, "exp"),
            (r#"{"x":[{"y":{"b":1,"c":2,"b":3}}]}"#, "b"),
            (r#"{"":1,"":2}"#, ""),
        ] {
            assert_eq!(parse_value(text.as_bytes()), Err(JsonError::Doubled(name.into())));
        }
    }

    #[test]
    fn k1_what_is_no_json_is_refused() {
        let deep = "[".repeat(60 * 1024);
        let cases: Vec<&[u8]> = vec![
            b"",
            b" ",
            b"{",
            b"{} {}",
            b"{}x",
            b"{,}",
            b"[1,]",
            b"{\"a\":1,}",
            b"{a:1}",
            b"{'a':1}",
            b"\xEF\xBB\xBF{}",
            b"\xFF\xFE{\x00}\x00",
            b"\"\xFF\"",
            b"\"\xC0\x80\"",
            b"\"\xED\xA0\x80\"",
            br#""\uD800""#,
            br#""\uDC00\uD800""#,
            br#""\x""#,
            b"\"\x01\"",
            b"\"a\nb\"",
            b"NaN",
            b"Infinity",
            b"-",
            b"+1",
            b"01",
            b"1.",
            b".5",
            b"1e",
            b"0x1",
            b"1e400",
            b"-1e400",
            b"nul",
            b"TRUE",
            b"// x\n1",
            b"\x0C{}",
            b"\xC2\xA0{}",
        ];
        for text in cases {
            let verdict = parse_value(text);
            assert!(matches!(verdict, Err(JsonError::Malformed { .. })), "{text:?}: {verdict:?}");
        }
        assert_eq!(parse_value(deep.as_bytes()), Err(JsonError::TooDeep));
        assert_eq!(parse_object(b"[]"), Err(JsonError::NotAnObject));
        assert_eq!(parse_object(b"null"), Err(JsonError::NotAnObject));
    }

    #[test]
    fn k1_depth_is_bounded_exactly() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse_value(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        let over = nested(JSON_DEPTH_MAX + 1);
        assert_eq!(parse_value(over.as_bytes()), Err(JsonError::TooDeep));
        let objects = format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65));
        assert_eq!(parse_value(objects.as_bytes()), Err(JsonError::TooDeep));
    }

    #[test]
    fn k2_numbers_and_text_come_back_as_they_went_in() {
        for text in [
            "0",
            "-1",
            "9007199254740993",
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551615",
            "0.1",
            "1e308",
            "-0.0",
            "5e-324",
            r#""a\u0000b""#,
            r#""\uFFFF\uD83D\uDE00""#,
            "[null,true,false]",
        ] {
            let value = parse_value(text.as_bytes()).expect(text);
            let again = parse_value(value.to_string().as_bytes()).expect(text);
            assert_eq!(value, again, "{text}");
        }
        assert_eq!(parse_value(b"0.1"), Ok(json!(0.1)));
        assert_eq!(parse_value(b"18446744073709551615"), Ok(json!(u64::MAX)));
    }

    #[test]
    fn an_error_names_members_but_no_values() {
        let error = parse_value(br#"{"password":"hunter2","password":"hunter3"}"#).unwrap_err();
        assert!(!error.to_string().contains("hunter"));
        let error = parse_value(br#"{"password":"hunter2" oops}"#).unwrap_err();
        assert_eq!(error, JsonError::Malformed { line: 1, column: 23 });
    }

    #[test]
    fn merge_patch_follows_the_examples_of_its_rfc() {
        // The pairs of RFC 7396 appendix A whose target and patch are objects.
        for (target, patch, merged) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut map = object(target);
            merge_patch(&mut map, &object(patch));
            assert_eq!(Value::Object(map), merged);
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                any_map(inner).prop_map(Value::Object),
            ]
        })
    }

    fn any_map(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Map> {
        prop::collection::btree_map("[a-d]", values, 0..5).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_value()) {
            let text = value.to_string();
            prop_assert_eq!(parse_value(text.as_bytes()), Ok(value));
        }

        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _verdict = parse_value(&bytes);
        }

        #[test]
        fn a_patch_applied_twice_is_applied_once(
            target in any_map(any_value()),
            patch in any_map(any_value()),
        ) {
            let mut once = target;
            merge_patch(&mut once, &patch);
            let mut twice = once.clone();
            merge_patch(&mut twice, &patch);
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn a_patch_touches_only_what_it_names(
            target in any_map(any_value()),
            patch in any_map(any_value()),
        ) {
            let mut merged = target.clone();
            merge_patch(&mut merged, &patch);
            for (name, value) in &target {
                if !patch.contains_key(name) {
                    prop_assert_eq!(merged.get(name), Some(value));
                }
            }
            for (name, change) in &patch {
                prop_assert_eq!(change.is_null(), !merged.contains_key(name));
            }
        }
    }
}
