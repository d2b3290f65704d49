//! The audit log: what is read of it, and refusals, which are coalesced before they are written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::event::{Event, EventKind};
use cloakroom_core::limits::PAGE_MAX;
use cloakroom_core::network::Network;
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::{Batch, Entry, Log, Logged, Store, Tick};

use crate::authority::Authority;
use crate::context::{Context, Error};
use crate::place::Place;
use crate::sweep::Swept;

/// One event a minute for each kind, subject and network; the rest is a count.
const COALESCE: Duration = Duration::from_secs(60);
/// Kinds, subjects and networks counted at once; beyond, they are counted together.
const REPORTS_MAX: usize = 10_000;

/// What may be coalesced: the kind, whom it is about, whence.
type Source = (EventKind, Option<Sid>, Option<Subject>, Option<String>);

#[derive(Clone, Debug)]
struct Counted {
    /// The first of its like since the last one written.
    event: Event,
    /// Those not written yet.
    count: u32,
    written_at: Option<Timestamp>,
}

/// Refusals and the like, to be written to the audit log: they commit with no change.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<BTreeMap<Source, Counted>>);

impl Reports {
    /// How many kinds of refusals are counted right now, and how many may be, each for itself.
    pub(crate) fn figures(&self) -> (usize, usize) {
        (self.0.lock().unwrap_or_else(PoisonError::into_inner).len(), REPORTS_MAX)
    }
}

/// Refusals that were taken to be written down; those that weren't are counted again.
struct Unwritten<'a> {
    reports: &'a Reports,
    due: Vec<(Source, Counted)>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        let mut reports = self.reports.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (source, was) in self.due.drain(..) {
            let since = reports.get(&source).map_or(0, |counted| counted.count);
            let count = was.count.saturating_add(since);
            reports.insert(source, Counted { count, ..was });
        }
    }
}

impl<S: Store> Authority<S> {
    /// Writes down that a node began to serve, and as what.
    pub async fn report_start(&self, release: &str) -> Result<(), Error> {
        let ctx = Context::system();
        let now = self.now();
        let mut event = ctx.event(EventKind::AuthorityStarted, now, None, None);
        event.reason = Some(release.to_owned());
        self.log_event(event).await
    }

    /// Writes down what a clean-up did, if it did anything. What ended has events of its own.
    pub async fn report_sweep(&self, swept: Swept, ctx: &Context) -> Result<(), Error> {
        if swept.ended == 0 && swept.removed == 0 {
            return Ok(());
        }
        let mut event = ctx.event(EventKind::AuthoritySwept, self.now(), None, None);
        let Swept { ended, removed, trimmed } = swept;
        let did =
            format!("sessions ended {ended}, records removed {removed}, log entries {trimmed}");
        event.reason = Some(did);
        self.log_event(event).await
    }

    /// Commits an event that goes with no change.
    pub(crate) async fn log_event(&self, event: Event) -> Result<(), Error> {
        let deadline = self.now().plus(self.settings.store_timeout);
        let partition = self.partition_of_event(&event);
        let mut batch = Batch::default();
        batch.audit(event);
        self.try_commit(partition, batch, deadline).await?;
        Ok(())
    }

    /// Counts something that changed nothing; written by [`Authority::flush_reports`].
    pub(crate) fn report(
        &self,
        kind: EventKind,
        sid: Option<Sid>,
        subject: Option<&Subject>,
        ctx: &Context,
    ) {
        let now = self.now();
        let network = |ip: IpAddr| format!("{:?}", Network::of(ip));
        let mut reports = self.reports.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut source = (kind, sid, subject.cloned(), ctx.client.ip.map(network));
        if reports.len() >= REPORTS_MAX && !reports.contains_key(&source) {
            source = (kind, None, None, None);
        }
        let event = || {
            let mut event = ctx.event(kind, now, source.1, source.2.as_ref());
            if source.3.is_none() {
                event.client = Default::default();
            }
            event
        };
        let counted = reports.entry(source.clone()).or_insert_with(|| Counted {
            event: event(),
            count: 0,
            written_at: None,
        });
        if counted.count == 0 {
            counted.event = event();
        }
        counted.count = counted.count.saturating_add(1);
    }

    /// Writes the refusals counted so far: the first of a kind at once, then one a minute.
    pub async fn flush_reports(&self) -> Result<(), Error> {
        let due = self.due_reports(self.now());
        let mut unwritten = Unwritten { reports: &self.reports, due };
        let (mut faults, mut at) = (BTreeMap::new(), 0);
        // One partition that can't be written must not hold up the others, nor be tried again and
        // again.
        while let Some((_, report)) = unwritten.due.get(at) {
            let event = report.event.clone();
            let partition = self.partition_of_event(&event);
            let failed = match faults.contains_key(&partition) {
                true => true,
                false => match self.log_event(event).await {
                    Ok(()) => false,
                    Err(fault) => faults.insert(partition, fault).is_none(),
                },
            };
            match failed {
                true => at += 1,
                false => drop(unwritten.due.swap_remove(at)),
            }
        }
        faults.into_values().next().map_or(Ok(()), Err)
    }

