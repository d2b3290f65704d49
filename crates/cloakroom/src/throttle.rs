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
use cloakroom_store::{Batch, Key, Record, Review, Store};

use crate::authority::Authority;
use crate::context::{Context, Error};
use crate::transact::{Decision, Loaded};

/// A name that somebody signs in by, as keyed hash. One that nobody can have is hashed as well, so
/// that it costs what any other costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameHash(pub(crate) [u8; 32]);

/// Where one attempt is counted.
#[derive(Debug)]
pub(crate) struct Counters {
    by_name: Group,
    by_network: Group,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Admitted,
    Throttled(Duration),
}

impl<S: Store> Authority<S> {
    /// The counters of an attempt under this name from this client.
    pub(crate) fn counters(&self, name: NameHash, ctx: &Context) -> Counters {
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
        Counters {
            by_name: Group {
                partition: self.home_of_name(name),
                counters: vec![
                    counter(hash(b"login:", &name.0), limits.login, OnSuccess::Reset),
                    counter(whole, limits.identifier, OnSuccess::GiveBack),
                ],
            },
            by_network: Group {
                partition: self.keys.partition_of_bytes(&network, self.store.partitions()),
                counters: vec![counter(network, limits.network, OnSuccess::GiveBack)],
            },
        }
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
        counters: &Counters,
    ) -> Result<Option<IdentifierPointer>, Error> {
        let pointer = Key::Identifier(name.0);
        let (by_name, by_network) = tokio::join!(
            self.count(&counters.by_name, vec![pointer]),
            self.count(&counters.by_network, Vec::new()),
        );
        let ((by_name, pointer), (by_network, _)) = (by_name?, by_network?);
        let wait = match (by_name, by_network) {
            (Counted::Admitted, Counted::Admitted) => return Ok(pointer),
            (Counted::Throttled(wait), Counted::Admitted) => {
                self.give_back(&counters.by_network).await;
                wait
            }
            (Counted::Admitted, Counted::Throttled(wait)) => {
                self.give_back(&counters.by_name).await;
                wait
            }
            (Counted::Throttled(one), Counted::Throttled(other)) => one.max(other),
        };
        Err(Refusal::LoginThrottled { retry_after_secs: whole_seconds(wait).max(1) }.into())
    }

    /// Takes back what a right password was counted for.
    pub(crate) async fn forgive(&self, counters: &Counters) {
        let settle = |group| self.settle(group, |counter| counter.success);
        let (by_name, by_network) =
            tokio::join!(settle(&counters.by_name), settle(&counters.by_network));
        for failed in [by_name, by_network].into_iter().filter_map(Result::err) {
            // The counters stay a little too high, which time mends.
            tracing::debug!(error = %failed, "an attempt could not be given back");
        }
    }

    async fn give_back(&self, group: &Group) {
        if let Err(failed) = self.settle(group, |_| OnSuccess::GiveBack).await {
            tracing::debug!(error = %failed, "an attempt could not be given back");
        }
    }

    async fn count(
        &self,
        group: &Group,
        beside: Vec<Key>,
    ) -> Result<(Counted, Option<IdentifierPointer>), Error> {
        let keys = beside.iter().cloned();
        let keys = keys.chain(group.counters.iter().map(|counter| counter.key.clone())).collect();
        let decide = |loaded: &Loaded| {
            let pointer = beside.iter().find_map(|key| pointer_at(key, loaded));
            let mut batch = Batch::default();
            let mut wait = None;
            for Counter { key, quota, .. } in &group.counters {
                match quota.admit(state_of(key, loaded), loaded.now) {
                    Admission::Admitted { state, .. } => keep(&mut batch, key, state, loaded),
                    Admission::Refused { retry_after, .. } => wait = wait.max(Some(retry_after)),
                }
            }
            Ok(match wait {
                // A refused attempt is counted nowhere.
                Some(wait) => Decision::Done((Counted::Throttled(wait), pointer)),
                None => Decision::Commit(batch, (Counted::Admitted, pointer)),
            })
        };
        let (counted, _) = self.transact(group.partition, keys, decide).await?;
        Ok(counted)
    }

    async fn settle(
        &self,
        group: &Group,
        how: impl Fn(&Counter) -> OnSuccess + Send + Sync,
    ) -> Result<(), Error> {
        let keys = group.counters.iter().map(|counter| counter.key.clone()).collect();
        let decide = |loaded: &Loaded| {
            let mut batch = Batch::default();
            for counter in &group.counters {
                let key = &counter.key;
                let state = match how(counter) {
                    OnSuccess::Reset => Quota::FRESH,
                    OnSuccess::GiveBack => counter.quota.give_back(state_of(key, loaded)),
                };
                if Quota::forget_at(state) > loaded.now {
                    keep(&mut batch, key, state, loaded);
                } else if loaded.get(key).is_some() {
                    batch.delete(key.clone(), loaded.version(key));
                }
            }
            Ok(match batch.writes.is_empty() {
                true => Decision::Done(()),
                false => Decision::Commit(batch, ()),
            })
        };
        self.transact(group.partition, keys, decide).await?;
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

fn keep(batch: &mut Batch, key: &Key, state: u64, loaded: &Loaded) {
    let until = Quota::forget_at(state);
    let record = Record::Throttle(state);
    let version = loaded.version(key);
    batch.put_until(key.clone(), version, record, Review::At(until), Some(until));
}
