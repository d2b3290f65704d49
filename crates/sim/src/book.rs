//! The reference model: what every commit changed, and what follows from it.
//!
//! The book sees each commit at the instant it takes effect, in the order of the store, and keeps
//! records and logs of its own. What it says of a session is the truth that answers are judged by.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::keys::KeyState;
use cloakroom_core::session::{EndReason, Holder, Lifecycle, Object, Session};
use cloakroom_core::subject::{PartitionState, SubjectState};
use cloakroom_core::token::access::jti_partition;
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::{Batch, Change, Entry, Key, Log, Logged, Record, Tick};

use crate::schedule::Moment;
use crate::tally::Tally;

/// An invariant that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which, by its number and name.
    pub invariant: &'static str,
    /// When.
    pub moment: Moment,
    /// The session that it is about.
    pub sid: Option<Sid>,
    /// What happened.
    pub text: String,
}

/// One line of the history.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub moment: Moment,
    /// The session that it is about; none: everybody.
    pub sid: Option<Sid>,
    /// What happened.
    pub text: String,
}

/// What is known of a rotation.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// When it took effect.
    pub moment: Moment,
    /// Hash of its `Idempotency-Key`.
    pub key: Option<[u8; 32]>,
}

/// The truth about one session.
#[derive(Clone, Debug)]
pub struct Track {
    /// Whose it is.
    pub subject: Option<Subject>,
    /// When it was opened.
    pub opened: Moment,
    /// When it ended, by whatever made it end, and why. Expiry doesn't count until written.
    pub ended: Option<(Moment, EndReason)>,
    /// Its rotations, by the generation that they made.
    pub rotations: BTreeMap<u32, Rotation>,
    /// Since when each node has answered that it is over, and in which of its lives.
    pub told: BTreeMap<usize, (Moment, u32)>,
    /// When its epoch last moved: earlier access tokens are over.
    pub epoch_moved: Option<Moment>,
    /// A thief holds a copy of a credential of it.
    pub stolen: bool,
    /// A failover took it away, or its ending.
    pub rolled_back: bool,
    /// When it was last used with success.
    pub used: Moment,
}

/// The truth about one denied access token, or one revoked key.
#[derive(Clone, Debug, Default)]
pub struct Denial {
    /// When it took effect; none: a failover took that away.
    pub at: Option<Moment>,
    /// Since when each node has answered that it is denied, and in which of its lives.
    pub told: BTreeMap<usize, (Moment, u32)>,
}

/// The truth about one partition.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Its records.
    pub records: BTreeMap<Key, Record>,
    /// Its logs, in the order of the commits.
    pub logs: BTreeMap<Log, Vec<Logged>>,
    /// The tick of its last commit.
    pub last: Tick,
    /// When each subject was last signed out everywhere.
    pub raised: BTreeMap<Subject, Moment>,
    /// When all of it was ended.
    pub all_ended: Option<Moment>,
    /// When it went back.
    pub rolled_back: Option<Moment>,
}

/// Everything that is known for certain.
#[derive(Debug, Default)]
pub struct Book {
    /// By partition.
    pub parts: Vec<Part>,
    /// By session.
    pub tracks: BTreeMap<Sid, Track>,
    /// Since when the credentials of an opening, by its label, are being checked.
    pub checking: BTreeMap<String, Moment>,
    /// Writes of data and claims that took effect, by their mark.
    pub applied: BTreeMap<String, u32>,
    /// Access tokens that are denied, by their `jti`.
    pub denied: BTreeMap<String, Denial>,
    /// Signing keys that are revoked, by their `kid`.
    pub revoked_keys: BTreeMap<String, Denial>,
    /// When each "sign out everywhere", and each end of a whole partition, first took effect: by
    /// its instant, which it keeps when it is done again after a failover.
    pub raises: BTreeMap<(Partition, Option<Subject>, Timestamp), Moment>,
    /// Sessions of which some access token was asked to be denied.
    pub denied_of: BTreeSet<Sid>,
    /// How often a user asked to end each session from another.
    pub ends_by_own: BTreeMap<Sid, u32>,
    /// What each refresh token was answered with.
    pub successors: BTreeMap<String, String>,
    /// The first violation.
    pub violation: Option<Violation>,
    /// Counts.
    pub tally: Tally,
    /// The history, where it is wanted.
    pub history: Option<Vec<Line>>,
}

impl Part {
    /// A session's record.
    pub fn session(&self, sid: Sid) -> Option<&Session> {
        match self.records.get(&Key::Session(sid)) {
            Some(Record::Session(session)) => Some(session),
            Some(_) | None => None,
        }
    }

