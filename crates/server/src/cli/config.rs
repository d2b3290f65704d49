//! `cloakroom config`: write, check, show and explain the configuration.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::{
    Flags, Loaded, Problem, Shown, Surroundings, commented_file, reference, schema,
};

/// The arguments of `cloakroom config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

/// What `cloakroom config` can do.
#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Write a file with every key commented out at its default
    Init {
        /// Where to write it; `-`: standard output
        #[arg(default_value = "cloakroom.toml")]
        path: PathBuf,
    },
    /// Say everything that is wrong with the configuration, each with its line
    Check,
    /// Print the effective configuration and where each value comes from, secrets masked
    Show,
    /// Print every key with its default and meaning, as Markdown
    Reference,
    /// Print the JSON Schema of the configuration file
    Schema,
}

/// How a command of this file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: exit code 0.
    Done,
    /// Failed: exit code 1.
    Failed,
    /// The configuration is wrong: exit code 2.
    Wrong,
}

impl Outcome {
    /// The exit code of the process.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Wrong => 2,
        }
    }
}

/// Runs a command; data goes to `out`, talk to `err`. `as_json` is the global `--json`.
///
/// # Errors
///
/// An error of writing to `out` or `err`.
pub fn run(
    args: &ConfigArgs,
    flags: &Flags,
    surroundings: &Surroundings,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Outcome> {
    match &args.command {
        ConfigCommand::Init { path } => init(path, out, err),
        ConfigCommand::Check => check(&Loaded::read(flags, surroundings), as_json, out, err),
        ConfigCommand::Show => show(&Loaded::read(flags, surroundings), as_json, out, err),
        ConfigCommand::Reference => {
            out.write_all(reference().as_bytes())?;
            Ok(Outcome::Done)
        }
        ConfigCommand::Schema => {
            writeln!(out, "{:#}", schema())?;
            Ok(Outcome::Done)
        }
    }
}

fn init(path: &PathBuf, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Outcome> {
    if path.as_os_str() == "-" {
        out.write_all(commented_file().as_bytes())?;
        return Ok(Outcome::Done);
    }
    // Never over a file that is there: it may be the only copy of somebody's settings.
    let written = std::fs::File::create_new(path)
        .and_then(|mut file| file.write_all(commented_file().as_bytes()));
    match written {
        Ok(()) => {
            writeln!(
                err,
                "wrote {}; next: cloakroom config check",
                path.display()
            )?;
            Ok(Outcome::Done)
        }
        Err(error) => {
            writeln!(err, "{}: {error}", path.display())?;
            Ok(Outcome::Failed)
        }
    }
}

fn check(
    loaded: &Loaded,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Outcome> {
    let problems = problems_of(loaded);
    let outcome = if problems.is_empty() {
        Outcome::Done
    } else {
        Outcome::Wrong
    };
    let file = loaded.file.as_ref().map(|path| path.display().to_string());
    if as_json {
        let list =
            |problems: &[Problem]| -> Vec<_> { problems.iter().map(Problem::to_json).collect() };
        let answer = json!({
            "file": file,
            "ok": outcome == Outcome::Done,
            "problems": list(problems),
            "warnings": list(&loaded.warnings),
        });
        writeln!(out, "{answer:#}")?;
        return Ok(outcome);
    }
    tell(loaded, err)?;
    if outcome == Outcome::Done {
        let file = file.unwrap_or_else(|| "no configuration file".to_owned());
        writeln!(out, "{file}: ok{}", count(loaded.warnings.len(), "warning"))?;
    }
    Ok(outcome)
}

fn show(
    loaded: &Loaded,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Outcome> {
    let shown = loaded.show();
    if as_json {
        let values: Vec<_> = shown.iter().map(Shown::to_json).collect();
        let file = loaded.file.as_ref().map(|path| path.to_string_lossy());
        writeln!(out, "{:#}", json!({"file": file, "values": values}))?;
    } else {
        for line in &shown {
            writeln!(out, "{}", in_one_line(line))?;
        }
    }
    tell(loaded, err)?;
    Ok(if problems_of(loaded).is_empty() {
        Outcome::Done
    } else {
        Outcome::Wrong
    })
}

fn in_one_line(shown: &Shown) -> String {
    let from = match &shown.file {
        Some(file) => format!("{}, read from {}", shown.source, file.display()),
        None => shown.source.to_string(),
    };
    match &shown.value {
        Some(value) => format!("{} = {value}  # {from}", shown.key),
        None => format!("# {} is unset", shown.key),
    }
}

fn problems_of(loaded: &Loaded) -> &[Problem] {
    match &loaded.outcome {
        Ok(_) => &[],
        Err(problems) => &problems.0,
    }
}

/// Says what is wrong and what deserves a look; also for `serve`, before it goes on or gives up.
///
/// # Errors
///
/// An error of writing to `err`.
pub fn tell(loaded: &Loaded, err: &mut dyn Write) -> io::Result<()> {
    for problem in problems_of(loaded) {
        writeln!(err, "error: {problem}")?;
    }
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    Ok(())
}

fn count(number: usize, noun: &str) -> String {
    match number {
        0 => String::new(),
        1 => format!(", 1 {noun}"),
        number => format!(", {number} {noun}s"),
    }
}
