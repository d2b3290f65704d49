//! Entries are read in the order of their commits, whole commits at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::samples::audit;
use super::*;

/// A batch of nothing but audit entries.
fn audits(reasons: &[&str]) -> Batch {
    let entries = reasons.iter().map(|reason| audit(reason)).collect();
    Batch { entries, ..Batch::default() }
}

/// What audit entries say.
fn reasons(page: &[Logged]) -> Vec<String> {
    let reason = |logged: &Logged| match &logged.entry {
        Entry::Audit(event) => event.reason.clone().unwrap_or_default(),
        Entry::Feed(feed) => panic!("{feed:?} in the audit"),
    };
    page.iter().map(reason).collect()
}

async fn read<S: Store>(store: &S, from: Tick, limit: usize) -> Vec<Logged> {
    store.log(HERE, Log::Audit, from, limit).await.expect("a log")
}

async fn read_back<S: Store>(store: &S, before: Tick, limit: usize) -> Vec<Logged> {
    store.log_back(HERE, Log::Audit, before, limit).await.expect("a log")
}

/// Each variant comes back as it was, in its own log, numbered within it.
pub async fn every_entry_survives<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let entries = samples::entries();
    // Mixed, so that each log has to number its own.
    let mixed = entries.iter().rev().step_by(2).chain(entries.iter().rev().skip(1).step_by(2));
    let mixed: Vec<Entry> = mixed.cloned().collect();
    let batch = Batch { entries: mixed.clone(), ..Batch::default() };
    let tick = done(&store, batch).await.tick;
    for log in [Log::Feed, Log::Audit] {
        let of_log = mixed.iter().filter(|entry| entry.log() == log).cloned();
        let numbered = (0..).zip(of_log);
        let expected: Vec<_> =
            numbered.map(|(index, entry)| Logged { cursor: tick, index, entry }).collect();
        assert_eq!(all_logged(&store, log).await, expected);
    }
}

/// Also those of commits that change records, and of either log.
pub async fn entries_are_read_in_the_order_of_their_commits<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut ticks = Vec::new();
    for number in 0..20 {
        let mut batch =
            if number % 2 == 0 { put(counter(number), Version::ZERO, 1) } else { Batch::default() };
        batch.entries = vec![audit(&number.to_string()), Entry::Feed(FeedEntry::RecordChanged)];
        ticks.push(done(&store, batch).await.tick);
    }
    let logged = all_logged(&store, Log::Audit).await;
    let expected: Vec<_> = (0..20).map(|number: u8| number.to_string()).collect();
    assert_eq!(reasons(&logged), expected);
    let cursors = |logged: &[Logged]| logged.iter().map(|l| l.cursor).collect::<Vec<_>>();
    assert_eq!(cursors(&logged), ticks);
    assert_eq!(cursors(&all_logged(&store, Log::Feed).await), ticks);
}

/// The cursor's own entries included; its successor goes on after them.
pub async fn a_log_is_read_from_its_cursor_on<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    assert!(read(&store, Tick::ZERO, 9).await.is_empty());
    let first = done(&store, audits(&["a"])).await.tick;
    let second = done(&store, audits(&["b"])).await.tick;
    let third = done(&store, audits(&["c"])).await.tick;
    assert_eq!(reasons(&read(&store, Tick::ZERO, 9).await), ["a", "b", "c"]);
    assert_eq!(reasons(&read(&store, first, 9).await), ["a", "b", "c"]);
    assert_eq!(reasons(&read(&store, first.successor(), 9).await), ["b", "c"]);
    assert_eq!(reasons(&read(&store, second, 1).await), ["b"]);
    assert_eq!(reasons(&read(&store, third, 9).await), ["c"]);
    assert!(read(&store, third.successor(), 9).await.is_empty());
    assert!(read(&store, Tick(u64::MAX), 9).await.is_empty());
    assert!(all_logged(&store, Log::Feed).await.is_empty());
    let elsewhere = store.log(ELSEWHERE, Log::Audit, Tick::ZERO, 9).await.expect("a log");
    assert!(elsewhere.is_empty());
}

