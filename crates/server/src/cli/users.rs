//! `cloakroom users`: the directory.

use std::io::{self, IsTerminal, Write};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use cloakroom_core::types::Secret;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::client::{Client, KeyWanted, Reach, encoded};
use super::failure::Failure;
use super::import;
use super::output::{Style, Table, cell, print_json, print_pairs};
use super::paging::{Page, pages};
use super::whom::user_of;

/// The arguments of `cloakroom users`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom users add ada@example.com --claim role=admin
  printf '%s' \"$PASSWORD\" | cloakroom users set-password ada@example.com
  cloakroom users list --json")]
pub struct UsersArgs {
    #[command(subcommand)]
    command: UsersCommand,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// Add a user; asks for the password, or reads it from standard input
    #[command(after_help = "\
Examples:
  cloakroom users add ada@example.com
  cloakroom users add ada@example.com --claim role=admin --claim quota=5
  pass show shop/ada | cloakroom users add ada@example.com")]
    Add {
        /// What the user signs in with, such as an e-mail address
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        identifier: String,
        /// A claim of the user's sessions; JSON where it is JSON, else text
        #[arg(long = "claim", value_name = "NAME=VALUE")]
        claims: Vec<String>,
        /// Add the user without a password: no sign-in until one is set
        #[arg(long)]
        no_password: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// List users
    #[command(after_help = "\
Examples:
  cloakroom users list
  cloakroom users list --limit 1000
  cloakroom users list --json | jq -r '.users[].identifier'")]
    List {
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        reach: Reach,
    },
    /// Keep a user from signing in and end the user's sessions
    #[command(after_help = "\
Examples:
  cloakroom users disable ada@example.com
  cloakroom users disable usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V
  cloakroom users disable ada@example.com --json")]
    Disable(Whom),
    /// Let a disabled user sign in again; no earlier session comes back
    #[command(after_help = "\
Examples:
  cloakroom users enable ada@example.com
  cloakroom users enable usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V
  cloakroom users enable ada@example.com --json")]
    Enable(Whom),
    /// Set a user's password and end the user's sessions; asks for it, or reads standard input
    #[command(after_help = "\
Examples:
  cloakroom users set-password ada@example.com
  pass show shop/ada | cloakroom users set-password ada@example.com
  cloakroom users set-password usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V < password.txt")]
    SetPassword(Whom),
    /// Make a token by which a user who forgot the password sets a new one; counts once, an hour
    ///
    /// Nothing changes before it is used. One made before counts no more. It goes to
    /// `POST /auth/password` as `current_password`, beside `new_password`.
    #[command(after_help = "\
Examples:
  cloakroom users reset ada@example.com
  cloakroom users reset usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V
  cloakroom users reset ada@example.com --json | jq -r .token")]
    Reset(Whom),
    /// Delete a user and end the user's sessions
    #[command(after_help = "\
Examples:
  cloakroom users delete ada@example.com
  cloakroom users delete usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V
  cloakroom users delete ada@example.com --admin-url https://cloakroom.internal:7401")]
    Delete(Whom),
    /// Import users from another directory, with the hashes of their passwords; all or none
    #[command(after_help = "\
Examples:
  cloakroom users import users.jsonl --dry-run   # what would be refused
  cloakroom users import users.jsonl             # again: goes on where it was killed
  cloakroom users import users.jsonl --json | jq '.refused[]'")]
    Import(import::ImportArgs),
}

/// Which user.
#[derive(Debug, Args)]
struct Whom {
    /// The user's identifier or id (usr_…)
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    user: String,
    #[command(flatten)]
    reach: Reach,
}

/// Runs a command.
///
/// # Errors
///
/// Why it didn't succeed.
pub fn run(
    args: &UsersArgs,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    match &args.command {
        UsersCommand::Add { identifier, claims, no_password, reach } => {
            let client = reach.client(KeyWanted::Yes)?;
            let mut body = json!({"identifier": identifier, "claims": parse_claims(claims)?});
            if !no_password {
                body["password"] = given_password()?.expose().as_str().into();
            }
            let answer = client.call(Method::POST, "/admin/v1/users", &body)?;
            show(&answer, style, out)
        }
        UsersCommand::List { page, reach } => {
            list(page, &reach.client(KeyWanted::Yes)?, style, out)
        }
        UsersCommand::Disable(whom) => change(whom, &json!({"disabled": true}), style, out),
        UsersCommand::Enable(whom) => change(whom, &json!({"disabled": false}), style, out),
        UsersCommand::SetPassword(whom) => {
            let client = whom.reach.client(KeyWanted::Yes)?;
            let path = path_of(&client, &whom.user)?;
            let body = json!({"password": given_password()?.expose()});
            let set = client.call(Method::PATCH, &path, &body);
            show(&set.map_err(|failure| failure.naming("user", &whom.user))?, style, out)
        }
        UsersCommand::Reset(whom) => reset(whom, style, out),
        UsersCommand::Delete(whom) => {
            let client = whom.reach.client(KeyWanted::Yes)?;
            let deleted = client.order(Method::DELETE, &path_of(&client, &whom.user)?);
            deleted.map_err(|failure| failure.naming("user", &whom.user))?;
            said("deleted", &whom.user, style, out)
        }
        UsersCommand::Import(args) => import::run(args, style, out, err),
    }
}

fn list(page: &Page, client: &Client, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let found = pages(client, "/admin/v1/users", &[], "users", page)?;
    if style.json {
        return Ok(print_json(&found.to_json("users"), out)?);
    }
    let mut table = Table::new(&["ID", "IDENTIFIER", "STATE", "CREATED", "CLAIMS"]);
    for user in &found.items {
        let state = if user["disabled"] == true { "disabled" } else { "enabled" };
        table.row(vec![
            cell(user.get("id")),
            cell(user.get("identifier")),
            state.to_owned(),
            cell(user.get("created_at")),
            cell(user.get("claims")),
        ]);
    }
    table.print(style, out)?;
    found.hint(&mut io::stderr());
    Ok(())
}

fn change(whom: &Whom, body: &Value, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let client = whom.reach.client(KeyWanted::Yes)?;
    let path = path_of(&client, &whom.user)?;
    let changed = client.call(Method::PATCH, &path, body);
    show(&changed.map_err(|failure| failure.naming("user", &whom.user))?, style, out)
}

fn reset(whom: &Whom, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let client = whom.reach.client(KeyWanted::Yes)?;
    let path = format!("{}/reset", path_of(&client, &whom.user)?);
    let made = client.order(Method::POST, &path);
    let made = made.map_err(|failure| failure.naming("user", &whom.user))?;
    if style.json {
        return Ok(print_json(&made, out)?);
    }
    let pairs = [
        ("token", cell(made.get("token"))),
        ("counts until", cell(made.get("expires_at"))),
        ("use", "POST /auth/password, as current_password beside new_password".to_owned()),
    ];
    Ok(print_pairs(&pairs, style, out)?)
}

/// The user's path, by id or by identifier.
fn path_of(client: &Client, user: &str) -> Result<String, Failure> {
    if user.starts_with("usr_") {
        return Ok(format!("/admin/v1/users/{}", encoded(user)));
    }
    match user_of(client, user)? {
        Some(id) => Ok(format!("/admin/v1/users/{}", encoded(&id))),
        None => Err(Failure::NotFound(format!("no user has the identifier {user:?}"))),
    }
}

fn show(answer: &Value, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    if style.json {
        return Ok(print_json(answer, out)?);
    }
    let user = &answer["user"];
    let state = if user["disabled"] == true { "disabled" } else { "enabled" };
    let pairs = [
        ("id", cell(user.get("id"))),
        ("identifier", cell(user.get("identifier"))),
        ("state", state.to_owned()),
        ("claims", cell(user.get("claims"))),
        ("created", cell(user.get("created_at"))),
        ("password changed", cell(user.get("password_changed_at"))),
    ];
    Ok(print_pairs(&pairs, style, out)?)
}

/// Says what was done to something.
///
/// # Errors
///
/// An error of writing to `out`.
pub(super) fn said(done: &str, to: &str, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    if style.json {
        return Ok(print_json(&json!({done: to}), out)?);
    }
    Ok(writeln!(out, "{done} {}", super::output::inert(to))?)
}

/// Reads `NAME=VALUE`: JSON where it is JSON, so `admin=true` is a boolean; else text.
fn parse_claims(claims: &[String]) -> Result<Value, Failure> {
    let mut map = Map::new();
    for claim in claims {
        let Some((name, value)) = claim.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Failure::Usage("--claim: NAME=VALUE, such as role=admin".into()));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        map.insert(name.to_owned(), value);
    }
    Ok(Value::Object(map))
}

