//! How many durable commits a second, beside a raw log that flushes once for all that wait.
//!
//! `cargo run --release -p cloakroom-embedded --example throughput -- [committers] [seconds]`

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloakroom_core::event::FeedEntry;
use cloakroom_core::types::{Partition, Sid, Timestamp};
use cloakroom_embedded::{Embedded, Options};
use cloakroom_store::{Batch, Commit, Key, Record, Review, Store, Tick};
use tokio::sync::{mpsc, oneshot};

/// About what a session takes.
const RECORD_BYTES: usize = 500;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let committers = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(256);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    let run = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let dir = tempfile::tempdir_in(".").expect("a directory");
    for round in 1..=2 {
        let raw = runtime.block_on(raw(committers, run, &dir.path().join("raw")));
        let store = dir.path().join("store");
        let ours = runtime.block_on(ours(committers, run, &store, round));
        println!(
            "{committers} committers: raw {raw:.0}/s, store {ours:.0}/s, ratio {:.2}",
            ours / raw
        );
    }
    reopen(&dir.path().join("store"), &runtime);
}

/// A thread that appends what is waiting and flushes once; asked by as many tasks as the store.
async fn raw(committers: usize, run: Duration, path: &std::path::Path) -> f64 {
    let _ = std::fs::remove_file(path);
    let mut file = File::create(path).expect("a file");
    let (jobs, mut waiting) = mpsc::channel::<(Vec<u8>, oneshot::Sender<()>)>(4096);
    let writer = std::thread::spawn(move || {
        while let Some(first) = waiting.blocking_recv() {
            let mut group = vec![first];
            group.extend(std::iter::from_fn(|| waiting.try_recv().ok()));
            let bytes: Vec<u8> = group.iter().flat_map(|(bytes, _)| bytes).copied().collect();
            file.write_all(&bytes).expect("a write");
            file.sync_data().expect("a flush");
            for (_, reply) in group {
                let _ = reply.send(());
            }
        }
    });
    let count = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..committers)
        .map(|_| {
            let (jobs, count) = (jobs.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                while begun.elapsed() < run {
                    let (reply, answer) = oneshot::channel();
                    jobs.send((vec![7; RECORD_BYTES + 300], reply)).await.expect("a writer");
                    answer.await.expect("a reply");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    drop(jobs);
    for task in tasks {
        task.await.expect("a committer");
    }
    let rate = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    writer.join().expect("a writer");
    rate
}

async fn ours(committers: usize, run: Duration, dir: &std::path::Path, round: u64) -> f64 {
    let opened = Instant::now();
    let store = Arc::new(Embedded::open(dir, Options::default()).expect("a store"));
    println!("opened in {:.0?}", opened.elapsed());
    let count = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..committers as u64)
        .map(|committer| {
            let (store, count) = (Arc::clone(&store), Arc::clone(&count));
            tokio::spawn(async move {
                let mut version = Tick::ZERO;
                let mut number = round << 56 | committer << 40;
                while begun.elapsed() < run {
                    // A new session, then a change of it.
                    if number.is_multiple_of(2) {
                        version = Tick::ZERO;
                    }
                    version = commit(&store, number / 2, version).await;
                    number += 1;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a committer");
    }
    let rate = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    let read = Instant::now();
    let reads = 20_000;
    for number in 0..reads {
        let key = Key::Data(sid(round << 55 | (number % committers as u64) << 39));
        let found = store.load(key_partition(&key), &[key]).await.expect("a load");
        assert!(found[0].is_some());
    }
    println!("load {:.2?} each", read.elapsed() / u32::try_from(reads).unwrap_or(1));
    rate
}

async fn commit(store: &Embedded, number: u64, version: Tick) -> Tick {
    let sid = sid(number);
    let key = Key::Data(sid);
    let mut data = serde_json::Map::new();
    data.insert("d".to_owned(), "x".repeat(RECORD_BYTES).into());
    let mut batch = Batch::default();
    let review = match version {
        Tick::ZERO => Review::At(Timestamp::from_secs(1_900_000_000)),
        _ => Review::Keep,
    };
    let partition = key_partition(&key);
    batch.put(key, version, Record::Data(data), review);
    batch.feed(FeedEntry::SessionChanged { sid });
    match store.commit(partition, batch).await.expect("a commit") {
        Commit::Done(committed) => committed.tick,
        Commit::Conflict(key) => panic!("conflict on {key}"),
    }
}

fn sid(number: u64) -> Sid {
    let partition = Partition(u16::try_from((number >> 39) % 256).unwrap_or(0));
    Sid::new(Timestamp::EPOCH, partition, number.to_be_bytes())
}

fn key_partition(key: &Key) -> Partition {
    match key {
        Key::Data(sid) => sid.partition(),
        _ => Partition::ZERO,
    }
}

fn reopen(dir: &std::path::Path, runtime: &tokio::runtime::Runtime) {
    let begun = Instant::now();
    let store = Embedded::open(dir, Options::default()).expect("a store");
    let opened = begun.elapsed();
    let due = store.due(Partition(0), Timestamp::MAX, 10);
    let due = runtime.block_on(due).expect("a page").len();
    let bytes = store.size_on_disk().unwrap_or(0);
    println!("reopened {} MB in {opened:.0?}; {due} due", bytes / 1_000_000);
}
