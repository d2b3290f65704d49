//! What tests tell when they can't check what they are there for.
//!
//! Tests of other crates compile this file by its path, so that what they tell and what the gate
//! reads can't differ.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

/// The variable that names the file to which tests append what they tell.
pub const VARIABLE: &str = "SKIPS_FILE";
/// What every line begins with that tells of something unchecked.
pub const WORD: &str = "SKIPPED:";

/// Tells that the calling test doesn't check all that it is there for; the test then returns.
pub fn tell(why: &str) {
    told(RETURNS, why);
}

/// Tells the same where no test of this program has anything to check, and ends it.
pub fn end(why: &str) -> ! {
    told(ENDS, why);
    std::process::exit(0)
}

fn told(mark: &str, why: &str) {
    let line = format!("{WORD} {}: {why} {mark}\n", test());
    // A runner keeps to itself what a passing test prints by the macros.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(file) = std::env::var_os(VARIABLE) {
        let file = fs::OpenOptions::new().create(true).append(true).open(file);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        // What can't be told must not count as passed.
        assert!(written.is_ok(), "{line} can't be told to the gate: {written:?}");
    }
}

/// The program and the test in it.
fn test() -> String {
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    // Its folder is `target/debug/deps`; `it-` and a hash is its name in every crate.
    let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // A runner with a process for each test names it; else it has a thread of that name.
    let named = std::env::var("NEXTEST_TEST_NAME").ok();
    let name = named.or_else(|| std::thread::current().name().map(str::to_owned));
    format!("{program} {}", name.unwrap_or_default())
}

/// How a line ends whose test returned.
pub const RETURNS: &str = "(this test)";
/// How a line ends whose test ended its process.
pub const ENDS: &str = "(all tests of this program)";