/// A new password that was given; an empty one is a forgotten one.
fn given_password() -> Result<Secret<String>, Failure> {
    let given = password()?;
    if given.expose().is_empty() {
        let text = "no password given: type one, or write it to standard input";
        return Err(Failure::Usage(text.into()));
    }
    Ok(given)
}

/// A new password: typed twice at a terminal, else the first line of standard input.
fn password() -> Result<Secret<String>, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("can't read the password: {error}"));
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map_err(failed)?;
        let line = Secret::new(line);
        return Ok(Secret::new(line.expose().trim_end_matches(['\r', '\n']).to_owned()));
    }
    let first = Secret::new(rpassword::prompt_password("New password: ").map_err(failed)?);
    let second = Secret::new(rpassword::prompt_password("The same again: ").map_err(failed)?);
    if first.expose() == second.expose() {
        Ok(first)
    } else {
        Err(Failure::Failed("the two passwords differ; nothing was changed".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_json_where_they_are_json() {
        let given = ["role=admin", "n=5", "on=true", "tags=[\"a\"]", "eq=a=b", "empty="];
        let claims = parse_claims(&given.map(str::to_owned)).expect("well-formed");
        let expected =
            json!({"role": "admin", "n": 5, "on": true, "tags": ["a"], "eq": "a=b", "empty": ""});
        assert_eq!(claims, expected);
        for bad in ["role", "=x", ""] {
            let failure = parse_claims(&[bad.to_owned()]).expect_err(bad);
            assert_eq!(failure.code(), 2);
        }
    }
}