    /// What is to be written, as it was before it is held for written.
    fn due_reports(&self, now: Timestamp) -> Vec<(Source, Counted)> {
        let mut reports = self.reports.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        reports.retain(|source, counted| {
            let rested = counted.written_at.is_none_or(|at| now.since(at) >= COALESCE);
            if counted.count == 0 {
                return !rested;
            }
            if rested {
                counted.event.count = counted.count;
                due.push((source.clone(), counted.clone()));
                counted.count = 0;
                counted.written_at = Some(now);
            }
            true
        });
        due
    }

    fn partition_of_event(&self, event: &Event) -> Partition {
        let sid = event.sid.map(|sid| sid.partition());
        let home = || event.subject.as_ref().map(|subject| self.partition_of(subject));
        sid.or_else(home)
            .filter(|partition| partition.0 < self.store.partitions())
            .unwrap_or(Partition::ZERO)
    }
}

/// In which order events are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventOrder {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// The cursor of the last event seen.
    pub after: Option<String>,
    /// In which order.
    pub order: EventOrder,
    /// Of one kind.
    pub kind: Option<EventKind>,
    /// About one subject.
    pub subject: Option<Subject>,
    /// About one session.
    pub sid: Option<Sid>,
    /// How many at most.
    pub limit: usize,
}

/// An event as it is read.
#[derive(Clone, Debug)]
pub struct EventView {
    /// Its id.
    pub id: String,
    /// Where to go on after it.
    pub cursor: String,
    /// The event.
    pub event: Event,
}

/// A page of events.
#[derive(Clone, Debug)]
pub struct EventPage {
    /// The events.
    pub events: Vec<EventView>,
    /// Where to go on; none: these were the last for now.
    pub next: Option<String>,
}

impl<S: Store> Authority<S> {
    /// A page of the audit log. Over all partitions the order is by time, to about a second.
    pub async fn events(&self, filter: EventFilter) -> Result<EventPage, Error> {
        let limit = filter.limit.clamp(1, PAGE_MAX);
        let after = filter.after.as_deref();
        let after = after.map(|text| Place::parse_after(text, self.store_id())).transpose()?;
        let partitions = match (&filter.sid, &filter.subject) {
            (Some(sid), _) => sid.partition().0..sid.partition().0.saturating_add(1),
            (None, Some(subject)) => {
                let home = self.partition_of(subject).0;
                home..home + 1
            }
            (None, None) => 0..self.store.partitions(),
        };
        let mut found: Vec<(Place, Event)> = Vec::new();
        for number in partitions.filter(|number| *number < self.store.partitions()) {
            let here = Partition(number);
            self.collect_events(here, &filter, after, limit + 1, &mut found).await?;
            // Only the first of all partitions together are wanted.
            sort(&mut found, filter.order);
            found.truncate(limit + 1);
        }
        let more = found.len() > limit;
        found.truncate(limit);
        let events: Vec<EventView> = found
            .into_iter()
            .map(|(place, event)| {
                let cursor = place.cursor(self.store_id());
                EventView { id: format!("evt_{}", place.id()), cursor, event }
            })
            .collect();
        let next = more.then(|| events.last().map(|last| last.cursor.clone())).flatten();
        Ok(EventPage { events, next })
    }

    async fn collect_events(
        &self,
        partition: Partition,
        filter: &EventFilter,
        after: Option<Place>,
        want: usize,
        found: &mut Vec<(Place, Event)>,
    ) -> Result<(), Error> {
        let mut from = match (filter.order, after) {
            (EventOrder::Ascending, after) => after.map_or(Tick::ZERO, |place| place.tick),
            (EventOrder::Descending, None) => Tick(u64::MAX),
            (EventOrder::Descending, Some(place)) => place.tick.successor(),
        };
        let mut collected = 0;
        loop {
            let page = match filter.order {
                EventOrder::Ascending => {
                    self.in_time(self.store.log(partition, Log::Audit, from, want)).await?
                }
                EventOrder::Descending => {
                    self.in_time(self.store.log_back(partition, Log::Audit, from, want)).await?
                }
            };
            let Some(last) = page.last().map(|logged| logged.cursor) else { return Ok(()) };
            for logged in page {
                let Logged { cursor, index, entry } = logged;
                let place = Place { tick: cursor, partition, index };
                let seen = after.is_some_and(|after| match filter.order {
                    EventOrder::Ascending => place <= after,
                    EventOrder::Descending => place >= after,
                });
                if let Entry::Audit(event) = entry
                    && !seen
                    && filter.wants(&event)
                {
                    found.push((place, *event));
                    collected += 1;
                }
            }
            if collected >= want {
                return Ok(());
            }
            from = match filter.order {
                EventOrder::Ascending => last.successor(),
                EventOrder::Descending => last,
            };
        }
    }
}

impl EventFilter {
    fn wants(&self, event: &Event) -> bool {
        self.kind.is_none_or(|kind| kind == event.kind)
            && self.sid.is_none_or(|sid| Some(sid) == event.sid)
            && self.subject.as_ref().is_none_or(|subject| Some(subject) == event.subject.as_ref())
    }
}

fn sort(found: &mut [(Place, Event)], order: EventOrder) {
    match order {
        EventOrder::Ascending => found.sort_by_key(|(place, _)| *place),
        EventOrder::Descending => found.sort_by_key(|(place, _)| std::cmp::Reverse(*place)),
    }
}
