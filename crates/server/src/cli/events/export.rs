//! `cloakroom events export`: the log as JSON Lines.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::Filter;
use super::walk::Walk;
use crate::cli::client::Client;
use crate::cli::failure::Failure;

/// Writes all events after a cursor, and says where to go on.
pub(super) fn run(
    client: &Client,
    filter: &Filter,
    after: Option<&str>,
    file: Option<&Path>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let mut walk = Walk::new(client, filter, after.map(str::to_owned));
    let written = match file {
        None => write(&mut walk, out)?,
        Some(path) => {
            let failed = |error| Failure::Failed(format!("{}: {error}", path.display()));
            let mut file = BufWriter::new(File::create_new(path).map_err(failed)?);
            let written = write(&mut walk, &mut file)?;
            let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
            // An export that is thought to be kept must be.
            file.sync_all().map_err(failed)?;
            written
        }
    };
    // For people and for scripts alike: what was asked for is in the other stream.
    let _ = writeln!(err, "{written} events");
    if let Some(cursor) = walk.resume_at(after) {
        let _ = writeln!(err, "later ones: add --after {cursor}");
        let _ = writeln!(err, "(the last ten seconds come again: drop what has the same id)");
    }
    Ok(())
}

fn write(walk: &mut Walk<'_>, out: &mut dyn Write) -> Result<u64, Failure> {
    let bar = progress();
    let mut written = 0;
    while let Some(events) = walk.next_page()? {
        for event in &events {
            writeln!(out, "{event}")?;
            written += 1;
        }
        bar.set_position(written);
        if let Some(time) = events.last().and_then(|event| event["time"].as_str()) {
            bar.set_message(time.to_owned());
        }
    }
    out.flush()?;
    bar.finish_and_clear();
    Ok(written)
}

/// A count on a terminal, nothing elsewhere: how many there are nobody knows before the end.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {human_pos} events, up to {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
