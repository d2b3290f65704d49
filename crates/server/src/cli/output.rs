//! What commands print: tables for people, JSON for programs, and nothing that moves a cursor.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use serde_json::Value;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// JSON instead of tables.
    pub json: bool,
    /// Colours and weights.
    pub colour: bool,
}

impl Style {
    /// The style of this process: colours on a terminal only, and not under `NO_COLOR`.
    pub fn of_process(json: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, colour: !json && !refused && io::stdout().is_terminal() }
    }

    /// `text` in bold, where there are weights.
    pub fn bold(self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A table with a heading per column.
#[derive(Clone, Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows yet.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; its cells may be untrusted text.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| inert(cell)).collect());
    }

    /// Prints it, each column as wide as its widest cell.
    ///
    /// # Errors
    ///
    /// An error of writing to `out`.
    pub fn print(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let heading = self.headings.get(column).map_or(0, |heading| heading.len());
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(heading)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let headings: Vec<String> = self.headings.iter().map(|text| (*text).to_owned()).collect();
        writeln!(out, "{}", style.bold(&line(&headings, &widths)))?;
        for row in &self.rows {
            writeln!(out, "{}", line(row, &widths))?;
        }
        Ok(())
    }
}

/// Prints names and values below one another.
///
/// # Errors
///
/// An error of writing to `out`.
pub fn print_pairs(pairs: &[(&str, String)], style: Style, out: &mut dyn Write) -> io::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in pairs {
        let padded = format!("{:width$}", inert(name));
        writeln!(out, "{}  {}", style.bold(&padded), inert(value))?;
    }
    Ok(())
}

/// Prints JSON, indented.
///
/// # Errors
///
/// An error of writing to `out`.
pub fn print_json(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{value:#}")
}

/// Text that can't steer a terminal or break a line: control characters, those that turn the
/// direction of writing and line separators are shown as what they are.
pub fn inert(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_format(c) {
            shown.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Unicode's line and paragraph separators, directional marks and invisible operators.
const fn is_format(c: char) -> bool {
    matches!(
        c,
        '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
    )
}

/// So many of something, in words.
pub fn counted(count: &Value, noun: &str) -> String {
    match count.as_u64() {
        Some(1) => format!("1 {noun}"),
        Some(count) => format!("{count} {noun}s"),
        None => format!("{} {noun}s", cell(Some(count))),
    }
}

/// What a member says, as a cell: text as it is, all else as JSON, nothing for null.
pub fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A path as a shell takes it back.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str(cell);
        let gap = width.saturating_sub(cell.chars().count()) + 2;
        text.extend(std::iter::repeat_n(' ', gap));
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(table: &Table, style: Style) -> String {
        let mut out = Vec::new();
        table.print(style, &mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(vec!["1".into(), "ada".into()]);
        table.row(vec!["1000".into(), "ß".into()]);
        let plain = printed(&table, Style::default());
        assert_eq!(plain, "ID    NAME\n1     ada\n1000  ß\n");
        let coloured = printed(&table, Style { json: false, colour: true });
        assert!(coloured.starts_with("\u{1b}[1mID    NAME\u{1b}[0m\n"), "{coloured:?}");
    }

    #[test]
    fn m2_untrusted_text_is_inert_on_a_terminal() {
        let hostile = "\u{1b}[2Ja\r\nb\u{9b}31m\u{202e}c\u{2028}d\u{7}";
        let mut table = Table::new(&["UA"]);
        table.row(vec![hostile.to_owned()]);
        let text = printed(&table, Style::default());
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || is_format(c)), "{text:?}");
        assert!(text.contains("\\u{1b}[2Ja"), "{text:?}");
        assert_eq!(inert("Grüße 你好 😀"), "Grüße 你好 😀");
    }

    #[test]
    fn cells_show_members_plainly() {
        assert_eq!(cell(Some(&json!("x"))), "x");
        assert_eq!(cell(Some(&json!(null))), "-");
        assert_eq!(cell(None), "-");
        assert_eq!(cell(Some(&json!({"a": 1}))), r#"{"a":1}"#);
    }
}
