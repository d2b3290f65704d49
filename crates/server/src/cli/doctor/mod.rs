//! `cloakroom doctor`: looks at everything around an authority that can be wrong, and says how to
//! mend it.

mod certificates;
mod judge;

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::{Client, KeyWanted, Place, Reach, public_answer};
use super::failure::Failure;
use super::output::{Style, Table, print_json};
use crate::config::{Config, Listener, Loaded, Surroundings};
use crate::node_files;
use crate::serve::tls;

/// The arguments of `cloakroom doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom doctor
  cloakroom doctor --config /etc/cloakroom/cloakroom.toml
  cloakroom doctor --json | jq '.findings[] | select(.state != \"ok\")'")]
pub struct DoctorArgs {
    #[command(flatten)]
    reach: Reach,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    about: &'static str,
    state: State,
    says: String,
    /// What to do about it.
    mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As it should be.
    Ok,
    /// It works, and may not be what was meant.
    Look,
    /// It doesn't work, or isn't safe.
    Wrong,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Look => "look",
            Self::Wrong => "wrong",
        }
    }
}

impl Finding {
    fn ok(about: &'static str, says: impl Into<String>) -> Self {
        Self { about, state: State::Ok, says: says.into(), mend: None }
    }

    fn look(about: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { about, state: State::Look, says: says.into(), mend: Some(mend.into()) }
    }

    fn wrong(about: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { about, state: State::Wrong, says: says.into(), mend: Some(mend.into()) }
    }
}

/// Runs the command.
///
/// # Errors
///
/// [`Failure::Silent`] with 1 where something is wrong; an error of writing.
pub fn run(args: &DoctorArgs, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let loaded = Loaded::for_command(&args.reach.place().flags(), &Surroundings::of_process());
    let mut findings = configuration(&loaded, args.reach.place());
    if let Ok(config) = &loaded.outcome {
        findings.extend(files(config));
        findings.extend(certificates(config));
        findings.extend(provided_keys(&loaded));
        findings.extend(judge::proxies(config));
    }
    findings.extend(authority(&args.reach));
    if let Ok(config) = &loaded.outcome {
        findings.extend(cookies(config));
    }
    print(&findings, style, out)?;
    match findings.iter().any(|finding| finding.state == State::Wrong) {
        true => Err(Failure::Silent(1)),
        false => Ok(()),
    }
}

fn print(findings: &[Finding], style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    if style.json {
        let list: Vec<Value> = findings.iter().map(to_json).collect();
        return Ok(print_json(&json!({"findings": list}), out)?);
    }
    let mut table = Table::new(&["ABOUT", "STATE", "FOUND"]);
    for finding in findings {
        let state = finding.state.name().to_owned();
        table.row(vec![finding.about.to_owned(), state, finding.says.clone()]);
        if let Some(mend) = &finding.mend {
            table.row(vec![String::new(), String::new(), format!("  → {mend}")]);
        }
    }
    Ok(table.print(style, out)?)
}

fn to_json(finding: &Finding) -> Value {
    let Finding { about, state, says, mend } = finding;
    json!({"about": about, "state": state.name(), "says": says, "mend": mend})
}

fn configuration(loaded: &Loaded, place: &Place) -> Vec<Finding> {
    const ABOUT: &str = "configuration";
    let file = match loaded.file.clone().or(place.flags().config) {
        Some(file) => file.display().to_string(),
        None => "no file: defaults and environment".to_owned(),
    };
    let mut findings = Vec::new();
    match &loaded.outcome {
        Ok(_) => findings.push(Finding::ok(ABOUT, file)),
        Err(problems) => findings.extend(problems.0.iter().map(|problem| {
            Finding::wrong(ABOUT, problem.to_string(), "the authority would not start with it")
        })),
    }
    let warning = |problem: &crate::config::Problem| {
        Finding::look(ABOUT, problem.to_string(), "see `cloakroom config reference`")
    };
    findings.extend(loaded.warnings.iter().map(warning));
    findings
}

