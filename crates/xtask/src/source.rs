//! A reading of Rust source that is just deep enough for the rules of the tree.
//!
//! Comments, strings and characters are blanked, so that a rule never trips over prose; functions
//! and test code are found by matching braces. It is no parser: what it can't make out, it skips.

/// One Rust file, with its prose blanked and its functions found.
pub struct Source {
    code: String,
    functions: Vec<Function>,
    test_lines: Vec<bool>,
    test_modules: Vec<String>,
}

/// A function and the lines that it takes, counted from 1, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The name after `fn`.
    pub name: String,
    /// The line of the word `fn`.
    pub first_line: usize,
    /// The line of the closing brace.
    pub last_line: usize,
}

impl Source {
    /// Reads `text` as Rust.
    pub fn read(text: &str) -> Source {
        let code = blank_prose(text);
        let functions = functions(&code);
        let (test_lines, test_modules) = test_regions(&code);
        Source { code, functions, test_lines, test_modules }
    }

    /// The text with comments and literals blanked; same bytes per line as the original.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Every function that has a body, in the order of the text.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Whether `line` (counted from 1) lies in an item under `#[cfg(test)]`.
    pub fn is_test_line(&self, line: usize) -> bool {
        self.test_lines.get(line.saturating_sub(1)).copied().unwrap_or(false)
    }

    /// The modules that are declared under `#[cfg(test)]` and live in a file of their own.
    pub fn test_modules(&self) -> &[String] {
        &self.test_modules
    }

    /// The lines on which `call` is given a literal and nothing else, counted from 1.
    pub fn lines_with_literal<'a>(&'a self, call: &'a str) -> impl Iterator<Item = usize> + 'a {
        // The literal is blank in the code, so the call looks empty.
        let calls = self.code.match_indices(call);
        let literal = calls.filter(move |(at, _)| {
            self.code[at + call.len()..].trim_start().starts_with([')', ','])
        });
        literal.map(|(at, _)| line_of(&self.code, at))
    }

    /// The lines on which `needle` occurs in code, counted from 1.
    pub fn lines_with<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        let hits = self.code.lines().enumerate();
        hits.filter(move |(_, line)| contains_word(line, needle)).map(|(index, _)| index + 1)
    }
}

impl Function {
    /// How many lines the function takes.
    pub fn lines(&self) -> usize {
        self.last_line + 1 - self.first_line
    }
}

/// Whether `needle` occurs in `line` with no identifier character glued to either end.
///
/// An end of `needle` that is itself punctuation needs no boundary: `.unwrap()` follows a name.
pub fn contains_word(line: &str, needle: &str) -> bool {
    let (bytes, wanted) = (line.as_bytes(), needle.as_bytes());
    let first_is_name = wanted.first().is_some_and(|byte| is_name(*byte));
    let last_is_name = wanted.last().is_some_and(|byte| is_name(*byte));
    line.match_indices(needle).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|index| bytes.get(index));
        let after = bytes.get(at + wanted.len());
        let starts = !first_is_name || !before.is_some_and(|byte| is_name(*byte));
        let ends = !last_is_name || !after.is_some_and(|byte| is_name(*byte));
        starts && ends
    })
}

/// The identifier that begins at `text`, which may be empty.
pub fn leading_name(text: &str) -> &str {
    let end = text.bytes().position(|byte| !is_name(byte)).unwrap_or(text.len());
    &text[..end]
}

fn is_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

fn blank_prose(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let Some(end) = prose_end(bytes, at) else {
            at += 1;
            continue;
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that begins at `at` ends; `None` where code goes on.
fn prose_end(bytes: &[u8], at: usize) -> Option<usize> {
    let next = bytes.get(at + 1).copied();
    match bytes[at] {
        b'/' if next == Some(b'/') => Some(find(bytes, at, b"\n").unwrap_or(bytes.len())),
        b'/' if next == Some(b'*') => Some(block_comment_end(bytes, at)),
        b'"' => Some(string_end(bytes, at)),
        b'\'' => char_end(bytes, at),
        b'r' | b'b' | b'c' if at == 0 || !is_name(bytes[at - 1]) => raw_string_end(bytes, at),
        _ => None,
    }
}

fn find(bytes: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(wanted.len()).position(|window| window == wanted).map(|offset| from + offset)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0_usize, start);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A character literal's end; `None` for a lifetime, which begins with the same mark.
fn char_end(bytes: &[u8], start: usize) -> Option<usize> {
    let first = *bytes.get(start + 1)?;
    if first == b'\\' {
        return find(bytes, start + 3, b"'").map(|end| end + 1);
    }
    let width = match first {
        0x00..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
    };
    let close = start + 1 + width;
    (bytes.get(close) == Some(&b'\'')).then_some(close + 1)
}

fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let r_at = if bytes[start] == b'r' { start } else { start + 1 };
    if bytes.get(r_at) != Some(&b'r') {
        return None;
    }
    let hashes = bytes[r_at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let quote = r_at + 1 + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let end = find(bytes, quote + 1, &close).map(|end| end + close.len());
    Some(end.unwrap_or(bytes.len()))
}

fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && is_name(code.as_bytes()[at - 1]) {
            continue;
        }
        let after = code[at + 3..].trim_start();
        let name = leading_name(after);
        let body = block_of_item(code, at);
        if let (false, Some((_, end))) = (name.is_empty(), body) {
            found.push(Function {
                name: name.to_owned(),
                first_line: line_of(code, at),
                last_line: line_of(code, end),
            });
        }
    }
    found
}

