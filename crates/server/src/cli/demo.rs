//! `cloakroom demo`.

mod example;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use example::{PASSWORD, Ports, config, populate, tour};

use super::failure::Failure;
use super::logs;
use super::output::{Style, print_json};
use super::serve::{runtime, started, watch_signals};
use crate::serve::{Running, Signals};

/// The arguments of `cloakroom demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom demo
  cloakroom demo --port 8400 --admin-port 8401
  cloakroom demo --json")]
pub struct DemoArgs {
    /// Port of the public listener on loopback; 0: any; default: 7400, or any if that is taken
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Port of the admin listener on loopback; 0: any; default: 7401, or any if that is taken
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
}

/// Runs the demonstration until it is told to stop.
///
/// # Errors
///
/// Why it can't run.
pub fn run(args: &DemoArgs, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let dir = tempfile::Builder::new()
        .prefix("cloakroom-demo-")
        .tempdir()
        .map_err(|error| Failure::Failed(format!("can't make a directory: {error}")))?;
    let ports = Ports::choose(args.port, args.admin_port);
    let config =
        config(dir.path(), ports).map_err(|problems| Failure::Failed(problems.to_string()))?;
    let _ = logs::of_node(&config.log);
    let done = runtime()?.block_on(async {
        let running = started(*config).await?;
        populate(&running.site().authority)
            .await
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let signals = watch_signals()?;
        greet(dir.path(), ports, style, out)?;
        until_told(running, signals).await;
        Ok(())
    });
    dir.close().map_err(|error| Failure::Failed(format!("can't remove its directory: {error}")))?;
    done
}

/// Serves until any signal: a closed terminal is one too, or the directory would stay behind. A
/// second one doesn't wait for what is being answered.
async fn until_told(running: Running, mut signals: Signals) {
    let _ = signals.next().await;
    tokio::select! {
        () = running.stop() => {}
        _ = signals.next() => {}
    }
}

fn greet(dir: &Path, ports: Ports, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    if style.json {
        let answer = json!({
            "public": format!("http://localhost:{}", ports.public),
            "admin": format!("http://127.0.0.1:{}", ports.admin),
            "data": dir,
            "password": PASSWORD,
        });
        print_json(&answer, out)?;
    } else {
        let program = std::env::current_exe().unwrap_or(PathBuf::from("cloakroom"));
        out.write_all(tour(dir, ports, &program).as_bytes())?;
    }
    Ok(out.flush()?)
}
