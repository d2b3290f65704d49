//! The audit log: does it know of what is there?

use std::collections::BTreeSet;
use std::time::Duration;

use cloakroom_core::event::{Actor, Event, EventKind};
use cloakroom_core::session::{Client, Ending, Lifecycle, Session};
use cloakroom_core::types::{Partition, Sid, Timestamp};
use cloakroom_store::{Batch, Entry, Log, Store, StoreError, Tick};

use super::{Check, Fault};

/// Of which sessions an audit log tells, and how far back it goes.
#[derive(Default)]
pub(super) struct Logged {
    opened: BTreeSet<Sid>,
    ended: BTreeSet<Sid>,
    /// When its first entry was written; nothing is known of what was before.
    since: Option<Timestamp>,
    /// How many entries it has.
    pub(super) entries: u64,
}

/// A commit that was under way is done after this.
const SETTLES: Duration = Duration::from_secs(60);

/// Entries read at a time.
const PAGE: usize = 512;

impl<S: Store> Check<'_, S> {
    /// Reads a partition's audit log.
    pub(super) async fn logged(&mut self, partition: Partition) -> Result<Logged, StoreError> {
        let mut logged = Logged::default();
        let mut from = Tick::ZERO;
        loop {
            let page = self.store.log(partition, Log::Audit, from, PAGE).await?;
            logged.entries += page.len() as u64;
            for found in &page {
                logged.since.get_or_insert(found.cursor.instant());
                if let Entry::Audit(event) = &found.entry {
                    logged.note(event);
                }
            }
            match page.last() {
                Some(last) if page.len() >= PAGE => from = last.cursor.successor(),
                Some(_) | None => return Ok(logged),
            }
        }
    }

    /// Whether the log tells of a session's opening and its ending, as far as it goes back.
    pub(super) async fn events_of(
        &mut self,
        partition: Partition,
        session: &Session,
        logged: &Logged,
    ) -> Result<(), StoreError> {
        let mut told = self.untold(session, logged);
        let is_recent = self.now.since(session.created_at.max(ended_at(session))) < SETTLES;
        if told != (true, None) && is_recent {
            // What happened while the log was read may be in it now.
            let again = self.logged(partition).await?;
            told = self.untold(session, &again);
        }
        let (opened, ended) = told;
        if !opened {
            let event = event(EventKind::SessionOpened, session, session.created_at, None);
            let mut repair = Batch::default();
            repair.audit(event);
            let (fault, with) = (Fault::OpeningWithoutEvent, session.sid.to_string());
            self.note(partition, fault, with, Some(repair)).await?;
        }
        if let Some(ending) = ended {
            let reason = Some(ending.reason.as_str());
            let mut repair = Batch::default();
            repair.audit(event(EventKind::SessionEnded, session, ending.at, reason));
            let (fault, with) = (Fault::EndingWithoutEvent, session.sid.to_string());
            self.note(partition, fault, with, Some(repair)).await?;
        }
        Ok(())
    }
}

impl<S: Store> Check<'_, S> {
    /// Whether a session's opening is told, and its ending where that isn't.
    fn untold(&self, session: &Session, logged: &Logged) -> (bool, Option<Ending>) {
        // What is older than the log, or younger than this check, isn't looked for.
        let is_told =
            |at: Timestamp| logged.since.is_none_or(|since| at <= since) || at >= self.now;
        let opened = is_told(session.created_at) || logged.opened.contains(&session.sid);
        let ended = match session.lifecycle {
            Lifecycle::Live => None,
            Lifecycle::Ended(ending) => {
                let known = is_told(ending.at) || logged.ended.contains(&session.sid);
                (!known).then_some(ending)
            }
        };
        (opened, ended)
    }
}

/// When a session ended; long ago if it lives.
fn ended_at(session: &Session) -> Timestamp {
    match session.lifecycle {
        Lifecycle::Live => Timestamp::EPOCH,
        Lifecycle::Ended(ending) => ending.at,
    }
}

impl Logged {
    fn note(&mut self, event: &Event) {
        let Some(sid) = event.sid else { return };
        if event.kind == EventKind::SessionOpened {
            self.opened.insert(sid);
        } else if event.kind == EventKind::SessionEnded {
            self.ended.insert(sid);
        }
    }
}

/// The event that is missing, by what the session's record says.
fn event(kind: EventKind, session: &Session, at: Timestamp, reason: Option<&str>) -> Event {
    let reason = match reason {
        Some(reason) => format!("{reason}: found by store check"),
        None => "found by store check".to_owned(),
    };
    Event {
        kind,
        at,
        sid: Some(session.sid),
        subject: session.subject.clone(),
        actor: Actor::System,
        client: Client::default(),
        request_id: None,
        reason: Some(reason),
        count: 1,
    }
}
