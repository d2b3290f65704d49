//! Everything of one store into another, record by record and entry by entry.
//!
//! Nobody may write to the source meanwhile (see [`crate::store::hold`]), and nobody may use the
//! target before it is whole: what makes a store one, its key and settings, is copied last. A copy
//! that was interrupted goes on where it was: records that are there stay, entries that are there
//! are counted and passed over.

use aws_lc_rs::digest::{Context, SHA256};
use cloakroom_core::session::Lifecycle;
use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_store::record::{encode, encode_entry};
use cloakroom_store::{
    Batch, Commit, Entry, Key, Kind, Log, Logged, Record, Review, Store, StoreError, Tick, Version,
    Versioned,
};

use super::hold;

/// Why a copy stops.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source failed.
    #[error("reading the source: {0}")]
    Source(StoreError),
    /// The target failed.
    #[error("writing the target: {0}")]
    Target(StoreError),
    /// There is nothing to copy.
    #[error("the source holds no store")]
    NoSource,
    /// The target is a store already.
    #[error("the target holds a whole store already; name an empty place, or another namespace")]
    TargetInUse,
    /// The target is divided otherwise, so that nothing would be found in it.
    #[error("the target was made with {target} partitions, the source has {source_has}")]
    Partitions {
        /// Of the source.
        source_has: u16,
        /// Of the target.
        target: u16,
    },
    /// What is in the target is not what is in the source.
    #[error("{partition} differs after it was copied: did anybody write meanwhile? Begin anew")]
    Differs {
        /// Which partition.
        partition: Partition,
    },
}

/// What was copied, or what a partition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Records.
    pub records: u64,
    /// Entries of both logs.
    pub entries: u64,
    /// Of all records and entries, in any order.
    digest: [u8; 32],
}

impl Held {
    /// So many, of which nothing else is known.
    pub(crate) fn counted(records: u64, entries: u64) -> Self {
        Self { records, entries, ..Self::default() }
    }

    fn record(&mut self, key: &Key, record: &Record) {
        self.records += 1;
        self.mix(key.to_string().as_bytes(), &encode(record));
    }

    fn entry(&mut self, number: u64, entry: &Entry) {
        self.entries += 1;
        self.mix(&number.to_be_bytes(), &encode_entry(entry));
    }

