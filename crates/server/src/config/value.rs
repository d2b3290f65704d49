//! Raw values as the file, the environment or a default gives them, and how a type reads them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use cloakroom_core::types::Secret;
use toml::de::{DeTable, DeValue};

/// A value before anybody knows its type.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// Text of the environment, of a flag or of a default: its type follows from the key.
    Bare(String),
    /// A string of the file.
    Quoted(String),
    /// An integer of the file.
    Number(i64),
    /// A floating-point number of the file.
    Real(f64),
    /// A boolean of the file.
    Flag(bool),
    /// An array of the file.
    List(Vec<Raw>),
    /// A table of the file, where the key is not a section.
    Table(BTreeMap<String, Raw>),
    /// What a secret key was given, out of reach of `Debug`.
    Secret(Secret<String>),
}

impl Raw {
    /// Takes over a value of a TOML document; refuses the kinds that no key has.
    pub(super) fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        Ok(match value {
            DeValue::String(text) => Self::Quoted(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Self::Number)
                .map_err(|_| "is out of range".to_owned())?,
            DeValue::Float(number) => {
                number.as_str().parse().map(Self::Real).map_err(|_| "is no number".to_owned())?
            }
            DeValue::Boolean(flag) => Self::Flag(*flag),
            DeValue::Datetime(_) => return Err("takes no date or time; quote it".to_owned()),
            DeValue::Array(items) => Self::List(
                items
                    .iter()
                    .map(|item| Self::from_toml(item.get_ref()))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => Self::Table(Self::members(table)?),
        })
    }

    fn members(table: &DeTable<'_>) -> Result<BTreeMap<String, Self>, String> {
        table
            .iter()
            .map(|(name, value)| {
                Ok((name.get_ref().to_string(), Self::from_toml(value.get_ref())?))
            })
            .collect()
    }

    /// Reads a list or a table written as text in TOML's own notation.
    pub(super) fn from_notation(text: &str) -> Result<Self, String> {
        let value = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
        Self::from_toml(value.get_ref())
    }

    /// What it is, for an error.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Bare(_) | Self::Quoted(_) | Self::Secret(_) => "text",
            Self::Number(_) => "an integer",
            Self::Real(_) => "a fraction",
            Self::Flag(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// The same as JSON; `None` for what JSON can't say (`nan`, `inf`) and for secrets.
    pub(super) fn to_json(&self) -> Option<serde_json::Value> {
        Some(match self {
            Self::Bare(text) | Self::Quoted(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Real(number) => serde_json::Number::from_f64(*number)?.into(),
            Self::Flag(flag) => (*flag).into(),
            Self::List(items) => {
                items.iter().map(Self::to_json).collect::<Option<Vec<_>>>()?.into()
            }
            Self::Table(members) => serde_json::Value::Object(
                members
                    .iter()
                    .map(|(name, raw)| Some((name.clone(), raw.to_json()?)))
                    .collect::<Option<_>>()?,
            ),
            Self::Secret(_) => return None,
        })
    }

    /// The same in TOML's notation, the way a key of `shape` is written in a file.
    pub(super) fn to_toml(&self, shape: Shape) -> String {
        match self {
            Self::Bare(text) => shape.notation_of(text),
            Self::Quoted(text) => quoted(text),
            Self::Number(number) => number.to_string(),
            Self::Real(number) => format!("{number:?}"),
            Self::Flag(flag) => flag.to_string(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| item.to_toml(Shape::Text)).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Table(members) => inline_table(members),
            Self::Secret(_) => MASK.to_owned(),
        }
    }
}

/// What stands in the place of a secret.
pub(super) const MASK: &str = "\"********\"";

fn inline_table(members: &BTreeMap<String, Raw>) -> String {
    if members.is_empty() {
        return "{}".to_owned();
    }
    let members: Vec<_> = members
        .iter()
        .map(|(name, raw)| format!("{} = {}", bare_or_quoted(name), raw.to_toml(Shape::Text)))
        .collect();
    format!("{{ {} }}", members.join(", "))
}

/// A TOML key: bare where TOML allows it.
pub(super) fn bare_or_quoted(name: &str) -> Cow<'_, str> {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.into() } else { quoted(name).into() }
}

/// A TOML basic string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The form a key's value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Any text.
    Text,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number,
    /// `"15m"`.
    Duration,
    /// `"16KiB"`.
    Size,
    /// `"100/15m"`.
    Quota,
    /// A file's path.
    Path,
    /// A secret, never shown; has a `_file` variant.
    Secret,
    /// A URL that may hold a password; has a `_file` variant.
    Url,
    /// A list of texts.
    List,
    /// A table of so many levels of names.
    Map(usize),
}