/// The braces of the item that begins at `from`; `None` where it ends in a semicolon.
fn block_of_item(code: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = code.as_bytes();
    let mut depth = 0_i32;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return matching_brace(bytes, at).map(|end| (at, end)),
            _ => {}
        }
    }
    None
}

fn matching_brace(bytes: &[u8], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn line_of(code: &str, at: usize) -> usize {
    code.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn test_regions(code: &str) -> (Vec<bool>, Vec<String>) {
    let count = code.lines().count();
    if code.contains("#![cfg(test)]") {
        return (vec![true; count], Vec::new());
    }
    let (mut lines, mut modules) = (vec![false; count], Vec::new());
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let item = at + attribute.len();
        match block_of_item(code, item) {
            Some((_, end)) => {
                let (first, last) = (line_of(code, at), line_of(code, end));
                lines.iter_mut().take(last).skip(first - 1).for_each(|line| *line = true);
            }
            None => modules.extend(declared_module(&code[item..])),
        }
    }
    (lines, modules)
}

fn declared_module(item: &str) -> Option<String> {
    let item = item.trim_start();
    let item = item.strip_prefix("pub(crate)").unwrap_or(item).trim_start();
    let name = leading_name(item.strip_prefix("mod ")?.trim_start());
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_blanked_and_code_is_kept() {
        let cases = [
            ("a // .unwrap()\nb", "a             \nb"),
            ("/* x /* y */ z */q", "                 q"),
            ("f(\"a\\\"b\", c)", "f(      , c)"),
            ("r#\"a\"b\"# + d", "         + d"),
            ("br\"x\" b'\\'' '\\\\' 'z' 'é'", "      b                  "),
            ("&'a str", "&'a str"),
            ("r#fn", "r#fn"),
        ];
        for (text, expected) in cases {
            assert_eq!(blank_prose(text), expected, "for {text}");
        }
    }

    #[test]
    fn functions_are_measured_by_their_braces() {
        let text = "fn a() {\n  if x {\n  }\n}\ntype F = fn (u8) -> u8;\nfn b();\n\
                    impl T { fn c<T>(x: [u8; 4])\nwhere T: X {\n} }\n";
        let source = Source::read(text);
        let seen: Vec<_> =
            source.functions().iter().map(|f| (f.name.as_str(), f.first_line, f.lines())).collect();
        assert_eq!(seen, [("a", 1, 4), ("c", 7, 3)]);
    }

    #[test]
    fn test_code_is_told_from_the_rest() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod proof;\n#[cfg(test)]\nmod tests {\n  x\n}\nfn b() {}";
        let source = Source::read(text);
        let marks: Vec<_> = (1..=8).map(|line| source.is_test_line(line)).collect();
        assert_eq!(marks, [false, false, false, true, true, true, true, false]);
        assert_eq!(source.test_modules(), ["proof"]);
    }

    #[test]
    fn a_call_with_a_literal_is_told_from_a_call_with_a_value() {
        let source = Source::read("a.expect(\"b\");\na.expect(key, 1);\na\n.expect(\n  \"c\",\n);");
        assert_eq!(source.lines_with_literal(".expect(").collect::<Vec<_>>(), [1, 4]);
    }

    #[test]
    fn words_have_boundaries_and_punctuation_has_none() {
        assert!(contains_word("let x = y.unwrap();", ".unwrap()"));
        assert!(contains_word("use std::collections::HashMap;", "HashMap"));
        assert!(!contains_word("struct MyHashMapped;", "HashMap"));
        assert!(!contains_word("x.unwrap_or(y)", ".unwrap()"));
    }
}
