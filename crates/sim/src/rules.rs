//! What a commit may change, and what must be logged with it.

use cloakroom_core::event::{Event, EventKind, FeedEntry};
use cloakroom_core::keys::KeyState;
use cloakroom_core::session::{EndReason, Ending, Holder, Lifecycle, Object, Session};
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::{Batch, Change, Entry, Key, Record};
use serde_json::Value;

use crate::book::{Book, Part};
use crate::plan::{KEEP_ENDED, SKEW_MAX, millis};
use crate::schedule::Moment;
use crate::world::START;

/// Invariant 1.
pub const ENDED_IS_FINAL: &str = "1 ended is final";
/// Invariant 2.
pub const REVOKED_IS_REFUSED: &str = "2 revoked is refused";
/// Invariant 3.
pub const ONE_LINEAGE: &str = "3 one lineage";
/// Invariant 4.
pub const LOST_ANSWER_COSTS_NOTHING: &str = "4 a lost answer costs nothing";
/// Invariant 5.
pub const ACKNOWLEDGED_IS_DURABLE: &str = "5 acknowledged is durable";
/// Invariant 6.
pub const ENTRY_IFF_CHANGE: &str = "6 entry iff change";
/// Invariant 7.
pub const EVERYWHERE: &str = "7 everywhere means everywhere";
/// Invariant 8.
pub const NEVER_EARLY_NEVER_LATE: &str = "8 never early, never late";
/// Invariant 10.
pub const NO_LOST_UPDATE: &str = "10 no lost update";
/// Invariant 12.
pub const UNKNOWN_IS_NEITHER: &str = "12 unknown is neither yes nor no";

/// What must be logged with a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    Opened(Sid),
    Ended(Sid),
    EndedFeed(Sid),
    ChangedFeed(Sid),
    ClaimsChanged(Sid),
    RefreshedElsewhere(Sid),
    Reused(Sid),
    DataChanged(Sid),
    RaisedFeed(Subject, u64),
    Raised(Subject),
    SubjectChangedFeed(Subject),
    SubjectChanged(Subject),
    AllEndedFeed,
    AllEnded,
    DeniedFeed(String),
    Denied(String),
    KeyFeed(String),
    Key(String),
    /// Something that no such change brings with it.
    Stray(String),
}

/// What is wrong with a commit.
type Fault = (&'static str, Option<Sid>, String);

/// Judges a commit before it is entered.
pub(crate) fn judge_commit(book: &mut Book, moment: Moment, partition: Partition, batch: &Batch) {
    let Some(part) = book.part(partition) else { return };
    let mut commit =
        Commit { moment, partition, batch, part, signs: Vec::new(), faults: Vec::new() };
    for write in &batch.writes {
        let new = match &write.change {
            Change::Put { record, .. } => Some(&**record),
            Change::Delete => None,
        };
        commit.judge_write(book, &write.key, new);
    }
    commit.judge_entries();
    let faults = commit.faults;
    for (invariant, sid, text) in faults {
        book.violate(invariant, moment, sid, text);
    }
}

struct Commit<'a> {
    moment: Moment,
    partition: Partition,
    batch: &'a Batch,
    part: &'a Part,
    signs: Vec<Sign>,
    faults: Vec<Fault>,
}