/// A page ends where a commit ends, so a cursor never points into the middle of one.
pub async fn entries_of_one_commit_stay_together<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let first = done(&store, audits(&["a1", "a2", "a3"])).await.tick;
    done(&store, audits(&["b1"])).await;
    let third = done(&store, audits(&["c1", "c2"])).await.tick;
    let page = read(&store, Tick::ZERO, 1).await;
    assert_eq!(reasons(&page), ["a1", "a2", "a3"]);
    let places: Vec<_> = page.iter().map(|logged| (logged.cursor, logged.index)).collect();
    assert_eq!(places, [(first, 0), (first, 1), (first, 2)]);
    assert_eq!(reasons(&read(&store, Tick::ZERO, 3).await), ["a1", "a2", "a3"]);
    assert_eq!(reasons(&read(&store, Tick::ZERO, 4).await).len(), 4);
    assert_eq!(reasons(&read(&store, Tick::ZERO, 5).await).len(), 6);
    assert_eq!(reasons(&read_back(&store, Tick(u64::MAX), 1).await), ["c2", "c1"]);
    assert_eq!(reasons(&read_back(&store, third, 2).await), ["b1", "a3", "a2", "a1"]);
}

/// The cursor's own entries not included, latest first.
pub async fn a_log_is_read_backwards_from_before_its_cursor<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    assert!(read_back(&store, Tick(u64::MAX), 9).await.is_empty());
    let first = done(&store, audits(&["a"])).await.tick;
    let second = done(&store, audits(&["b"])).await.tick;
    let third = done(&store, audits(&["c"])).await.tick;
    assert_eq!(reasons(&read_back(&store, Tick(u64::MAX), 9).await), ["c", "b", "a"]);
    assert_eq!(reasons(&read_back(&store, third.successor(), 9).await), ["c", "b", "a"]);
    assert_eq!(reasons(&read_back(&store, third, 9).await), ["b", "a"]);
    assert_eq!(reasons(&read_back(&store, third, 1).await), ["b"]);
    assert_eq!(reasons(&read_back(&store, second, 9).await), ["a"]);
    assert!(read_back(&store, first, 9).await.is_empty());
    assert!(read_back(&store, Tick::ZERO, 9).await.is_empty());
}

/// Oldest first, as many as allowed, of that log and that partition alone.
pub async fn trimming_removes_only_what_is_older<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let entries = |reason: &str| vec![audit(reason), Entry::Feed(FeedEntry::RecordChanged)];
    let mut ticks = Vec::new();
    for reason in ["a", "b", "c", "d"] {
        let batch = Batch { entries: entries(reason), ..Batch::default() };
        ticks.push(done(&store, batch).await.tick);
        let elsewhere = Batch { entries: entries(reason), ..Batch::default() };
        store.commit(ELSEWHERE, elsewhere).await.expect("a commit");
        harness.pass(Duration::from_millis(3)).await;
    }
    let trim =
        async |before, limit| store.trim(HERE, Log::Audit, before, limit).await.expect("trims");
    assert_eq!(trim(ticks[0].instant(), 9).await, 0, "its own instant isn't before it");
    assert_eq!(trim(ticks[3].instant(), 1).await, 1);
    assert_eq!(reasons(&all_logged(&store, Log::Audit).await), ["b", "c", "d"]);
    assert_eq!(trim(ticks[2].instant(), 9).await, 1);
    assert_eq!(reasons(&all_logged(&store, Log::Audit).await), ["c", "d"]);
    assert_eq!(reasons(&read_back(&store, ticks[3], 9).await), ["c"]);
    assert_eq!(trim(Timestamp::MAX, 9).await, 2);
    assert!(all_logged(&store, Log::Audit).await.is_empty());
    assert_eq!(all_logged(&store, Log::Feed).await.len(), 4);
    let elsewhere = store.log(ELSEWHERE, Log::Audit, Tick::ZERO, 9).await.expect("a log");
    assert_eq!(elsewhere.len(), 4);
    let after = done(&store, audits(&["e"])).await.tick;
    assert!(after > ticks[3], "an emptied log doesn't begin anew");
}

