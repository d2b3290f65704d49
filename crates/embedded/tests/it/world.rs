//! A small workload whose whole state follows from one number a writer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cloakroom_core::event::FeedEntry;
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_embedded::{Embedded, Options};
use cloakroom_store::{
    Batch, Commit, Entry, Key, Log, Record, Review, Store, StoreError, Tick, Version,
};

/// Small buffers, so that tables are written and read as well.
pub fn options() -> Options {
    Options { partitions: 8, cache_bytes: 1 << 20, write_buffer_bytes: 128 * 1024 }
}

pub fn open(dir: &Path) -> Embedded {
    Embedded::open(dir, options()).expect("the store opens")
}

/// Runs a future to its end on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// One of several writers, each in a partition of its own. Its commit `n` writes `n` under two
/// keys and one entry into the feed.
#[derive(Clone, Debug)]
pub struct Writer {
    pub partition: Partition,
    pub number: u64,
    versions: [Version; 2],
}

impl Writer {
    /// Takes up what the store holds of it.
    pub async fn resume(store: &Embedded, partition: u16) -> Self {
        Self::find(store, partition).await.expect("the store can be read")
    }

    /// Takes up what the store holds of it, where it can be read.
    pub async fn find(store: &Embedded, partition: u16) -> Result<Self, StoreError> {
        let partition = Partition(partition);
        let found = store.load(partition, &keys(partition)).await?;
        let mut seen = found.iter().map(|record| {
            record.as_ref().map_or((0, Tick::ZERO), |found| (number(&found.record), found.version))
        });
        let (one, other) = (seen.next().expect("a record"), seen.next().expect("a record"));
        assert_eq!(one, other, "two records that are always written together");
        Ok(Self { partition, number: one.0, versions: [one.1, other.1] })
    }

    /// Commits the next number.
    pub async fn commit(&mut self, store: &Embedded, padding: usize) -> Tick {
        let number = self.number + 1;
        let [data, index] = keys(self.partition);
        let sid = sid(self.partition, number);
        let mut batch = Batch::default();
        let review = Review::At(Timestamp::from_secs(i64::try_from(number).expect("small")));
        batch.put(data, self.versions[0], record(number, padding), review);
        batch.put(index, self.versions[1], record(number, 0), Review::Never);
        batch.feed(FeedEntry::SessionChanged { sid });
        match store.commit(self.partition, batch).await.expect("the store takes writes") {
            Commit::Conflict(key) => panic!("nobody else writes {key}"),
            Commit::Done(done) => {
                self.number = number;
                self.versions = [done.tick; 2];
                done.tick
            }
        }
    }

    /// Checks that exactly its commits up to its number are there; gives the ticks of them.
    pub async fn check(&self, store: &Embedded) -> Vec<Tick> {
        let limit = usize::MAX;
        let entries = store.log(self.partition, Log::Feed, Tick::ZERO, limit).await.expect("a log");
        assert_eq!(entries.len() as u64, self.number, "one entry a commit");
        for (at, logged) in (1..).zip(&entries) {
            let sid = sid(self.partition, at);
            assert_eq!(logged.entry, Entry::Feed(FeedEntry::SessionChanged { sid }));
        }
        let ticks: Vec<Tick> = entries.iter().map(|logged| logged.cursor).collect();
        assert!(ticks.is_sorted_by(|one, next| one < next), "ticks only grow");
        let due = store.due(self.partition, Timestamp::MAX, 9).await.expect("a page");
        assert_eq!(due.len() as u64, self.number.min(1), "filed once");
        ticks
    }
}

fn keys(partition: Partition) -> [Key; 2] {
    let subject = Subject::parse("ada").expect("a subject");
    [Key::Data(sid(partition, 0)), Key::Index(subject)]
}

fn sid(partition: Partition, number: u64) -> Sid {
    Sid::new(Timestamp::EPOCH, partition, number.to_be_bytes())
}

/// The two records bear the number in different ways.
fn record(number: u64, padding: usize) -> Record {
    if padding == 0 {
        return Record::Index(vec![sid(Partition(0), number)]);
    }
    let mut data = serde_json::Map::new();
    data.insert("number".to_owned(), number.into());
    data.insert("padding".to_owned(), "x".repeat(padding).into());
    Record::Data(data)
}

fn number(record: &Record) -> u64 {
    match (record.as_data(), record.as_index().and_then(|sids| sids.first())) {
        (Some(data), None) => data.get("number").and_then(|n| n.as_u64()).expect("a number"),
        (None, Some(sid)) => {
            let bytes = sid.as_bytes().last_chunk().expect("its end");
            u64::from_be_bytes(*bytes)
        }
        _ => panic!("neither of the two: {record:?}"),
    }
}

/// The bytes of all files below a directory.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.clone(), std::fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

/// Makes a directory hold exactly these files, as `files` found them in another.
pub fn copy(files: &BTreeMap<PathBuf, Vec<u8>>, from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    for (path, bytes) in files {
        let path = to.join(path.strip_prefix(from).expect("a file of the other"));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }
}
