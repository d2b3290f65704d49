//! The rules of the tree: what a compiler can't see and a reviewer shouldn't have to.
//!
//! Each rule is a function from the tree to its findings. What stands in `tidy-allow.txt` is
//! forgiven, and that list is a ratchet: an entry that is larger than needed is itself a fault.

mod allow;
mod manifests;
mod proofs;
mod rust;
mod text;

use std::fmt;

use crate::tree::Tree;

pub use allow::{AllowList, ListFault};

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the root.
    pub path: String,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// What within the file, such as a function's name; empty where the file is enough.
    pub subject: String,
    /// How large the offence is: lines, columns, or 1 for each occurrence.
    pub size: usize,
    /// What is wrong and what to do.
    pub message: String,
}

/// One rule with its name in the allow list.
pub struct Rule {
    /// The name, as the allow list and the report show it.
    pub name: &'static str,
    /// What breaks it.
    pub check: fn(&Tree) -> Vec<Finding>,
}

/// What one rule came to.
pub struct Verdict {
    /// The rule's name.
    pub rule: &'static str,
    /// What is left after the allow list.
    pub findings: Vec<Finding>,
}

/// Every rule, in the order of the report.
pub const RULES: &[Rule] = &[
    Rule { name: "file-length", check: rust::file_length },
    Rule { name: "function-length", check: rust::function_length },
    Rule { name: "line-length", check: rust::line_length },
    Rule { name: "unsafe", check: rust::no_unsafe },
    Rule { name: "unfinished", check: rust::nothing_unfinished },
    Rule { name: "panic", check: rust::no_panic },
    Rule { name: "core-purity", check: rust::core_purity },
    Rule { name: "core-dependencies", check: manifests::core_dependencies },
    Rule { name: "dependency-direction", check: manifests::direction },
    Rule { name: "shared-versions", check: manifests::shared_versions },
    Rule { name: "lint-inheritance", check: manifests::lints_inherited },
    Rule { name: "marks", check: proofs::marks },
    Rule { name: "codes", check: proofs::codes },
    Rule { name: "security-tests", check: proofs::security_tests },
    Rule { name: "machine-names", check: text::machine_names },
    Rule { name: "links", check: text::links },
    Rule { name: "installing", check: text::installing },
    Rule { name: "skips", check: text::skips },
];

/// The path of the allow list.
pub const ALLOW_LIST: &str = "crates/xtask/tidy-allow.txt";

/// Judges `tree` by every rule, forgiving what its allow list names.
pub fn judge(tree: &Tree) -> Result<Vec<Verdict>, ListFault> {
    let mut allowed = AllowList::parse(tree.text(ALLOW_LIST).unwrap_or_default())?;
    let mut verdicts: Vec<Verdict> = RULES
        .iter()
        .map(|rule| Verdict {
            rule: rule.name,
            findings: allowed.forgive(rule.name, (rule.check)(tree)),
        })
        .collect();
    verdicts.push(Verdict { rule: "allow-list", findings: allowed.stale() });
    Ok(verdicts)
}

/// How the tree stands against the targets that are aims and not limits.
pub struct Figures {
    /// The median length of a Rust file, in lines.
    pub file_median: usize,
    /// How many of a hundred lines of Rust are test code.
    pub test_percent: usize,
    /// All lines of Rust.
    pub lines: usize,
}

/// Measures the whole tree.
pub fn figures(tree: &Tree) -> Figures {
    let mut lengths = Vec::new();
    let (mut lines, mut tests) = (0, 0);
    for (file, source) in tree.rust() {
        let count = file.text.lines().count();
        lengths.push(count);
        lines += count;
        tests += if tree.is_test_file(&file.path) {
            count
        } else {
            (1..=count).filter(|line| source.is_test_line(*line)).count()
        };
    }
    lengths.sort_unstable();
    Figures {
        file_median: lengths.get(lengths.len() / 2).copied().unwrap_or(0),
        test_percent: (tests * 100).checked_div(lines).unwrap_or(0),
        lines,
    }
}

impl Finding {
    /// The name under which the allow list knows this finding.
    pub fn key(&self) -> String {
        match self.subject.as_str() {
            "" => self.path.clone(),
            subject => format!("{}::{subject}", self.path),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}: {}", self.path, self.message),
            line => write!(out, "{}:{line}: {}", self.path, self.message),
        }
    }
}
