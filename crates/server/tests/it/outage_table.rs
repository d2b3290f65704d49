//! The table of outages: no cell without a test, no test that isn't there.

use std::collections::BTreeMap;
use std::path::Path;

/// What stands between a marker's brackets.
fn marks(cell: &str) -> Vec<&str> {
    let pieces = cell.split('[').skip(1).filter_map(|piece| piece.split_once(']'));
    pieces.map(|(mark, _)| mark).filter(|mark| mark.len() == 1).collect()
}

fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join("docs/operate/outages.md")).expect("the page")
}

/// The tests of this folder and of the stores' own.
fn all_tests() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut text = String::new();
    for name in ["server", "redis", "postgres"] {
        let folder = root.join(name).join("tests/it");
        for file in std::fs::read_dir(folder).expect("a folder") {
            let path = file.expect("a file").path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(path).expect("a file"));
            }
        }
    }
    text
}

#[test]
fn each_cell_of_the_outage_table_names_a_test_that_exists() {
    let (page, tests) = (page(), all_tests());
    let mut legend = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("- [")) {
        let mark = marks(line).first().copied().expect("a mark");
        let named: Vec<_> = line.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{line}");
        for name in named {
            assert!(tests.contains(&format!("fn {name}()")), "there is no test {name}");
        }
        assert!(legend.insert(mark, 0).is_none(), "[{mark}] stands twice");
    }
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| **")).collect();
    assert!(rows.len() >= 12, "only {} rows", rows.len());
    let columns = page.lines().find(|line| line.starts_with("| what happens")).expect("a head");
    let width = columns.split('|').count();
    for row in rows {
        let cells: Vec<_> = row.split('|').collect();
        assert_eq!(cells.len(), width, "{row}");
        for cell in &cells[2..width - 1] {
            let marks = marks(cell);
            assert!(!marks.is_empty(), "a cell without a test: {cell} in {row}");
            for mark in marks {
                *legend.get_mut(mark).unwrap_or_else(|| panic!("[{mark}] is not explained")) += 1;
            }
        }
    }
    let idle: Vec<_> = legend.iter().filter(|(_, used)| **used == 0).collect();
    assert!(idle.is_empty(), "tests that prove no cell: {idle:?}");
}
