//! The repository's files, read once and shared by all rules.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::source::Source;

/// The text files that belong to the repository.
pub struct Tree {
    root: PathBuf,
    files: Vec<File>,
}

/// One text file.
pub struct File {
    /// The path from the root, with forward slashes.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// The reading as Rust, for `.rs` files.
    pub rust: Option<Source>,
}

impl Tree {
    /// Reads every file that git tracks, or would track: a new file is judged before it is added.
    pub fn load() -> io::Result<Tree> {
        let root = root();
        let mut files = Vec::new();
        for path in listed_files(&root)? {
            // Binary files are no business here, nor is one whose deletion isn't committed yet.
            if let Ok(text) = std::fs::read_to_string(root.join(&path)) {
                files.push(File::new(path, text));
            }
        }
        Ok(Tree { root, files })
    }

    /// A tree of the given files, for the rules' own tests.
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(path, text)| File::new((*path).into(), (*text).into()));
        Tree { root: root(), files: files.collect() }
    }

    /// The directory that holds the workspace.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All files, ordered by path.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The text of the file at `path`.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }

    /// Every Rust file with its reading.
    pub fn rust(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files.iter().filter_map(|file| file.rust.as_ref().map(|source| (file, source)))
    }

    /// Whether all of `path` is test code: by its folder, or declared so by its parent module.
    pub fn is_test_file(&self, path: &str) -> bool {
        const FOLDERS: [&str; 4] = ["tests", "benches", "conformance", "testing"];
        let by_name = path.split('/').any(|part| FOLDERS.contains(&part.trim_end_matches(".rs")))
            || path.ends_with("_tests.rs");
        by_name || self.rust().any(|(file, source)| declares(file, source, path))
    }
}

impl File {
    fn new(path: String, text: String) -> File {
        let rust = path.ends_with(".rs").then(|| Source::read(&text));
        File { path, text, rust }
    }
}

fn declares(parent: &File, source: &Source, path: &str) -> bool {
    source.test_modules().iter().any(|module| {
        let stem = parent.path.trim_end_matches(".rs");
        let folder = match stem.rsplit_once('/') {
            Some((folder, "lib" | "main" | "mod")) => folder,
            _ => stem,
        };
        path == format!("{folder}/{module}.rs") || path.starts_with(&format!("{folder}/{module}/"))
    })
}

/// The directory of the workspace, wherever the build directory is.
pub fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR");
    let here = here.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).map_or_else(|| here.clone(), Path::to_path_buf)
}

fn listed_files(root: &Path) -> io::Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let output = git.output()?;
    if !output.status.success() {
        return Err(io::Error::other("git can't list the files of the tree"));
    }
    let listing = String::from_utf8_lossy(&output.stdout);
    let mut paths: Vec<String> =
        listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_declared_for_tests_is_a_test_file() {
        let tree = Tree::of(&[
            ("crates/core/src/lib.rs", "#[cfg(test)]\nmod proof;\nmod real;"),
            ("crates/core/src/real.rs", "#[cfg(test)]\nmod deep;"),
        ]);
        for path in [
            "crates/core/src/proof.rs",
            "crates/core/src/real/deep.rs",
            "crates/core/tests/it/main.rs",
            "crates/store/src/conformance/races.rs",
        ] {
            assert!(tree.is_test_file(path), "{path}");
        }
        assert!(!tree.is_test_file("crates/core/src/real.rs"));
    }
}
