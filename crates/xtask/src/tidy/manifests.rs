//! Rules about the crates' manifests: dependencies point inward only.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use crate::tree::Tree;

/// Which crates of the workspace each crate may use, outside its tests.
///
/// `sim`, `bench`, `backends`, `live` and `xtask` are the project's own tools and may use what they
/// like; a crate that is missing here is refused, so that a new one gets its place on purpose.
const ALLOWED: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("store", &["core"]),
    ("embedded", &["store", "core"]),
    ("redis", &["store", "core"]),
    ("postgres", &["store", "core"]),
    // The last three by features: what an application holds is a layer over one of them.
    ("cloakroom", &["store", "core", "tower", "client", "embedded"]),
    ("tower", &["core"]),
    ("tower-sessions", &["core"]),
    ("client", &["core"]),
    ("server", &["tower", "cloakroom", "embedded", "redis", "postgres", "store", "core"]),
];
const TOOLS: [&str; 5] = ["sim", "bench", "backends", "live", "xtask"];

/// All that the core may be built from: no runtime, no clock, no randomness, no HTTP.
const CORE_ALLOWED: [&str; 9] = [
    "aws-lc-rs",
    "base64",
    "ipnet",
    "serde",
    "serde_json",
    "thiserror",
    "ulid",
    "unicode-normalization",
    "zeroize",
];

/// A crate depends on crates further in, never on its peers or its users.
pub(super) fn direction(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, folder, text) in manifests(tree) {
        if TOOLS.contains(&folder) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == folder) else {
            found.push(finding(path, format!("`{folder}` has no place in the order of crates")));
            continue;
        };
        for name in dependencies(text).iter().filter_map(|name| workspace_folder(name)) {
            if !allowed.contains(&name) {
                found.push(finding(path, format!("`{folder}` must not depend on `{name}`")));
            }
        }
    }
    found
}

/// The core's tree stays small, and nothing in it can reach the world.
pub(super) fn core_dependencies(tree: &Tree) -> Vec<Finding> {
    let core = manifests(tree).filter(|(_, folder, _)| *folder == "core");
    core.flat_map(|(path, _, text)| {
        let foreign = dependencies(text).into_iter();
        foreign
            .filter(|name| !CORE_ALLOWED.contains(&name.as_str()))
            .map(move |name| finding(path, format!("`{name}` is not among the core's few crates")))
    })
    .collect()
}

/// Every crate takes the workspace's lints, or it would have none.
pub(super) fn lints_inherited(tree: &Tree) -> Vec<Finding> {
    let inherits = |text: &str| {
        let manifest: Option<toml::Table> = text.parse().ok();
        let lints = manifest.as_ref().and_then(|table| table.get("lints"));
        lints.and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
    };
    manifests(tree)
        .filter(|(_, _, text)| !inherits(text))
        .map(|(path, _, _)| finding(path, "`[lints] workspace = true` is missing".to_owned()))
        .collect()
}

/// A version is said once, in the workspace, wherever two crates would say it; and nothing is said
/// there that no crate takes.
pub(super) fn shared_versions(tree: &Tree) -> Vec<Finding> {
    let root: Option<toml::Table> = tree.text("Cargo.toml").and_then(|text| text.parse().ok());
    let shared = root.as_ref().and_then(|root| root.get("workspace")?.get("dependencies"));
    let shared: BTreeSet<&str> =
        shared.and_then(toml::Value::as_table).into_iter().flatten().map(|(n, _)| &**n).collect();
    let (mut found, mut taken, mut said) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    for file in tree.files().iter().filter(|file| is_member(&file.path)) {
        for (name, version) in named_versions(&file.text) {
            taken.insert(name.clone());
            let Some(version) = version else { continue };
            let said_before = said.entry((name.clone(), version)).or_insert(&file.path);
            if shared.contains(&*name) || *said_before != &file.path {
                let why = format!("the version of `{name}` belongs to [workspace.dependencies]");
                found.push(finding(&file.path, why));
            }
        }
    }
    let unused = shared.into_iter().filter(|name| !taken.contains(*name));
    let why = |name| finding("Cargo.toml", format!("no crate takes `{name}` from the workspace"));
    found.extend(unused.map(why));
    found
}

/// Whether it is the manifest of a crate of the workspace.
fn is_member(path: &str) -> bool {
    let ends = |folder| path.starts_with(folder) && path.matches('/').count() == 2;
    path.ends_with("/Cargo.toml") && (ends("crates/") || ends("examples/axum-"))
}

/// Every dependency, tests' included, with its version where the manifest itself says it.
fn named_versions(manifest: &str) -> Vec<(String, Option<String>)> {
    let said = |value: &toml::Value| {
        let version = value.get("version").unwrap_or(value);
        version.as_str().map(str::to_owned)
    };
    sections(manifest, &["dependencies", "dev-dependencies", "build-dependencies"])
        .into_iter()
        .map(|(name, value)| (name, said(&value)))
        .collect()
}

