//! `cloakroom users import`: users from another directory, all of a file or none.
//!
//! An import that was killed leaves what it had made; the next one of the same file goes on there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use cloakroom_core::identifier::Identifier;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::client::{Body, Client, KeyWanted, Reach, encoded};
use super::failure::Failure;
use super::output::{Style, counted, inert, print_json};

/// The arguments of `cloakroom users import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// JSON Lines: {"identifier", "password_hash"?, "claims"?, "disabled"?} in each
    file: PathBuf,
    /// Say what would be refused, and import nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave users who are there already as they are, whatever their rows say
    #[arg(long)]
    skip_existing: bool,
    #[command(flatten)]
    reach: Reach,
}

/// A row that can't be imported.
#[derive(Clone, Debug)]
struct RefusedRow {
    line: usize,
    why: String,
    /// Whether it is another user's name.
    is_taken: bool,
}

impl RefusedRow {
    const fn new(line: usize, why: String) -> Self {
        Self { line, why, is_taken: false }
    }
}

/// The members that a row may have.
const MEMBERS: [&str; 4] = ["identifier", "password_hash", "claims", "disabled"];
/// Bytes of a row: what the authority takes as a body.
const ROW_BYTES_MAX: usize = 64 * 1024;
/// Refused rows that are shown; a file with more is of another kind.
const SHOWN_MAX: usize = 100;
const USERS: &str = "/admin/v1/users";

/// Runs the command: first every row is checked, then every one is created.
///
/// # Errors
///
/// Why nothing was imported.
pub fn run(
    args: &ImportArgs,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let client = args.reach.client(KeyWanted::Yes)?;
    let rows = check(&client, args, style, out, err)?;
    if args.dry_run {
        return said(rows, "would be imported", style, out);
    }
    let done = create(&client, args, rows)?;
    done.say(style, out)
}

/// What an import came to.
struct Done {
    made: u64,
    /// Users of an earlier import of the same rows, and those that are left as they are.
    already_there: u64,
}

impl Done {
    fn say(&self, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
        let Self { made, already_there } = self;
        if style.json {
            let said = json!({"imported": made, "already_there": already_there, "refused": []});
            return Ok(print_json(&said, out)?);
        }
        let made = counted(&Value::from(*made), "user");
        match already_there {
            0 => writeln!(out, "{made} imported")?,
            1 => writeln!(out, "{made} imported, 1 was there already")?,
            _ => writeln!(out, "{made} imported, {already_there} were there already")?,
        }
        Ok(())
    }
}

/// Checks every row against the file's others and the authority; how many there are.
fn check(
    client: &Client,
    args: &ImportArgs,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u64, Failure> {
    let path = &args.file;
    let progress = progress("checked", file_bytes(path)?);
    let mut seen = HashMap::new();
    let mut refused = Vec::new();
    let mut rows = 0;
    for row in Rows::open(path)? {
        let Row { line, content, bytes } = row?;
        progress.inc(bytes);
        rows += 1;
        let row = content.and_then(|row| first_of_its_name(row, line, &mut seen));
        match row {
            Ok(mut row) => {
                row.insert("dry_run".to_owned(), true.into());
                row.insert("allow_same".to_owned(), true.into());
                let row = refusal(client, line, &Value::Object(row))?;
                refused.extend(row.filter(|row| !(row.is_taken && args.skip_existing)));
            }
            Err(why) => refused.push(RefusedRow::new(line, why)),
        }
    }
    progress.finish_and_clear();
    if refused.is_empty() {
        return Ok(rows);
    }
    report(&refused, rows, style, out, err)?;
    Err(Failure::Silent(1))
}

/// Creates every row's user; where one can't be, those that were are deleted again.
fn create(client: &Client, args: &ImportArgs, rows: u64) -> Result<Done, Failure> {
    let path = &args.file;
    let progress = progress("imported", file_bytes(path)?);
    let (mut made, mut already_there) = (Vec::new(), 0);
    for row in Rows::open(path)? {
        let created = row.and_then(|row| {
            progress.inc(row.bytes);
            let at_line = |why: String| Failure::Failed(format!("line {}: {why}", row.line));
            let mut body = row.content.map_err(at_line)?;
            body.insert("allow_same".to_owned(), true.into());
            let skip = args.skip_existing;
            create_one(client, &Value::Object(body), skip).map_err(|why| at_line(why.to_string()))
        });
        match created {
            Ok(Some(id)) => made.push(id),
            Ok(None) => already_there += 1,
            Err(failure) => return Err(undo(client, &made, &failure)),
        }
    }
    progress.finish_and_clear();
    let done = Done { made: made.len() as u64, already_there };
    if rows == done.made + done.already_there {
        return Ok(done);
    }
    Err(undo(client, &made, &Failure::Failed("the file changed meanwhile".into())))
}

/// The id of a user that was made; none where there is one just like it, or one that is skipped.
fn create_one(client: &Client, user: &Value, skip: bool) -> Result<Option<String>, Failure> {
    let answer = client.send(Method::POST, USERS, Some(Body::Json(user)))?;
    if skip && answer.status == 409 && is_there(client, user)? {
        return Ok(None);
    }
    let is_new = answer.status == 201;
    let answer = answer.successful()?;
    Ok(answer["user"]["id"].as_str().filter(|_| is_new).map(str::to_owned))
}

fn undo(client: &Client, made: &[String], failure: &Failure) -> Failure {
    let mut left = 0;
    for id in made {
        let gone = client.order(Method::DELETE, &format!("{USERS}/{}", encoded(id)));
        left += usize::from(gone.is_err());
    }
    let state = match left {
        0 => "nothing was imported".to_owned(),
        _ => format!(
            "{left} of {} users that were imported could not be deleted; import the same file \
             again to go on",
            made.len()
        ),
    };
    Failure::Failed(format!("{failure}; {state}"))
}

/// Why the authority would refuse a user; none where it wouldn't.
fn refusal(client: &Client, line: usize, user: &Value) -> Result<Option<RefusedRow>, Failure> {
    let answer = client.send(Method::POST, USERS, Some(Body::Json(user)))?;
    match answer.status {
        409 => {
            let is_taken = is_there(client, user)?;
            Ok(Some(RefusedRow { line, why: answer.explanation(), is_taken }))
        }
        413 | 422 => Ok(Some(RefusedRow::new(line, answer.explanation()))),
        _ => answer.successful().map(|_| None),
    }
}

/// Whether somebody has this identifier.
fn is_there(client: &Client, user: &Value) -> Result<bool, Failure> {
    let identifier = encoded(user["identifier"].as_str().unwrap_or_default());
    let found = client.get(&format!("{USERS}?identifier={identifier}"))?;
    Ok(found["users"].as_array().is_some_and(|users| !users.is_empty()))
}

fn first_of_its_name(
    row: Map<String, Value>,
    line: usize,
    seen: &mut HashMap<String, usize>,
) -> Result<Map<String, Value>, String> {
    let text = row.get("identifier").and_then(Value::as_str).unwrap_or_default();
    // One that isn't well-formed is refused by the authority, which says why.
    let Ok(identifier) = Identifier::parse(text) else { return Ok(row) };
    match seen.insert(identifier.normal().to_owned(), line) {
        Some(first) => Err(format!("identifier: the same as in line {first}")),
        None => Ok(row),
    }
}

/// The rows of a file.
struct Rows {
    lines: BufReader<File>,
    line: usize,
}

/// One row: what it says, or why it can't be read.
struct Row {
    line: usize,
    bytes: u64,
    content: Result<Map<String, Value>, String>,
}

impl Rows {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Ok(Self { lines: BufReader::new(file), line: 0 })
    }
}