    /// A subject's record.
    pub fn subject(&self, subject: &Subject) -> Option<&SubjectState> {
        match self.records.get(&Key::Subject(subject.clone())) {
            Some(Record::Subject(state)) => Some(state),
            Some(_) | None => None,
        }
    }

    /// The partition's own record.
    pub fn state(&self) -> PartitionState {
        match self.records.get(&Key::Partition) {
            Some(Record::Partition(state)) => *state,
            Some(_) | None => PartitionState::default(),
        }
    }

    /// Whether a session is over by its record or its epochs, whatever the time.
    pub fn is_over(&self, session: &Session) -> bool {
        let subject = session.subject.as_ref().and_then(|subject| self.subject(subject));
        session.lifecycle != Lifecycle::Live
            || session.partition_epoch < self.state().epoch
            || subject.is_some_and(|s| session.subject_epoch < s.epoch || s.disabled_at.is_some())
    }

    /// Applies a commit; gives back the records that it replaced.
    fn apply(&mut self, batch: &Batch, tick: Tick) -> BTreeMap<Key, Record> {
        self.last = tick;
        let mut replaced = BTreeMap::new();
        for write in &batch.writes {
            let old = match &write.change {
                Change::Put { record, .. } => {
                    self.records.insert(write.key.clone(), (**record).clone())
                }
                Change::Delete => self.records.remove(&write.key),
            };
            replaced.extend(old.map(|old| (write.key.clone(), old)));
        }
        let mut indexes: BTreeMap<Log, u16> = BTreeMap::new();
        for entry in &batch.entries {
            let index = indexes.entry(entry.log()).or_default();
            let logged = Logged { cursor: tick, index: *index, entry: entry.clone() };
            *index += 1;
            self.logs.entry(entry.log()).or_default().push(logged);
        }
        replaced
    }
}

impl Book {
    /// An empty book.
    pub fn new(partitions: u16, with_history: bool) -> Self {
        Self {
            parts: (0..partitions).map(|_| Part::default()).collect(),
            history: with_history.then(Vec::new),
            ..Self::default()
        }
    }

    /// A partition's truth.
    pub fn part(&self, partition: Partition) -> Option<&Part> {
        self.parts.get(usize::from(partition.0))
    }

    /// A session as it is stored.
    pub fn session(&self, sid: Sid) -> Option<&Session> {
        self.part(sid.partition())?.session(sid)
    }

    /// Whether a session's partition went back at some time.
    pub fn went_back(&self, sid: Sid) -> bool {
        self.part(sid.partition()).is_some_and(|part| part.rolled_back.is_some())
    }

    /// What is known of the revocation of the key that signed an access token.
    pub fn revocation_of(&self, token: &str) -> Option<&Denial> {
        let header = token.split_once('.').map(|(header, _)| header)?;
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
        self.revoked_keys.get(header.get("kid")?.as_str()?)
    }