const WRITERS: usize = 6;
const COMMITS: usize = 30;

/// Whoever reads from cursor to cursor while others commit meets every entry, once, in order.
pub async fn a_follower_misses_nothing_of_concurrent_commits<H: Harness>(harness: &H) {
    let store = Arc::new(harness.fresh().await);
    let running = Arc::new(AtomicUsize::new(WRITERS));
    let mut tasks: Vec<Task> = Vec::new();
    for writer in 0..WRITERS {
        let (store, running) = (Arc::clone(&store), Arc::clone(&running));
        tasks.push(Box::pin(async move {
            for number in 0..COMMITS {
                let reason = format!("{writer}-{number}");
                done(&*store, audits(&[&reason, &reason])).await;
            }
            running.fetch_sub(1, Ordering::SeqCst);
        }));
    }
    for _ in 0..2 {
        let (store, running) = (Arc::clone(&store), Arc::clone(&running));
        tasks.push(Box::pin(async move {
            let followed = follow(&*store, &running).await;
            assert_eq!(followed, all_logged(&*store, Log::Audit).await);
            assert_eq!(followed.len(), WRITERS * COMMITS * 2);
        }));
    }
    harness.together(tasks).await;
    let logged = all_logged(&*store, Log::Audit).await;
    assert!(logged.is_sorted_by_key(|logged| (logged.cursor, logged.index)));
    let mut said = reasons(&logged);
    for pair in said.chunks(2) {
        assert_eq!(pair[0], pair[1], "two commits share a place");
    }
    said.sort();
    said.dedup();
    assert_eq!(said.len(), WRITERS * COMMITS);
}

/// Reads on until the writers are done and the end was read after that.
async fn follow<S: Store>(store: &S, running: &AtomicUsize) -> Vec<Logged> {
    let mut followed: Vec<Logged> = Vec::new();
    loop {
        let is_last = running.load(Ordering::SeqCst) == 0;
        let from = followed.last().map_or(Tick::ZERO, |last| last.cursor.successor());
        let page = read(store, from, 7).await;
        if page.is_empty() && is_last {
            return followed;
        }
        if page.is_empty() {
            give_way().await;
        }
        followed.extend(page);
    }
}

/// Each from its own cursor, in the order asked for, a partition's pages as whole as alone.
pub async fn several_logs_are_read_as_each_alone<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut from = Vec::new();
    for number in [3, 0, 2, 1] {
        let partition = Partition(number);
        let mut ticks = vec![Tick::ZERO];
        for round in 0..=number {
            let entries: Vec<Entry> =
                (0..=number).map(|entry| audit(&format!("{number} {round} {entry}"))).collect();
            let batch = Batch { entries, ..Batch::default() };
            let commit = store.commit(partition, batch).await.expect("a commit");
            let Commit::Done(committed) = commit else { panic!("{commit:?}") };
            ticks.push(committed.tick);
        }
        from.push((partition, ticks[usize::from(number / 2)]));
    }
    for limit in [1, 2, 5, 100] {
        let pages = store.logs(Log::Audit, &from, limit).await;
        assert_eq!(pages.len(), from.len());
        for ((partition, from), page) in from.iter().zip(pages) {
            let alone = store.log(*partition, Log::Audit, *from, limit).await.expect("a log");
            assert!(!alone.is_empty());
            assert_eq!(page.expect("a log"), alone, "{partition:?}");
        }
    }
    assert!(store.logs(Log::Audit, &[], 9).await.is_empty());
    let twice = [(HERE, Tick::ZERO), (HERE, Tick(u64::MAX >> 1)), (HERE, Tick::ZERO)];
    let pages = store.logs(Log::Audit, &twice, 100).await.into_iter();
    let pages: Vec<_> = pages.map(|page| page.expect("a log")).collect();
    assert!(pages[1].is_empty() && pages[0] == pages[2] && !pages[0].is_empty());
    let nowhere = [(Partition(u16::MAX), Tick::ZERO), (HERE, Tick::ZERO)];
    let pages = store.logs(Log::Audit, &nowhere, 100).await;
    assert!(pages[0].is_err() && pages[1].is_ok());
}
