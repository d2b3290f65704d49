//! What a node does without being asked.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::site::Site;

/// A piece of work that comes round again and again.
#[derive(Clone, Copy, Debug)]
enum Chore {
    /// Writes "last seen": what was used is on disk within a second.
    FlushTouches,
    /// Makes events of coalesced refusals.
    FlushReports,
    /// Makes, activates and retires signing keys.
    TendKeys,
    /// Removes what has expired.
    Sweep,
    /// Reads the log of a store that others write to.
    Follow,
}

impl Chore {
    fn every(self, site: &Site) -> Duration {
        match self {
            Self::FlushTouches => Duration::from_millis(200),
            Self::FlushReports => Duration::from_secs(5),
            Self::TendKeys => Duration::from_secs(30),
            Self::Sweep => site.config.sweep.interval,
            Self::Follow => Duration::from_millis(500),
        }
    }

    async fn run(self, site: &Site) -> Result<(), Error> {
        match self {
            Self::FlushTouches => site.authority.flush_touches().await,
            Self::FlushReports => site.authority.flush_reports().await,
            Self::TendKeys => site.authority.tend_keys().await,
            Self::Follow => site.authority.follow().await,
            Self::Sweep => {
                let swept = site.authority.sweep().await?;
                tracing::info!(removed = swept.removed, ended = swept.ended, "swept");
                Ok(())
            }
        }
    }
}

/// Starts the loops; each ends after its round when `stopping` says so.
pub(super) fn spawn(site: &Arc<Site>, stopping: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
    let always = [Chore::FlushTouches, Chore::FlushReports, Chore::TendKeys, Chore::Sweep];
    let shared = site.authority.store().is_shared().then_some(Chore::Follow);
    always
        .into_iter()
        .chain(shared)
        .map(|chore| tokio::spawn(repeat(chore, Arc::clone(site), stopping.clone())))
        .collect()
}

/// A failure is told loudly once, until it works again: the store may be away for hours.
async fn repeat(chore: Chore, site: Arc<Site>, mut stopping: watch::Receiver<bool>) {
    let every = chore.every(&site);
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        match chore.run(&site).await {
            Ok(()) => failing = false,
            Err(error) if failing => tracing::debug!(%error, ?chore, "still failing"),
            Err(error) => {
                failing = true;
                tracing::warn!(%error, ?chore, "background work fails");
            }
        }
    }
}
