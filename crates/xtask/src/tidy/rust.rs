//! Rules about Rust source.

use super::Finding;
use crate::source::Source;
use crate::tree::{File, Tree};

/// Lines of a file, tests included.
pub(super) const FILE_LINES_MAX: usize = 800;
/// Lines of a function, from `fn` to its closing brace.
pub(super) const FUNCTION_LINES_MAX: usize = 70;
/// Columns of a line.
pub(super) const LINE_COLUMNS_MAX: usize = 100;
/// A run without spaces of this many characters can't be broken: an address, a test vector.
const UNBREAKABLE_MIN: usize = 72;

/// The crates whose code runs in production: a panic there is an outage.
const PRODUCTION: [&str; 7] = [
    "crates/core/src/",
    "crates/store/src/",
    "crates/embedded/src/",
    "crates/redis/src/",
    "crates/postgres/src/",
    "crates/cloakroom/src/",
    "crates/server/src/",
];
const CORE: &str = "crates/core/src/";

/// Source files of any language stay short enough to have one subject.
pub(super) fn file_length(tree: &Tree) -> Vec<Finding> {
    const LANGUAGES: [&str; 5] = [".rs", ".mjs", ".js", ".ts", ".py"];
    let source = |file: &&File| LANGUAGES.iter().any(|ending| file.path.ends_with(ending));
    let long = |file: &File| {
        let lines = file.text.lines().count();
        let message = format!("{lines} lines, at most {FILE_LINES_MAX}: split it by subject");
        let found = Finding { size: lines, ..finding(file, 0, message) };
        (lines > FILE_LINES_MAX).then_some(found)
    };
    tree.files().iter().filter(source).filter_map(long).collect()
}

/// A function fits on a screen.
pub(super) fn function_length(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (file, source) in tree.rust() {
        for function in source.functions() {
            let lines = function.lines();
            if lines > FUNCTION_LINES_MAX {
                let name = &function.name;
                let message = format!("`{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}");
                found.push(Finding {
                    subject: name.clone(),
                    size: lines,
                    ..finding(file, function.first_line, message)
                });
            }
        }
    }
    found
}

/// Lines that the formatter leaves long: strings and comments.
pub(super) fn line_length(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (file, _) in tree.rust() {
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            let longest = line.split_whitespace().map(|word| word.chars().count()).max();
            if columns > LINE_COLUMNS_MAX && longest.unwrap_or(0) < UNBREAKABLE_MIN {
                let message = format!("{columns} columns, at most {LINE_COLUMNS_MAX}");
                found.push(finding(file, index + 1, message));
            }
        }
    }
    found
}

/// No `unsafe`, tests included.
pub(super) fn no_unsafe(tree: &Tree) -> Vec<Finding> {
    let everywhere = |_: &File, _: &Source, _: usize| true;
    banned(tree, &["unsafe"], everywhere, "is forbidden")
}

/// Nothing that was meant to be finished later.
pub(super) fn nothing_unfinished(tree: &Tree) -> Vec<Finding> {
    let everywhere = |_: &File, _: &Source, _: usize| true;
    let words = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
    banned(tree, &words, everywhere, "is unfinished work: finish it or take it out")
}

/// Production code has no way to panic on input.
pub(super) fn no_panic(tree: &Tree) -> Vec<Finding> {
    let production = |file: &File, source: &Source, line: usize| {
        in_production(tree, &file.path) && !source.is_test_line(line)
    };
    let why = "in production: return a refusal or a fault instead";
    let mut found = banned(tree, &[".unwrap()", "panic!", "unreachable!"], production, why);
    for (file, source) in tree.rust() {
        // A method of our own may be called `expect`; that of the standard library takes a text.
        let lines = source.lines_with_literal(".expect(");
        let lines = lines.filter(|line| production(file, source, *line));
        found.extend(lines.map(|line| finding(file, line, format!("`expect` {why}"))));
    }
    found
}

