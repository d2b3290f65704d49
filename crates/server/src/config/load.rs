//! Collects the values: the file, over it the environment, over it the flags.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use cloakroom_core::types::Secret;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, Preset, keys, names, variable_of};
use super::source::{Problem, Source};
use super::suggest::nearest;
use super::value::{Found, Raw, Setting, Shape};

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--data DIR`.
    pub data: Option<PathBuf>,
}

/// What of the process's surroundings the configuration depends on.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// Names of `CLOAKROOM_…` variables whose values aren't UTF-8.
    pub unreadable: Vec<String>,
    /// Whether log lines go to a terminal.
    pub terminal: bool,
    /// Processor cores.
    pub cores: usize,
    /// Where a configuration file is looked for when none is named.
    pub search: Vec<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let mut variables = BTreeMap::new();
        let mut unreadable = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(variables.insert(name, value)),
                Err(_) if name.starts_with(PREFIX) => unreadable.push(name),
                Err(_) => {}
            }
        }
        Self {
            variables,
            unreadable,
            terminal: std::io::stderr().is_terminal(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            search: vec!["cloakroom.toml".into(), "/etc/cloakroom/cloakroom.toml".into()],
        }
    }

    /// None at all: no variables and no files, so that every key has its default.
    pub const fn bare() -> Self {
        Self {
            variables: BTreeMap::new(),
            unreadable: Vec::new(),
            terminal: false,
            cores: 1,
            search: Vec::new(),
        }
    }

    /// A variable that is set and not empty: an empty value counts as unset.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// What every variable of ours begins with.
const PREFIX: &str = "CLOAKROOM_";
/// Variables of ours that name no key: those of the commands and of the SDKs.
const OTHER_VARIABLES: [&str; 9] = [
    "CLOAKROOM_CONFIG",
    "CLOAKROOM_DATA",
    "CLOAKROOM_URL",
    "CLOAKROOM_ADMIN_URL",
    "CLOAKROOM_ADMIN_CA",
    "CLOAKROOM_CLIENT_CERT",
    "CLOAKROOM_CLIENT_KEY",
    "CLOAKROOM_API_KEY",
    "CLOAKROOM_API_KEY_FILE",
];

/// A value with its source.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The value.
    pub(super) raw: Raw,
    /// Where it was written.
    pub(super) source: Source,
    /// The file that a secret was read from.
    pub(super) file: Option<PathBuf>,
}

/// All values by key and by the names below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    values: BTreeMap<(&'static str, Vec<String>), Entry>,
    /// The defaults of plain keys, constant and derived, also of those that are set.
    defaults: BTreeMap<&'static str, String>,
}

impl Entries {
    /// What is known of a key and everything below it.
    pub(super) fn below(&self, key: &'static str) -> impl Iterator<Item = (&[String], &Entry)> {
        self.values
            .range((key, Vec::new())..)
            .take_while(move |((name, _), _)| *name == key)
            .map(|((_, sub), entry)| (sub.as_slice(), entry))
    }

    /// The source of a key's value, of a member if `sub` names one that is there.
    pub(super) fn source(&self, key: &'static str, sub: &[String]) -> Source {
        self.values
            .get(&(key, sub.to_vec()))
            .or_else(|| self.below(key).find(|(at, _)| at.starts_with(sub)).map(|(_, entry)| entry))
            .map_or(Source::Default, |entry| entry.source.clone())
    }

    /// Whether somebody set the key.
    pub(super) fn is_set(&self, key: &'static str) -> bool {
        self.below(key).any(|(_, entry)| entry.source != Source::Default)
    }

    /// The text of a key that has a plain value.
    pub(super) fn text(&self, key: &'static str) -> Option<&str> {
        match &self.values.get(&(key, Vec::new()))?.raw {
            Raw::Bare(text) | Raw::Quoted(text) => Some(text),
            Raw::Secret(text) => Some(text.expose()),
            Raw::Number(_) | Raw::Real(_) | Raw::Flag(_) | Raw::List(_) | Raw::Table(_) => None,
        }
    }
}

/// What a dotted name stands for.
enum Meaning {
    /// A key, or a member of a table-valued key.
    Key(&'static Key, Vec<String>),
    /// The `_file` variant of a secret.
    FileOf(&'static Key),
    /// What other keys begin with.
    Section,
    /// Nothing.
    Unknown,
}

fn meaning_of(path: &[String]) -> Meaning {
    let name = path.join(".");
    for key in keys() {
        if key.name == name {
            return Meaning::Key(key, Vec::new());
        }
        if key.file_name().is_some_and(|file| file == name) {
            return Meaning::FileOf(key);
        }
        if let Shape::Map(_) = key.shape {
            let depth = key.name.split('.').count();
            if path.len() > depth && path[..depth].join(".") == key.name {
                return Meaning::Key(key, path[depth..].to_vec());
            }
        }
    }
    let section = format!("{name}.");
    if keys().any(|key| key.name.starts_with(&section)) {
        Meaning::Section
    } else {
        Meaning::Unknown
    }
}

/// Gathers entries and problems, layer by layer; a later one overrides.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// The values so far.
    pub(super) entries: Entries,
    /// What was wrong so far.
    pub(super) problems: Vec<Problem>,
    /// Secrets of the present layer that have a value, to notice a key set twice.
    layer: Vec<&'static str>,
}

impl Collector {
    /// Reads the configuration file.
    pub(super) fn file(&mut self, path: &Path) {
        self.layer.clear();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let text = format!("can't be read: {error}");
                let source = Source::WholeFile(path.to_owned());
                return self.problems.push(Problem::new(source, "", text));
            }
        };
        let lines = Lines { path, text: &text };
        let (document, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let source = error.span().map_or_else(
                || Source::WholeFile(path.to_owned()),
                |span| lines.source(span.start),
            );
            self.problems.push(Problem::new(source, "", format!("no TOML: {}", error.message())));
        }
        self.table(&lines, &mut Vec::new(), document.get_ref());
    }

    fn table(&mut self, lines: &Lines<'_>, path: &mut Vec<String>, table: &DeTable<'_>) {
        for (name, value) in table {
            path.push(name.get_ref().to_string());
            let source = lines.source(name.span().start);
            match (meaning_of(path), value.get_ref()) {
                (Meaning::Section, DeValue::Table(members)) => self.table(lines, path, members),
                (Meaning::Section, _) => self.complain(source, path, "is a section, not a value"),
                (Meaning::Unknown, _) => self.unknown(source, path),
                (Meaning::Key(key, sub), DeValue::Table(members))
                    if holds_members(key, &sub) && (sub.is_empty() || !members.is_empty()) =>
                {
                    self.table(lines, path, members);
                }
                (Meaning::Key(key, sub), value) => match Raw::from_toml(value) {
                    Ok(raw) => self.put(key, sub, raw, source),
                    Err(text) => self.complain(source, path, &text),
                },
                (Meaning::FileOf(key), DeValue::String(file)) => {
                    self.secret_file(key, file, source);
                }
                (Meaning::FileOf(_), _) => self.complain(source, path, "is a path, in quotes"),
            }
            path.pop();
        }
    }

    /// Reads the environment.
    pub(super) fn environment(&mut self, surroundings: &Surroundings) {
        self.layer.clear();
        for name in &surroundings.unreadable {
            let source = Source::Environment(name.clone());
            self.problems.push(Problem::new(source, "", "is not UTF-8"));
        }
        for name in surroundings.variables.keys() {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let Some(value) = surroundings.variable(name) else {
                continue;
            };
            if !OTHER_VARIABLES.contains(&name.as_str()) && !is_service_link(name) {
                self.variable(name, rest, value);
            }
        }
    }

    fn variable(&mut self, name: &str, rest: &str, value: &str) {
        let source = Source::Environment(name.to_owned());
        let path: Vec<_> = rest.to_ascii_lowercase().split("__").map(str::to_owned).collect();
        match meaning_of(&path) {
            Meaning::Key(key, sub) if holds_members(key, &sub) => {
                self.notation(key, &sub, value, &source);
            }
            Meaning::Key(key, sub) => self.put(key, sub, Raw::Bare(value.to_owned()), source),
            Meaning::FileOf(key) => self.secret_file(key, value, source),
            Meaning::Section | Meaning::Unknown => {
                let known: Vec<_> = names().map(|name| variable_of(&name)).collect();
                let hint = hint(nearest(name, known.iter().map(String::as_str)));
                let text = format!("names no key of the configuration{hint}");
                self.problems.push(Problem::new(source, "", text));
            }
        }
    }

    /// Takes a table-valued key from text in TOML's notation.
    pub(super) fn notation(
        &mut self,
        key: &'static Key,
        sub: &[String],
        text: &str,
        source: &Source,
    ) {
        match Raw::from_notation(text) {
            Ok(Raw::Table(members)) => self.members(key, sub.to_vec(), members, source),
            Ok(_) | Err(_) => {
                let text = format!("is a table such as `{}`", key.example);
                self.problems.push(Problem::new(source.clone(), dotted(key.name, sub), text));
            }
        }
    }

    fn members(
        &mut self,
        key: &'static Key,
        sub: Vec<String>,
        members: BTreeMap<String, Raw>,
        source: &Source,
    ) {
        if members.is_empty() && !sub.is_empty() {
            return self.put(key, sub, Raw::Table(members), source.clone());
        }
        for (name, raw) in members {
            let mut sub = sub.clone();
            sub.push(name);
            match raw {
                Raw::Table(members) if holds_members(key, &sub) => {
                    self.members(key, sub, members, source);
                }
                raw => self.put(key, sub, raw, source.clone()),
            }
        }
    }

    /// Sets a key.
    pub(super) fn put(&mut self, key: &'static Key, sub: Vec<String>, raw: Raw, source: Source) {
        let raw = match (key.shape.is_secret(), raw) {
            (true, Raw::Bare(text) | Raw::Quoted(text)) => {
                if key.shape == Shape::Secret && is_path(&text) {
                    let text =
                        format!("is a path; the key that names a file is `{}_file`", key.name);
                    return self.problems.push(Problem::new(source, key.name, text));
                }
                Raw::Secret(Secret::new(text))
            }
            (true, raw) => {
                let text = format!("is {}, in quotes, not {}", key.shape.words(), raw.kind());
                let problem = Problem::new(source, dotted(key.name, &sub), text);
                return self.problems.push(problem);
            }
            (false, raw) => raw,
        };
        self.take(key, sub, Entry { raw, source, file: None });
    }

    /// Sets a secret from a file.
    pub(super) fn secret_file(&mut self, key: &'static Key, path: &str, source: Source) {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                if text.is_empty() {
                    let text = format!("names the file {path}, which is empty");
                    let name = format!("{}_file", key.name);
                    return self.problems.push(Problem::new(source, name, text));
                }
                let raw = Raw::Secret(Secret::new(text.to_owned()));
                self.take(key, Vec::new(), Entry { raw, source, file: Some(path.into()) });
            }
            Err(error) => {
                let text = format!("names the file {path}, which can't be read: {error}");
                self.problems.push(Problem::new(source, format!("{}_file", key.name), text));
            }
        }
    }

    /// Takes secrets that nobody set from systemd's directory of credentials.
    pub(super) fn credentials(&mut self, surroundings: &Surroundings) {
        self.layer.clear();
        let Some(directory) = surroundings.variable("CREDENTIALS_DIRECTORY") else {
            return;
        };
        for key in keys().filter(|key| key.shape.is_secret()) {
            let path = Path::new(directory).join(key.name);
            if !self.entries.is_set(key.name) && path.is_file() {
                let source = Source::Credential(path.clone());
                self.secret_file(key, &path.to_string_lossy(), source);
            }
        }
    }

    fn take(&mut self, key: &'static Key, sub: Vec<String>, entry: Entry) {
        if key.shape.is_secret() {
            if self.layer.contains(&key.name) {
                let text = format!("is given twice: keep it or `{}_file`", key.name);
                return self.problems.push(Problem::new(entry.source, key.name, text));
            }
            self.layer.push(key.name);
        }
        self.entries.values.insert((key.name, sub), entry);
    }

    /// Gives a key its default, members one by one, where nothing is set.
    pub(super) fn preset(&mut self, key: &'static Key, text: &str) {
        self.layer.clear();
        match key.shape {
            Shape::Map(_) => {
                let set = std::mem::take(&mut self.entries.values);
                self.notation(key, &[], text, &Source::Default);
                self.entries.values.extend(set);
            }
            Shape::Text
            | Shape::Choice(_)
            | Shape::Flag
            | Shape::Number
            | Shape::Duration
            | Shape::Size
            | Shape::Quota
            | Shape::Path
            | Shape::Secret
            | Shape::Url
            | Shape::List => {
                self.entries.defaults.insert(key.name, text.to_owned());
                if !self.entries.is_set(key.name) {
                    self.put(key, Vec::new(), Raw::Bare(text.to_owned()), Source::Default);
                }
            }
        }
    }

    /// Sets a key over whatever was set before.
    pub(super) fn override_with(&mut self, key: &'static Key, raw: Raw, source: Source) {
        self.layer.clear();
        self.put(key, Vec::new(), raw, source);
    }

    /// Gives every key with a constant default that default.
    pub(super) fn presets(&mut self) {
        for key in keys() {
            match key.preset {
                Preset::Value(text) => self.preset(key, text),
                Preset::Unset | Preset::Derived(_) => {}
            }
        }
    }

    fn complain(&mut self, source: Source, path: &[String], text: &str) {
        self.problems.push(Problem::new(source, path.join("."), text));
    }

    fn unknown(&mut self, source: Source, path: &[String]) {
        let name = path.join(".");
        let known: Vec<_> = names().collect();
        let hint = hint(nearest(&name, known.iter().map(String::as_str)));
        self.problems.push(Problem::new(source, name, format!("is no key{hint}")));
    }
}

/// Reads typed values and notes what is wrong with them.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    /// The values.
    pub(super) entries: &'a Entries,
    /// What was wrong so far.
    pub(super) problems: Vec<Problem>,
}

impl Reader<'_> {
    /// Reads a key. With a problem noted, the default stands in, so that the rest is judged too.
    pub(super) fn read<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let found: Vec<_> =
            self.entries.below(key).map(|(sub, entry)| Found { sub, raw: &entry.raw }).collect();
        match T::gather(&found) {
            Ok(value) => Some(value),
            Err(faults) => {
                for fault in faults {
                    let source = self.entries.source(key, &fault.sub);
                    let name = dotted(key, &fault.sub);
                    self.problems.push(Problem::new(source, name, fault.text));
                }
                let raw = self.entries.defaults.get(key).cloned().map(Raw::Bare);
                let found: Vec<_> = raw.iter().map(|raw| Found { sub: &[], raw }).collect();
                T::gather(&found).ok()
            }
        }
    }
}

/// Turns offsets of the file into lines.
struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Lines<'_> {
    fn source(&self, offset: usize) -> Source {
        let before = self.text.as_bytes().iter().take(offset);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        Source::File { path: self.path.to_owned(), line }
    }
}

/// Whether a table found here is a level of names rather than the value itself.
fn holds_members(key: &Key, sub: &[String]) -> bool {
    matches!(key.shape, Shape::Map(depth) if sub.len() < depth)
}

/// The name of a key, or of a member of it.
pub(super) fn dotted(key: &str, sub: &[String]) -> String {
    let mut name = key.to_owned();
    for part in sub {
        name.push('.');
        name.push_str(part);
    }
    name
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Whether text given as a secret is the path of one: people put it there by mistake.
fn is_path(text: &str) -> bool {
    let marked = ["./", "../", "~/", "file:"].iter().any(|prefix| text.starts_with(prefix));
    // A secret in base64 may begin with a slash as well, hence the look at the directory.
    let beside = || {
        Path::new(text).parent().is_some_and(|parent| parent.parent().is_some() && parent.is_dir())
    };
    marked
        || (text.starts_with('/') && (text.contains('.') || beside()))
        || (text.len() < 256 && Path::new(text).is_file())
}

/// Whether Kubernetes made the variable, for a service that is named like us.
fn is_service_link(name: &str) -> bool {
    let numbered = |rest: &str| {
        rest.is_empty()
            || rest
                .strip_prefix('_')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    !name.contains("__")
        && (name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || name.split_once("_PORT").is_some_and(|(_, rest)| numbered(rest)))
}
