//! `cloakroom store`: what is stored, and moving it. These commands open the store themselves.

mod check;

use clap::{Args, Subcommand};
use cloakroom_core::types::Partition;
use cloakroom_embedded::OpenError as EmbeddedError;
use cloakroom_postgres::{ConnectError, PostgresStore};
use cloakroom_redis::RedisError;
use cloakroom_store::{Key, Store, StoreError};
use serde_json::json;
use std::io::Write;

use super::client::Place;
use super::failure::Failure;
use super::logs;
use super::output::{Style, print_json, print_pairs};
use super::progress::Progress;
use super::serve::{not_started, runtime};
use crate::config::{Config, StoreUrl};
use crate::serve::StartError;
use crate::store::copy::{self, CopyError, copy};
use crate::store::open::{Purpose, STORE_DIR, open_at, postgres_settings};
use crate::store::{AnyStore, StoreWatch, hold};
use crate::view::{durability_name, rfc3339};

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
    /// Look for what doesn't belong together; exits with 1 if something is wrong
    #[command(after_help = "\
Examples:
  cloakroom store check
  cloakroom store check --repair
  cloakroom store check --json | jq .found")]
    Check {
        /// Put right what can be
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Copy everything to another store. Goes on where it was interrupted
    ///
    /// Nodes on the source answer what only reads meanwhile, and refuse the rest with 503. An
    /// embedded store belongs to its node, which has to be stopped.
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
    | StoreCommand::Check { place, .. }
    | StoreCommand::Copy { place, .. }) = &args.command;
    let config = place.load()?;
    logs::of_command(&config.log);
    runtime()?.block_on(async {
        match &args.command {
            StoreCommand::Info { .. } => info(&config, style, out).await,
            StoreCommand::Migrate { .. } => migrate(&config, style, out).await,
            StoreCommand::Check { repair, .. } => {
                check::run(&config, *repair, style, out, err).await
            }
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
    let opened = open_at(url, config, partitions, Purpose::Look).await;
    opened.map_err(|error| match error {
        StartError::Postgres(ConnectError::OldSchema { schema, found: 0, .. }) => {
            let what = format!("there is no store in the schema {schema} yet");
            Failure::NotFound(format!("{what}: `cloakroom serve` or `store migrate` makes it"))
        }
        StartError::Redis(RedisError::NoStore(namespace)) => {
            let what = format!("there is no store of the namespace {namespace} yet");
            Failure::NotFound(format!("{what}: `cloakroom serve` makes it"))
        }
        StartError::Store(EmbeddedError::Locked { .. }) => not_started(&error)
            .with("; stop that node first: an embedded store is its node's alone"),
        error => not_started(&error),
    })
}

/// A store to write: made where there is none.
async fn made(url: &StoreUrl, config: &Config, partitions: u16) -> Result<AnyStore, Failure> {
    open_at(url, config, partitions, Purpose::Fill).await.map_err(|error| not_started(&error))
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
    // What can't be copied holds nobody's writes.
    copy::check(&source, &target).await.map_err(|error| of_copy(&error))?;
    let hold = Hold::take(&source, config, err).await?;
    let mut progress = Progress::new(source.partitions(), err);
    let copying = copy(&source, &target, |done, held| progress.tell(done, held));
    let copied = hold.during(copying).await;
    progress.finish();
    let copied = copied.map_err(|error| of_copy(&error))?;
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

/// The writes of a source that other processes have open, held while it is copied.
struct Hold<'a> {
    source: Option<&'a AnyStore>,
}

impl<'a> Hold<'a> {
    /// Holds them, and waits until every node has noticed and what was under way is done.
    async fn take(
        source: &'a AnyStore,
        config: &Config,
        err: &mut dyn Write,
    ) -> Result<Self, Failure> {
        if !source.is_shared() {
            return Ok(Self { source: None });
        }
        hold::take(source).await.map_err(|error| unreachable(&error))?;
        let wait = hold::LOOK * 2 + config.store.timeout;
        let _ = writeln!(err, "nodes refuse writes from now on; waiting for what is under way");
        tokio::time::sleep(wait).await;
        Ok(Self { source: Some(source) })
    }

    /// Renews the hold while something is done, and lets go of it then.
    async fn during<T>(self, work: impl Future<Output = T>) -> T {
        let Some(source) = self.source else { return work.await };
        let mut work = std::pin::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                () = tokio::time::sleep(hold::RENEW) => {}
            }
            if let Err(error) = hold::take(source).await {
                tracing::warn!(%error, "the source's writes may not be held any more");
            }
        };
        if let Err(error) = hold::release(source).await {
            tracing::warn!(%error, "nodes refuse writes for some seconds more");
        }
        done
    }
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