/// The core knows neither time, nor chance, nor the machine that it runs on.
pub(super) fn core_purity(tree: &Tree) -> Vec<Finding> {
    let words = [
        "SystemTime::now",
        "Instant::now",
        "std::env",
        "std::fs",
        "std::thread",
        "std::process",
        "HashMap",
        "HashSet",
        "RandomState",
        "TcpStream",
        "UdpSocket",
        "async fn",
        "async move",
        ".await",
        "println!",
        "eprintln!",
    ];
    let core = |file: &File, source: &Source, line: usize| {
        file.path.starts_with(CORE) && !tree.is_test_file(&file.path) && !source.is_test_line(line)
    };
    banned(tree, &words, core, "in the core, which does no I/O: take it as an argument")
}

fn in_production(tree: &Tree, path: &str) -> bool {
    PRODUCTION.iter().any(|folder| path.starts_with(folder)) && !tree.is_test_file(path)
}

fn banned(
    tree: &Tree,
    words: &[&str],
    applies: impl Fn(&File, &Source, usize) -> bool,
    why: &str,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (file, source) in tree.rust() {
        for word in words {
            let lines = source.lines_with(word).filter(|line| applies(file, source, *line));
            found.extend(lines.map(|line| finding(file, line, format!("`{word}` {why}"))));
        }
    }
    found
}

fn finding(file: &File, line: usize, message: String) -> Finding {
    Finding { path: file.path.clone(), line, subject: String::new(), size: 1, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<(&str, usize)> {
        findings.iter().map(|finding| (finding.path.as_str(), finding.line)).collect()
    }

    #[test]
    fn a_panic_is_found_in_production_and_forgiven_in_tests() {
        let text = "fn a() { b.unwrap(); }\n// c.unwrap()\n#[cfg(test)]\nmod t { fn d() { \
                    e.expect(\"f\"); } }\n";
        let tree = Tree::of(&[
            ("crates/core/src/a.rs", text),
            ("crates/store/src/conformance/a.rs", text),
            ("crates/xtask/src/a.rs", text),
        ]);
        assert_eq!(lines(&no_panic(&tree)), [("crates/core/src/a.rs", 1)]);
    }

    #[test]
    fn a_clock_is_found_in_the_core_alone() {
        let text = "use std::collections::HashMap;\nfn a() { SystemTime::now(); }\n";
        let tree = Tree::of(&[("crates/core/src/a.rs", text), ("crates/cloakroom/src/a.rs", text)]);
        let mut found = core_purity(&tree);
        found.sort_by_key(|finding| finding.line);
        assert_eq!(lines(&found), [("crates/core/src/a.rs", 1), ("crates/core/src/a.rs", 2)]);
    }

    #[test]
    fn length_counts_functions_files_and_lines() {
        let long = format!("fn a() {{\n{}}}\n", "    b();\n".repeat(FUNCTION_LINES_MAX));
        let file = "\n".repeat(FILE_LINES_MAX + 1);
        let wide = format!("// {}\n// {}\n", "word ".repeat(20), "x".repeat(120));
        let tree = Tree::of(&[("a.rs", &long), ("b.py", &file), ("c.rs", &wide)]);
        assert_eq!(lines(&function_length(&tree)), [("a.rs", 1)]);
        assert_eq!(lines(&file_length(&tree)), [("b.py", 0)]);
        assert_eq!(lines(&line_length(&tree)), [("c.rs", 1)]);
    }

    #[test]
    fn unfinished_work_and_unsafe_code_are_found() {
        let tree =
            Tree::of(&[("a.rs", "fn a() { todo!() }\nunsafe fn b() {}\n#![forbid(unsafe_code)]")]);
        assert_eq!(lines(&nothing_unfinished(&tree)), [("a.rs", 1)]);
        assert_eq!(lines(&no_unsafe(&tree)), [("a.rs", 2)]);
    }
}
