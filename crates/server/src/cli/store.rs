//! `cloakroom store`: what is stored, and moving it. These commands open the store themselves.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use cloakroom_core::types::Partition;
use cloakroom_postgres::PostgresStore;
use cloakroom_store::{Key, Store, StoreError};
use serde_json::json;

use super::client::Place;
use super::failure::Failure;
use super::output::{Style, print_json, print_pairs};
use super::serve::{not_started, runtime, write_logs};
use crate::any_store::AnyStore;
use crate::config::{Config, StoreUrl};
use crate::public::{durability_name, rfc3339};
use crate::serve::StartError;
use crate::serve::store::{STORE_DIR, open_at, postgres_settings};
use crate::store_copy::{CopyError, Held, copy};
use crate::store_watch::StoreWatch;

/// The arguments of `cloakroom store`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom store info
  cloakroom store migrate --config /etc/cloakroom/cloakroom.toml
  cloakroom store copy --to file:/backup/cloakroom")]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Say which store is configured, what it promises, and when it was made
    #[command(after_help = "\
Examples:
  cloakroom store info
  cloakroom store info --json
  CLOAKROOM_STORE__URL=redis://127.0.0.1 cloakroom store info")]
    Info {
        #[command(flatten)]
        place: Place,
    },
    /// Bring the schema of a store in PostgreSQL up to date, whatever `store.migrate` says
    #[command(after_help = "\
Examples:
  cloakroom store migrate
  cloakroom store migrate --json
  cloakroom store migrate --config /etc/cloakroom/cloakroom.toml")]
    Migrate {
        #[command(flatten)]
        place: Place,
    },
    /// Copy everything to another store; stop all nodes first. Goes on where it was interrupted
    #[command(after_help = "\
