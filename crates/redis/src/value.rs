//! Parts of a server's answer.

use redis::Value;

/// The bytes of a string.
pub(crate) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.as_bytes()),
        _ => None,
    }
}

/// A string that is text.
pub(crate) fn text(value: &Value) -> Option<&str> {
    bytes(value).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

/// The items of a list; none where it is no list.
pub(crate) fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => &[],
    }
}

/// A number, also one that came as text.
pub(crate) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => text(other)?.parse().ok(),
    }
}

/// Names and values, as a map or one after the other.
pub(crate) fn pairs(value: &Value) -> Vec<(&str, &str)> {
    let both = |(name, value)| Some((text(name)?, text(value)?));
    match value {
        Value::Map(pairs) => pairs.iter().filter_map(|(n, v)| both((n, v))).collect(),
        other => items(other).chunks(2).filter_map(|p| both((p.first()?, p.get(1)?))).collect(),
    }
}
