//! `cloakroom serve`.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use cloakroom::OpenError;
use cloakroom_embedded::OpenError as EmbeddedError;
use cloakroom_postgres::ConnectError;
use cloakroom_redis::RedisError;
use serde_json::json;

use super::client::Place;
use super::config::tell;
use super::failure::Failure;
use super::logs;
use super::output::{Style, print_json, quoted};
use crate::config::{Config, Loaded, Surroundings};
use crate::serve::{Running, Signals, StartError, start, start_restored};

/// The arguments of `cloakroom serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom serve
  cloakroom serve --config /etc/cloakroom/cloakroom.toml
  CLOAKROOM_SERVER__PUBLIC=127.0.0.1:8400 cloakroom serve --data /var/lib/cloakroom")]
pub struct ServeArgs {
    /// The store was put back from a backup: end every session in it and make new signing keys
    /// before listening
    #[arg(long)]
    restored: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs the authority until it is told to stop.
///
/// # Errors
///
/// Why it can't start.
pub fn run(
    args: &ServeArgs,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let loaded = Loaded::read(&args.place.flags(), &Surroundings::of_process());
    // Where standard error can't be written, the node serves all the same, and a wrong
    // configuration has the exit code.
    let _ = tell(&loaded, err);
    let config = loaded.outcome.map_err(|_| Failure::Silent(2))?;
    let mut logs = logs::of_node(&config.log);
    match &loaded.file {
        Some(file) => tracing::info!(file = %file.display(), "configuration read"),
        None => tracing::info!("no configuration file: defaults and environment"),
    }
    runtime()?.block_on(async {
        let running = if args.restored {
            start_restored(*config).await.map_err(|error| not_started(&error))?
        } else {
            started(*config).await?
        };
        let signals = watch_signals()?;
        // A closed standard output is no reason not to serve.
        let _ = greet(&running, style, out);
        running.run_until_signal(signals, || logs.read_again(&args.place)).await;
        Ok(())
    })
}

/// A runtime for a node.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("can't start threads: {error}")))
}

/// Starts a node.
pub(super) async fn started(config: Config) -> Result<Running, Failure> {
    start(config).await.map_err(|error| not_started(&error))
}

/// What stops a node, or a command that opens the store as a node does.
pub(super) fn not_started(error: &StartError) -> Failure {
    match error {
        StartError::Files(_)
        | StartError::Cookies(_)
        | StartError::Passwords(_)
        | StartError::Tls { .. }
        | StartError::UnfinishedCopy
        | StartError::Store(EmbeddedError::Locked { .. })
        | StartError::Authority(OpenError::WrongMasterKey(_) | OpenError::Unusable(_)) => {
            Failure::Usage(error.to_string())
        }
        StartError::Redis(why) => of_redis(why),
        StartError::Postgres(why) => of_postgres(why),
        StartError::Authority(OpenError::Store(_)) => Failure::Unreachable(error.to_string()),
        StartError::Store(_) | StartError::Listen { .. } => Failure::Failed(error.to_string()),
    }
}

/// What is wrong with the settings is one thing, what is wrong with the server another.
fn of_redis(error: &RedisError) -> Failure {
    let text = format!("store: {error}");
    let is_of_settings =
        matches!(error, RedisError::Url(_) | RedisError::Namespace(_) | RedisError::Tls(_));
    if is_of_settings { Failure::Usage(text) } else { Failure::Unreachable(text) }
}

/// The same of PostgreSQL.
fn of_postgres(error: &ConnectError) -> Failure {
    let text = format!("store: {error}");
    let is_of_settings = matches!(
        error,
        ConnectError::Url
            | ConnectError::SslMode(_)
            | ConnectError::Schema(_)
            | ConnectError::File { .. }
            | ConnectError::HalfClientCertificate
            | ConnectError::NoRoots
            | ConnectError::Tls(_)
    );
    if is_of_settings { Failure::Usage(text) } else { Failure::Unreachable(text) }
}

/// Watches for signals from now on.
pub(super) fn watch_signals() -> Result<Signals, Failure> {
    Signals::watch().map_err(|error| Failure::Failed(format!("can't watch for signals: {error}")))
}

fn greet(running: &Running, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let config = &running.site().config;
    let scheme = |tls: bool| if tls { "https" } else { "http" };
    let public = running.public.url(scheme(config.public_tls.is_some()));
    let admin = running.admin.url(scheme(config.admin_tls.is_some()));
    let key = &config.root_api_key_file;
    if style.json {
        let answer = json!({
            "public": public,
            "admin": admin,
            "data": config.data_dir,
            "root_api_key_file": key,
        });
        print_json(&answer, out)?;
    } else {
        writeln!(out, "Cloakroom {} is running.\n", env!("CARGO_PKG_VERSION"))?;
        writeln!(out, "  public   {public}")?;
        writeln!(out, "  admin    {admin}")?;
        writeln!(out, "  data     {}", config.data_dir.display())?;
        writeln!(out, "  API key  {}\n", key.display())?;
        writeln!(out, "Try it:\n\n  {}\n", first_command(&admin, key))?;
    }
    out.flush()
}

/// One line that shows it works.
fn first_command(admin: &str, key: &Path) -> String {
    let bearer = format!("-H \"Authorization: Bearer $(cat {})\"", quoted(key));
    match admin.strip_prefix("unix:") {
        Some(path) => {
            format!("curl --unix-socket {path} {bearer} http://localhost/admin/v1/users")
        }
        None => format!("curl {bearer} {admin}/admin/v1/users"),
    }
}