    /// Each part is hashed by itself; together they are the same in whatever order they came.
    fn mix(&mut self, name: &[u8], content: &[u8]) {
        let mut context = Context::new(&SHA256);
        context.update(&u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(name);
        context.update(content);
        for (sum, byte) in self.digest.iter_mut().zip(context.finish().as_ref()) {
            *sum ^= byte;
        }
    }
}

/// Whether a store is what an interrupted copy left: no store yet, and not empty either. The last
/// partition is copied first.
pub(crate) async fn is_unfinished<S: Store>(store: &S) -> Result<bool, StoreError> {
    let is_none = |found: Vec<Option<Versioned>>| found.iter().all(Option::is_none);
    if !is_none(identity(store).await?) {
        return Ok(false);
    }
    let last = Partition(store.partitions() - 1);
    let mut is_empty = true;
    for kind in Kind::ALL {
        is_empty &= store.page(last, kind, None, 1).await?.is_empty();
    }
    for log in [Log::Audit, Log::Feed] {
        is_empty &= store.log(last, log, Tick::ZERO, 1).await?.is_empty();
    }
    // Another node may have made it a store meanwhile.
    Ok(!is_empty && is_none(identity(store).await?))
}

/// Copies everything; `tell` hears how many partitions are done, and of what is in them.
pub async fn copy<S: Store, T: Store>(
    source: &S,
    target: &T,
    mut tell: impl FnMut(u16, &Held),
) -> Result<Held, CopyError> {
    check(source, target).await?;
    let mut all = Held::default();
    let mut heads = Vec::new();
    // Partition 0 goes last: it has the records that make the target a store.
    for number in (0..source.partitions()).rev() {
        let partition = Partition(number);
        for kind in Kind::ALL.into_iter().filter(|kind| !is_last(*kind) && !is_left(*kind)) {
            copy_kind(source, target, partition, kind).await?;
        }
        for log in [Log::Audit, Log::Feed] {
            copy_log(source, target, partition, log).await?;
        }
        let head = head(source, partition).await?;
        let held = compare(source, target, partition).await?;
        heads.push((partition, head));
        all.records += held.records;
        all.entries += held.entries;
        tell(source.partitions() - number, &all);
    }
    // A write that came after its partition was compared left its entry.
    for (partition, before) in heads {
        if head(source, partition).await? != before {
            return Err(CopyError::Differs { partition });
        }
    }
    finish(source, target).await?;
    Ok(all)
}

/// The last entries of a partition's logs.
async fn head<S: Store>(source: &S, partition: Partition) -> Result<[Option<Tick>; 2], CopyError> {
    let mut last = [None; 2];
    for (last, log) in last.iter_mut().zip([Log::Audit, Log::Feed]) {
        let page = source.log_back(partition, log, Tick(u64::MAX), 1).await;
        *last = page.map_err(CopyError::Source)?.first().map(|logged| logged.cursor);
    }
    Ok(last)
}

/// What a partition holds, in both alike. A record may expire between two looks; not every time.
async fn compare<S: Store, T: Store>(
    source: &S,
    target: &T,
    partition: Partition,
) -> Result<Held, CopyError> {
    for _ in 0..3 {
        let here = held(source, partition).await.map_err(CopyError::Source)?;
        if here == held(target, partition).await.map_err(CopyError::Target)? {
            return Ok(here);
        }
    }
    Err(CopyError::Differs { partition })
}

/// Whether the one can be copied into the other. To be asked before anybody's writes are held.
pub(crate) async fn check<S: Store, T: Store>(source: &S, target: &T) -> Result<(), CopyError> {
    let (source_has, found) = (source.partitions(), target.partitions());
    if source_has != found {
        return Err(CopyError::Partitions { source_has, target: found });
    }
    if identity(source).await.map_err(CopyError::Source)?.iter().any(Option::is_none) {
        return Err(CopyError::NoSource);
    }
    if identity(target).await.map_err(CopyError::Target)?.iter().any(Option::is_some) {
        return Err(CopyError::TargetInUse);
    }
    Ok(())
}

async fn identity<S: Store>(store: &S) -> Result<Vec<Option<Versioned>>, StoreError> {
    store.load(Partition::ZERO, &IDENTITY).await
}

/// What makes a store one, in one commit.
async fn finish<S: Store, T: Store>(source: &S, target: &T) -> Result<(), CopyError> {
    let mut batch = Batch::default();
    let found = identity(source).await.map_err(CopyError::Source)?;
    for (key, found) in IDENTITY.into_iter().zip(found) {
        let Some(found) = found else { return Err(CopyError::NoSource) };
        batch.put(key, Version::ZERO, found.record, Review::Never);
    }
    match target.commit(Partition::ZERO, batch).await.map_err(CopyError::Target)? {
        Commit::Done(_) => Ok(()),
        Commit::Conflict(_) => Err(CopyError::TargetInUse),
    }
}

async fn copy_kind<S: Store, T: Store>(
    source: &S,
    target: &T,
    partition: Partition,
    kind: Kind,
) -> Result<(), CopyError> {
    let mut after = None;
    loop {
        let page = source.page(partition, kind, after.as_ref(), PAGE).await;
        let page = page.map_err(CopyError::Source)?;
        let (last, is_full) = (page.last().map(|(key, _)| key.clone()), page.len() == PAGE);
        let page = page.into_iter().filter(|(key, _)| *key != hold::key()).collect();
        let missing = missing(target, partition, page).await.map_err(CopyError::Target)?;
        if !missing.is_empty() {
            let mut batch = Batch::default();
            for (key, record) in missing {
                stage(&mut batch, key, record);
            }
            // Whoever else writes here makes the digests differ, so a conflict is no worse.
            target.commit(partition, batch).await.map_err(CopyError::Target)?;
        }
        if !is_full {
            return Ok(());
        }
        after = last;
    }
}

/// What of a page the target doesn't have.
async fn missing<T: Store>(
    target: &T,
    partition: Partition,
    page: Vec<(Key, Versioned)>,
) -> Result<Vec<(Key, Record)>, StoreError> {
    let keys: Vec<Key> = page.iter().map(|(key, _)| key.clone()).collect();
    let there = target.load(partition, &keys).await?;
    let missing = page.into_iter().zip(there).filter(|(_, there)| there.is_none());
    Ok(missing.map(|((key, found), _)| (key, found.record)).collect())
}

/// Stages a record with when it is to be looked at, which a store doesn't tell: a lower bound is
/// enough, the sweeper files it anew.
fn stage(batch: &mut Batch, key: Key, record: Record) {
    let (review, until) = match &record {
        Record::Session(session) => match session.lifecycle {
            Lifecycle::Live => (Review::At(session.refused_from()), None),
            Lifecycle::Ended(_) => (Review::At(Timestamp::from_millis(0)), None),
        },
        Record::DeniedToken(denied) => (Review::At(denied.until), Some(denied.until)),
        Record::ApiKey(key) => (key.expires_at.map_or(Review::Never, Review::At), key.expires_at),
        Record::Data(_)
        | Record::Subject(_)
        | Record::Index(_)
        | Record::User(_)
        | Record::Identifier(_)
        | Record::Handle(_)
        | Record::Throttle(_)
        | Record::Partition(_)
        | Record::SigningKey(_)
        | Record::StoreKey(_)
        | Record::Settings(_) => (Review::Never, None),
    };
    batch.put_until(key, Version::ZERO, record, review, until);
}

async fn copy_log<S: Store, T: Store>(
    source: &S,
    target: &T,
    partition: Partition,
    log: Log,
) -> Result<(), CopyError> {
    let mut there = 0_u64;
    walk(target, partition, log, |_| there += 1).await.map_err(CopyError::Target)?;
    let mut from = Tick::ZERO;
    loop {
        let page = source.log(partition, log, from, PAGE).await.map_err(CopyError::Source)?;
        let Some(last) = page.last() else { return Ok(()) };
        let (end, is_full) = (last.cursor, page.len() >= PAGE);
        let mut batch = Batch::default();
        for logged in page {
            if there > 0 {
                there -= 1;
            } else {
                batch.entries.push(logged.entry);
            }
        }
        if !batch.entries.is_empty() {
            target.commit(partition, batch).await.map_err(CopyError::Target)?;
        }
        if !is_full {
            return Ok(());
        }
        from = end.successor();
    }
}

/// What a partition holds, but for what isn't copied and what is copied last.
async fn held<S: Store>(store: &S, partition: Partition) -> Result<Held, StoreError> {
    let mut held = Held::default();
    for kind in Kind::ALL.into_iter().filter(|kind| !is_last(*kind) && !is_left(*kind)) {
        let mut after = None;
        loop {
            let page = store.page(partition, kind, after.as_ref(), PAGE).await?;
            let copied = page.iter().filter(|(key, _)| *key != hold::key());
            copied.for_each(|(key, found)| held.record(key, &found.record));
            if page.len() < PAGE {
                break;
            }
            after = page.last().map(|(key, _)| key.clone());
        }
    }
    for log in [Log::Audit, Log::Feed] {
        let mut number = 0;
        walk(store, partition, log, |logged| {
            held.entry(number, &logged.entry);
            number += 1;
        })
        .await?;
    }
    Ok(held)
}

async fn walk<S: Store>(
    store: &S,
    partition: Partition,
    log: Log,
    mut visit: impl FnMut(&Logged),
) -> Result<(), StoreError> {
    let mut from = Tick::ZERO;
    loop {
        let page = store.log(partition, log, from, PAGE).await?;
        page.iter().for_each(&mut visit);
        match page.last() {
            Some(last) if page.len() >= PAGE => from = last.cursor.successor(),
            Some(_) | None => return Ok(()),
        }
    }
}

const IDENTITY: [Key; 2] = [Key::StoreKey, Key::Settings];

const fn is_last(kind: Kind) -> bool {
    matches!(kind, Kind::StoreKey | Kind::Settings)
}

/// Counters of failed sign-ins say nowhere until when they count; they begin anew.
const fn is_left(kind: Kind) -> bool {
    matches!(kind, Kind::Throttle)
}

/// Records or entries read and written at a time.
const PAGE: usize = 128;

#[cfg(test)]
mod tests {
    use cloakroom_core::event::FeedEntry;
    use cloakroom_core::store_key::{MasterKey, StoreKey};
    use cloakroom_core::subject::PartitionState;
    use cloakroom_store::MemoryStore;
    use cloakroom_store::record::{DeniedToken, StoreSettings};

