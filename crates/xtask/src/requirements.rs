//! The security requirements and the tests that are named after them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use crate::tree::Tree;

/// The requirements: `id | severity | one line`.
pub const REQUIREMENTS: &str = "docs/security/requirements.txt";
/// The page that is generated from the requirements and the names of the tests.
pub const TESTS_PAGE: &str = "docs/security/tests.md";

/// One line of the requirements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Such as `F1`; tests begin with `f1_`.
    pub id: String,
    /// What a failure would mean.
    pub severity: Severity,
    /// The requirement in one line.
    pub text: String,
}

/// How bad it is when a requirement isn't met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// An attacker becomes somebody else, or somebody stays who was thrown out.
    Critical,
    /// One layer of several is gone.
    High,
    /// A weakness that needs another one to matter.
    Medium,
    /// Good order.
    Low,
}

impl Severity {
    const ALL: [Severity; 4] =
        [Severity::Critical, Severity::High, Severity::Medium, Severity::Low];

    fn parse(letter: &str) -> Option<Severity> {
        match letter {
            "C" => Some(Severity::Critical),
            "H" => Some(Severity::High),
            "M" => Some(Severity::Medium),
            "L" => Some(Severity::Low),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::High => "high",
            Severity::Medium => "medium",
            Severity::Low => "low",
        }
    }
}

/// Reads the requirements; empty lines and lines that begin with `#` are skipped.
pub fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let lines = text.lines().enumerate();
    let content = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    content
        .map(|(index, line)| {
            let fault = || format!("{REQUIREMENTS}:{}: expected `id | severity | text`", index + 1);
            let mut parts = line.splitn(3, '|').map(str::trim);
            let (Some(id), Some(severity), Some(text)) = (parts.next(), parts.next(), parts.next())
            else {
                return Err(fault());
            };
            let severity = Severity::parse(severity).ok_or_else(fault)?;
            Ok(Requirement { id: id.to_owned(), severity, text: text.to_owned() })
        })
        .collect()
}

/// The requirements that a test's name begins with: `c1_c2_set_cookie_is_exact` proves two.
pub fn ids_of(name: &str) -> Vec<String> {
    let is_id = |part: &&str| {
        let mut chars = part.chars();
        let letter = chars.next().is_some_and(|first| first.is_ascii_lowercase());
        let number = chars.as_str();
        letter && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    name.split('_').take_while(is_id).map(str::to_uppercase).collect()
}

/// Writes the page of tests anew.
pub fn write_page(tree: &Tree) -> io::Result<()> {
    let text = tree.text(REQUIREMENTS).unwrap_or_default();
    let requirements = parse(text).map_err(io::Error::other)?;
    let page = page(&requirements, &proofs(tree));
    std::fs::write(tree.root().join(TESTS_PAGE), page)
}

/// The tests of each requirement, each with the crate that holds it.
fn proofs(tree: &Tree) -> BTreeMap<String, Vec<(String, String)>> {
    let mut proofs: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for (file, source) in tree.rust().filter(|(file, _)| !file.path.starts_with("crates/xtask/")) {
        let whole = tree.is_test_file(&file.path);
        let tests = source.functions().iter();
        for test in tests.filter(|test| whole || source.is_test_line(test.first_line)) {
            for id in ids_of(&test.name) {
                let folder = file.path.split('/').nth(1).unwrap_or_default().to_owned();
                proofs.entry(id).or_default().push((folder, test.name.clone()));
            }
        }
    }
    proofs.values_mut().for_each(|tests| {
        tests.sort();
        tests.dedup();
    });
    proofs
}

fn page(requirements: &[Requirement], proofs: &BTreeMap<String, Vec<(String, String)>>) -> String {
    let mut page = String::from(
        "# Security requirements and their tests\n\n\
         Written by `cargo xtask golden` from [requirements.txt](requirements.txt) and the names \
         of the tests: a test\nproves the requirement that its name begins with. A critical or \
         high line without a test is a defect.\n\n\
         | severity | requirements | with a test |\n|---|---|---|\n",
    );
    let proven = |requirement: &&Requirement| proofs.contains_key(&requirement.id);
    for severity in Severity::ALL {
        let of_it = || requirements.iter().filter(|line| line.severity == severity);
        let (all, done) = (of_it().count(), of_it().filter(proven).count());
        let _ = writeln!(page, "| {} | {all} | {done} |", severity.name());
    }
    page.push_str("\n| id | severity | requirement | tests |\n|---|---|---|---|\n");
    for Requirement { id, severity, text } in requirements {
        let tests = proofs.get(id).map(|tests| cell(tests));
        let tests = tests.unwrap_or_else(|| "**none**".to_owned());
        let _ = writeln!(page, "| {id} | {} | {text} | {tests} |", severity.name());
    }
    page
}

fn cell(tests: &[(String, String)]) -> String {
    let named: Vec<_> = tests.iter().map(|(folder, name)| format!("{folder} `{name}`")).collect();
    named.join("<br>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_requirements_that_it_proves() {
        assert_eq!(ids_of("d3_origin_null_is_foreign"), ["D3"]);
        assert_eq!(ids_of("c1_c2_set_cookie_is_exact"), ["C1", "C2"]);
        assert_eq!(ids_of("q12_x"), ["Q12"]);
        assert!(ids_of("refresh_converges").is_empty());
        assert!(ids_of("sha256_is_used").is_empty());
    }

    #[test]
    fn the_page_shows_what_is_proven_and_what_is_not() {
        let tree = Tree::of(&[
            ("crates/core/src/a.rs", "fn a1_not_a_test() {}\n#[cfg(test)]\nmod t { fn a1_x() {} }"),
            ("crates/server/tests/it/a.rs", "fn a1_y() {}"),
        ]);
        let requirements = parse("# head\nA1 | H | new secrets\nA2 | C | no adoption\n");
        let page = page(&requirements.expect("readable"), &proofs(&tree));
        assert!(
            page.contains("| A1 | high | new secrets | core `a1_x`<br>server `a1_y` |"),
            "{page}"
        );
        assert!(page.contains("| A2 | critical | no adoption | **none** |"), "{page}");
        assert!(page.contains("| critical | 1 | 0 |"), "{page}");
    }

    #[test]
    fn a_line_without_severity_is_refused() {
        assert!(parse("A1 | x | y").is_err());
        assert!(parse("A1 | H").is_err());
    }
}
