//! `cloakroom events`: the audit log.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::{KeyWanted, Reach, encoded};
use super::failure::Failure;
use super::output::{Style, Table, cell, print_json};

/// The arguments of `cloakroom events`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom events tail
  cloakroom events tail --type session.ended -n 50
  cloakroom events tail --json | jq -r '.events[].type'")]
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
  cloakroom events tail --type signin.failed -n 100
  cloakroom events tail --sid 01J9ZQ6M5T4W8Y2K3N7P0R1S2V")]
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
        /// Only of this type, such as session.ended
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// Only about this subject
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
        /// Only about this session
        #[arg(long, value_name = "SID")]
        sid: Option<String>,
        #[command(flatten)]
        reach: Reach,
    },
}

/// Runs a command.
///
/// # Errors
///
/// Why it didn't succeed.
pub fn run(args: &EventsArgs, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let EventsCommand::Tail { limit, kind, subject, sid, reach } = &args.command;
    let mut path = format!("/admin/v1/events?order=desc&limit={limit}");
    for (name, value) in [("type", kind), ("subject", subject), ("sid", sid)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encoded(value)));
        }
    }
    let answer = reach.client(KeyWanted::Yes)?.get(&path)?;
    let mut events = answer["events"].as_array().cloned().unwrap_or_default();
    events.reverse();
    if style.json {
        return Ok(print_json(&json!({"events": events}), out)?);
    }
    let mut table = Table::new(&["TIME", "TYPE", "SUBJECT", "SESSION", "ACTOR", "FROM", "REASON"]);
    for event in &events {
        let actor = &event["actor"];
        let actor = match actor["id"].as_str() {
            Some(id) => format!("{} {id}", cell(actor.get("type"))),
            None => cell(actor.get("type")),
        };
        table.row(vec![
            cell(event.get("time")),
            cell(event.get("type")),
            cell(event.get("subject")),
            cell(event.get("sid")),
            actor,
            cell(event["client"].get("ip")),
            cell(event.get("reason")),
        ]);
    }
    Ok(table.print(style, out)?)
}
