//! `cloakroom sessions`: who is signed in, and signing them out.

use std::io::{self, Write};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use serde_json::Value;
use ureq::http::Method;

use super::client::{Client, KeyWanted, Reach, encoded};
use super::failure::Failure;
use super::output::{Style, Table, cell, counted, inert, print_json, print_pairs};
use super::paging::{Page, pages};
use super::users::said;
use super::whom::subject_of;

/// The arguments of `cloakroom sessions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom sessions list --subject usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V
  cloakroom sessions revoke 01J9ZQ6M5T4W8Y2K3N7P0R1S2V --reason 'lost phone'
  cloakroom sessions revoke-subject usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V")]
pub struct SessionsArgs {
    #[command(subcommand)]
    command: SessionsCommand,
}

#[derive(Debug, Subcommand)]
enum SessionsCommand {
    /// List sessions
    #[command(after_help = "\
Examples:
  cloakroom sessions list
  cloakroom sessions list --subject usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V
  cloakroom sessions list --json | jq '.sessions | length'")]
    List {
        /// Only those of this subject, or of the user with this identifier
        #[arg(long, value_name = "SUBJECT", value_parser = NonEmptyStringValueParser::new())]
        subject: Option<String>,
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show one session; an ended one too, with the reason, while that is kept
    #[command(after_help = "\
Examples:
  cloakroom sessions show 01J9ZQ6M5T4W8Y2K3N7P0R1S2V
  cloakroom sessions show 01J9ZQ6M5T4W8Y2K3N7P0R1S2V --json
  cloakroom sessions show 01J9ZQ6M5T4W8Y2K3N7P0R1S2V --data /var/lib/cloakroom")]
    Show {
        /// The session's id
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        sid: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// End one session
    #[command(after_help = "\
Examples:
  cloakroom sessions revoke 01J9ZQ6M5T4W8Y2K3N7P0R1S2V
  cloakroom sessions revoke 01J9ZQ6M5T4W8Y2K3N7P0R1S2V --reason 'lost phone'
  cloakroom sessions revoke 01J9ZQ6M5T4W8Y2K3N7P0R1S2V --json")]
    Revoke {
        /// The session's id
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        sid: String,
        /// What the audit log is to say
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Sign a subject out everywhere
    #[command(after_help = "\
Examples:
  cloakroom sessions revoke-subject usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V
  cloakroom sessions revoke-subject customer-4711
  cloakroom sessions revoke-subject customer-4711 --json")]
    RevokeSubject {
        /// The subject, or a user's identifier
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        subject: String,
        #[command(flatten)]
        reach: Reach,
    },
}

/// Runs a command.
///
/// # Errors
///
/// Why it didn't succeed.
pub fn run(args: &SessionsArgs, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        SessionsCommand::List { subject, page, reach } => {
            list(subject.as_deref(), page, reach, style, out)
        }
        SessionsCommand::Show { sid, reach } => {
            let client = reach.client(KeyWanted::Yes)?;
            let answer = client.get(&format!("/admin/v1/sessions/{}", encoded(sid)));
            let answer = answer.map_err(|failure| failure.naming("session", sid))?;
            show(&answer, style, out)
        }
        SessionsCommand::Revoke { sid, reason, reach } => {
            let mut path = format!("/admin/v1/sessions/{}", encoded(sid));
            if let Some(reason) = reason {
                path.push_str(&format!("?reason={}", encoded(reason)));
            }
            let revoked = reach.client(KeyWanted::Yes)?.order(Method::DELETE, &path);
            revoked.map_err(|failure| failure.naming("session", sid))?;
            said("revoked", sid, style, out)
        }
        SessionsCommand::RevokeSubject { subject, reach } => {
            revoke_subject(subject, &reach.client(KeyWanted::Yes)?, style, out)
        }
    }
}

/// Signs out whom the name means; a name that means nobody is an error, because whoever revokes
/// in an emergency must not believe that it was done.
fn revoke_subject(
    name: &str,
    client: &Client,
    style: Style,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let Some(subject) = subject_of(client, name)? else { return Err(nobody(name)) };
    let path = format!("/admin/v1/subjects/{}/sessions", encoded(&subject));
    let answer = client.order(Method::DELETE, &path)?;
    if style.json {
        return Ok(print_json(&answer, out)?);
    }
    let sessions = counted(&answer["revoked"], "session");
    Ok(writeln!(out, "revoked {sessions} of {}", inert(&subject))?)
}

fn nobody(name: &str) -> Failure {
    let why = "no subject of this name has a session, and no user has the identifier";
    Failure::NotFound(format!("{why} {name:?}"))
}

fn list(
    subject: Option<&str>,
    page: &Page,
    reach: &Reach,
    style: Style,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let client = reach.client(KeyWanted::Yes)?;
    let subject = match subject {
        Some(name) => Some(subject_of(&client, name)?.ok_or_else(|| nobody(name))?),
        None => None,
    };
    let query: Vec<_> = subject.iter().map(|subject| ("subject", subject.as_str())).collect();
    let found = pages(&client, "/admin/v1/sessions", &query, "sessions", page)?;
    if style.json {
        // The keys of CSRF tokens are for backends that ask for them, not for a listing.
        let mut answer = found.to_json("sessions");
        for session in answer["sessions"].as_array_mut().into_iter().flatten() {
            without_key(session);
        }
        return Ok(print_json(&answer, out)?);
    }
    let headings = ["ID", "SUBJECT", "DELIVERY", "LAST SEEN", "IDLE EXPIRY", "CLIENT", "ENDED"];
    let mut table = Table::new(&headings);
    for session in &found.items {
        table.row(vec![
            cell(session.get("id")),
            cell(session.get("subject")),
            cell(session.get("delivery")),
            cell(session.get("last_seen_at")),
            cell(session.get("idle_expires_at")),
            client_of(session),
            cell(session["ended"].get("reason")),
        ]);
    }
    table.print(style, out)?;
    found.hint(&mut io::stderr());
    Ok(())
}

fn client_of(session: &Value) -> String {
    let client = &session["client"];
    let named = [client.get("label"), client.get("browser")];
    let device = named.into_iter().flatten().find(|value| !value.is_null());
    let ip = cell(client.get("ip"));
    device.map_or(ip.clone(), |device| format!("{}, {ip}", cell(Some(device))))
}

fn without_key(session: &mut Value) {
    if let Some(members) = session.as_object_mut() {
        members.remove("csrf_key");
    }
}

fn show(answer: &Value, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let mut answer = answer.clone();
    without_key(&mut answer["session"]);
    if style.json {
        return Ok(print_json(&answer, out)?);
    }
    Ok(print_pairs(&pairs_of(&answer["session"]), style, out)?)
}

/// A session for people.
pub(super) fn pairs_of(session: &Value) -> Vec<(&'static str, String)> {
    let of = |name: &str| cell(session.get(name));
    let state = match session.get("ended").filter(|ended| !ended.is_null()) {
        None => "live".to_owned(),
        Some(ended) => {
            format!("ended {}: {}", cell(ended.get("at")), cell(ended.get("reason")))
        }
    };
    vec![
        ("session", of("id")),
        ("state", state),
        ("subject", of("subject")),
        ("delivery", of("delivery")),
        ("claims", of("claims")),
        ("opened", of("created_at")),
        ("last seen", of("last_seen_at")),
        ("signed in", of("auth_time")),
        ("idle expiry", of("idle_expires_at")),
        ("expiry", of("expires_at")),
        ("amr", of("amr")),
        ("acr", of("acr")),
        ("client", client_of(session)),
        ("user agent", cell(session["client"].get("user_agent"))),
    ]
}