    /// Writes a line of the history, where one is kept.
    pub fn note(&mut self, moment: Moment, sid: Option<Sid>, text: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(Line { moment, sid, text: text() });
        }
    }

    /// Notes a violation; the first one counts.
    pub fn violate(
        &mut self,
        invariant: &'static str,
        moment: Moment,
        sid: Option<Sid>,
        text: String,
    ) {
        self.note(moment, sid, || format!("VIOLATED {invariant}: {text}"));
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, moment, sid, text });
        }
    }

    /// Takes note of a commit that took effect.
    pub fn committed(&mut self, moment: Moment, partition: Partition, batch: &Batch, tick: Tick) {
        self.tally.commits += 1;
        let Some(part) = self.parts.get(usize::from(partition.0)) else { return };
        if tick <= part.last {
            let text = format!("tick {tick:?} after {:?} in partition {partition}", part.last);
            self.violate(crate::rules::ENTRY_IFF_CHANGE, moment, None, text);
        }
        if self.history.is_some() {
            self.describe(moment, partition, batch);
        }
        crate::rules::judge_commit(self, moment, partition, batch);
        let Some(part) = self.parts.get_mut(usize::from(partition.0)) else { return };
        let replaced = part.apply(batch, tick);
        self.follow(moment, partition, batch, &replaced);
    }

    fn describe(&mut self, moment: Moment, partition: Partition, batch: &Batch) {
        for write in &batch.writes {
            let sid = match &write.key {
                Key::Session(sid) | Key::Data(sid) => Some(*sid),
                _ => None,
            };
            let what = match &write.change {
                Change::Delete => "removed".to_owned(),
                Change::Put { record, .. } => summary(record),
            };
            self.note(moment, sid, || format!("  commit p{partition}: {} {what}", write.key));
        }
        for entry in &batch.entries {
            let (sid, what) = match entry {
                Entry::Feed(feed) => (None, format!("{feed:?}")),
                Entry::Audit(event) => (
                    event.sid,
                    format!("{} {}", event.kind.as_str(), event.reason.as_deref().unwrap_or("")),
                ),
            };
            self.note(moment, sid, || format!("  commit p{partition}: log {what}"));
        }
    }

    /// What a commit means for the sessions.
    fn follow(
        &mut self,
        moment: Moment,
        partition: Partition,
        batch: &Batch,
        replaced: &BTreeMap<Key, Record>,
    ) {
        for write in &batch.writes {
            let new = match &write.change {
                Change::Put { record, .. } => Some(&**record),
                Change::Delete => None,
            };
            match (&write.key, replaced.get(&write.key), new) {
                (Key::Session(sid), old, new) => {
                    self.follow_session(moment, *sid, as_session(old), as_session(new));
                }
                (Key::Subject(subject), old, Some(Record::Subject(state))) => {
                    let epoch = match old {
                        Some(Record::Subject(old)) => {
                            self.follow_marks(&old.claims, &state.claims);
                            old.epoch
                        }
                        Some(_) | None => {
                            self.follow_marks(&Object::new(), &state.claims);
                            0
                        }
                    };
                    if state.epoch > epoch {
                        let Some(bump) = state.bumps.last() else { continue };
                        let which = (partition, Some(subject.clone()), bump.at);
                        self.raise(moment, which, bump.reason);
                    }
                }
                (Key::DeniedToken(jti), None, Some(_)) => {
                    let denial = self.denied.entry(jti.to_string()).or_default();
                    denial.at.get_or_insert(moment);
                }
                (Key::SigningKey(kid), _, Some(Record::SigningKey(new)))
                    if new.state == KeyState::Revoked =>
                {
                    let denial = self.revoked_keys.entry(kid.to_string()).or_default();
                    denial.at.get_or_insert(moment);
                }
                (Key::Data(sid), None, Some(Record::Data(new)))
                    if crate::succession::is_cart(new) =>
                {
                    self.applied.insert(format!("carried {sid}"), 1);
                }
                (Key::Data(_), old, Some(Record::Data(new))) => {
                    let none = Object::new();
                    let old = match old {
                        Some(Record::Data(old)) => old,
                        Some(_) | None => &none,
                    };
                    self.follow_marks(old, new);
                }
                (Key::Partition, Some(Record::Partition(old)), Some(Record::Partition(new)))
                    if new.epoch > old.epoch =>
                {
                    let which = (partition, None, new.bumped_at);
                    self.raise(moment, which, EndReason::EndedByOperator);
                }
                _ => {}
            }
        }
    }

    /// Each write of data or claims bears a mark: as a member of its own, or as `by`.
    fn follow_marks(&mut self, old: &Object, new: &Object) {
        let added = new.keys().filter(|name| !old.contains_key(*name)).cloned();
        let by = (old.get("by") != new.get("by")).then(|| new.get("by")).flatten();
        let by = by.and_then(|by| by.as_str()).map(str::to_owned);
        for mark in added.chain(by) {
            *self.applied.entry(mark).or_default() += 1;
        }
    }

    fn follow_session(
        &mut self,
        moment: Moment,
        sid: Sid,
        old: Option<&Session>,
        new: Option<&Session>,
    ) {
        match (old, new) {
            (None, Some(new)) => {
                self.tally.opened += 1;
                self.tracks.insert(sid, Track::new(new.subject.clone(), moment));
            }
            (Some(old), Some(new)) => {
                self.follow_marks(&old.claims, &new.claims);
                let Some(track) = self.tracks.get_mut(&sid) else { return };
                if let Lifecycle::Ended(ending) = new.lifecycle {
                    track.ended.get_or_insert((moment, ending.reason));
                }
                if new.subject_epoch != old.subject_epoch {
                    track.epoch_moved = Some(moment);
                }
                if let (Holder::Refresh(before), Holder::Refresh(after)) =
                    (&old.holder, &new.holder)
                    && after.generation != before.generation
                {
                    let key = after.predecessor.as_ref().and_then(|p| p.idempotency);
                    track.rotations.insert(after.generation, Rotation { moment, key });
                    self.tally.rotations += 1;
                }
            }
            (Some(_), None) => {
                if let Some(track) = self.tracks.get_mut(&sid) {
                    track.ended.get_or_insert((moment, EndReason::AbsoluteTimeout));
                }
            }
            (None, None) => {}
        }
    }

    /// Marks what a raised epoch ended: by now the records are the new ones.
    fn raise(
        &mut self,
        moment: Moment,
        which: (Partition, Option<Subject>, Timestamp),
        reason: EndReason,
    ) {
        let (partition, subject, _) = which.clone();
        let first = *self.raises.entry(which).or_insert(moment);
        let Some(part) = self.parts.get_mut(usize::from(partition.0)) else { return };
        match &subject {
            Some(subject) => {
                let last = part.raised.entry(subject.clone()).or_insert(first);
                *last = first.max(*last);
            }
            None => part.all_ended = part.all_ended.max(Some(first)),
        }
        let part = &*part;
        for (sid, track) in &mut self.tracks {
            if sid.partition() != partition || track.ended.is_some() {
                continue;
            }
            if subject.is_some() && track.subject != subject {
                continue;
            }
            if part.session(*sid).is_some_and(|session| part.is_over(session)) {
                track.ended = Some((moment, reason));
            }
        }
    }

    /// A partition as it is now, to go back to.
    pub fn snapshot(&self, partition: Partition) -> Option<Part> {
        self.part(partition).cloned()
    }

    /// The store lost what this partition saw since `was`.
    pub fn roll_back(&mut self, moment: Moment, since: Moment, partition: Partition, was: &Part) {
        self.note(moment, None, || format!("FAILOVER of partition {partition} to {since:?}"));
        if let Some(part) = self.parts.get_mut(usize::from(partition.0)) {
            *part = Part { rolled_back: Some(moment), ..was.clone() };
        }
        for (jti, denial) in &mut self.denied {
            let is_lost = denial.at.is_some_and(|at| at > since);
            if is_lost && jti_partition(jti) == Some(partition) {
                denial.at = None;
            }
        }
        let keys = self.revoked_keys.values_mut().filter(|_| partition == Partition::ZERO);
        for denial in keys.filter(|denial| denial.at.is_some_and(|at| at > since)) {
            denial.at = None;
        }
        for (sid, track) in &mut self.tracks {
            if sid.partition() != partition {
                continue;
            }
            track.rotations.retain(|_, rotation| rotation.moment <= since);
            if track.opened > since || track.ended.is_some_and(|(at, _)| at > since) {
                track.rolled_back = true;
            }
            if track.opened <= since && track.ended.is_some_and(|(at, _)| at > since) {
                track.ended = None;
            }
        }
    }
}

