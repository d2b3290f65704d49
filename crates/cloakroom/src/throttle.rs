//! Failed sign-ins, counted in the store before a password is hashed and given back on success.
//!
//! Three counters, of which the strictest is of identifier and network together: whoever fails
//! for somebody else from afar doesn't lock that user out.

use std::time::Duration;

use cloakroom_core::network::Network;
use cloakroom_core::rate::{Admission, Quota, whole_seconds};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::types::Partition;
use cloakroom_store::record::IdentifierPointer;
use cloakroom_store::{Key, Record, Review, Store};

use crate::authority::Authority;
use crate::context::{Context, Error};
use crate::transact::{Decision, Draft, Loaded};

/// A name that somebody signs in by, as keyed hash. One that nobody can have is hashed as well, so
/// that it costs what any other costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameHash(pub(crate) [u8; 32]);

/// An attempt that was counted and may check its password.
pub(crate) struct Attempt {
    by_name: Group,
    by_network: Group,
    /// The counters as this attempt left them: nobody needs to ask for them to give it back.
    left: [Option<Loaded>; 2],
}

/// Counters of one partition.
#[derive(Debug)]
struct Group {
    partition: Partition,
    counters: Vec<Counter>,
}

#[derive(Debug)]
struct Counter {
    key: Key,
    quota: Quota,
    /// What a success leaves behind.
    success: OnSuccess,
}

#[derive(Clone, Copy, Debug)]
enum OnSuccess {
    /// Nothing: the counter starts anew.
    Reset,
    /// All but the one attempt: whoever owns one account of a network, or knows when an owner
    /// signs in, gains no further guesses by it.
    GiveBack,
}

/// What counting came to in one partition.
enum Counted {
    /// It was counted; the counters as they are now.
    Admitted(Option<Loaded>),
    Throttled(Duration),
}

impl<S: Store> Authority<S> {
    /// The counters of a name and of a network, each in its partition.
    fn counters(&self, name: NameHash, ctx: &Context) -> (Group, Group) {
        let limits = &self.settings.login_limits;
        let network = match ctx.client.ip.map(Network::of) {
            Some(network) => network.to_string(),
            None => "unknown".to_owned(),
        };
        let hash = |label: &[u8], name: &[u8]| {
            self.keys.throttle_hash(&[label, name, network.as_bytes()].concat())
        };
        let whole = self.keys.throttle_hash(&[b"identifier:", &name.0[..]].concat());
        let network = hash(b"network:", b"");
        let counter = |hash, quota, success| Counter { key: Key::Throttle(hash), quota, success };
        let by_name = Group {
            partition: self.home_of_name(name),
            counters: vec![
                counter(hash(b"login:", &name.0), limits.login, OnSuccess::Reset),
                counter(whole, limits.identifier, OnSuccess::GiveBack),
            ],
        };
        let by_network = Group {
            partition: self.keys.partition_of_bytes(&network, self.store.partitions()),
            counters: vec![counter(network, limits.network, OnSuccess::GiveBack)],
        };
        (by_name, by_network)
    }

    /// Where a name's pointer and counters are.
    pub(crate) fn home_of_name(&self, name: NameHash) -> Partition {
        self.keys.partition_of_bytes(&name.0, self.store.partitions())
    }

    /// Counts an attempt before its password is hashed; says where the name leads, which lies
    /// beside the counters. Exact however many come at once.
    pub(crate) async fn count_attempt(
        &self,
        name: NameHash,
        ctx: &Context,
    ) -> Result<(Attempt, Option<IdentifierPointer>), Error> {
        let (by_name, by_network) = self.counters(name, ctx);
        let (named, networked) = tokio::join!(
            self.count(&by_name, Some(Key::Identifier(name.0))),
            self.count(&by_network, None),
        );
        let ((named, pointer), (networked, _)) = (named?, networked?);
        let give_back = |_: &Counter| OnSuccess::GiveBack;
        let wait = match (named, networked) {
            (Counted::Admitted(one), Counted::Admitted(other)) => {
                return Ok((Attempt { by_name, by_network, left: [one, other] }, pointer));
            }
            (Counted::Throttled(wait), Counted::Admitted(left)) => {
                self.settle(&by_network, left, give_back).await;
                wait
            }
            (Counted::Admitted(left), Counted::Throttled(wait)) => {
                self.settle(&by_name, left, give_back).await;
                wait
            }
            (Counted::Throttled(one), Counted::Throttled(other)) => one.max(other),
        };
        let retry_after_secs = whole_seconds(wait).max(1);
        Err(Refusal::LoginThrottled { retry_after_secs }.into())
    }

