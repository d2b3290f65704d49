//! The meaning of [`Store`], as tests that every store has to pass.
//!
//! A store crate implements [`Harness`] and calls [`conformance!`](crate::conformance!) once in its
//! integration tests; it gets a test for each promise, named after it.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use cloakroom_core::event::FeedEntry;
use cloakroom_core::types::{Partition, Timestamp};

use crate::{
    Batch, Commit, Committed, Entry, Key, Kind, Log, Logged, Record, Review, Store, Tick, Version,
    Versioned,
};

pub mod atomicity;
pub mod concurrency;
pub mod due;
pub mod durability;
pub mod expiry;
pub mod follow;
pub mod log;
pub mod model;
pub mod paging;
pub mod records;
pub mod samples;
pub mod ticks;
pub mod visibility;

/// How the suite comes by a store, and by what only its runtime can do.
pub trait Harness: Send + Sync {
    /// The store under test.
    type Store: Store;

    /// A new and empty store of four partitions or more.
    fn fresh(&self) -> impl Future<Output = Self::Store> + Send;

    /// The same store, stopped and opened again. A store that keeps nothing is given back as is.
    fn reopen(&self, store: Self::Store) -> impl Future<Output = Self::Store> + Send;

    /// Lets this span pass on the store's clock, or a little more.
    fn pass(&self, span: Duration) -> impl Future<Output = ()> + Send;

    /// Runs tasks side by side, on several threads, until each has ended; a panic of one goes on.
    fn together(&self, tasks: Vec<Task>) -> impl Future<Output = ()> + Send;
}

/// A task of a test.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes a test of each promise, for the harness that the expression is.
///
/// After `one:` it makes a single test of all of them, for an expression that is a harness or none:
/// where starting what they run against takes longer than they do.
///
/// The crate that calls it needs tokio with the features `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! conformance {
    (one: $harness:expr) => {
        $crate::conformance! { @promises one $harness }
    };
    ($harness:expr) => {
        $crate::conformance! { @promises each $harness }
    };
    (@promises $how:ident $harness:expr) => {
        $crate::conformance! { @$how $harness =>
            atomicity {
                a_commit_applies_all_of_its_batch
                a_commit_applies_nothing_where_a_version_has_moved
                a_conflict_names_a_key_that_moved
                what_is_there_is_not_absent
                what_is_not_there_has_no_version
                a_read_is_checked_like_a_write
                a_read_of_nothing_holds_while_there_is_nothing
                a_batch_of_entries_alone_never_conflicts
                what_is_not_there_can_be_deleted
            }
            concurrency {
                concurrent_increments_are_all_counted
                one_of_many_creations_wins
                two_that_exclude_each_other_never_both_happen
                an_update_never_survives_the_deletion_it_missed
            }
            due {
                due_is_what_is_filed_before_an_instant_earliest_first
                a_kept_review_stays_where_it_was
                a_moved_review_is_filed_once
                what_is_never_reviewed_or_deleted_is_filed_nowhere
                a_conflict_moves_no_filing
            }
            durability {
                what_was_acknowledged_is_there_after_a_restart
                ticks_go_on_after_a_restart
            }
            expiry {
                a_record_is_visible_until_its_instant_and_not_from_it_on
                what_has_expired_is_absent_to_a_commit
                what_has_expired_is_still_due
                what_has_expired_leaves_no_filing_to_its_successor
                a_later_commit_lifts_an_expiry
                pages_are_full_in_spite_of_what_has_expired
            }
            follow {
                a_session_brings_the_subject_that_it_names
                a_session_brings_its_subjects_index
                an_index_brings_the_sessions_that_it_lists
                what_is_followed_is_followed_once
                what_is_followed_and_not_there_is_said_to_be_absent
                what_is_followed_is_of_one_state_with_what_names_it
            }
            log {
                every_entry_survives
                entries_are_read_in_the_order_of_their_commits
                a_log_is_read_from_its_cursor_on
                entries_of_one_commit_stay_together
                several_logs_are_read_as_each_alone
                a_log_is_read_backwards_from_before_its_cursor
                trimming_removes_only_what_is_older
                a_follower_misses_nothing_of_concurrent_commits
            }
            model {
                a_store_behaves_like_its_model
            }
            paging {
                pages_visit_each_record_once
                pages_are_of_one_kind
                a_page_goes_on_after_a_key_that_is_gone
                paging_meets_each_record_that_stays_while_others_come_and_go
            }
            records {
                every_kind_of_record_survives
                large_data_survives
                odd_names_do_not_collide
            }
            ticks {
                ticks_only_grow
                a_version_is_the_tick_of_its_commit
                no_version_ever_comes_back
            }
            visibility {
                a_commit_is_visible_to_every_later_call
                records_are_loaded_in_the_order_of_their_keys
                loads_of_one_call_see_one_state
                partitions_are_apart
                a_partition_that_does_not_exist_is_an_error
            }
        }
    };
    (@one $harness:expr => $($promise:ident { $($name:ident)* })*) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn every_promise_is_kept() {
            let Some(harness) = $harness else { return };
            $($(
                println!("{}", stringify!($name));
                Box::pin($crate::conformance::$promise::$name(&harness)).await;
            )*)*
        }
    };
    (@each $harness:expr => $($promise:ident { $($name:ident)* })*) => {$($(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $name() {
            $crate::conformance::$promise::$name(&$harness).await;
        }
    )*)*};
}

