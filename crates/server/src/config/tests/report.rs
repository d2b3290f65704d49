//! The reference, the commented file and the schema agree with the table of keys.

use std::path::Path;

use serde_json::Value;

use super::super::keys::{keys, names};
use super::super::{commented_file, reference, schema};
use super::World;

#[test]
fn the_reference_is_the_golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/configuration.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, reference()).expect("a writable golden file");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, reference(), "UPDATE=1 cargo test rewrites {}", path.display());
}

#[test]
fn the_commented_file_changes_nothing_and_knows_every_key() {
    let untouched = format!("{:?}", World::new().config());
    assert_eq!(format!("{:?}", World::new().file(&commented_file()).config()), untouched);

    let uncommented: String = commented_file()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let world = World::new().file(&uncommented);
    for problem in world.problems() {
        let told = problem.to_string();
        let fine = told.contains("was built without OTLP") || told.contains("can't be read");
        assert!(fine, "{told}");
    }
    for key in keys() {
        let known = uncommented.lines().any(|line| {
            let name = key.name.split_once('.').map_or(key.name, |(_, name)| name);
            line.starts_with(&format!("{name} = ")) || line.starts_with(&format!("{name}_file = "))
        });
        assert!(known, "{} is missing", key.name);
    }
}

#[test]
fn the_schema_has_every_name_and_no_other() {
    let schema = schema();
    let mut found = Vec::new();
    collect(&schema, "", &mut found);
    let mut expected: Vec<_> = names().collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

fn collect(node: &Value, path: &str, found: &mut Vec<String>) {
    match node.get("properties").and_then(Value::as_object) {
        Some(properties) => {
            assert_eq!(node["additionalProperties"], false, "{path}");
            for (name, node) in properties {
                let dot = if path.is_empty() { "" } else { "." };
                collect(node, &format!("{path}{dot}{name}"), found);
            }
        }
        None => {
            assert!(node["description"].is_string(), "{path} isn't described");
            found.push(path.to_owned());
        }
    }
}

#[test]
fn every_key_is_described_and_has_an_example() {
    for key in keys() {
        let meaning = key.meaning.trim();
        assert!(meaning.len() > 10 && meaning.ends_with(['.', '`']), "{}: {meaning}", key.name);
        assert!(!key.example.is_empty(), "{}", key.name);
    }
    let mut all: Vec<_> = names().collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "a name is there twice");
}