    /// Takes back what a right password was counted for.
    pub(crate) async fn forgive(&self, attempt: Attempt) {
        let Attempt { by_name, by_network, left: [one, other] } = attempt;
        let success = |counter: &Counter| counter.success;
        let named = self.settle(&by_name, one, success);
        let networked = self.settle(&by_network, other, success);
        tokio::join!(named, networked);
    }

    async fn settle(
        &self,
        group: &Group,
        left: Option<Loaded>,
        how: impl Fn(&Counter) -> OnSuccess + Send + Sync,
    ) {
        if let Err(failed) = self.try_settle(group, left, how).await {
            // The counters stay a little too high, which time mends.
            tracing::debug!(error = %failed, "an attempt could not be given back");
        }
    }

    async fn count(
        &self,
        group: &Group,
        beside: Option<Key>,
    ) -> Result<(Counted, Option<IdentifierPointer>), Error> {
        let keys = group.counters.iter().map(|counter| counter.key.clone());
        let keys: Vec<Key> = keys.chain(beside.clone()).collect();
        let decide = |loaded: &Loaded| {
            let pointer = beside.as_ref().and_then(|key| pointer_at(key, loaded));
            let mut draft = Draft::of(loaded);
            let mut written = Vec::new();
            let mut wait = None;
            for Counter { key, quota, .. } in &group.counters {
                match quota.admit(state_of(key, loaded), loaded.now) {
                    Admission::Admitted { state, .. } => {
                        keep(&mut draft, key, state);
                        written.push((key.clone(), Record::Throttle(state)));
                    }
                    Admission::Refused { retry_after, .. } => wait = wait.max(Some(retry_after)),
                }
            }
            Ok(match wait {
                // A refused attempt is counted nowhere.
                Some(wait) => Decision::Done((Err(wait), pointer)),
                None => draft.commit((Ok(written), pointer)),
            })
        };
        let ((counted, pointer), committed) = self.transact(group.partition, keys, decide).await?;
        let counted = match counted {
            Err(wait) => Counted::Throttled(wait),
            Ok(written) => {
                let now = self.now();
                let left = committed.map(|done| Loaded::of_commit(written, done, now));
                Counted::Admitted(left)
            }
        };
        Ok((counted, pointer))
    }

    async fn try_settle(
        &self,
        group: &Group,
        left: Option<Loaded>,
        how: impl Fn(&Counter) -> OnSuccess + Send + Sync,
    ) -> Result<(), Error> {
        let keys: Vec<Key> = group.counters.iter().map(|counter| counter.key.clone()).collect();
        let decide = |loaded: &Loaded| {
            let mut draft = Draft::of(loaded);
            for counter in &group.counters {
                let key = &counter.key;
                let state = match how(counter) {
                    OnSuccess::Reset => Quota::FRESH,
                    OnSuccess::GiveBack => counter.quota.give_back(state_of(key, loaded)),
                };
                if Quota::forget_at(state) > loaded.now {
                    keep(&mut draft, key, state);
                } else if loaded.get(key).is_some() {
                    draft.delete(key.clone());
                }
            }
            Ok(match draft.is_empty() {
                true => Decision::Done(()),
                false => draft.commit(()),
            })
        };
        self.transact_from(left, group.partition, keys, decide).await?;
        Ok(())
    }
}

/// Where an identifier leads, by what was loaded.
pub(crate) fn pointer_at(key: &Key, loaded: &Loaded) -> Option<IdentifierPointer> {
    match loaded.get(key) {
        Some(Record::Identifier(pointer)) => Some(pointer.clone()),
        Some(_) | None => None,
    }
}

fn state_of(key: &Key, loaded: &Loaded) -> u64 {
    match loaded.get(key) {
        Some(Record::Throttle(state)) => *state,
        Some(_) | None => Quota::FRESH,
    }
}

fn keep(draft: &mut Draft<'_>, key: &Key, state: u64) {
    let until = Quota::forget_at(state);
    let record = Record::Throttle(state);
    draft.put_until(key.clone(), record, Review::At(until), Some(until));
}
