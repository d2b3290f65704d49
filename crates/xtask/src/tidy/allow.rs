//! The allow list: faults that stood before the rule, which may only become smaller.

use std::collections::BTreeMap;
use std::fmt;

use super::{ALLOW_LIST, Finding};

/// What is forgiven, and how much of it was used.
#[derive(Debug)]
pub struct AllowList {
    entries: BTreeMap<(String, String), Entry>,
}

#[derive(Debug)]
struct Entry {
    line: usize,
    allowed: usize,
    used: usize,
}

/// A line of the allow list that can't be read.
#[derive(Debug)]
pub struct ListFault {
    line: usize,
}

impl fmt::Display for ListFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{ALLOW_LIST}:{}: expected `rule key size  # reason`", self.line)
    }
}

impl AllowList {
    /// Reads lines of `rule key size`; what follows a `#` is a comment.
    pub fn parse(text: &str) -> Result<AllowList, ListFault> {
        let mut entries = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let fault = ListFault { line: line_number };
            let words: Vec<_> =
                line.split('#').next().unwrap_or_default().split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [rule, key, size] => {
                    let allowed = size.parse().map_err(|_| fault)?;
                    let entry = Entry { line: line_number, allowed, used: 0 };
                    entries.insert(((*rule).to_owned(), (*key).to_owned()), entry);
                }
                _ => return Err(fault),
            }
        }
        Ok(AllowList { entries })
    }

    /// Drops the findings of `rule` that the list covers, and remembers how much was needed.
    ///
    /// Findings of one key add up: an entry of 2 forgives two occurrences in that file.
    pub fn forgive(&mut self, rule: &str, findings: Vec<Finding>) -> Vec<Finding> {
        let mut totals: BTreeMap<String, usize> = BTreeMap::new();
        for finding in &findings {
            *totals.entry(finding.key()).or_default() += finding.size;
        }
        let covered = |key: &str, entries: &mut BTreeMap<(String, String), Entry>| {
            let needed = totals.get(key).copied().unwrap_or(0);
            let entry = entries.get_mut(&(rule.to_owned(), key.to_owned()));
            entry.is_some_and(|entry| {
                entry.used = needed;
                needed <= entry.allowed
            })
        };
        findings.into_iter().filter(|finding| !covered(&finding.key(), &mut self.entries)).collect()
    }

    /// Entries that forgive more than there is: they must shrink or go.
    pub fn stale(&self) -> Vec<Finding> {
        let stale = self.entries.iter().filter(|(_, entry)| entry.used < entry.allowed);
        stale
            .map(|((rule, key), entry)| Finding {
                path: ALLOW_LIST.to_owned(),
                line: entry.line,
                subject: String::new(),
                size: 1,
                message: match entry.used {
                    0 => format!("`{rule} {key}` is no longer needed: remove the line"),
                    used => format!("`{rule} {key}` may shrink from {} to {used}", entry.allowed),
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(path: &str, size: usize) -> Finding {
        Finding { path: path.into(), line: 1, subject: String::new(), size, message: "m".into() }
    }

    #[test]
    fn an_entry_forgives_up_to_its_size_and_no_further() {
        let mut list = AllowList::parse("panic a.rs 2\npanic b.rs 1 # why\n").expect("readable");
        let left = list.forgive("panic", vec![finding("a.rs", 1), finding("a.rs", 1)]);
        assert_eq!(left, []);
        let left = list.forgive("panic", vec![finding("b.rs", 1), finding("b.rs", 1)]);
        assert_eq!(left.len(), 2);
        assert_eq!(list.stale(), []);
    }

    #[test]
    fn an_entry_that_is_too_large_is_stale() {
        let mut list = AllowList::parse("file-length a.rs 900\npanic b.rs 1").expect("readable");
        assert_eq!(list.forgive("file-length", vec![finding("a.rs", 850)]), []);
        let messages: Vec<_> = list.stale().into_iter().map(|stale| stale.message).collect();
        assert_eq!(
            messages,
            [
                "`file-length a.rs` may shrink from 900 to 850",
                "`panic b.rs` is no longer needed: remove the line",
            ]
        );
    }

    #[test]
    fn an_unreadable_line_is_named() {
        let fault = AllowList::parse("# head\npanic a.rs many").expect_err("not a number");
        assert!(fault.to_string().contains(":2:"), "{fault}");
    }
}