/// The files of this node's own directory.
fn files(config: &Config) -> Vec<Finding> {
    const ABOUT: &str = "key files";
    if !config.data_dir.exists() {
        let says = format!("{} is not there yet", config.data_dir.display());
        return vec![Finding::look(ABOUT, says, "`cloakroom serve` makes it at its first start")];
    }
    let root = match node_files::root_key(config) {
        Ok(Some(_)) => {
            let file = config.root_api_key_file.display();
            Finding::ok(ABOUT, format!("{file} is there, its owner's alone"))
        }
        Ok(None) => Finding::look(
            ABOUT,
            format!("{} is not there", config.root_api_key_file.display()),
            "`cloakroom serve` makes it at its next start",
        ),
        Err(error) => Finding::wrong(ABOUT, error.to_string(), "the authority would not start"),
    };
    vec![root]
}

/// Certificates of the listeners and of the way to the store.
fn certificates(config: &Config) -> Vec<Finding> {
    let certificate = |(key, why): (&str, String)| {
        let mend = "name a PEM file with the chain, and the key that belongs to it";
        Finding::wrong("certificates", format!("`{key}` can't be used: {why}"), mend)
    };
    let mut findings: Vec<_> = tls::faults(config).into_iter().map(certificate).collect();
    findings.extend(certificates::findings(config));
    findings
}

/// Files that the operator keeps secrets in; a secret store may need others to read them.
fn provided_keys(loaded: &Loaded) -> Vec<Finding> {
    let shown = loaded.show();
    let files = shown.iter().filter_map(|shown| Some((&shown.key, shown.file.as_ref()?)));
    let open = files.filter_map(|(key, file)| {
        let mode = node_files::mode(file)?;
        (mode & 0o077 != 0).then(|| {
            let file = file.display();
            let says = format!("{file} ({key}_file) can be read by others (mode {mode:03o})");
            Finding::look("key files", says, format!("chmod 600 {file}"))
        })
    });
    open.collect()
}

/// What a running authority says of itself.
fn authority(reach: &Reach) -> Vec<Finding> {
    const ABOUT: &str = "authority";
    let start = "start it with `cloakroom serve`, or name it by --admin-url";
    let client = match reach.client(KeyWanted::No) {
        Ok(client) => client,
        Err(failure) => return vec![Finding::wrong(ABOUT, failure.to_string(), start)],
    };
    let ready = match client.send(Method::GET, "/readyz", None) {
        Ok(answer) => answer,
        Err(failure) => return vec![Finding::wrong(ABOUT, failure.to_string(), start)],
    };
    if ready.status != 200 {
        let mend = "see docs/operate/outages.md; its log names the cause";
        let found = Finding::wrong(ABOUT, format!("not ready: {}", ready.explanation()), mend);
        return std::iter::once(found).chain(judge::clock(&ready.body)).collect();
    }
    let mut findings = vec![Finding::ok(ABOUT, "ready")];
    findings.extend(judge::store(&ready.body));
    findings.extend(keys(reach));
    findings
}

fn keys(reach: &Reach) -> Vec<Finding> {
    const ABOUT: &str = "signing keys";
    let listed =
        reach.client(KeyWanted::Yes).and_then(|client: Client| client.get("/admin/v1/keys"));
    match listed {
        Ok(answer) => judge::keys(&answer["keys"]),
        Err(failure) => {
            let mend = "give an API key with the scope `keys` by --api-key-file";
            vec![Finding::look(ABOUT, format!("not looked at: {failure}"), mend)]
        }
    }
}

/// The cookie lines that the public listener really sends, as a browser would take them.
fn cookies(config: &Config) -> Vec<Finding> {
    const ABOUT: &str = "cookies";
    let path = format!("{}/csrf-token", config.server.base_path.as_str());
    match public_answer(config, &path) {
        Ok(lines) if lines.is_empty() => {
            vec![Finding::look(ABOUT, "none was set for a visitor", "is it another authority?")]
        }
        Ok(lines) => lines.iter().flat_map(|line| judge::cookie(line, config)).collect(),
        Err(why) => {
            let mend = match config.server.public {
                Listener::Unix(_) => "look at the answers of the proxy in front of it",
                Listener::Tcp(_) => "run this on a machine that reaches the public listener",
            };
            vec![Finding::look(ABOUT, format!("not looked at: {why}"), mend)]
        }
    }
}
