//! `cloakroom events`: the audit log.

mod export;
mod follow;
mod verify;
mod walk;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use cloakroom_core::event::EventKind;
use serde_json::{Value, json};

use super::client::{KeyWanted, Reach, encoded};
use super::failure::Failure;
use super::output::{Style, Table, cell, print_json};

/// The arguments of `cloakroom events`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom events tail --follow
  cloakroom events export --out events.jsonl
  cloakroom events verify --against events.jsonl")]
pub struct EventsArgs {
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Show the latest events, the newest last
    #[command(after_help = "\
Examples:
  cloakroom events tail
  cloakroom events tail --follow --type signin.failed
  cloakroom events tail --sid 01J9ZQ6M5T4W8Y2K3N7P0R1S2V -n 100")]
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
        /// Go on with what happens from now on, one event a line, until interrupted
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        reach: Reach,
    },
    /// Write events as JSON Lines, the oldest first
    #[command(after_help = "\
Examples:
  cloakroom events export --out events.jsonl
  cloakroom events export --after CURSOR >> events.jsonl
  cloakroom events export --type session.ended | jq -r .reason | sort | uniq -c")]
    Export {
        /// Write here instead of standard output; an existing file is refused
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Go on after this cursor, which an earlier export named
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        reach: Reach,
    },
    /// Check the order of the log, and compare it with an export
    #[command(after_help = "\
Examples:
  cloakroom events verify
  cloakroom events verify --against events.jsonl
  cloakroom events verify --against events.jsonl --json")]
    Verify {
        /// An export that was kept elsewhere: the log must still say what it said then
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        #[command(flatten)]
        reach: Reach,
    },
}

/// Which events.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Filter {
    /// Only of this type, such as session.ended
    #[arg(long = "type", value_name = "TYPE", value_parser = known_type)]
    kind: Option<String>,
    /// Only about this subject
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only about this session
    #[arg(long, value_name = "SID")]
    sid: Option<String>,
}

/// A type of event that there is; else all that there are.
fn known_type(text: &str) -> Result<String, String> {
    match EventKind::parse(text) {
        Some(kind) => Ok(kind.as_str().to_owned()),
        None => {
            let names: Vec<&str> = EventKind::NAMES.iter().map(|(_, name)| *name).collect();
            Err(format!("no event has this type; there are {}", names.join(", ")))
        }
    }
}

impl Filter {
    /// What it adds to a query.
    fn query(&self) -> String {
        let mut query = String::new();
        for (name, value) in [("type", &self.kind), ("subject", &self.subject), ("sid", &self.sid)]
        {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        query
    }

    /// Whether an event is one of them: a stream tells all there are.
    fn takes(&self, event: &Value) -> bool {
        [("type", &self.kind), ("subject", &self.subject), ("sid", &self.sid)]
            .iter()
            .all(|(name, wanted)| wanted.is_none() || event[name].as_str() == wanted.as_deref())
    }
}

/// Runs a command.
///
/// # Errors
///
/// Why it didn't succeed.
pub fn run(
    args: &EventsArgs,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    match &args.command {
        EventsCommand::Tail { limit, follow, filter, reach } => {
            let client = reach.client(KeyWanted::Yes)?;
            if *follow {
                return follow::run(client, filter, *limit, style, out, err);
            }
            let path = format!("/admin/v1/events?order=desc&limit={limit}{}", filter.query());
            let answer = client.get(&path)?;
            let mut events = answer["events"].as_array().cloned().unwrap_or_default();
            events.reverse();
            show(&events, style, out)
        }
        EventsCommand::Export { out: file, after, filter, reach } => {
            let client = reach.client(KeyWanted::Yes)?;
            export::run(&client, filter, after.as_deref(), file.as_deref(), out, err)
        }
        EventsCommand::Verify { against, reach } => {
            let client = reach.client(KeyWanted::Yes)?;
            verify::run(&client, against.as_deref(), style, out)
        }
    }
}

fn show(events: &[Value], style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    if style.json {
        return Ok(print_json(&json!({"events": events}), out)?);
    }
    let mut table = Table::new(&["TIME", "TYPE", "SUBJECT", "SESSION", "ACTOR", "FROM", "REASON"]);
    for event in events {
        table.row(cells(event));
    }
    Ok(table.print(style, out)?)
}

/// What a person wants to see of an event.
fn cells(event: &Value) -> Vec<String> {
    let actor = &event["actor"];
    let actor = match actor["id"].as_str() {
        Some(id) => format!("{} {id}", cell(actor.get("type"))),
        None => cell(actor.get("type")),
    };
    vec![
        cell(event.get("time")),
        cell(event.get("type")),
        cell(event.get("subject")),
        cell(event.get("sid")),
        actor,
        cell(event["client"].get("ip")),
        cell(event.get("reason")),
    ]
}