Examples:
  cloakroom store copy --to file:/backup/cloakroom
  cloakroom store copy --to postgres://cloakroom@db.internal/cloakroom
  cloakroom store copy --from file:/backup/cloakroom --to redis://127.0.0.1")]
    Copy {
        /// URL of the store to read; default: the configured one
        #[arg(long, value_name = "URL")]
        from: Option<String>,
        /// URL of the store to write
        #[arg(long, value_name = "URL")]
        to: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Does what the arguments say.
///
/// # Errors
///
/// Why it didn't succeed.
pub fn run(
    args: &StoreArgs,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let (StoreCommand::Info { place }
    | StoreCommand::Migrate { place }
    | StoreCommand::Copy { place, .. }) = &args.command;
    let config = place.load()?;
    write_logs(&config.log);
    runtime()?.block_on(async {
        match &args.command {
            StoreCommand::Info { .. } => info(&config, style, out).await,
            StoreCommand::Migrate { .. } => migrate(&config, style, out).await,
            StoreCommand::Copy { from, to, .. } => {
                move_all(&config, from.as_deref(), to, style, out, err).await
            }
        }
    })
}

/// A store to read: one that isn't there isn't made for that.
async fn opened(url: &StoreUrl, config: &Config, partitions: u16) -> Result<AnyStore, Failure> {
    if let StoreUrl::File(dir) = url
        && !dir.join(STORE_DIR).is_dir()
    {
        return Err(Failure::NotFound(format!("there is no store in {}", dir.display())));
    }
    made(url, config, partitions).await
}

/// A store to write: made where there is none.
async fn made(url: &StoreUrl, config: &Config, partitions: u16) -> Result<AnyStore, Failure> {
    open_at(url, config, partitions).await.map_err(|error| not_started(&error))
}

fn unreachable(error: &StoreError) -> Failure {
    Failure::Unreachable(error.to_string())
}

async fn info(config: &Config, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let store = opened(&config.store.url, config, config.store.partitions).await?;
    let watch = StoreWatch::default();
    watch.look(&store).await.map_err(|error| unreachable(&error))?;
    let found = store.load(Partition::ZERO, &[Key::Settings]).await;
    let found = found.map_err(|error| unreachable(&error))?;
    let found = found.into_iter().flatten().find_map(|found| found.record.into_settings());
    let made = found.map(|settings| rfc3339(settings.created_at));
    let url = config.store.url.shown();
    let promise = durability_name(watch.promise());
    if style.json {
        let answer = json!({
            "store": store.name(),
            "url": url,
            "namespace": config.store.namespace.as_str(),
            "partitions": store.partitions(),
            "created_at": made,
            "durability": promise,
            "clock_ahead_ms": watch.ahead_ms(),
        });
        return Ok(print_json(&answer, out)?);
    }
    let pairs = [
        ("store", store.name().to_owned()),
        ("url", url),
        ("namespace", config.store.namespace.as_str().to_owned()),
        ("partitions", store.partitions().to_string()),
        ("created", made.unwrap_or_else(|| "not yet: no node has run on it".to_owned())),
        ("durability", promise.to_owned()),
        ("clock", format!("{} ms ahead of this machine's", watch.ahead_ms())),
    ];
    Ok(print_pairs(&pairs, style, out)?)
}

async fn migrate(config: &Config, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let StoreUrl::Postgres(url) = &config.store.url else {
        if style.json {
            return Ok(print_json(&json!({"from": null, "to": null}), out)?);
        }
        return Ok(writeln!(out, "nothing to do: only a store in PostgreSQL has a schema")?);
    };
    let settings = postgres_settings(config, url, config.store.partitions);
    let done = PostgresStore::migrate(&settings).await;
    let done = done.map_err(|error| not_started(&StartError::Postgres(error)))?;
    if style.json {
        return Ok(print_json(&json!({"from": done.from, "to": done.to}), out)?);
    }
    if done.from == done.to {
        return Ok(writeln!(out, "the schema has version {} already", done.to)?);
    }
    Ok(writeln!(out, "the schema went from version {} to {}", done.from, done.to)?)
}

async fn move_all(
    config: &Config,
    from: Option<&str>,
    to: &str,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let parse = |name: &str, text: &str| {
        StoreUrl::parse(text).map_err(|why| Failure::Usage(format!("{name} {why}")))
    };
    let from = from.map_or_else(|| Ok(config.store.url.clone()), |text| parse("--from", text))?;
    let to = parse("--to", to)?;
    let source = opened(&from, config, config.store.partitions).await?;
    let target = made(&to, config, source.partitions()).await?;
    let (began_at, all) = (Instant::now(), source.partitions());
    let mut told_at = began_at;
    let copied = copy(&source, &target, |done, held| {
        if told_at.elapsed() >= TELL_EVERY || done == all {
            told_at = Instant::now();
            // Whoever doesn't listen doesn't stop it.
            let _ = writeln!(err, "{}", progress(done, all, held, began_at.elapsed()));
        }
    })
    .await
    .map_err(|error| of_copy(&error))?;
    if style.json {
        let answer = json!({"records": copied.records, "entries": copied.entries});
        return Ok(print_json(&answer, out)?);
    }
    writeln!(
        out,
        "copied and compared: {} records, {} log entries, from {} to {}",
        copied.records,
        copied.entries,
        from.shown(),
        to.shown()
    )?;
    Ok(writeln!(out, "the master key of the source opens the target too; keep it beside it")?)
}

fn progress(done: u16, all: u16, held: &Held, spent: Duration) -> String {
    let per_second = u128::from(held.records) * 1000 / spent.as_millis().max(1);
    let left = spent * u32::from(all - done) / u32::from(done.max(1));
    format!(
        "{done} of {all} partitions, {} records, {} log entries, {per_second} records/s, {} s left",
        held.records,
        held.entries,
        left.as_secs()
    )
}

fn of_copy(error: &CopyError) -> Failure {
    let text = error.to_string();
    match error {
        CopyError::Source(_) | CopyError::Target(_) => Failure::Unreachable(text),
        CopyError::NoSource | CopyError::TargetInUse | CopyError::Partitions { .. } => {
            Failure::Usage(text)
        }
        CopyError::Differs { .. } => Failure::Failed(text),
    }
}

/// How often a copy says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);