/// Where most tests happen: not in partition 0, which nothing may be special about.
const HERE: Partition = Partition(1);
/// Where nothing happens meanwhile.
const ELSEWHERE: Partition = Partition(3);

/// A counter's key; the simplest of records.
fn counter(number: u8) -> Key {
    Key::Throttle([number; 32])
}

/// A batch that stores a counter.
fn put(key: Key, expected: Version, count: u64) -> Batch {
    put_filed(key, expected, count, Review::Never)
}

/// A batch that stores a counter and files it.
fn put_filed(key: Key, expected: Version, count: u64, review: Review) -> Batch {
    let mut batch = Batch::default();
    batch.put(key, expected, Record::Throttle(count), review);
    batch
}

/// A batch that removes a record.
fn delete(key: Key, expected: Version) -> Batch {
    let mut batch = Batch::default();
    batch.delete(key, expected);
    batch
}

/// Commits what must succeed.
async fn done<S: Store>(store: &S, batch: Batch) -> Committed {
    match store.commit(HERE, batch).await.expect("a commit") {
        Commit::Done(committed) => committed,
        Commit::Conflict(key) => panic!("{key} has moved"),
    }
}

/// Commits what must conflict.
async fn conflict<S: Store>(store: &S, batch: Batch) -> Key {
    match store.commit(HERE, batch).await.expect("a commit") {
        Commit::Done(committed) => panic!("committed as {committed:?}"),
        Commit::Conflict(key) => key,
    }
}

async fn load<S: Store>(store: &S, key: &Key) -> Option<Versioned> {
    let mut found = store.load(HERE, std::slice::from_ref(key)).await.expect("a load");
    assert_eq!(found.len(), 1, "one answer for each key");
    found.pop().flatten()
}

/// The version of a record; zero where there is none.
async fn version<S: Store>(store: &S, key: &Key) -> Version {
    load(store, key).await.map_or(Version::ZERO, |found| found.version)
}

/// What a counter stands at.
async fn count<S: Store>(store: &S, key: &Key) -> Option<u64> {
    load(store, key).await.as_ref().map(count_of)
}

fn count_of(found: &Versioned) -> u64 {
    *found.record.as_throttle().expect("a counter")
}

/// All that is filed.
async fn all_due<S: Store>(store: &S) -> Vec<Key> {
    store.due(HERE, Timestamp::MAX, 1000).await.expect("what is due")
}

/// All of a log.
async fn all_logged<S: Store>(store: &S, log: Log) -> Vec<Logged> {
    store.log(HERE, log, Tick::ZERO, 100_000).await.expect("a log")
}

/// Lets other tasks of the runtime run.
async fn give_way() {
    let mut is_first = true;
    std::future::poll_fn(|context| {
        if !std::mem::take(&mut is_first) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
