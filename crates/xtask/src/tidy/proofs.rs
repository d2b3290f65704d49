//! Rules about what is proven: marks, error codes and the list of security tests.

use std::collections::BTreeSet;

use super::Finding;
use crate::requirements::{self, TESTS_PAGE};
use crate::source::leading_name;
use crate::tree::Tree;

/// The stable error codes, one to a line, as the server's golden test writes them.
const CODES: &str = "crates/server/tests/golden/codes.txt";

/// Each branch that is marked with `mark::hit!` is checked by a test, and the other way round.
pub(super) fn marks(tree: &Tree) -> Vec<Finding> {
    let (mut hits, mut checks) = (Vec::new(), Vec::new());
    for (file, source) in tree.rust() {
        for (index, line) in source.code().lines().enumerate() {
            let at = |name: &str| (file.path.clone(), index + 1, name.to_owned());
            hits.extend(arguments(line, "mark::hit!(").map(at));
            for macro_name in ["mark::check!(", "mark::check_count!("] {
                checks.extend(arguments(line, macro_name).map(at));
            }
        }
    }
    let missing = |from: &[(String, usize, String)], in_: &[(String, usize, String)], why: &str| {
        let known: BTreeSet<_> = in_.iter().map(|(_, _, name)| name).collect();
        let lone = from.iter().filter(|(_, _, name)| !known.contains(name));
        lone.map(|(path, line, name)| finding(path, *line, format!("the mark `{name}` {why}")))
            .collect::<Vec<_>>()
    };
    let mut found = missing(&hits, &checks, "is checked by no test");
    found.extend(missing(&checks, &hits, "is on no branch"));
    found
}

/// Every error code of the contract is asserted somewhere.
pub(super) fn codes(tree: &Tree) -> Vec<Finding> {
    let Some(list) = tree.text(CODES) else {
        return Vec::new();
    };
    let tests: String = tree.rust().map(|(file, source)| test_text(tree, file, source)).collect();
    let listed = list.lines().enumerate().filter_map(|(index, line)| {
        let code = line.split_whitespace().find(|word| word.contains('_') || *word == "internal");
        code.map(|code| (index + 1, code))
    });
    listed
        .filter(|(_, code)| !tests.contains(&format!("\"{code}\"")))
        .map(|(line, code)| finding(CODES, line, format!("no test asserts the code `{code}`")))
        .collect()
}

/// The page of security tests names only tests that exist.
///
/// That the page lists every test is left to `cargo xtask golden`: a rule as strict as that would
/// make each new test a conflict in one file.
pub(super) fn security_tests(tree: &Tree) -> Vec<Finding> {
    let existing: BTreeSet<_> =
        tree.rust().flat_map(|(_, source)| source.functions()).map(|f| f.name.as_str()).collect();
    let page = tree.text(TESTS_PAGE).unwrap_or_default();
    let mut found = Vec::new();
    for (index, line) in page.lines().enumerate() {
        let named = line.split('`').skip(1).step_by(2);
        let gone = named.filter(|name| !requirements::ids_of(name).is_empty());
        for name in gone.filter(|name| !existing.contains(name)) {
            let message = format!("the test `{name}` is gone: run `cargo xtask golden`");
            found.push(finding(TESTS_PAGE, index + 1, message));
        }
    }
    found
}

fn test_text(tree: &Tree, file: &crate::tree::File, source: &crate::source::Source) -> String {
    let whole = tree.is_test_file(&file.path);
    let lines = file.text.lines().enumerate();
    let kept = lines.filter(|(index, _)| whole || source.is_test_line(index + 1));
    kept.flat_map(|(_, line)| [line, "\n"]).collect()
}

fn arguments<'a>(line: &'a str, call: &'a str) -> impl Iterator<Item = &'a str> + 'a {
    line.match_indices(call).map(|(at, _)| leading_name(line[at + call.len()..].trim_start()))
}

fn finding(path: &str, line: usize, message: String) -> Finding {
    Finding { path: path.to_owned(), line, subject: String::new(), size: 1, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_mark_without_its_test_is_found() {
        let tree = Tree::of(&[
            ("a.rs", "fn a() { cov_mark::hit!(one); cov_mark::hit!(two); }"),
            ("b.rs", "fn b() { cov_mark::check!(two); cov_mark::check_count!(three, 2); }"),
        ]);
        assert_eq!(
            messages(marks(&tree)),
            ["the mark `one` is checked by no test", "the mark `three` is on no branch"]
        );
    }

    #[test]
    fn a_code_without_its_test_is_found() {
        let tree = Tree::of(&[
            (CODES, "401 token_invalid\n500 internal\n"),
            ("crates/server/tests/it/a.rs", "fn a() { assert(\"token_invalid\") }"),
            ("crates/server/src/a.rs", "const A: &str = \"internal\";"),
        ]);
        assert_eq!(messages(codes(&tree)), ["no test asserts the code `internal`"]);
    }

    #[test]
    fn a_test_that_is_gone_is_found_on_the_page() {
        let tree = Tree::of(&[
            (TESTS_PAGE, "| A1 | H | x | `a1_kept`, `a1_gone`, `other` |\n"),
            ("a.rs", "fn a1_kept() {}"),
        ]);
        let expected = "the test `a1_gone` is gone: run `cargo xtask golden`";
        assert_eq!(messages(security_tests(&tree)), [expected]);
    }
}
