//! Child processes: streamed as they run, and counted by what their runners say last.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::iter::Sum;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// What was checked and how it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Checks that held.
    pub passed: usize,
    /// Checks that did not.
    pub failed: usize,
    /// Checks that could not be made here.
    pub skipped: usize,
}

impl Tally {
    /// One check that held.
    pub const PASSED: Tally = Tally { passed: 1, failed: 0, skipped: 0 };
    /// One check that did not.
    pub const FAILED: Tally = Tally { passed: 0, failed: 1, skipped: 0 };
    /// One check that could not be made.
    pub const SKIPPED: Tally = Tally { passed: 0, failed: 0, skipped: 1 };

    /// One check that held or did not.
    pub fn of(held: bool) -> Tally {
        if held { Tally::PASSED } else { Tally::FAILED }
    }

    /// The same where `passed` of the checks that held weren't made after all.
    pub fn less(self, passed: usize) -> Tally {
        let passed = passed.min(self.passed);
        Tally { passed: self.passed - passed, skipped: self.skipped + passed, ..self }
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Tally>>(tallies: I) -> Tally {
        tallies.fold(Tally::default(), |sum, one| Tally {
            passed: sum.passed + one.passed,
            failed: sum.failed + one.failed,
            skipped: sum.skipped + one.skipped,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// A child that has ended.
pub struct Finished {
    /// Whether it exited with 0.
    pub success: bool,
    /// What it wrote on both streams, line by line, without colours.
    pub lines: Vec<String>,
}

/// Runs `command` to its end, showing its output as it comes.
pub fn stream(command: &mut Command) -> io::Result<Finished> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (sender, receiver) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|pipe| forward(pipe, sender.clone())),
        child.stderr.take().map(|pipe| forward(pipe, sender.clone())),
    ];
    drop(sender);
    let mut lines = Vec::new();
    for line in receiver {
        // Nobody may be reading our own output any more; the count still matters.
        let _ = writeln!(io::stdout(), "{line}");
        lines.push(plain(&line));
    }
    readers.into_iter().flatten().for_each(|reader| drop(reader.join()));
    Ok(Finished { success: child.wait()?.success(), lines })
}

fn forward(
    pipe: impl Read + Send + 'static,
    lines: mpsc::Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            line.clear();
            if lines.send(text).is_err() {
                return;
            }
        }
    })
}

/// `line` without terminal colours.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            // A control sequence ends with its first letter.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            out.push(char);
        }
    }
    out
}

impl Finished {
    /// The count in `cargo nextest`'s summary.
    pub fn nextest(&self) -> Tally {
        let summary = self.lines.iter().rfind(|line| line.trim_start().starts_with("Summary"));
        let counted = summary.map(|line| Tally {
            passed: before(line, "passed"),
            failed: ["failed", "timed out", "exec failed"]
                .map(|word| before(line, word))
                .iter()
                .sum(),
            skipped: before(line, "skipped"),
        });
        self.settled(counted)
    }

    /// The counts of `cargo test`, which has one line for each binary.
    pub fn cargo_test(&self) -> Tally {
        let results = self.lines.iter().filter(|line| line.starts_with("test result:"));
        let counted = results.map(|line| Tally {
            passed: before(line, "passed"),
            failed: before(line, "failed"),
            skipped: before(line, "ignored"),
        });
        self.settled(counted.reduce(|sum, one| [sum, one].into_iter().sum()))
    }

    /// The count in the closing line `N passed, N failed` that our own runners print.
    pub fn closing_line(&self) -> Tally {
        let closing = self.lines.iter().rfind(|line| before_any(line, "passed").is_some());
        let counted = closing.map(|line| Tally {
            passed: before(line, "passed"),
            failed: before(line, "failed"),
            skipped: before(line, "skipped"),
        });
        self.settled(counted)
    }

