use cloakroom_store::MemoryStore;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

#[tokio::test]
async fn an_empty_partition_lacks_its_record_and_nothing_else() {
    let store = MemoryStore::new(1, now);
    let mut check = Check::new(&store, true).await.expect("a check");
    check.partition(Partition::ZERO).await.expect("looked");
    let found = check.into_found();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].fault, found[0].repaired), (Fault::PartitionMissing, false));
}
