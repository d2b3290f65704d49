use cloakroom_core::event::FeedEntry;
use cloakroom_core::session::{EndReason, Ending};
use cloakroom_core::subject::{PartitionState, SubjectState};
use cloakroom_store::conformance::samples;
use cloakroom_store::record::DeniedToken;
use cloakroom_store::{Entry, Log, MemoryStore, Tick};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

const ACCESS_TTL: Duration = Duration::from_secs(900);
const MINUTE: Duration = Duration::from_secs(60);

async fn commit(store: &MemoryStore, batch: Batch) {
    let done = store.commit(Partition::ZERO, batch).await.expect("a commit");
    assert!(matches!(done, Commit::Done(_)), "{done:?}");
}

/// What is found to be missing in the feed, and whether it was put right.
async fn untold(store: &MemoryStore, repairs: bool) -> Vec<bool> {
    let mut check = Check::new(store, repairs, ACCESS_TTL).await.expect("a check");
    check.partition(Partition::ZERO).await.expect("looked");
    let found = check.into_found().into_iter();
    found.filter(|f| f.fault == Fault::EndingWithoutFeedEntry).map(|f| f.repaired).collect()
}

/// A store in which a session, all of a subject, a token and all of a partition ended at an
/// instant, and nobody was told.
async fn silent_endings(at: Timestamp) -> MemoryStore {
    let store = MemoryStore::new(1, now);
    let mut batch = Batch::default();
    let mut put = |key: Key, record: Record| {
        batch.put(key, Version::ZERO, record, Review::Never);
    };
    let session = samples::ended_session();
    let ending = Ending { at, reason: EndReason::SignedOut, successor: None };
    let session = Session { lifecycle: Lifecycle::Ended(ending), ..session };
    let subject = session.subject.clone().expect("a subject");
    let mut state = SubjectState::new(subject.clone());
    state.raise(EndReason::SignedOut, at);
    put(Key::Session(session.sid), Record::Session(Box::new(session)));
    put(Key::Subject(subject), Record::Subject(state));
    put(Key::Partition, Record::Partition(PartitionState { epoch: 1, bumped_at: at }));
    commit(&store, batch).await;
    store
}

#[tokio::test]
async fn what_ended_lately_is_told_once_more() {
    let at = now().minus(2 * MINUTE);
    let store = silent_endings(at).await;
    assert_eq!(untold(&store, false).await, [false; 3]);
    assert_eq!(untold(&store, true).await, [true; 3]);
    assert!(untold(&store, false).await.is_empty());
    let told = store.log(Partition::ZERO, Log::Feed, Tick::ZERO, 9).await.expect("a log");
    let told: Vec<_> = told.into_iter().map(|found| found.entry).collect();
    assert_eq!(told.len(), 3);
    let until = now().plus(ACCESS_TTL).plus(Duration::from_secs(10));
    let (sid, reason) = (samples::ended_session().sid, EndReason::SignedOut);
    assert!(told.contains(&Entry::Feed(FeedEntry::SessionEnded { sid, reason, until })));
    assert!(told.contains(&Entry::Feed(FeedEntry::AllEnded { at })));
}

#[tokio::test]
async fn what_ended_before_the_feed_is_surely_kept_is_not_missed() {
    let store = silent_endings(now().minus(10 * MINUTE)).await;
    assert!(untold(&store, false).await.is_empty());
}

#[tokio::test]
async fn a_denied_token_that_nobody_was_told_of_is_told_once_more() {
    let store = MemoryStore::new(1, || now().minus(MINUTE));
    let mut batch = Batch::default();
    let until = now().plus(MINUTE);
    let denied = Record::DeniedToken(DeniedToken { until });
    let key = Key::DeniedToken("jti".into());
    batch.put_until(key, Version::ZERO, denied, Review::At(until), Some(until));
    commit(&store, batch).await;
    // The check itself is made a minute later.
    let mut check = Check::new(&store, true, ACCESS_TTL).await.expect("a check");
    check.now = now();
    check.partition(Partition::ZERO).await.expect("looked");
    let found = check.into_found().into_iter();
    let found: Vec<_> = found.filter(|f| f.fault == Fault::EndingWithoutFeedEntry).collect();
    assert_eq!((found.len(), found[0].with.as_str(), found[0].repaired), (1, "jti", true));
    let told = store.log(Partition::ZERO, Log::Feed, Tick::ZERO, 9).await.expect("a log");
    let entry = FeedEntry::TokenDenied { jti: "jti".to_owned(), until };
    assert_eq!(told[0].entry, Entry::Feed(entry));
}

#[tokio::test]
async fn an_empty_partition_lacks_its_record_and_nothing_else() {
    let store = MemoryStore::new(1, now);
    let mut check = Check::new(&store, true, ACCESS_TTL).await.expect("a check");
    check.partition(Partition::ZERO).await.expect("looked");
    let found = check.into_found();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].fault, found[0].repaired), (Fault::PartitionMissing, false));
}