impl Commit<'_> {
    fn fault(&mut self, invariant: &'static str, sid: Option<Sid>, text: impl Into<String>) {
        self.faults.push((invariant, sid, text.into()));
    }

    fn written(&self, key: &Key) -> Option<&Record> {
        let write = self.batch.writes.iter().find(|write| write.key == *key)?;
        match &write.change {
            Change::Put { record, .. } => Some(record),
            Change::Delete => None,
        }
    }

    /// The epoch of a subject once this commit is in.
    fn epoch_after(&self, subject: &Subject) -> u64 {
        match self.written(&Key::Subject(subject.clone())) {
            Some(Record::Subject(state)) => state.epoch,
            Some(_) | None => self.part.subject(subject).map_or(0, |state| state.epoch),
        }
    }

    fn judge_write(&mut self, book: &Book, key: &Key, new: Option<&Record>) {
        let old = self.part.records.get(key);
        match (key, old, new) {
            (Key::Session(sid), None, Some(Record::Session(new))) => {
                self.judge_opening(book, *sid, new);
            }
            (Key::Session(sid), Some(Record::Session(old)), Some(Record::Session(new))) => {
                self.judge_change(*sid, old, new);
            }
            (Key::Session(sid), Some(Record::Session(old)), None) => self.judge_removal(*sid, old),
            (Key::Data(sid), old, Some(Record::Data(new))) => {
                let empty = Object::new();
                let old = match old {
                    Some(Record::Data(old)) => old,
                    Some(_) | None => &empty,
                };
                self.judge_data(*sid, old, new);
            }
            (Key::Subject(subject), old, Some(Record::Subject(new))) => {
                let (epoch, claims) = match old {
                    Some(Record::Subject(old)) => (old.epoch, old.claims.clone()),
                    Some(_) | None => (0, Object::new()),
                };
                if new.epoch < epoch {
                    self.fault(EVERYWHERE, None, format!("the epoch of {subject} went down"));
                } else if new.epoch > epoch {
                    self.signs.push(Sign::RaisedFeed(subject.clone(), new.epoch));
                    self.signs.push(Sign::Raised(subject.clone()));
                } else if new.claims != claims {
                    self.signs.push(Sign::SubjectChangedFeed(subject.clone()));
                    self.signs.push(Sign::SubjectChanged(subject.clone()));
                    self.judge_claims(None, &claims, &new.claims);
                }
            }
            (Key::Partition, Some(Record::Partition(old)), Some(Record::Partition(new))) => {
                if new.epoch <= old.epoch {
                    self.fault(EVERYWHERE, None, "a partition's epoch didn't go up");
                }
                self.signs.push(Sign::AllEndedFeed);
                if self.partition == Partition::ZERO {
                    self.signs.push(Sign::AllEnded);
                }
            }
            (Key::DeniedToken(jti), _, Some(_)) => {
                self.signs.push(Sign::DeniedFeed(jti.to_string()));
                self.signs.push(Sign::Denied(jti.to_string()));
            }
            (Key::SigningKey(kid), old, new) => {
                self.signs.push(Sign::KeyFeed(kid.to_string()));
                // One that is new and signs at once was made and took over.
                let count = match new {
                    Some(Record::SigningKey(new)) if new.state == KeyState::Active => {
                        1 + usize::from(old.is_none())
                    }
                    Some(_) => 1,
                    None => 0,
                };
                self.signs.extend(std::iter::repeat_n(Sign::Key(kid.to_string()), count));
            }
            _ => {}
        }
    }

    fn judge_opening(&mut self, book: &Book, sid: Sid, new: &Session) {
        self.signs.push(Sign::Opened(sid));
        if book.tracks.get(&sid).is_some_and(|track| !track.rolled_back) {
            self.fault(ENDED_IS_FINAL, Some(sid), "a session's record was made a second time");
        }
        let state = self.part.state();
        let epoch = new.subject.as_ref().map_or(0, |subject| self.epoch_after(subject));
        if new.partition_epoch != state.epoch || new.subject_epoch != epoch {
            self.fault(
                EVERYWHERE,
                Some(sid),
                "a session was opened under another epoch than now's",
            );
        }
        let checked = new.client.label.as_ref().and_then(|label| book.checking.get(label));
        let Some(checked) = checked else { return };
        let raised = new.subject.as_ref().and_then(|subject| self.part.raised.get(subject));
        let raised = raised.into_iter().chain(&self.part.all_ended).max();
        if raised.is_some_and(|raised| raised > checked) {
            let text = format!("its credentials were checked at {checked:?}, before {raised:?}");
            self.fault(EVERYWHERE, Some(sid), text);
        }
    }

    fn judge_change(&mut self, sid: Sid, old: &Session, new: &Session) {
        let (before, after) = match (old.lifecycle, new.lifecycle) {
            (Lifecycle::Ended(before), Lifecycle::Ended(after)) => {
                if before != after {
                    let text = format!("its ending changed from {before:?} to {after:?}");
                    self.fault(ENDED_IS_FINAL, Some(sid), text);
                }
                return;
            }
            (Lifecycle::Ended(_), Lifecycle::Live) => {
                self.fault(ENDED_IS_FINAL, Some(sid), "a write brought it back to life");
                return;
            }
            (Lifecycle::Live, Lifecycle::Ended(ending)) => {
                self.judge_ending(sid, old, ending);
                return;
            }
            (Lifecycle::Live, Lifecycle::Live) => (old, new),
        };
        if after.last_seen_at < before.last_seen_at {
            self.fault(NEVER_EARLY_NEVER_LATE, Some(sid), "its last use went back in time");
        }
        let rotated = self.judge_holder(sid, before, after);
        let claims = before.claims != after.claims;
        let epoch = before.subject_epoch != after.subject_epoch;
        if (rotated || claims || epoch) && self.part.is_over(before) {
            self.fault(ENDED_IS_FINAL, Some(sid), "it was written to after its end");
        }
        if rotated || claims {
            self.signs.push(Sign::ChangedFeed(sid));
        }
        if rotated && before.client != after.client {
            self.signs.push(Sign::RefreshedElsewhere(sid));
        }
        if claims {
            self.signs.push(Sign::ClaimsChanged(sid));
            self.judge_claims(Some(sid), &before.claims, &after.claims);
        }
        let epoch_now = after.subject.as_ref().map_or(0, |subject| self.epoch_after(subject));
        if epoch && after.subject_epoch != epoch_now {
            self.fault(EVERYWHERE, Some(sid), "it was taken to an epoch that isn't the subject's");
        }
    }

    /// Whether the token was rotated, and rightly so.
    fn judge_holder(&mut self, sid: Sid, old: &Session, new: &Session) -> bool {
        let (Holder::Refresh(before), Holder::Refresh(after)) = (&old.holder, &new.holder) else {
            return false;
        };
        let same = before.generation == after.generation
            && before.lineage == after.lineage
            && before.current.same_as(&after.current)
            && before.rotated_at == after.rotated_at;
        if same {
            return false;
        }
        let follows = after.generation == before.generation + 1
            && after.lineage == before.lineage
            && after.rotated_at >= before.rotated_at
            && after.predecessor.as_ref().is_some_and(|p| p.secret.same_as(&before.current));
        if !follows {
            let text = format!(
                "generation {} gave way to {} other than by one rotation",
                before.generation, after.generation
            );
            self.fault(ONE_LINEAGE, Some(sid), text);
        }
        true
    }

    fn judge_ending(&mut self, sid: Sid, old: &Session, ending: Ending) {
        self.signs.push(Sign::Ended(sid));
        self.signs.push(Sign::EndedFeed(sid));
        if ending.reason == EndReason::RefreshReused && !self.is_done_again() {
            self.signs.push(Sign::Reused(sid));
        }
        let due = match ending.reason {
            EndReason::IdleTimeout => old.refused_from(),
            EndReason::AbsoluteTimeout => old.expires_at,
            EndReason::SignedOut
            | EndReason::SignedOutElsewhere
            | EndReason::SignedOutEverywhere
            | EndReason::EndedByOperator
            | EndReason::RefreshReused
            | EndReason::PasswordChanged
            | EndReason::UserDisabled
            | EndReason::Replaced
            | EndReason::TooManySessions => return,
        };
        if latest(self.moment) < due {
            let left = due.since(latest(self.moment));
            self.fault(NEVER_EARLY_NEVER_LATE, Some(sid), format!("it expired {left:?} too early"));
        }
    }

    fn judge_removal(&mut self, sid: Sid, old: &Session) {
        let due = match old.lifecycle {
            Lifecycle::Ended(ending) => ending.at.plus(millis(KEEP_ENDED)),
            Lifecycle::Live => {
                // Its ending was never written down, so it is written with the removal.
                self.signs.push(Sign::Ended(sid));
                self.signs.push(Sign::EndedFeed(sid));
                if self.part.is_over(old) { START } else { old.refused_from() }
            }
        };
        if latest(self.moment) < due {
            self.fault(NEVER_EARLY_NEVER_LATE, Some(sid), "its record was removed too early");
        }
    }

    fn judge_data(&mut self, sid: Sid, old: &Object, new: &Object) {
        let key = Key::Session(sid);
        let is_opening = self.part.session(sid).is_none() && self.written(&key).is_some();
        if is_opening {
            return;
        }
        self.signs.push(Sign::ChangedFeed(sid));
        self.signs.push(Sign::DataChanged(sid));
        let over = self.part.session(sid).is_none_or(|session| self.part.is_over(session));
        if over {
            self.fault(ENDED_IS_FINAL, Some(sid), "data was saved after its end");
        }
        let count = |data: &Object| data.get("n").and_then(Value::as_u64).unwrap_or(0);
        let (was, is) = (count(old), count(new));
        // The same writer may write the same twice, when it can't know; nobody else may.
        let by = |data: &Object| data.get("by").cloned();
        let repeated = is == was && by(old) == by(new);
        let one_more = is == was + 1;
        if !(repeated || one_more) {
            let text = format!("its data went from {was} to {is}: an update was lost");
            self.fault(NO_LOST_UPDATE, Some(sid), text);
        }
        self.judge_claims(Some(sid), old, new);
    }

    /// Members are only ever added here, so one that is gone is a lost update.
    fn judge_claims(&mut self, sid: Option<Sid>, old: &Object, new: &Object) {
        if let Some((name, _)) = old.iter().find(|(name, _)| !new.contains_key(*name)) {
            self.fault(NO_LOST_UPDATE, sid, format!("the member {name} of another write is gone"));
        }
    }

    /// Whether an ending may be one that the store lost and a node does again: what it was for was
    /// told the first time.
    fn is_done_again(&self) -> bool {
        self.part.rolled_back.is_some()
    }

    /// An ending is logged without a change only where a store that went back has lost the session
    /// too: other nodes may know it still.
    fn is_announcement(&self, entry: &Entry) -> bool {
        let Entry::Feed(FeedEntry::SessionEnded { sid, .. }) = entry else { return false };
        self.batch.writes.is_empty()
            && self.part.rolled_back.is_some()
            && self.part.session(*sid).is_none()
    }

    fn judge_entries(&mut self) {
        let mut wanted = std::mem::take(&mut self.signs);
        let entries = self.batch.entries.iter();
        let entries = entries.filter(|entry| !self.is_announcement(entry));
        let mut found: Vec<Sign> = entries.filter_map(|entry| self.sign_of(entry)).collect();
        wanted.sort();
        found.sort();
        if wanted != found {
            let text = format!("the change wants {wanted:?}, logged is {found:?}");
            let sid = self.batch.writes.iter().find_map(|write| match &write.key {
                Key::Session(sid) | Key::Data(sid) => Some(*sid),
                _ => None,
            });
            self.fault(ENTRY_IFF_CHANGE, sid, text);
        }
    }

    /// What an entry is a sign of; none: of nothing that needs one.
    fn sign_of(&self, entry: &Entry) -> Option<Sign> {
        match entry {
            Entry::Feed(feed) => Some(match feed {
                FeedEntry::SessionEnded { sid, .. } => Sign::EndedFeed(*sid),
                FeedEntry::SessionChanged { sid } => Sign::ChangedFeed(*sid),
                FeedEntry::SubjectRaised { subject, epoch, .. } => {
                    Sign::RaisedFeed(subject.clone(), *epoch)
                }
                FeedEntry::SubjectChanged { subject } => Sign::SubjectChangedFeed(subject.clone()),
                FeedEntry::AllEnded { .. } => Sign::AllEndedFeed,
                FeedEntry::TokenDenied { jti, .. } => Sign::DeniedFeed(jti.clone()),
                FeedEntry::KeyChanged { kid, .. } => Sign::KeyFeed(kid.clone()),
                FeedEntry::SessionSteppedUp { .. } | FeedEntry::RecordChanged => {
                    Sign::Stray(format!("{feed:?}"))
                }
            }),
            Entry::Audit(event) => self.sign_of_event(event),
        }
    }

    fn sign_of_event(&self, event: &Event) -> Option<Sign> {
        let stray = || Some(Sign::Stray(event.kind.as_str().to_owned()));
        let about = event.sid.zip(Some(event.kind));
        match (about, &event.subject) {
            (Some((sid, EventKind::SessionOpened)), _) => Some(Sign::Opened(sid)),
            (Some((sid, EventKind::SessionEnded)), _) => Some(Sign::Ended(sid)),
            (Some((sid, EventKind::SessionClaimsChanged)), _) => Some(Sign::ClaimsChanged(sid)),
            (Some((sid, EventKind::SessionDataChanged)), _) => Some(Sign::DataChanged(sid)),
            (Some((sid, EventKind::SessionRefreshed)), _) => Some(Sign::RefreshedElsewhere(sid)),
            (Some((sid, EventKind::SessionReuseDetected)), _) => {
                if self.is_done_again() {
                    None
                } else {
                    Some(Sign::Reused(sid))
                }
            }
            (_, Some(subject)) if event.kind == EventKind::SubjectSignedOutEverywhere => {
                Some(Sign::Raised(subject.clone()))
            }
            (_, Some(subject)) if event.kind == EventKind::SubjectChanged => {
                Some(Sign::SubjectChanged(subject.clone()))
            }
            _ if event.kind == EventKind::AllEnded => Some(Sign::AllEnded),
            _ if event.kind == EventKind::TokenDenied => event.reason.clone().map(Sign::Denied),
            _ if is_key_event(event.kind) => event.reason.clone().map(Sign::Key),
            // Refusals change nothing, so they are logged alone.
            _ if is_report(event.kind) && self.batch.writes.is_empty() => None,
            _ => stray(),
        }
    }
}

fn is_key_event(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::KeyCreated
            | EventKind::KeyActivated
            | EventKind::KeyRetired
            | EventKind::KeyRevoked
            | EventKind::KeyRewrapped
    )
}

fn is_report(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::SessionRetriedElsewhere
            | EventKind::SessionRollbackSeen
            | EventKind::SigninFailed
            | EventKind::SigninThrottled
            | EventKind::AuthorityStarted
    )
}

/// The instant that the clock of the fastest node shows.
fn latest(moment: Moment) -> Timestamp {
    START.plus(millis(moment.at + SKEW_MAX))
}
