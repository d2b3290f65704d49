//! `cloakroom keys`: the signing keys.

use std::io::Write;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use cloakroom_core::limits::JWKS_CACHE;
use serde_json::Value;
use ureq::http::Method;

use super::client::{Client, KeyWanted, Reach, encoded};
use super::failure::Failure;
use super::output::{Style, Table, cell, print_json};
use super::users::said;

/// The arguments of `cloakroom keys`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom keys list
  cloakroom keys rotate
  cloakroom keys revoke 3qk8T2hJ")]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// List the signing keys
    #[command(after_help = "\
Examples:
  cloakroom keys list
  cloakroom keys list --json
  cloakroom keys list --admin-url https://cloakroom.internal:7401")]
    List(Reach),
    /// Let the next key sign from now on; the active one verifies until its last token expires
    #[command(after_help = "\
Examples:
  cloakroom keys rotate
  cloakroom keys rotate --json
  cloakroom keys rotate --api-key-file /run/secrets/cloakroom-key")]
    Rotate(Reach),
    /// Make a key verify nothing any more, at once (it was stolen)
    #[command(after_help = "\
Examples:
  cloakroom keys revoke 3qk8T2hJ
  cloakroom keys revoke 3qk8T2hJ --json
  cloakroom keys revoke 3qk8T2hJ --data /var/lib/cloakroom")]
    Revoke {
        /// The key's id
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        kid: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Finish a change of the master key: wrap the store's own key by the new one
    #[command(after_help = "\
Examples:
  cloakroom keys rewrap
  cloakroom keys rewrap --json
  cloakroom keys rewrap --data /var/lib/cloakroom")]
    Rewrap(Reach),
}

/// Runs a command.
///
/// # Errors
///
/// Why it didn't succeed.
pub fn run(args: &KeysArgs, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        KeysCommand::List(reach) => {
            show(&reach.client(KeyWanted::Yes)?.get("/admin/v1/keys")?, style, out)
        }
        KeysCommand::Rotate(reach) => {
            let client = reach.client(KeyWanted::Yes)?;
            let rotated = client.order(Method::POST, "/admin/v1/keys/rotate");
            rotated.map_err(|refused| until_when(&client, refused))?;
            show(&client.get("/admin/v1/keys")?, style, out)
        }
        KeysCommand::Revoke { kid, reach } => {
            let path = format!("/admin/v1/keys/{}/revoke", encoded(kid));
            let revoked = reach.client(KeyWanted::Yes)?.order(Method::POST, &path);
            revoked.map_err(|failure| failure.naming("signing key", kid))?;
            said("revoked", kid, style, out)
        }
        KeysCommand::Rewrap(reach) => {
            let client = reach.client(KeyWanted::Yes)?;
            let answer = client.order(Method::POST, "/admin/v1/keys/rewrap")?;
            if style.json {
                return Ok(print_json(&answer, out)?);
            }
            let done = match answer["rewrapped"] == true {
                true => "the store's key is wrapped by the new master key now",
                false => "the store's key was wrapped by this node's master key already",
            };
            Ok(writeln!(out, "{done}")?)
        }
    }
}

/// Adds from when on the next key may sign, where it is too early.
fn until_when(client: &Client, refused: Failure) -> Failure {
    if refused.problem_code() != Some("conflict") {
        return refused;
    }
    let listed = client.get("/admin/v1/keys").unwrap_or_default();
    let next = listed["keys"].as_array().into_iter().flatten().find(|key| key["state"] == "next");
    let made = next.and_then(|key| key["created_at"].as_str()?.parse::<jiff::Timestamp>().ok());
    match made.and_then(|made| made.checked_add(JWKS_CACHE).ok()) {
        Some(ready) => refused.with(&format!("; it may sign from {ready} on")),
        None => refused,
    }
}

fn show(answer: &Value, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    if style.json {
        return Ok(print_json(answer, out)?);
    }
    let mut table = Table::new(&["KID", "ALG", "STATE", "CREATED", "ACTIVATES", "RETIRES"]);
    for key in answer["keys"].as_array().into_iter().flatten() {
        let names = ["kid", "alg", "state", "created_at", "activates_at", "retires_at"];
        table.row(names.iter().map(|name| cell(key.get(*name))).collect());
    }
    Ok(table.print(style, out)?)
}
