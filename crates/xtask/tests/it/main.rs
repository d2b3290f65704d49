//! The tree itself, judged: a part of `cargo test`.

use std::process::Command;

use xtask::tidy;
use xtask::tree::{self, Tree};

#[test]
fn the_tree_is_tidy() {
    let verdicts = tidy::judge(&Tree::load().expect("a checkout")).expect("a readable allow list");
    let findings: Vec<_> = verdicts
        .iter()
        .flat_map(|verdict| verdict.findings.iter().map(|f| format!("{f} [{}]", verdict.rule)))
        .collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn the_tree_is_formatted() {
    let mut fmt = Command::new("cargo");
    let status = fmt.args(["fmt", "--all", "--check"]).current_dir(tree::root()).status();
    assert!(status.expect("cargo").success(), "run `cargo xtask fix`");
}