    /// A count that agrees with the exit: a runner that broke down counted no failure, and one
    /// that counted nothing checked nothing.
    fn settled(&self, counted: Option<Tally>) -> Tally {
        match counted.filter(|tally| *tally != Tally::default()) {
            Some(tally) if self.success => tally,
            Some(tally) => Tally { failed: tally.failed.max(1), ..tally },
            None => Tally::FAILED,
        }
    }
}

/// The number in front of `word`, or 0.
fn before(line: &str, word: &str) -> usize {
    before_any(line, word).unwrap_or(0)
}

fn before_any(line: &str, word: &str) -> Option<usize> {
    let pattern = format!(" {word}");
    line.match_indices(&pattern).find_map(|(at, _)| {
        let head = &line[..at];
        let digits = head.len() - head.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        head[head.len() - digits..].parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(success: bool, lines: &[&str]) -> Finished {
        Finished { success, lines: lines.iter().map(|line| plain(line)).collect() }
    }

    fn tally(passed: usize, failed: usize, skipped: usize) -> Tally {
        Tally { passed, failed, skipped }
    }

    #[test]
    fn nextest_is_counted_by_its_summary() {
        let line = "     Summary [   0.012s] 9 tests run: 7 passed (1 slow), 1 failed, \
                    1 timed out, 3 skipped";
        assert_eq!(finished(false, &[line]).nextest(), tally(7, 2, 3));
        let coloured = "\u{1b}[32;1m     Summary\u{1b}[0m [ 0.1s] 2 tests run: 2 passed, 0 skipped";
        assert_eq!(finished(true, &[coloured]).nextest(), tally(2, 0, 0));
    }

    #[test]
    fn cargo_test_is_counted_over_all_its_binaries() {
        let lines = [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ];
        assert_eq!(finished(false, &lines).cargo_test(), tally(5, 1, 1));
    }

    #[test]
    fn a_runner_that_breaks_down_is_a_failure() {
        assert_eq!(finished(false, &["error: could not compile"]).nextest(), tally(0, 1, 0));
        let lines = ["test result: ok. 3 passed; 0 failed; 0 ignored"];
        assert_eq!(finished(false, &lines).cargo_test(), tally(3, 1, 0));
        assert_eq!(finished(false, &["4 passed, 0 failed"]).closing_line(), tally(4, 1, 0));
    }

    #[test]
    fn our_own_runners_are_counted_by_their_closing_line() {
        let lines = ["seed 1 ok", "interop: 4 passed, 0 failed, 1 skipped"];
        assert_eq!(finished(true, &lines).closing_line(), tally(4, 0, 1));
    }

    #[test]
    fn a_runner_that_counted_nothing_is_a_failure() {
        for lines in [&["fine"][..], &["0 passed, 0 failed, 0 skipped"], &[]] {
            assert_eq!(finished(true, lines).closing_line(), Tally::FAILED, "{lines:?}");
            assert_eq!(finished(true, lines).nextest(), Tally::FAILED, "{lines:?}");
            assert_eq!(finished(true, lines).cargo_test(), Tally::FAILED, "{lines:?}");
        }
        let none = ["     Summary [   0.012s] 0 tests run: 0 passed, 0 skipped"];
        assert_eq!(finished(true, &none).nextest(), Tally::FAILED);
        let none = ["test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"];
        assert_eq!(finished(true, &none).cargo_test(), Tally::FAILED);
        let skipped = ["0 passed, 0 failed, 1 skipped"];
        assert_eq!(finished(true, &skipped).closing_line(), Tally::SKIPPED);
    }

    #[test]
    fn what_passed_unchecked_is_skipped() {
        assert_eq!(tally(7, 1, 2).less(3), tally(4, 1, 5));
        assert_eq!(tally(1, 0, 0).less(3), tally(0, 0, 1));
    }

    #[test]
    fn output_of_both_streams_is_kept_and_the_exit_seen() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let finished = stream(&mut command).expect("a shell");
        let mut lines = finished.lines.clone();
        lines.sort();
        assert_eq!((finished.success, lines), (false, vec!["err".into(), "out".into()]));
    }
}
