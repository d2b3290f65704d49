//! What verifiers must know of the last while, as one picture to start from.

use std::collections::BTreeMap;
use std::time::Duration;

use cloakroom_core::event::FeedEntry;
use cloakroom_core::limits::TOKEN_LEEWAY;
use cloakroom_core::session::EndReason;
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::{Entry, Log, Store, Tick};

use crate::authority::Authority;
use crate::context::Error;
use crate::place::Place;

/// Entries read at a time.
const PAGE: usize = 256;
/// Beyond the life of a token: the clocks' difference, on both sides.
const MARGIN: Duration = Duration::from_secs(TOKEN_LEEWAY.as_secs() * 2);

/// A subject whose sessions of a lower epoch are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaisedSubject {
    /// The epoch now.
    pub epoch: u64,
    /// The one session that was taken along.
    pub except: Option<Sid>,
}

/// Everything that was revoked and may still matter to a verifier.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    /// Sessions that are over: why, and until when to remember.
    pub ended: BTreeMap<Sid, (EndReason, Timestamp)>,
    /// Sessions whose access tokens of an earlier `auth_time` are over.
    pub stepped_up: BTreeMap<Sid, Timestamp>,
    /// Subjects whose sessions of a lower epoch are over.
    pub subjects: BTreeMap<Subject, RaisedSubject>,
    /// Access tokens that are over, by `jti`: until when to remember.
    pub tokens: BTreeMap<String, Timestamp>,
    /// Signing keys that changed, by `kid`: their state.
    pub keys: BTreeMap<String, String>,
    /// Everything issued by then is over.
    pub all: Option<Timestamp>,
    /// Where the stream goes on.
    pub cursor: String,
}

impl<S: Store> Authority<S> {
    /// The revocations that a verifier may still meet tokens of, and where to listen on from.
    pub async fn revocations(&self) -> Result<Revocations, Error> {
        // First: what comes in while the logs are read is in the stream from here on.
        let now = self.now();
        let cursor = Place::at(now).cursor(self.store_id());
        let mut folded = Revocations { cursor, ..Revocations::default() };
        let oldest = Tick::at(now.minus(self.settings.access_ttl + MARGIN));
        for number in 0..self.store.partitions() {
            let partition = Partition(number);
            let mut from = oldest;
            loop {
                let page = self.read_log(Log::Feed, partition, from, PAGE).await?;
                let Some(last) = page.last().map(|last| last.cursor) else { break };
                let is_last = page.len() < PAGE;
                for logged in page {
                    if let Entry::Feed(entry) = logged.entry {
                        folded.fold(partition, entry);
                    }
                }
                if is_last {
                    break;
                }
                from = last.successor();
            }
        }
        folded.ended.retain(|_, (_, until)| *until > now);
        folded.tokens.retain(|_, until| *until > now);
        Ok(folded)
    }
}

impl Revocations {
    fn fold(&mut self, partition: Partition, entry: FeedEntry) {
        match entry {
            FeedEntry::SessionEnded { sid, reason, until } => {
                self.stepped_up.remove(&sid);
                self.ended.insert(sid, (reason, until));
            }
            FeedEntry::SessionSteppedUp { sid, auth_time } => {
                if !self.ended.contains_key(&sid) {
                    self.stepped_up.insert(sid, auth_time);
                }
            }
            FeedEntry::SubjectRaised { subject, epoch, except, .. } => {
                let known = self.subjects.get(&subject);
                if known.is_none_or(|known| known.epoch < epoch) {
                    self.subjects.insert(subject, RaisedSubject { epoch, except });
                }
            }
            FeedEntry::TokenDenied { jti, until } => {
                self.tokens.insert(jti, until);
            }
            FeedEntry::KeyChanged { kid, state } => {
                self.keys.insert(kid, state);
            }
            // Partition 0 goes last: only then is it true of all.
            FeedEntry::AllEnded { at } if partition == Partition::ZERO => {
                self.all = self.all.max(Some(at));
            }
            FeedEntry::AllEnded { .. }
            | FeedEntry::SessionChanged { .. }
            | FeedEntry::SubjectChanged { .. }
            | FeedEntry::RecordChanged => {}
        }
    }
}
