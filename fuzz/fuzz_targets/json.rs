//! Bodies and claims: stricter than the library, and never of another opinion.
#![no_main]

use cloakroom_core::json::{parse_object, parse_value};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    let theirs = serde_json::from_slice::<Value>(text).ok();
    if let Ok(value) = parse_value(text) {
        assert_eq!(Some(&value), theirs.as_ref());
    }
    if let Ok(object) = parse_object(text) {
        assert_eq!(Some(Value::Object(object)), theirs);
    }
});
