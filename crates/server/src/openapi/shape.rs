//! JSON Schema (draft 2020-12, as OpenAPI 3.1 has it), and examples that follow from it.

use serde_json::{Map, Value, json};

/// The example that a schema without one gets where nothing in it says better.
const NO_EXAMPLE: &str = "…";

/// A member of an object.
pub(super) struct Member {
    name: &'static str,
    schema: Value,
    required: bool,
}

/// A member that is always there.
pub(super) fn has(name: &'static str, about: &str, schema: Value) -> Member {
    Member { name, schema: described(schema, about), required: true }
}

/// A member that may be missing.
pub(super) fn may(name: &'static str, about: &str, schema: Value) -> Member {
    Member { name, schema: described(schema, about), required: false }
}

/// An object of these members and no others.
pub(super) fn object(members: impl IntoIterator<Item = Member>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for member in members {
        if member.required {
            required.push(member.name);
        }
        properties.insert(member.name.to_owned(), member.schema);
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema["additionalProperties"] = false.into();
    schema
}

/// The same, which may have members of any other name too.
pub(super) fn open_object(members: impl IntoIterator<Item = Member>) -> Value {
    let mut schema = object(members);
    schema["additionalProperties"] = true.into();
    schema
}

/// Text.
pub(super) fn text(example: &str) -> Value {
    json!({"type": "string", "examples": [example]})
}

/// Text of so many characters.
pub(super) fn text_of(chars: std::ops::RangeInclusive<usize>, example: &str) -> Value {
    json!({
        "type": "string",
        "minLength": chars.start(),
        "maxLength": chars.end(),
        "examples": [example],
    })
}

/// Text that a regular expression describes (ECMA-262).
pub(super) fn text_like(pattern: &str, example: &str) -> Value {
    json!({"type": "string", "pattern": pattern, "examples": [example]})
}

/// One of these texts.
pub(super) fn one_of_texts(texts: impl IntoIterator<Item = &'static str>) -> Value {
    let texts: Vec<&str> = texts.into_iter().collect();
    json!({"type": "string", "enum": texts})
}

/// An instant, as RFC 3339 in UTC.
pub(super) fn instant() -> Value {
    json!({"type": "string", "format": "date-time", "examples": ["2027-01-15T08:00:00.120Z"]})
}

/// A whole number, not negative.
pub(super) fn count(example: u64) -> Value {
    json!({"type": "integer", "minimum": 0, "examples": [example]})
}

/// A whole number of this range.
pub(super) fn count_of(range: std::ops::RangeInclusive<u64>, example: u64) -> Value {
    json!({
        "type": "integer",
        "minimum": range.start(),
        "maximum": range.end(),
        "examples": [example],
    })
}

/// True or false.
pub(super) fn boolean(example: bool) -> Value {
    json!({"type": "boolean", "examples": [example]})
}

/// A list.
pub(super) fn list(of: Value) -> Value {
    json!({"type": "array", "items": of})
}

/// A list of so many.
pub(super) fn list_of(lengths: std::ops::RangeInclusive<usize>, of: Value) -> Value {
    json!({
        "type": "array",
        "items": of,
        "minItems": lengths.start(),
        "maxItems": lengths.end(),
    })
}

/// The schema of this name.
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// What one of these describes.
pub(super) fn either(schemas: impl IntoIterator<Item = Value>) -> Value {
    let schemas: Vec<Value> = schemas.into_iter().collect();
    match schemas.as_slice() {
        [one] => one.clone(),
        _ => json!({"oneOf": schemas}),
    }
}

/// The same, or null.
pub(super) fn nullable(mut schema: Value) -> Value {
    if let Some(kind) = schema.get("type").and_then(Value::as_str).map(str::to_owned) {
        schema["type"] = json!([kind, "null"]);
        if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            values.push(Value::Null);
        }
        return schema;
    }
    json!({"oneOf": [schema, {"type": "null"}]})
}

/// The same with an example of its own.
pub(super) fn shown_as(mut schema: Value, example: Value) -> Value {
    schema["examples"] = json!([example]);
    schema
}

/// The same with a description.
pub(super) fn described(mut schema: Value, about: &str) -> Value {
    if !about.is_empty() {
        schema["description"] = about.into();
    }
    schema
}

/// An example that a schema describes; `schemas` are those that have a name.
pub(super) fn example_of(schema: &Value, schemas: &Map<String, Value>) -> Value {
    if let Some(example) = schema.pointer("/examples/0") {
        return example.clone();
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let name = target.rsplit('/').next().unwrap_or_default();
        return schemas.get(name).map_or(Value::Null, |schema| example_of(schema, schemas));
    }
    if let Some(value) = schema.get("const").or_else(|| schema.pointer("/enum/0")) {
        return value.clone();
    }
    if let Some(first) = schema.pointer("/oneOf/0") {
        return example_of(first, schemas);
    }
    if let Some(items) = schema.get("items") {
        return json!([example_of(items, schemas)]);
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let member =
            |(name, schema): (&String, &Value)| (name.clone(), example_of(schema, schemas));
        return Value::Object(properties.iter().map(member).collect());
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => json!({}),
        Some("null") => Value::Null,
        Some(_) | None => NO_EXAMPLE.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_follows_from_its_schema() {
        let schemas = Map::from_iter([("Name".to_owned(), text("Ada"))]);
        let schema = object([
            has("name", "", named("Name")),
            may("tags", "", list(one_of_texts(["a", "b"]))),
            has("gone", "", nullable(object([has("n", "", count(3))]))),
            has("of", "", nullable(named("Name"))),
        ]);
        let expected = json!({"name": "Ada", "tags": ["a"], "gone": {"n": 3}, "of": "Ada"});
        assert_eq!(example_of(&schema, &schemas), expected);
        assert_eq!(schema["required"], json!(["name", "gone", "of"]));
    }

    #[test]
    fn what_may_be_null_says_so() {
        assert_eq!(nullable(text("x"))["type"], json!(["string", "null"]));
        assert_eq!(nullable(one_of_texts(["x"]))["enum"], json!(["x", null]));
        assert_eq!(nullable(named("X"))["oneOf"][1], json!({"type": "null"}));
    }
}
