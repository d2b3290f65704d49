//! What the clean-up is to look at, and when.

use std::collections::BTreeSet;

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::{Batch, Key, Store, StoreError};

use super::{Check, Fault, PAGE};

/// What is filed in a partition.
pub(super) struct Filed(BTreeSet<Key>);

impl Filed {
    /// Whether something is filed.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.0.contains(key)
    }
}

/// A partition with more than this is not looked at for what is filed: all of it would have to be
/// in memory at once.
const FILED_MAX: usize = 200_000;

impl<S: Store> Check<'_, S> {
    /// All that is filed in a partition; `None`: it is too much to be held.
    ///
    /// What is filed for nothing is noted on the way.
    pub(super) async fn filed(
        &mut self,
        partition: Partition,
    ) -> Result<Option<Filed>, StoreError> {
        let keys = self.store.due(partition, Timestamp::MAX, FILED_MAX).await?;
        if keys.len() >= FILED_MAX {
            tracing::warn!(%partition, "too much is filed for the clean-up to be looked at");
            return Ok(None);
        }
        for some in keys.chunks(PAGE) {
            let found = self.store.load(partition, some).await?;
            for (key, _) in some.iter().zip(found).filter(|(_, found)| found.is_none()) {
                self.filed_for_nothing(partition, key).await?;
            }
        }
        Ok(Some(Filed(keys.into_iter().collect())))
    }

    /// What has expired is filed as well, until the clean-up has removed what is left of it.
    async fn filed_for_nothing(
        &mut self,
        partition: Partition,
        key: &Key,
    ) -> Result<(), StoreError> {
        let with = match key {
            Key::Session(sid) | Key::Data(sid) => sid.to_string(),
            // These expire by themselves and are found so every day.
            _ => return Ok(()),
        };
        let is_known =
            |found: &super::Found| found.fault == Fault::FiledWithoutRecord && found.with == with;
        if self.found.iter().any(is_known) || self.load_one(partition, key).await?.is_some() {
            return Ok(());
        }
        let mut repair = Batch::default();
        repair.delete(key.clone(), cloakroom_store::Version::ZERO);
        self.note(partition, Fault::FiledWithoutRecord, with, Some(repair)).await
    }
}
