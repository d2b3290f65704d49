//! Whose sessions are, as far as this process has seen: so that what a load will follow to can be
//! asked for with it.
//!
//! For stores across a network, where following takes the server more than reading by name does. It
//! is a guess and decides nothing: what was loaded says whether it was a good one. It mostly is,
//! for a session never changes hands.

use std::collections::BTreeMap;

use cloakroom_core::types::{Sid, Subject};
use quick_cache::sync::Cache;

use crate::{Batch, Change, Follow, Found, Key, Kind, Record, Tick, Versioned};

/// The owners of the sessions that were loaded or written lately; none: it is nobody's.
pub struct Owners {
    seen: Cache<Sid, Option<Subject>>,
}

impl Default for Owners {
    fn default() -> Self {
        Self::new()
    }
}

impl Owners {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self { seen: Cache::new(SESSIONS_SEEN_MAX) }
    }

    /// What a load of `keys` will most likely follow to; none where that isn't known.
    pub fn guess(&self, keys: &[Key], follow: Follow) -> Option<Vec<Key>> {
        let is_both = match follow {
            Follow::Subject => false,
            Follow::SubjectAndIndex => true,
            // The list of a subject's sessions changes too often to be guessed.
            Follow::Nothing | Follow::Sessions { .. } => return None,
        };
        // Whoever asks for a subject as well has guessed already.
        let is_guessed = !is_both && keys.iter().any(|key| key.kind() == Kind::Subject);
        let mut names = Vec::with_capacity(2);
        for key in keys {
            let Key::Session(sid) = key else { continue };
            match self.seen.get(sid) {
                Some(Some(subject)) => {
                    names.extend(is_both.then(|| Key::Index(subject.clone())));
                    names.push(Key::Subject(subject));
                }
                Some(None) => {}
                None if is_guessed => {}
                None => return None,
            }
        }
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !keys.contains(name));
        Some(names)
    }

    /// Learns from what was loaded.
    pub fn learn(&self, keys: &[Key], found: &[Option<Versioned>]) {
        for (key, found) in keys.iter().zip(found) {
            if let Some(found) = found {
                self.note(key, &found.record);
            }
        }
    }

    /// Learns from what was written.
    pub fn learn_written(&self, batch: &Batch) {
        for write in &batch.writes {
            match &write.change {
                // What was there before named the same.
                Change::Put { record, .. } if write.expected == Tick::ZERO => {
                    self.note(&write.key, record);
                }
                Change::Put { .. } | Change::Delete => {}
            }
        }
    }

    fn note(&self, key: &Key, record: &Record) {
        if let (Key::Session(sid), Record::Session(session)) = (key, record) {
            self.seen.insert(*sid, session.subject.clone());
        }
    }
}

/// What a load found that asked for `keys` and for what it guessed to follow to; none where the
/// guess was a wrong one.
pub fn confirmed(
    keys: &[Key],
    guessed: Vec<Key>,
    follow: Follow,
    mut asked: Vec<Option<Versioned>>,
) -> Option<Found> {
    let beside = asked.split_off(keys.len().min(asked.len()));
    let mut brought: BTreeMap<Key, _> = guessed.into_iter().zip(beside).collect();
    let named = follow.keys(keys, &asked).into_iter();
    let followed: Option<Vec<_>> =
        named.map(|name| brought.remove(&name).map(|found| (name, found))).collect();
    Some(Found { followed: followed?, asked })
}

/// Of how many sessions it is remembered whose they are; about 100 bytes each.
const SESSIONS_SEEN_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::samples;

    fn found(record: Record) -> [Option<Versioned>; 1] {
        [Some(Versioned { version: Tick(1), record })]
    }

    #[test]
    fn what_was_never_seen_is_not_guessed() {
        let owners = Owners::new();
        let session = samples::ended_session();
        let keys = [Key::Session(session.sid), Key::Partition];
        assert_eq!(owners.guess(&keys, Follow::Subject), None);
        let subject = session.subject.clone().expect("a subject");
        owners.learn(&keys, &found(Record::Session(Box::new(session))));
        let (state, index) = (Key::Subject(subject.clone()), Key::Index(subject));
        assert_eq!(owners.guess(&keys, Follow::Subject), Some(vec![state.clone()]));
        assert_eq!(owners.guess(&keys, Follow::SubjectAndIndex), Some(vec![state.clone(), index]));
        assert_eq!(owners.guess(&keys, Follow::Sessions { at_least: 1 }), None);
        let keys = [keys[0].clone(), state];
        assert_eq!(owners.guess(&keys, Follow::Subject), Some(Vec::new()));
    }

    #[test]
    fn a_callers_own_guess_is_enough_for_the_subject_alone() {
        let owners = Owners::new();
        let session = samples::ended_session();
        let subject = session.subject.clone().expect("a subject");
        let keys = [Key::Session(session.sid), Key::Subject(subject)];
        assert_eq!(owners.guess(&keys, Follow::Subject), Some(Vec::new()));
        assert_eq!(owners.guess(&keys, Follow::SubjectAndIndex), None);
    }

    #[test]
    fn nobodys_session_leads_nowhere() {
        let owners = Owners::new();
        let session = samples::anonymous_session();
        let keys = [Key::Session(session.sid)];
        owners.learn(&keys, &found(Record::Session(Box::new(session))));
        assert_eq!(owners.guess(&keys, Follow::SubjectAndIndex), Some(Vec::new()));
    }

    #[test]
    fn a_guess_is_believed_only_where_the_record_says_the_same() {
        let session = samples::ended_session();
        let keys = [Key::Session(session.sid)];
        let right = Key::Subject(session.subject.clone().expect("a subject"));
        let wrong = Key::Subject(Subject::parse("somebody else").expect("a subject"));
        let [found] = found(Record::Session(Box::new(session)));
        let asked = vec![found, None];
        let known = |guess: &Key, asked: &[Option<Versioned>]| {
            confirmed(&keys, vec![guess.clone()], Follow::Subject, asked.to_vec())
        };
        assert!(known(&wrong, &asked).is_none());
        let followed = known(&right, &asked).expect("a good guess").followed;
        assert!(matches!(&followed[..], [(key, None)] if *key == right));
        // Of what isn't there nothing follows.
        assert!(known(&wrong, &[None, None]).expect("nothing is named").followed.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let owners = Owners::new();
        let session = samples::anonymous_session();
        for number in 0..2 * SESSIONS_SEEN_MAX as u64 {
            let sid = Sid::new(session.created_at, session.sid.partition(), number.to_be_bytes());
            let keys = [Key::Session(sid)];
            owners.learn(&keys, &found(Record::Session(Box::new(session.clone()))));
        }
        assert!(owners.seen.len() <= SESSIONS_SEEN_MAX);
    }
}