impl Shape {
    /// Whether the value is or may hold a secret, so that a `_file` variant exists.
    pub(super) const fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::Url)
    }

    /// The form in words, for an error and for the reference.
    pub(super) fn words(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Choice(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                words.join(", ")
            }
            Self::Flag => "`true` or `false`".to_owned(),
            Self::Number => "whole number".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Size => "size".to_owned(),
            Self::Quota => "count/duration".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Secret => "secret".to_owned(),
            Self::Url => "URL".to_owned(),
            Self::List => "list of texts".to_owned(),
            Self::Map(_) => "table".to_owned(),
        }
    }

    /// How text that the environment would take is written in a file.
    pub(super) fn notation_of(self, text: &str) -> String {
        match self {
            Self::Flag | Self::Number | Self::Map(_) => text.to_owned(),
            Self::List if text.trim_start().starts_with('[') => text.to_owned(),
            Self::List => {
                let items: Vec<_> = split_list(text).into_iter().map(quoted).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Secret => MASK.to_owned(),
            Self::Text
            | Self::Choice(_)
            | Self::Duration
            | Self::Size
            | Self::Quota
            | Self::Path
            | Self::Url => quoted(text),
        }
    }

    /// The text of a scalar of this form; the error says what was expected instead.
    fn scalar(self, raw: &Raw) -> Result<Cow<'_, str>, String> {
        let numeric = matches!(self, Self::Number | Self::Duration | Self::Size);
        match raw {
            Raw::Bare(text) => Ok(text.into()),
            Raw::Secret(text) => Ok(text.expose().into()),
            Raw::Quoted(text) if !matches!(self, Self::Number | Self::Flag) => Ok(text.into()),
            Raw::Number(number) if numeric => Ok(number.to_string().into()),
            Raw::Flag(flag) if matches!(self, Self::Flag) => Ok(flag.to_string().into()),
            Raw::Quoted(_) => Err(format!("is {} without quotes", self.words())),
            Raw::Number(_) | Raw::Real(_) | Raw::Flag(_) | Raw::List(_) | Raw::Table(_) => {
                Err(format!("is {}, not {}", self.words(), raw.kind()))
            }
        }
    }
}

/// The items of a comma-separated list.
fn split_list(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
}

/// One value found for a key; `sub` names the member of a table-valued key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// The names below the key; empty for the key itself.
    pub(super) sub: &'a [String],
    /// The value.
    pub(super) raw: &'a Raw,
}

/// Why a value was refused, and where below the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The names below the key.
    pub(super) sub: Vec<String>,
    /// The reason, continuing "the key …".
    pub(super) text: String,
}

impl Fault {
    /// A fault of one member.
    pub(super) fn of(found: &Found<'_>, text: impl Into<String>) -> Self {
        Self { sub: found.sub.to_vec(), text: text.into() }
    }
}

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// Its form.
    const SHAPE: Shape;

    /// Reads all that was found for the key.
    fn gather(found: &[Found<'_>]) -> Result<Self, Vec<Fault>>;
}

/// A type read from one text.
pub(super) trait FromText: Sized {
    /// Its form.
    const FORM: Shape;

    /// Reads it; the error continues "the key …".
    fn from_text(text: &str) -> Result<Self, String>;
}

impl<T: FromText> Setting for T {
    const SHAPE: Shape = T::FORM;

    fn gather(found: &[Found<'_>]) -> Result<Self, Vec<Fault>> {
        let Some(found) = found.first() else {
            return Err(vec![Fault { sub: Vec::new(), text: "needs a value".to_owned() }]);
        };
        one(found.raw).map_err(|text| vec![Fault::of(found, text)])
    }
}

impl<T: FromText> Setting for Option<T> {
    const SHAPE: Shape = T::FORM;

    fn gather(found: &[Found<'_>]) -> Result<Self, Vec<Fault>> {
        if found.is_empty() { Ok(None) } else { T::gather(found).map(Some) }
    }
}

impl<T: FromText> Setting for Vec<T> {
    const SHAPE: Shape = Shape::List;

    fn gather(found: &[Found<'_>]) -> Result<Self, Vec<Fault>> {
        let Some(found) = found.first() else {
            return Ok(Self::new());
        };
        many(found.raw)
            .map_err(|texts| texts.into_iter().map(|text| Fault::of(found, text)).collect())
    }
}

/// Reads one value.
pub(super) fn one<T: FromText>(raw: &Raw) -> Result<T, String> {
    T::from_text(&T::FORM.scalar(raw)?)
}

/// Reads a list; a single text of the file counts as a list of one.
pub(super) fn many<T: FromText>(raw: &Raw) -> Result<Vec<T>, Vec<String>> {
    let read: Vec<Result<T, String>> = match raw {
        Raw::Bare(text) if text.trim_start().starts_with('[') => {
            return many(&Raw::from_notation(text).map_err(|why| vec![why])?);
        }
        Raw::Bare(text) => split_list(text).into_iter().map(T::from_text).collect(),
        Raw::Quoted(text) => vec![T::from_text(text)],
        Raw::List(items) => items.iter().map(one).collect(),
        Raw::Number(_) | Raw::Real(_) | Raw::Flag(_) | Raw::Table(_) | Raw::Secret(_) => {
            vec![Err(format!("is a list such as [\"a\", \"b\"], not {}", raw.kind()))]
        }
    };
    let (items, faults): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
    if faults.is_empty() {
        Ok(items.into_iter().filter_map(Result::ok).collect())
    } else {
        Err(faults.into_iter().filter_map(Result::err).collect())
    }
}