    use super::*;

    const PARTITIONS: u16 = 3;

    fn now() -> Timestamp {
        Timestamp::from_secs(1_800_000_000)
    }

    fn memory() -> MemoryStore {
        MemoryStore::new(PARTITIONS, now)
    }

    async fn filled() -> MemoryStore {
        let store = memory();
        for number in 0..PARTITIONS {
            let mut batch = Batch::default();
            let state = Record::Partition(PartitionState::default());
            batch.put(Key::Partition, Version::ZERO, state, Review::Never);
            let until = now().plus(std::time::Duration::from_secs(60));
            for jti in 0..300 {
                let key = Key::DeniedToken(format!("{number}.{jti}").into());
                let record = Record::DeniedToken(DeniedToken { until });
                batch.put_until(key, Version::ZERO, record, Review::At(until), Some(until));
            }
            for _ in 0..3 {
                batch.feed(FeedEntry::RecordChanged);
            }
            store.commit(Partition(number), batch).await.expect("committed");
        }
        let master = MasterKey::from_bytes([1; 32]);
        let wrapped = StoreKey::from_bytes([2; 32]).wrap(&master, [3; 12]).expect("wrapped");
        let settings =
            StoreSettings { partitions: PARTITIONS, store_id: [4; 16], created_at: now() };
        let mut batch = Batch::default();
        batch.put(Key::StoreKey, Version::ZERO, Record::StoreKey(wrapped), Review::Never).put(
            Key::Settings,
            Version::ZERO,
            Record::Settings(settings),
            Review::Never,
        );
        store.commit(Partition::ZERO, batch).await.expect("committed");
        store
    }

