//! The directory: whose it is, which format it has, what half a store is.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cloakroom_core::types::{Partition, Timestamp};
use cloakroom_embedded::{DirLock, Embedded, OpenError};
use cloakroom_store::{Batch, Store as _};

use crate::world::{Writer, block_on, open, options};

#[test]
fn a_second_process_is_told_the_first_ones_pid() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let error = Embedded::open(dir.path(), options()).expect_err("it is in use");
    let own = std::process::id();
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == own), "{error}");
    assert!(error.to_string().ends_with(&format!("in use by process {own}")), "{error}");
    drop(store);
    open(dir.path());
}

#[test]
fn a_lock_of_a_dead_process_is_free() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("lock"), "4194304999\n").expect("a file");
    let lock = DirLock::acquire(dir.path()).expect("nobody holds it");
    let pid = fs::read_to_string(dir.path().join("lock")).expect("a file");
    assert_eq!(pid, format!("{}\n", std::process::id()));
    assert!(matches!(DirLock::acquire(dir.path()), Err(OpenError::Locked { .. })));
    drop(lock);
}

#[test]
fn a_lock_without_a_pid_is_a_lock() {
    let dir = tempfile::tempdir().expect("a directory");
    let _lock = DirLock::acquire(dir.path()).expect("nobody holds it");
    fs::write(dir.path().join("lock"), "").expect("a file");
    let error = DirLock::acquire(dir.path()).expect_err("it is held");
    assert!(error.to_string().ends_with("in use by another process"), "{error}");
}

#[test]
fn a_newer_format_is_refused_by_both_numbers() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let format = dir.path().join("store/format");
    let text = fs::read_to_string(&format).expect("a file");
    assert_eq!(text, "cloakroom-embedded 1\npartitions 8\n");
    fs::write(&format, text.replace("embedded 1", "embedded 2")).expect("a file");
    let error = Embedded::open(dir.path(), options()).expect_err("it is newer");
    assert!(matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("has format 2, this release reads up to 1"), "{error}");
}

#[test]
fn a_strange_format_is_damage() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    for text in ["", "x", "cloakroom-embedded 1\n", "cloakroom-embedded 1\npartitions 0\n"] {
        fs::write(dir.path().join("store/format"), text).expect("a file");
        let error = Embedded::open(dir.path(), options()).expect_err("it says nothing");
        assert!(matches!(error, OpenError::Damaged { .. }), "{text:?}: {error}");
    }
}

#[test]
fn a_store_half_made_is_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join("store.new/data")).expect("a folder");
    fs::write(dir.path().join("store.new/data/0.jnl"), "half").expect("a file");
    let store = open(dir.path());
    let mut writer = block_on(Writer::resume(&store, 0));
    block_on(writer.commit(&store, 10));
    assert!(!dir.path().join("store.new").exists());
}

#[test]
fn a_path_that_is_no_directory_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    let error = Embedded::open(&file, options()).expect_err("it is a file");
    assert!(error.to_string().contains("can't make"), "{error}");
}

#[test]
fn it_is_known_how_many_commits_wait_for_the_writer() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Mutex::new(()));
    let arrived = Arc::new(AtomicBool::new(false));
    let (of_clock, at_gate) = (Arc::clone(&gate), Arc::clone(&arrived));
    let clock = move || {
        // The writer asks for the time when it has taken what waits.
        if std::thread::current().name() == Some("cloakroom-writer") {
            at_gate.store(true, Ordering::Release);
            drop(of_clock.lock());
        }
        Timestamp::from_secs(1_800_000_000)
    };
    let store = Embedded::open_with_clock(dir.path(), options(), clock).expect("it opens");
    let held = gate.lock().expect("nobody panicked");
    let mut commits: Vec<_> =
        (0..10).map(|_| Box::pin(store.commit(Partition(0), Batch::default()))).collect();
    let mut polled = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(commits[0].as_mut().poll(&mut polled).is_pending());
    while !arrived.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    for commit in &mut commits[1..] {
        assert!(commit.as_mut().poll(&mut polled).is_pending());
    }
    let (waiting, most) = store.commits_waiting();
    assert!(waiting == 9 && most > 1000, "{waiting} of {most}");
    drop(held);
    for commit in commits {
        block_on(commit).expect("the store takes writes");
    }
    assert_eq!(store.commits_waiting(), (0, most));
}

#[test]
fn its_size_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    assert_eq!(store.partitions(), 8);
    assert!(store.size_on_disk().expect("a size") > 0);
}
