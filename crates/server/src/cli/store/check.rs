//! `cloakroom store check`.

use std::collections::BTreeMap;
use std::io::Write;

use cloakroom_core::types::Partition;
use cloakroom_store::{Key, Store as _, StoreError};
use serde_json::json;

use super::super::failure::Failure;
use super::super::output::{Style, Table, counted, print_json};
use super::super::progress::Progress;
use super::{opened, unreachable};
use crate::config::Config;
use crate::serve::StartError;
use crate::store::AnyStore;
use crate::store::check::{Check, Fault, Found};
use crate::store::copy::{Held, is_unfinished};

/// Findings that are shown one by one; the rest is counted.
const SHOWN: usize = 50;

/// Looks at everything, says what is wrong, and fails if something still is.
pub(super) async fn run(
    config: &Config,
    repair: bool,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let store = opened(&config.store.url, config, config.store.partitions).await?;
    if !is_made(&store).await.map_err(|error| unreachable(&error))? {
        return not_made(&store, style, out).await;
    }
    let check = Check::new(&store, repair, config.token.access_ttl).await;
    let mut check = check.map_err(|error| unreachable(&error))?;
    let mut progress = Progress::new(store.partitions(), err);
    for number in 0..store.partitions() {
        check.partition(Partition(number)).await.map_err(|error| unreachable(&error))?;
        let looked = check.looked();
        let held = Held::counted(looked.sessions + looked.records, looked.events);
        progress.tell(number + 1, &held);
    }
    progress.finish();
    let looked = *check.looked();
    let found = check.into_found();
    let left = found.iter().filter(|one| !one.repaired).count();
    if style.json {
        let shown = found.iter().map(|one| {
            json!({
                "partition": one.partition.0,
                "fault": one.fault.name(),
                "with": one.with,
                "repaired": one.repaired,
            })
        });
        let answer = json!({
            "partitions": store.partitions(),
            "sessions": looked.sessions,
            "records": looked.records,
            "events": looked.events,
            "found": shown.collect::<Vec<_>>(),
        });
        print_json(&answer, out)?;
    } else {
        tell(&found, style, out)?;
        let counted = |count: u64, noun: &str| counted(&count.into(), noun);
        writeln!(
            out,
            "{}, {} and {}: {}, {} repaired",
            counted(looked.sessions, "session"),
            counted(looked.records, "other record"),
            counted(looked.events, "event"),
            counted(found.len() as u64, "fault"),
            found.len() - left
        )?;
        if left > 0 && !repair {
            writeln!(out, "`cloakroom store check --repair` puts right what can be")?;
        }
    }
    if left > 0 { Err(Failure::Silent(1)) } else { Ok(()) }
}

/// Whether a node has ever run on it, which is when a store gets its settings.
async fn is_made(store: &AnyStore) -> Result<bool, StoreError> {
    let found = store.load(Partition::ZERO, &[Key::Settings]).await?;
    Ok(found.iter().any(Option::is_some))
}

/// Of a store that no node has run on there is nothing to say, unless it is half a copy.
async fn not_made(store: &AnyStore, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    if is_unfinished(store).await.map_err(|error| unreachable(&error))? {
        return Err(Failure::Failed(StartError::UnfinishedCopy.to_string()));
    }
    if style.json {
        let answer = json!({
            "partitions": store.partitions(),
            "sessions": 0,
            "records": 0,
            "events": 0,
            "found": [],
        });
        return Ok(print_json(&answer, out)?);
    }
    Ok(writeln!(out, "nothing to check yet: no node has run on it")?)
}

fn tell(found: &[Found], style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    if found.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["PARTITION", "FAULT", "WITH", "REPAIRED"]);
    for one in found.iter().take(SHOWN) {
        table.row(vec![
            one.partition.to_string(),
            one.fault.meaning().to_owned(),
            one.with.clone(),
            if one.repaired { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.print(style, out)?;
    let mut counts: BTreeMap<Fault, usize> = BTreeMap::new();
    for one in found {
        *counts.entry(one.fault).or_default() += 1;
    }
    for (fault, count) in counts {
        writeln!(
            out,
            "{}: {}",
            super::super::output::counted(&count.into(), "time"),
            fault.meaning()
        )?;
    }
    Ok(())
}
