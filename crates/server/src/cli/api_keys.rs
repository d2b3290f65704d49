//! `cloakroom api-keys`: keys of backends.

use std::collections::BTreeSet;
use std::io::{self, Write};

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, Subcommand};
use cloakroom::SCOPES;
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::{Client, KeyWanted, Reach, encoded};
use super::failure::Failure;
use super::output::{Style, Table, cell, print_json, print_pairs};
use super::paging::{Page, pages};
use super::users::said;

/// The arguments of `cloakroom api-keys`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom api-keys create --name shop --scope sessions:write
  cloakroom api-keys list
  cloakroom api-keys delete 01J9ZQ6M5T4W8Y2K3N7P0R1S2V")]
pub struct ApiKeysArgs {
    #[command(subcommand)]
    command: ApiKeysCommand,
}

#[derive(Debug, Subcommand)]
enum ApiKeysCommand {
    /// Make a key; its secret is shown this once
    #[command(after_help = "\
Examples:
  cloakroom api-keys create --name shop --scope sessions:read --scope sessions:write
  cloakroom api-keys create --name audit --scope events --expires-in 86400
  cloakroom api-keys create --name ci --scope admin --json | jq -r .secret")]
    Create {
        /// What to call it
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it may do; several by commas or by the flag again
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
        #[arg(value_parser = PossibleValuesParser::new(SCOPES))]
        scopes: Vec<String>,
        /// When it ends by itself, in seconds from now
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        expires_in: Option<u64>,
        #[command(flatten)]
        reach: Reach,
    },
    /// List the keys, without their secrets
    #[command(after_help = "\
Examples:
  cloakroom api-keys list
  cloakroom api-keys list --json
  cloakroom api-keys list --admin-url https://cloakroom.internal:7401")]
    List {
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        reach: Reach,
    },
    /// Take a key away, at once; its open streams end
    #[command(after_help = "\
Examples:
  cloakroom api-keys delete 01J9ZQ6M5T4W8Y2K3N7P0R1S2V
  cloakroom api-keys delete 01J9ZQ6M5T4W8Y2K3N7P0R1S2V --json
  cloakroom api-keys delete 01J9ZQ6M5T4W8Y2K3N7P0R1S2V --data /var/lib/cloakroom")]
    Delete {
        /// The key's id
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        #[command(flatten)]
        reach: Reach,
    },
}

/// Runs a command.
///
/// # Errors
///
/// Why it didn't succeed.
pub fn run(args: &ApiKeysArgs, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        ApiKeysCommand::Create { name, scopes, expires_in, reach } => {
            let client = reach.client(KeyWanted::Yes)?;
            let scopes: BTreeSet<&String> = scopes.iter().collect();
            let mut body = json!({"name": name, "scopes": scopes});
            if let Some(secs) = expires_in {
                body["expires_in"] = (*secs).into();
            }
            show(&client.call(Method::POST, "/admin/v1/api-keys", &body)?, style, out)
        }
        ApiKeysCommand::List { page, reach } => {
            list(page, &reach.client(KeyWanted::Yes)?, style, out)
        }
        ApiKeysCommand::Delete { id, reach } => {
            let path = format!("/admin/v1/api-keys/{}", encoded(id));
            let deleted = reach.client(KeyWanted::Yes)?.order(Method::DELETE, &path);
            deleted.map_err(|failure| failure.naming("API key", id))?;
            said("deleted", id, style, out)
        }
    }
}

fn show(answer: &Value, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    if style.json {
        return Ok(print_json(answer, out)?);
    }
    let key = &answer["api_key"];
    let pairs = [
        ("id", cell(key.get("id"))),
        ("name", cell(key.get("name"))),
        ("scopes", scopes(key)),
        ("expires", cell(key.get("expires_at"))),
        ("secret", cell(answer.get("secret"))),
    ];
    print_pairs(&pairs, style, out)?;
    // Nobody depends on it, so a failure is passed over.
    let _ = writeln!(io::stderr(), "keep the secret now: it is not shown again");
    Ok(())
}

fn list(page: &Page, client: &Client, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let found = pages(client, "/admin/v1/api-keys", &[], "api_keys", page)?;
    if style.json {
        return Ok(print_json(&found.to_json("api_keys"), out)?);
    }
    let mut table = Table::new(&["ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "LAST USED"]);
    for key in &found.items {
        table.row(vec![
            cell(key.get("id")),
            cell(key.get("name")),
            scopes(key),
            cell(key.get("created_at")),
            cell(key.get("expires_at")),
            cell(key.get("last_used_at")),
        ]);
    }
    table.print(style, out)?;
    found.hint(&mut io::stderr());
    Ok(())
}

fn scopes(key: &Value) -> String {
    let names = key["scopes"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}
