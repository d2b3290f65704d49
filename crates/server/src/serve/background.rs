//! What a node does without being asked.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::{Context, Error};
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::metrics::counted;
use crate::site::Site;
use crate::store::hold;

counted! {
    /// A piece of work that comes round again and again; its name is that in metrics.
    pub(crate) enum Chore {
        /// Writes "last seen": what was used is on disk within a second.
        FlushTouches = "flush_touches",
        /// Makes events of coalesced refusals.
        FlushReports = "flush_reports",
        /// Writes which API keys were used.
        FlushKeyUses = "flush_key_uses",
        /// Makes, activates and retires signing keys.
        TendKeys = "tend_keys",
        /// Removes what has expired.
        Sweep = "sweep",
        /// Remembers what was counted, for its course over the last hour.
        SampleStats = "sample_stats",
        /// Reads the log of a store that others write to, cache or none: what a failover loses is
        /// done again by those who read of it in time.
        Follow = "follow",
        /// Looks whether somebody holds the writes of such a store, to copy it.
        WatchHold = "watch_hold",
        /// Looks at the clock of such a store, and at its promise.
        WatchStore = "watch_store",
    }
}

impl Chore {
    /// What every node does.
    pub(crate) const ALWAYS: [Self; 6] = [
        Self::FlushTouches,
        Self::FlushReports,
        Self::FlushKeyUses,
        Self::TendKeys,
        Self::Sweep,
        Self::SampleStats,
    ];
    /// What a node does besides whose store others write to.
    pub(crate) const SHARED: [Self; 3] = [Self::Follow, Self::WatchHold, Self::WatchStore];

    fn every(self, site: &Site) -> Duration {
        match self {
            Self::FlushTouches => Duration::from_millis(200),
            Self::FlushReports | Self::FlushKeyUses => Duration::from_secs(5),
            Self::TendKeys => Duration::from_secs(30),
            Self::SampleStats => Duration::from_secs(10),
            Self::Sweep => site.config.sweep.interval,
            Self::Follow => Duration::from_millis(500),
            Self::WatchHold => hold::LOOK,
            Self::WatchStore => Duration::from_secs(10),
        }
    }

    async fn run(self, site: &Site) -> Result<(), Error> {
        match self {
            Self::FlushTouches => site.authority.flush_touches().await,
            Self::FlushReports => site.authority.flush_reports().await,
            Self::FlushKeyUses => site.authority.flush_key_uses().await,
            Self::TendKeys => site.authority.tend_keys().await,
            Self::SampleStats => {
                site.authority.sample_stats();
                Ok(())
            }
            Self::Follow => site.authority.follow().await,
            Self::WatchHold => Ok(site.authority.store().look().await?),
            Self::WatchStore => Ok(site.store_watch.look(site.authority.store()).await?),
            Self::Sweep => {
                let swept = site.authority.sweep().await?;
                tracing::info!(removed = swept.removed, ended = swept.ended, "swept");
                site.authority.report_sweep(swept, &Context::system()).await
            }
        }
    }
}

impl Chore {
    /// Waits until another node calls for it before its time; says in which partitions.
    async fn call(self, site: &Site) -> Vec<Partition> {
        match self {
            Self::Follow => site.authority.store().changed().await,
            Self::FlushTouches
            | Self::FlushReports
            | Self::FlushKeyUses
            | Self::TendKeys
            | Self::Sweep
            | Self::SampleStats
            | Self::WatchHold
            | Self::WatchStore => std::future::pending().await,
        }
    }
}

/// Starts the loops; each ends after its round when `stopping` says so.
pub(super) fn spawn(site: &Arc<Site>, stopping: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
    let is_shared = site.authority.store().is_shared();
    let shared = is_shared.then_some(Chore::SHARED).into_iter().flatten();
    let streams = tokio::spawn(tell(Arc::clone(site), stopping.clone()));
    let reporter = {
        let (site, stopping) = (Arc::clone(site), stopping.clone());
        tokio::spawn(async move { site.telemetry.clone().report(site, stopping).await })
    };
    Chore::ALWAYS
        .into_iter()
        .chain(shared)
        .map(|chore| tokio::spawn(repeat(chore, Arc::clone(site), stopping.clone())))
        .chain([streams, reporter])
        .collect()
}

/// Every partition is read this often while somebody listens, and a heartbeat told.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// What is committed within this is read together.
const GATHER: Duration = Duration::from_millis(5);

/// Reads the logs for those who listen to streams.
async fn tell(site: Arc<Site>, mut stopping: watch::Receiver<bool>) {
    let mut ticks = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        let all = tokio::select! {
            _ = ticks.tick() => true,
            () = site.authority.stream_news() => false,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        let read = if all {
            site.authority.pump_streams().await
        } else {
            tokio::time::sleep(GATHER).await;
            site.authority.pump_news().await
        };
        if let Err(error) = &read
            && !failing
        {
            tracing::warn!(%error, "streams can't be fed");
        }
        failing = read.is_err();
    }
}

/// A failure is told loudly once, until it works again: the store may be away for hours.
async fn repeat(chore: Chore, site: Arc<Site>, mut stopping: watch::Receiver<bool>) {
    let every = chore.every(&site);
    let mut clock = Watch::start(&site);
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        let called = tokio::select! {
            _ = ticks.tick() => None,
            partitions = chore.call(&site) => Some(partitions),
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        if matches!(chore, Chore::Sweep) && clock.holds(&site) {
            tracing::warn!("the clock jumped; nothing is removed for an hour");
            continue;
        }
        let outcome = match called {
            Some(partitions) => site.authority.follow_changed(&partitions).await,
            None => chore.run(&site).await,
        };
        if outcome.is_err() {
            site.metrics.work_failed(chore);
        }
        match outcome {
            Ok(()) => failing = false,
            Err(error) if failing => tracing::debug!(%error, ?chore, "still failing"),
            Err(error) => {
                failing = true;
                tracing::warn!(%error, ?chore, "background work fails");
            }
        }
    }
}

/// Tells whether the system's clock may have jumped ahead: what a sweep removed by a wrong clock
/// would be gone, while what is merely refused comes back when the clock is set right.
struct Watch {
    wall: Timestamp,
    steady: Instant,
    hold_until: Option<Instant>,
}

/// The clock and the steady time may differ by this much; a sweep waits as long after more.
const JUMP: Duration = Duration::from_secs(3600);

impl Watch {
    /// Begins to watch. A store whose last commit is long ago may have been started on a wrong
    /// clock, or have been away: there is no telling, so it waits.
    fn start(site: &Site) -> Self {
        let (wall, steady) = (site.authority.now(), Instant::now());
        let last = site.authority.store().last_commit_at();
        let away = last.is_some_and(|last| wall.since(last) > JUMP);
        Self { wall, steady, hold_until: away.then(|| steady + JUMP) }
    }

    fn holds(&mut self, site: &Site) -> bool {
        let (wall, steady) = (site.authority.now(), Instant::now());
        let ahead = wall.since(self.wall).saturating_sub(steady - self.steady);
        (self.wall, self.steady) = (wall, steady);
        if ahead > JUMP {
            self.hold_until = Some(steady + JUMP);
        }
        self.hold_until.is_some_and(|until| steady < until)
    }
}