/// Path, folder and text of each crate's manifest.
fn manifests(tree: &Tree) -> impl Iterator<Item = (&str, &str, &str)> {
    tree.files().iter().filter_map(|file| {
        let folder = file.path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
        (!folder.contains('/')).then_some((file.path.as_str(), folder, file.text.as_str()))
    })
}

/// The names in `[dependencies]` and `[build-dependencies]`, of every target; not those of tests.
fn dependencies(manifest: &str) -> Vec<String> {
    let named = |(name, value): (String, toml::Value)| {
        let renamed = value.get("package").and_then(toml::Value::as_str);
        renamed.map_or(name, str::to_owned)
    };
    let all = sections(manifest, &["dependencies", "build-dependencies"]);
    all.into_iter().map(named).collect()
}

/// What stands in these sections, of every target.
fn sections(manifest: &str, wanted: &[&str]) -> Vec<(String, toml::Value)> {
    let Ok(table) = manifest.parse::<toml::Table>() else {
        return Vec::new();
    };
    let targets = table.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flat_map(|targets| targets.values());
    let tables = std::iter::once(&table).chain(targets.filter_map(toml::Value::as_table));
    let mut found = Vec::new();
    for table in tables {
        for section in wanted {
            let section = table.get(*section).and_then(toml::Value::as_table);
            found.extend(section.into_iter().flatten().map(|(n, v)| (n.clone(), v.clone())));
        }
    }
    found
}

fn workspace_folder(package: &str) -> Option<&str> {
    match package {
        "cloakroom" | "xtask" => Some(package),
        _ => package.strip_prefix("cloakroom-"),
    }
}

fn finding(path: &str, message: String) -> Finding {
    Finding { path: path.to_owned(), line: 0, subject: String::new(), size: 1, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_dependency_outward_is_found() {
        let tree = Tree::of(&[
            ("crates/core/Cargo.toml", "[dependencies]\nx = { package = \"cloakroom-store\" }"),
            ("crates/store/Cargo.toml", "[dependencies]\ncloakroom-core.workspace = true"),
            (
                "crates/cloakroom/Cargo.toml",
                "[target.'cfg(unix)'.dependencies]\ncloakroom-server = {}",
            ),
            ("crates/embedded/Cargo.toml", "[dev-dependencies]\ncloakroom = {}"),
            ("crates/sim/Cargo.toml", "[dependencies]\ncloakroom-server = {}"),
            ("crates/attic/Cargo.toml", ""),
        ]);
        assert_eq!(
            messages(direction(&tree)),
            [
                "`core` must not depend on `store`",
                "`cloakroom` must not depend on `server`",
                "`attic` has no place in the order of crates",
            ]
        );
    }

    #[test]
    fn a_runtime_in_the_core_is_found_and_its_tests_are_free() {
        let text =
            "[dependencies]\nbase64 = \"1\"\ntokio = \"1\"\n[dev-dependencies]\nproptest = \"1\"";
        let tree = Tree::of(&[("crates/core/Cargo.toml", text)]);
        assert_eq!(
            messages(core_dependencies(&tree)),
            ["`tokio` is not among the core's few crates"]
        );
    }

    #[test]
    fn a_crate_without_the_shared_lints_is_found() {
        let tree = Tree::of(&[
            ("crates/core/Cargo.toml", "[lints]\nworkspace = true"),
            ("crates/store/Cargo.toml", "[package]"),
        ]);
        assert_eq!(lints_inherited(&tree).len(), 1);
    }

    #[test]
    fn a_version_that_is_said_twice_or_for_nobody_is_found() {
        let workspace = "[workspace.dependencies]\na = \"1\"\nb = \"1\"\nc = \"1\"";
        let one = "[dependencies]\na = { version = \"1\" }\nb.workspace = true\nd = \"1\"\n\
                   [dev-dependencies]\nd = { version = \"1\", features = [\"x\"] }";
        let two = "[dev-dependencies]\nd = \"1\"\ne = \"1\"\nf = { path = \"../one\" }";
        let three = "[dependencies]\ne = \"2\"";
        let tree = Tree::of(&[
            ("Cargo.toml", workspace),
            ("crates/one/Cargo.toml", one),
            ("crates/two/Cargo.toml", two),
            ("examples/axum-three/Cargo.toml", three),
            ("fuzz/Cargo.toml", "[dependencies]\na = \"1\""),
        ]);
        assert_eq!(
            messages(shared_versions(&tree)),
            [
                "the version of `a` belongs to [workspace.dependencies]",
                "the version of `d` belongs to [workspace.dependencies]",
                "no crate takes `c` from the workspace",
            ]
        );
    }
}