    #[tokio::test]
    async fn everything_arrives_once_and_in_its_order() {
        let (source, target) = (filled().await, memory());
        let mut told = Vec::new();
        let copied = copy(&source, &target, |done, _| told.push(done)).await.expect("copied");
        assert_eq!((copied.records, copied.entries), (903, 9));
        assert_eq!(told, [1, 2, 3]);
        for number in 0..PARTITIONS {
            let here = held(&source, Partition(number)).await.expect("read");
            assert_eq!(here, held(&target, Partition(number)).await.expect("read"));
        }
        let again = copy(&source, &target, |_, _| {}).await;
        assert!(matches!(again, Err(CopyError::TargetInUse)), "{again:?}");
    }

    #[tokio::test]
    async fn an_interrupted_copy_goes_on() {
        let (source, target) = (filled().await, memory());
        copy_kind(&source, &target, Partition(2), Kind::DeniedToken).await.expect("copied");
        let mut batch = Batch::default();
        batch.feed(FeedEntry::RecordChanged);
        target.commit(Partition(2), batch).await.expect("committed");
        let copied = copy(&source, &target, |_, _| {}).await.expect("copied");
        assert_eq!((copied.records, copied.entries), (903, 9));
    }

    #[tokio::test]
    async fn what_an_interrupted_copy_left_is_no_store_to_serve() {
        let (source, target) = (filled().await, memory());
        assert!(!is_unfinished(&target).await.expect("read"), "an empty place is none");
        assert!(!is_unfinished(&source).await.expect("read"), "a whole store is none");
        copy_kind(&source, &target, Partition(2), Kind::DeniedToken).await.expect("copied");
        assert!(is_unfinished(&target).await.expect("read"));
        copy(&source, &target, |_, _| {}).await.expect("copied");
        assert!(!is_unfinished(&target).await.expect("read"));
    }

    #[tokio::test]
    async fn the_lease_of_the_copier_stays_behind() {
        let (source, target) = (filled().await, memory());
        hold::take(&source).await.expect("taken");
        let copied = copy(&source, &target, |_, _| {}).await.expect("copied");
        assert_eq!((copied.records, copied.entries), (903, 9));
        let there = target.load(Partition::ZERO, &[hold::key()]).await.expect("read");
        assert!(there[0].is_none());
    }

    #[tokio::test]
    async fn a_write_behind_the_copiers_back_is_found() {
        let (source, target) = (filled().await, memory());
        let write = |done: u16| {
            if done == 2 {
                let mut batch = Batch::default();
                batch.feed(FeedEntry::RecordChanged);
                // The partition that was copied first.
                let commit = source.commit(Partition(PARTITIONS - 1), batch);
                futures_done(commit);
            }
        };
        let copied = copy(&source, &target, |done, _| write(done)).await;
        let last = Partition(PARTITIONS - 1);
        assert!(
            matches!(&copied, Err(CopyError::Differs { partition }) if *partition == last),
            "{copied:?}"
        );
    }

    /// The memory store never waits.
    fn futures_done<F: Future>(future: F) {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::pin::pin!(future).poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn what_is_no_store_or_another_one_is_refused() {
        let (source, target) = (filled().await, memory());
        let empty = copy(&memory(), &target, |_, _| {}).await;
        assert!(matches!(empty, Err(CopyError::NoSource)), "{empty:?}");
        let other = copy(&source, &MemoryStore::new(4, now), |_, _| {}).await;
        assert!(matches!(other, Err(CopyError::Partitions { .. })), "{other:?}");
        let mut batch = Batch::default();
        let stray = Key::DeniedToken("2.stray".into());
        let record = Record::DeniedToken(DeniedToken { until: now() });
        batch.put(stray, Version::ZERO, record, Review::Never);
        target.commit(Partition(2), batch).await.expect("committed");
        let differs = copy(&source, &target, |_, _| {}).await;
        assert!(matches!(differs, Err(CopyError::Differs { .. })), "{differs:?}");
    }
}
