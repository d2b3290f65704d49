//! The small records that the tests write.

use cloakroom_core::event::FeedEntry;
use cloakroom_core::types::Partition;
use cloakroom_postgres::{PostgresSettings, PostgresStore};
use cloakroom_store::{
    Batch, Commit, Committed, Key, Record, Review, Store, StoreError, Tick, Version,
};

/// Where the tests write.
pub const HERE: Partition = Partition(1);

pub async fn connect(settings: &PostgresSettings) -> PostgresStore {
    PostgresStore::connect(settings).await.expect("the store opens")
}

/// Why a store doesn't open, in words; never with a credential.
pub async fn refusal(settings: &PostgresSettings) -> String {
    let error = PostgresStore::connect(settings).await.expect_err("it is refused");
    let told = error.to_string();
    assert!(!told.contains("hush"), "{told}");
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    told
}

pub fn counter(number: u8) -> Key {
    Key::Throttle([number; 32])
}

/// A batch that stores a counter, and tells followers.
pub fn put(key: Key, expected: Version, count: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(key, expected, Record::Throttle(count), Review::Never);
    batch.feed(FeedEntry::RecordChanged);
    batch
}

pub async fn done(store: &PostgresStore, batch: Batch) -> Committed {
    match store.commit(HERE, batch).await.expect("a commit") {
        Commit::Done(committed) => committed,
        Commit::Conflict(key) => panic!("{key} has moved"),
    }
}

/// What a counter stands at, and its version.
pub async fn count(store: &PostgresStore, key: &Key) -> Result<Option<(u64, Tick)>, StoreError> {
    let found = store.load(HERE, std::slice::from_ref(key)).await?;
    let found = found.into_iter().next().flatten();
    Ok(found.map(|found| (*found.record.as_throttle().expect("a counter"), found.version)))
}
