//! Rules about all text: no name of a machine, no dead link.

use std::path::{Component, Path, PathBuf};

use super::Finding;
use crate::tree::Tree;

/// Directories of somebody's machine. Written in two parts, so that this file has none of them.
const PERSONAL: [&str; 3] = [concat!("/", "root/"), concat!("/", "home/"), concat!("/", "Users/")];

/// Hosts that serve packages: which mirror a machine uses is its own business.
const REGISTRIES: [&str; 8] = [
    concat!("registry.", "npmjs.org"),
    concat!("registry.", "yarnpkg.com"),
    concat!("pypi.", "org"),
    concat!("files.", "pythonhosted.org"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("deb.", "debian.org"),
    concat!("proxy.", "golang.org"),
];

/// No tracked file names a directory of the machine that it was written on, or a package host.
pub(super) fn machine_names(tree: &Tree) -> Vec<Finding> {
    let checkout = format!("{}/", tree.root().display());
    let mut found = Vec::new();
    // Lock files are written by the package managers.
    let files = tree.files().iter().filter(|file| !file.path.ends_with(".lock"));
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            let path = PERSONAL.iter().any(|name| names_path(line, name));
            let host = REGISTRIES.iter().any(|host| line.contains(host));
            let message = match (path || names_path(line, &checkout), host) {
                (true, _) => "names a directory of one machine",
                (false, true) => "names the host of a package registry",
                (false, false) => continue,
            };
            found.push(finding(&file.path, index + 1, message.to_owned()));
        }
    }
    found
}

/// Links in Markdown that name a file lead to one.
pub(super) fn links(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files().iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in link_targets(&file.text) {
            let path = target.split(['#', '?']).next().unwrap_or_default();
            let foreign = target.contains("://") || target.starts_with("mailto:");
            if path.is_empty() || foreign {
                continue;
            }
            let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
            let named = normal(&folder.join(path));
            let exists = named.as_ref().is_some_and(|named| tree_has(tree, named));
            if !exists {
                found.push(finding(
                    &file.path,
                    line,
                    format!("the link to `{path}` leads nowhere"),
                ));
            }
        }
    }
    found
}

/// Whether `path` begins in `line`, and is not the tail of a longer or relative one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|char| char.is_alphanumeric() || matches!(char, '.' | '-' | '_' | '}'))
    })
}

fn tree_has(tree: &Tree, path: &Path) -> bool {
    let path = path.to_string_lossy();
    let folder = format!("{path}/");
    tree.files().iter().any(|file| file.path == *path || file.path.starts_with(&folder))
}

/// `path` without its dots; `None` where it leaves the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir if out.pop() => {}
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

/// The targets of inline links outside code, with their lines.
fn link_targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        // Splitting at back ticks leaves prose at the even places and code at the odd ones.
        let prose = line.split('`').step_by(2).filter(|_| !fenced);
        for part in prose {
            let links = part.match_indices("](").filter_map(|(at, _)| {
                let rest = &part[at + 2..];
                rest.find(')').map(|end| &rest[..end])
            });
            found.extend(links.map(|target| (index + 1, target)));
        }
    }
    found
}

/// Only the gate's steps install something: a plain `cargo test` changes no machine.
pub(super) fn installing(tree: &Tree) -> Vec<Finding> {
    let message = "installs something: that is `xtask::servers`' part; a test looks and tells";
    let strays = tree.rust().map(|(file, _)| file).filter(|file| !is_ours(&file.path));
    strays.flat_map(|file| lines_with(&file.path, &file.text, &INSTALLERS, message)).collect()
}

/// A test that can't check something tells the gate so: what is printed by one that passes is
/// shown to nobody.
pub(super) fn skips(tree: &Tree) -> Vec<Finding> {
    let message = "is printed, which nobody reads: use `skips::tell`, so that the gate counts it";
    let tests = tree.rust().map(|(file, _)| file).filter(|file| !is_ours(&file.path));
    let tests = tests.filter(|file| tree.is_test_file(&file.path));
    tests.flat_map(|file| lines_with(&file.path, &file.text, &["SKIPPED"], message)).collect()
}

fn is_ours(path: &str) -> bool {
    path.starts_with("crates/xtask/")
}

/// Every line with one of these words in it.
fn lines_with(path: &str, text: &str, words: &[&str], message: &str) -> Vec<Finding> {
    let found = text.lines().enumerate().filter_map(|(index, line)| {
        let word = words.iter().find(|word| line.contains(**word))?;
        Some(finding(path, index + 1, format!("{word} {message}")))
    });
    found.collect()
}

const INSTALLERS: [&str; 3] = ["\"apt-get\"", "\"pip\"", "\"npm\""];

fn finding(path: &str, line: usize, message: String) -> Finding {
    Finding { path: path.to_owned(), line, subject: String::new(), size: 1, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: Vec<Finding>) -> Vec<usize> {
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_directory_of_a_machine_is_found() {
        let text = format!(
            "see {}ada/x\nsrc{}x\n{}y\nhttps://{}/z\n",
            PERSONAL[1], PERSONAL[0], PERSONAL[0], REGISTRIES[2]
        );
        let tree = Tree::of(&[("a.md", &text), ("Cargo.lock", &text)]);
        assert_eq!(lines(machine_names(&tree)), [1, 3, 4]);
    }

    #[test]
    fn a_test_that_installs_or_skips_on_its_own_is_found() {
        let installs = "fn a() {\n    Command::new(\"apt-get\");\n    x(\"pip\")\n}";
        let prints = "fn a() {\n    println!(\"SKIPPED: nothing\");\n}";
        let tree = Tree::of(&[
            ("crates/redis/tests/it/a.rs", installs),
            ("crates/redis/tests/it/b.rs", prints),
            ("crates/xtask/src/tools.rs", installs),
            // What our own runners print is read by the gate.
            ("crates/live/src/main.rs", prints),
        ]);
        assert_eq!(lines(installing(&tree)), [2, 3]);
        assert_eq!(lines(skips(&tree)), [2]);
    }

    #[test]
    fn a_dead_link_is_found() {
        let text = "[a](b.md) [c](../README.md#d)\n[e](gone.md)\n```\n[f](gone.md)\n```\n\
                    `[g](gone.md)` [h](https://x.example/gone.md) [i](#j) [k](sub)\n[l](../../m)\n";
        let tree = Tree::of(&[
            ("docs/a.md", text),
            ("docs/b.md", ""),
            ("docs/sub/c.md", ""),
            ("README.md", ""),
        ]);
        assert_eq!(lines(links(&tree)), [2, 7]);
    }
}
