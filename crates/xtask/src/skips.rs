//! Tests that couldn't check what they are there for: told to whoever reads along, and to the gate.
//!
//! A test passes or fails; it has no third end. So it tells, and the gate counts it as skipped.

pub mod tell;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::process::Tally;

use tell::{ENDS, RETURNS};

/// The tests that told of something unchecked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Skips {
    /// Every different line, in order.
    pub lines: BTreeSet<String>,
    /// Tests that returned, and so are counted as passed by any runner.
    pub returned: usize,
    /// Tests that ended their process, which a runner of one process a test counts as passed.
    pub ended: usize,
}

impl Skips {
    /// Reads the file to which tests told; there is none where none did.
    pub fn read(file: &Path) -> io::Result<Skips> {
        match fs::read_to_string(file) {
            Ok(text) => Ok(Skips::of(&text)),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(Skips::default()),
            Err(fault) => Err(fault),
        }
    }

    /// What a runner counted, less what was told; `is_process_a_test` tells whether each test had
    /// a process of its own, so that those which ended it were counted as passed as well.
    pub fn taken_from(&self, tally: Tally, is_process_a_test: bool) -> Tally {
        if is_process_a_test {
            return tally.less(self.returned + self.ended);
        }
        let ended = Tally { skipped: self.ended, ..Tally::default() };
        [tally.less(self.returned), ended].into_iter().sum()
    }

    fn of(text: &str) -> Skips {
        // A test may lack several things, and end over the last.
        let names = |mark: &str| -> BTreeSet<Option<&str>> {
            let told = text.lines().filter(|line| line.ends_with(mark));
            told.map(|line| line.split(": ").nth(1)).collect()
        };
        let ended = names(ENDS);
        let returned = names(RETURNS).difference(&ended).count();
        let lines = text.lines().map(str::to_owned).collect();
        Skips { lines, returned, ended: ended.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::tell::{VARIABLE, end, tell};
    use super::*;

    #[test]
    fn a_test_is_counted_once_whatever_it_lacks() {
        let text = "SKIPPED: it-1 a: no Redis (this test)\n\
                    SKIPPED: it-1 a: no PostgreSQL (this test)\n\
                    SKIPPED: it-1 b: no Redis: none (this test)\n\
                    SKIPPED: it-2 a: no Valkey, Redis instead (this test)\n\
                    SKIPPED: it-2 a: no Redis (all tests of this program)\n";
        let skips = Skips::of(text);
        assert_eq!((skips.lines.len(), skips.returned, skips.ended), (5, 2, 1));
    }

    #[test]
    fn a_test_that_told_is_skipped_and_not_passed() {
        let skips = Skips { returned: 2, ended: 3, ..Skips::default() };
        let counted = Tally { passed: 10, failed: 1, skipped: 0 };
        let each_alone = Tally { passed: 5, failed: 1, skipped: 5 };
        assert_eq!(skips.taken_from(counted, true), each_alone);
        // One that ended all of its program's was counted by nobody.
        let together = Tally { passed: 8, failed: 1, skipped: 5 };
        assert_eq!(skips.taken_from(counted, false), together);
    }

    #[test]
    fn where_nothing_was_told_there_is_no_file() {
        let none = std::env::temp_dir().join("cloakroom-no-such-file");
        assert_eq!(Skips::read(&none).expect("nothing"), Skips::default());
    }

    /// Runs this very test again, as a runner would, with a file to tell to.
    #[test]
    fn what_a_test_tells_reaches_the_gate() {
        const ROLE: &str = "SKIPS_FILE_ROLE";
        let name = "skips::tests::what_a_test_tells_reaches_the_gate";
        match std::env::var(ROLE).as_deref() {
            Ok("tells") => return tell("no server"),
            Ok("ends") => end("no server"),
            _ => {}
        }
        let file = std::env::temp_dir().join(format!("cloakroom-skips-{}", std::process::id()));
        for (role, expected) in [("tells", (1, 0)), ("ends", (0, 1))] {
            let mut again = std::process::Command::new(std::env::current_exe().expect("a path"));
            again.args(["--exact", name]).env(ROLE, role).env(VARIABLE, &file);
            let output = again.env_remove("NEXTEST_TEST_NAME").output().expect("a run");
            assert!(output.status.success(), "{output:?}");
            let shown = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(shown.contains("SKIPPED: ") && shown.contains(name), "{output:?}");
            let skips = Skips::read(&file).expect("a file");
            std::fs::remove_file(&file).expect("a file");
            assert_eq!((skips.returned, skips.ended), expected, "{skips:?}");
        }
    }
}
