//! `cloakroom demo`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::output::{Style, print_json};
use super::serve::{runtime, started, write_logs};
use crate::demo::{PASSWORD, Ports, config, populate, tour};
use crate::serve::Running;

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
    write_logs(&config.log);
    let done = runtime()?.block_on(async {
        let running = started(*config).await?;
        populate(&running.site().authority)
            .await
            .map_err(|error| Failure::Failed(error.to_string()))?;
        greet(dir.path(), ports, style, out)?;
        until_told(running).await
    });
    dir.close().map_err(|error| Failure::Failed(format!("can't remove its directory: {error}")))?;
    done
}

/// Serves until any signal that means "go": a closed terminal is one too, or the directory would
/// stay behind. A second one doesn't wait for what is being answered.
#[cfg(unix)]
async fn until_told(running: Running) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};

    let watch = |kind| {
        signal(kind).map_err(|error| Failure::Failed(format!("can't watch for signals: {error}")))
    };
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    let mut hangup = watch(SignalKind::hangup())?;
    let mut told = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    told().await;
    tokio::select! {
        () = running.stop() => {}
        () = told() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn until_told(running: Running) -> Result<(), Failure> {
    let told = tokio::signal::ctrl_c().await;
    running.stop().await;
    told.map_err(|error| Failure::Failed(format!("can't watch for signals: {error}")))
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
