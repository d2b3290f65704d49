//! Listings: a session as it is shown, a subject's sessions, and pages over all partitions.

use std::sync::Arc;

use cloakroom_core::limits::PAGE_MAX;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Ending, Object, Session};
use cloakroom_core::subject::{PartitionState, SubjectState};
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::{Follow, Key, Kind, Record, Store};

use crate::authority::Authority;
use crate::context::Error;

/// A session as it is listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The session.
    pub session: Arc<Session>,
    /// Its claims over its subject's.
    pub claims: Object,
    /// Since when and why it is over; none: it lives.
    pub ending: Option<Ending>,
}

/// A page of sessions.
#[derive(Clone, Debug)]
pub struct SessionPage {
    /// The sessions.
    pub sessions: Vec<Listed>,
    /// Where the next page begins.
    pub next: Option<String>,
}

impl<S: Store> Authority<S> {
    /// A session, live or ended, for as long as its record is kept.
    pub async fn session(&self, sid: Sid) -> Result<Listed, Error> {
        let known = self.read(sid, None, None).await?.ok_or(Refusal::NotFound)?;
        Ok(self.listed(&known.session, known.subject.as_deref(), &known.partition, self.now()))
    }

    /// The live sessions of a subject, newest activity first.
    pub async fn sessions_of(&self, subject: &Subject) -> Result<Vec<Listed>, Error> {
        let partition = self.partition_of(subject);
        let keys = [Key::Index(subject.clone()), Key::Subject(subject.clone()), Key::Partition];
        let follow = Follow::Sessions { at_least: 1 };
        let loaded = self.load_following(partition, &keys, follow).await?;
        let (known, state) = (loaded.subject(subject), loaded.partition()?);
        let mut sessions: Vec<Listed> = loaded
            .index(subject)
            .iter()
            .filter_map(|sid| loaded.session(*sid))
            .map(|session| self.listed(session, known, state, loaded.now))
            .filter(|listed| listed.ending.is_none())
            .collect();
        sessions.sort_by_key(|listed| std::cmp::Reverse(listed.session.last_seen_at));
        Ok(sessions)
    }

    /// A page of sessions, live ones and those whose ending is still kept, by id; one subject's
    /// or everybody's. `after` is a former page's `next`.
    pub async fn page_sessions(
        &self,
        after: Option<&str>,
        limit: usize,
        subject: Option<&Subject>,
    ) -> Result<SessionPage, Error> {
        let limit = limit.clamp(1, PAGE_MAX);
        let after = after.map(parse_cursor).transpose()?;
        if let Some(subject) = subject {
            return self.page_of_subject(after, limit, subject).await;
        }
        let after = after.map(|sid| (sid.partition(), Key::Session(sid)));
        let sid_of = |record: Record| record.into_session().map(|session| session.sid);
        let mut sids = self.records_after(Kind::Session, after, limit + 1, sid_of).await?;
        let next = page_end(&mut sids, limit, Sid::to_string);
        let mut sessions = Vec::with_capacity(sids.len());
        for sids in sids.chunk_by(|a, b| a.partition() == b.partition()) {
            sessions.extend(self.listed_at_once(sids).await?);
        }
        Ok(SessionPage { sessions, next })
    }

    async fn page_of_subject(
        &self,
        after: Option<Sid>,
        limit: usize,
        subject: &Subject,
    ) -> Result<SessionPage, Error> {
        let mut sessions = self.sessions_of(subject).await?;
        sessions.sort_by_key(|listed| listed.session.sid);
        sessions.retain(|listed| after.is_none_or(|after| listed.session.sid > after));
        let next = page_end(&mut sessions, limit, |listed| listed.session.sid.to_string());
        Ok(SessionPage { sessions, next })
    }

    /// Sessions of one partition with what decides over them, all of one state: a session and an
    /// epoch of two instants may contradict each other.
    async fn listed_at_once(&self, sids: &[Sid]) -> Result<Vec<Listed>, Error> {
        let Some(first) = sids.first() else { return Ok(Vec::new()) };
        let mut keys = vec![Key::Partition];
        keys.extend(sids.iter().copied().map(Key::Session));
        let loaded = self.load_following(first.partition(), &keys, Follow::Subject).await?;
        let state = loaded.partition()?;
        let sessions = sids.iter().filter_map(|sid| loaded.session(*sid));
        let listed = sessions.map(|session| {
            Ok(self.listed(session, loaded.subject_of(session)?, state, loaded.now))
        });
        listed.collect()
    }

    pub(crate) fn listed(
        &self,
        session: &Session,
        subject: Option<&SubjectState>,
        partition: &PartitionState,
        now: Timestamp,
    ) -> Listed {
        let seen_at = self.cache.session(session.sid).map(|cached| cached.meters.seen_at());
        let mut session = session.clone();
        session.last_seen_at = session.last_seen_at.max(seen_at.unwrap_or_default());
        let ending = session.standing(subject, partition, now).err();
        Listed { claims: session.effective_claims(subject), session: Arc::new(session), ending }
    }

    /// What `take` makes of the first `want` records of a kind after a key, or from the beginning
    /// on, partition by partition.
    pub(crate) async fn records_after<T: Send>(
        &self,
        kind: Kind,
        after: Option<(Partition, Key)>,
        want: usize,
        take: impl Fn(Record) -> Option<T> + Send + Sync,
    ) -> Result<Vec<T>, Error> {
        let (first, mut after) = match after {
            Some((partition, key)) => (partition.0, Some(key)),
            None => (0, None),
        };
        let mut taken = Vec::new();
        for number in first..self.store.partitions() {
            let left = want.saturating_sub(taken.len());
            if left == 0 {
                break;
            }
            let page = self.store.page(Partition(number), kind, after.as_ref(), left);
            let page = self.in_time(page).await?;
            taken.extend(page.into_iter().filter_map(|(_, found)| take(found.record)));
            after = None;
        }
        Ok(taken)
    }
}

/// Cuts `limit` and one more that was asked for to a page. Where that one was there, the next page
/// begins after the last of this, of which this is the cursor.
pub(crate) fn page_end<T, C>(
    page: &mut Vec<T>,
    limit: usize,
    cursor: impl Fn(&T) -> C,
) -> Option<C> {
    let has_more = page.len() > limit;
    page.truncate(limit);
    page.last().filter(|_| has_more).map(cursor)
}

/// What a cursor is told that is none of this listing.
pub(crate) fn not_a_cursor() -> Refusal {
    let why = "not a cursor of this listing".to_owned();
    Refusal::InvalidMember { member: "after".into(), why }
}

fn parse_cursor(text: &str) -> Result<Sid, Error> {
    text.parse().map_err(|_| not_a_cursor().into())
}