impl Track {
    fn new(subject: Option<Subject>, opened: Moment) -> Self {
        Self {
            subject,
            opened,
            ended: None,
            rotations: BTreeMap::new(),
            told: BTreeMap::new(),
            epoch_moved: None,
            stolen: false,
            rolled_back: false,
            used: opened,
        }
    }

    /// Whether it had ended by then.
    pub fn ended_before(&self, moment: Moment) -> bool {
        self.ended.is_some_and(|(at, _)| at < moment)
    }
}

fn as_session(record: Option<&Record>) -> Option<&Session> {
    match record {
        Some(Record::Session(session)) => Some(session),
        Some(_) | None => None,
    }
}

fn summary(record: &Record) -> String {
    match record {
        Record::Session(session) => {
            let life = match session.lifecycle {
                Lifecycle::Live => "live".to_owned(),
                Lifecycle::Ended(ending) => format!("ended {}", ending.reason.as_str()),
            };
            let holder = match &session.holder {
                Holder::Cookie { lineage, .. } => format!("cookie lineage {lineage}"),
                Holder::Refresh(state) => format!("generation {}", state.generation),
            };
            let seen = instant(session.last_seen_at);
            format!("{life}, {holder}, epoch {}, seen {seen}", session.subject_epoch)
        }
        Record::Data(data) => serde_json::Value::Object(data.clone()).to_string(),
        Record::Subject(state) => format!("epoch {}", state.epoch),
        Record::Partition(state) => format!("epoch {}", state.epoch),
        Record::Index(sids) => format!("{sids:?}"),
        Record::User(_)
        | Record::Identifier(_)
        | Record::Handle(_)
        | Record::DeniedToken(_)
        | Record::Throttle(_)
        | Record::SigningKey(_)
        | Record::ApiKey(_)
        | Record::StoreKey(_)
        | Record::Settings(_) => "put".to_owned(),
    }
}

/// An instant in virtual milliseconds.
pub fn instant(at: Timestamp) -> i64 {
    at.as_millis() - crate::world::START.as_millis()
}
