//! `cloakroom config`: write, check, show and explain the configuration.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::{
    Flags, Loaded, Problem, Shown, Surroundings, commented_file, reference, reference_json, schema,
};
use crate::serve::tls;

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
        /// Where to write it, `-` for standard output; default: --config, else ./cloakroom.toml
        path: Option<PathBuf>,
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
        ConfigCommand::Init { path } => {
            let named = path.as_deref().or(flags.config.as_deref());
            init(named.unwrap_or(Path::new("cloakroom.toml")), out, err)
        }
        ConfigCommand::Check => check(&Loaded::for_command(flags, surroundings), as_json, out, err),
        ConfigCommand::Show => show(&Loaded::for_command(flags, surroundings), as_json, out, err),
        ConfigCommand::Reference if as_json => {
            writeln!(out, "{:#}", reference_json())?;
            Ok(Outcome::Done)
        }
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

fn init(path: &Path, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Outcome> {
    if path.as_os_str() == "-" {
        out.write_all(commented_file().as_bytes())?;
        return Ok(Outcome::Done);
    }
    // Never over a file that is there: it may be the only copy of somebody's settings.
    let written = std::fs::File::create_new(path)
        .and_then(|mut file| file.write_all(commented_file().as_bytes()));
    match written {
        Ok(()) => {
            writeln!(err, "wrote {}; next: cloakroom config check", path.display())?;
            Ok(Outcome::Done)
        }
        Err(error) => {
            let advice = match error.kind() {
                io::ErrorKind::AlreadyExists => "is there already; name another file, or `-`",
                io::ErrorKind::NotFound => "can't be made: there is no such directory",
                _ => "",
            };
            match advice {
                "" => writeln!(err, "error: {}: {error}", path.display())?,
                advice => writeln!(err, "error: {} {advice}", path.display())?,
            }
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
    let certificates = certificates(loaded);
    let problems = [problems_of(loaded), &certificates].concat();
    let outcome = if problems.is_empty() { Outcome::Done } else { Outcome::Wrong };
    let file = loaded.file.as_ref().map(|path| path.display().to_string());
    if as_json {
        let list =
            |problems: &[Problem]| -> Vec<_> { problems.iter().map(Problem::to_json).collect() };
        let answer = json!({
            "file": file,
            "ok": outcome == Outcome::Done,
            "problems": list(&problems),
            "warnings": list(&loaded.warnings),
        });
        writeln!(out, "{answer:#}")?;
        return Ok(outcome);
    }
    tell(loaded, err)?;
    for problem in &certificates {
        writeln!(err, "error: {problem}")?;
    }
    if outcome == Outcome::Done {
        let file = file.unwrap_or_else(|| "no configuration file".to_owned());
        writeln!(out, "{file}: ok{}", count(loaded.warnings.len(), "warning"))?;
    }
    Ok(outcome)
}

/// Certificates and keys that a start would stop at. Only whoever may read them can tell.
fn certificates(loaded: &Loaded) -> Vec<Problem> {
    let Ok(config) = &loaded.outcome else { return Vec::new() };
    let faults = tls::faults(config).into_iter();
    let problem = |(key, why): (&'static str, String)| Problem {
        source: loaded.source_of(key),
        key: key.to_owned(),
        text: format!("can't be used: {why}"),
    };
    faults.map(problem).collect()
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
    Ok(if problems_of(loaded).is_empty() { Outcome::Done } else { Outcome::Wrong })
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tempfile::TempDir;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: ConfigArgs,
    }

    /// Runs a command line on a file with this text; outcome, standard output, standard error.
    fn run_on(text: &str, arguments: &[&str], as_json: bool) -> (Outcome, String, String) {
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().join("cloakroom.toml");
        std::fs::write(&path, text).expect("a writable directory");
        let flags = Flags { config: Some(path), data: None };
        let surroundings = Surroundings::bare();
        let program = Program::parse_from([&["config"], arguments].concat());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = run(&program.args, &flags, &surroundings, as_json, &mut out, &mut err)
            .expect("a vector takes everything");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (outcome, text(out), text(err))
    }

    #[test]
    fn a_good_file_is_ok_and_a_warning_does_not_change_that() {
        let (outcome, out, err) = run_on("password.min_length = 8\n", &["check"], false);
        assert_eq!((outcome, outcome.code()), (Outcome::Done, 0));
        assert!(out.ends_with("cloakroom.toml: ok, 1 warning\n"), "{out}");
        assert!(err.starts_with("warning: ") && err.contains(":1: `password.min_length`"), "{err}");
    }

    #[test]
    fn a_bad_file_exits_with_2_and_names_every_line() {
        let text = "store.timeout = \"0\"\nrefresh.grace = \"x\"\n";
        let (outcome, out, err) = run_on(text, &["check"], false);
        assert_eq!((outcome, outcome.code(), out.as_str()), (Outcome::Wrong, 2, ""));
        assert!(
            err.contains(":1: `store.timeout`") && err.contains(":2: `refresh.grace`"),
            "{err}"
        );

        let (outcome, out, err) = run_on(text, &["check"], true);
        assert_eq!((outcome, err.as_str()), (Outcome::Wrong, ""));
        let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(answer["ok"], false);
        assert_eq!(answer["problems"][1]["key"], "refresh.grace");
        assert_eq!(answer["problems"][1]["source"]["line"], 2);
        assert_eq!(run_on(text, &["show"], false).0, Outcome::Wrong);
    }

    #[test]
    fn show_names_each_value_and_its_source() {
        let (outcome, out, _) = run_on("refresh.grace = \"7s\"\n", &["show"], false);
        assert_eq!(outcome, Outcome::Done);
        let grace = out.lines().find(|line| line.starts_with("refresh.grace")).expect("a line");
        assert!(grace.starts_with("refresh.grace = \"7s\"  # "), "{grace}");
        assert!(grace.ends_with("cloakroom.toml:1"), "{grace}");
        assert!(out.contains("refresh.ttl = \"7d\"  # default\n"), "{out}");
        assert!(out.contains("# master_key is unset\n"), "{out}");
        let (_, out, _) = run_on("", &["show"], true);
        let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert!(answer["values"].as_array().is_some_and(|values| values.len() > 70));
    }

    #[test]
    fn init_never_writes_over_a_file() {
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().join("new.toml");
        let path = path.to_str().expect("UTF-8");
        assert_eq!(run_on("", &["init", path], false).0, Outcome::Done);
        assert_eq!(std::fs::read_to_string(path).expect("written"), commented_file());
        let (outcome, _, err) = run_on("", &["init", path], false);
        assert_eq!((outcome, outcome.code()), (Outcome::Failed, 1));
        assert!(err.contains("new.toml"), "{err}");
        assert_eq!(run_on("", &["init", "-"], false).1, commented_file());
        // The file that --config names, which is there.
        let (outcome, _, err) = run_on("", &["init"], false);
        assert!(
            outcome == Outcome::Failed && err.contains("/cloakroom.toml is there already"),
            "{err}"
        );
    }

    #[test]
    fn reference_and_schema_are_printed_whole() {
        assert_eq!(run_on("", &["reference"], false).1, reference());
        for (command, as_json) in [("schema", false), ("reference", true)] {
            let printed = run_on("", &[command], as_json).1;
            assert!(serde_json::from_str::<serde_json::Value>(&printed).is_ok(), "{command}");
        }
    }
}