impl Iterator for Rows {
    type Item = Result<Row, Failure>;

    /// The next row that isn't empty.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut text = Vec::new();
            let mut bounded = (&mut self.lines).take(ROW_BYTES_MAX as u64 + 2);
            let read = match bounded.read_until(b'\n', &mut text) {
                Ok(0) => return None,
                Ok(read) => read as u64,
                Err(error) => return Some(Err(Failure::Failed(format!("can't read on: {error}")))),
            };
            self.line += 1;
            let whole = text.trim_ascii();
            if whole.is_empty() {
                continue;
            }
            let content = parse(whole);
            if text.len() > ROW_BYTES_MAX + 1 && !text.ends_with(b"\n") {
                // The rest of the line is a part of it.
                if let Err(error) = self.lines.skip_until(b'\n') {
                    return Some(Err(Failure::Failed(format!("can't read on: {error}"))));
                }
            }
            return Some(Ok(Row { line: self.line, bytes: read, content }));
        }
    }
}

fn parse(text: &[u8]) -> Result<Map<String, Value>, String> {
    if text.len() > ROW_BYTES_MAX {
        return Err(format!("longer than {ROW_BYTES_MAX} bytes"));
    }
    let row: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| format!("not a JSON object: {error}"))?;
    match row.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        Some(unknown) => {
            Err(format!("{}: no member of a row; there are {}", inert(unknown), MEMBERS.join(", ")))
        }
        None => Ok(row),
    }
}

fn report(
    refused: &[RefusedRow],
    rows: u64,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    if style.json {
        let rows: Vec<Value> =
            refused.iter().map(|row| json!({"line": row.line, "why": row.why})).collect();
        return Ok(print_json(&json!({"imported": 0, "refused": rows}), out)?);
    }
    for row in refused.iter().take(SHOWN_MAX) {
        writeln!(err, "line {}: {}", row.line, row.why)?;
    }
    if refused.len() > SHOWN_MAX {
        writeln!(err, "… and {} more", refused.len() - SHOWN_MAX)?;
    }
    match refused.iter().filter(|row| row.is_taken).count() {
        0 => {}
        taken => writeln!(err, "there already: {taken}; --skip-existing leaves those alone")?,
    }
    Ok(writeln!(err, "nothing was imported: {} of {rows} rows are refused", refused.len())?)
}

fn said(rows: u64, done: &str, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    if style.json {
        return Ok(print_json(&json!({done.replace(' ', "_"): rows, "refused": []}), out)?);
    }
    Ok(writeln!(out, "{} {done}", counted(&Value::from(rows), "user"))?)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("{}: {error}", path.display()))
}

fn file_bytes(path: &Path) -> Result<u64, Failure> {
    let about = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    Ok(about.len())
}

/// A bar on a terminal, nothing elsewhere.
fn progress(what: &'static str, bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes).with_message(what);
    let template = "{msg} {wide_bar} {bytes}/{total_bytes}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
