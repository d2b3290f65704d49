//! What a load brings along: records that the found ones name.
//!
//! Following is one step from what was asked for, never further, and knows no policy: a store
//! across a network does in one trip what would be two loads of its caller.

use std::collections::BTreeSet;

use crate::{Key, Record, Versioned};

/// What else a load brings along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// Nothing.
    #[default]
    Nothing,
    /// Of each session that is found and names a subject: the subject's record.
    Subject,
    /// The same, and the subject's index.
    SubjectAndIndex,
    /// Of each index that is found and lists at least so many: the sessions that it lists.
    Sessions {
        /// From how many on.
        at_least: usize,
    },
}

/// What a load found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What was asked for, in the order of the keys.
    pub asked: Vec<Option<Versioned>>,
    /// What was followed: each key once, and none that was asked for.
    pub followed: Vec<(Key, Option<Versioned>)>,
}

impl Follow {
    /// The keys that a found record leads to.
    pub fn names(self, record: &Record) -> Vec<Key> {
        let subject = || record.as_session().and_then(|session| session.subject.clone());
        match self {
            Self::Nothing => Vec::new(),
            Self::Subject => subject().into_iter().map(Key::Subject).collect(),
            Self::SubjectAndIndex => subject()
                .into_iter()
                .flat_map(|subject| [Key::Subject(subject.clone()), Key::Index(subject)])
                .collect(),
            Self::Sessions { at_least } => {
                let sids = record.as_index().filter(|sids| sids.len() >= at_least);
                sids.into_iter().flatten().copied().map(Key::Session).collect()
            }
        }
    }

    /// The keys to follow from what was found under `keys`: each once, and none of `keys`.
    pub fn keys(self, keys: &[Key], asked: &[Option<Versioned>]) -> Vec<Key> {
        if self == Self::Nothing {
            return Vec::new();
        }
        let found = asked.iter().flatten();
        let mut names: Vec<Key> = found.flat_map(|found| self.names(&found.record)).collect();
        let mut seen = BTreeSet::new();
        names.retain(|name| !keys.contains(name) && seen.insert(name.clone()));
        names
    }
}
