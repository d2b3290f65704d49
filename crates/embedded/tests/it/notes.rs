//! What the store remembers never hides what it holds.

use std::time::Duration;

use cloakroom_core::session::{Client, Delivery, Epochs, Grant, Object, Session, SessionRules};
use cloakroom_core::subject::PartitionState;
use cloakroom_core::types::{Partition, Secret, Sid, Timestamp};
use cloakroom_embedded::Embedded;
use cloakroom_store::{Batch, Commit, Key, Log, Record, Review, Store, Tick, Version};

use crate::world::{Writer, block_on, open};

const HERE: Partition = Partition(3);

const fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

/// A session with an id of this instant.
fn session(ms: i64) -> (Key, Record) {
    let day = Duration::from_secs(24 * 3600);
    let rules = SessionRules {
        idle: day,
        idle_remember: day,
        idle_anonymous: day,
        absolute: day,
        absolute_remember: day,
        refresh_ttl: day,
        aal_caps: Vec::new(),
    };
    let grant = Grant {
        subject: None,
        delivery: Delivery::Cookie,
        remember: false,
        claims: Object::new(),
        amr: Vec::new(),
        acr: "aal1".to_owned(),
        actor: None,
        idle_timeout: None,
        lifetime: None,
        client: Client { ip: None, user_agent: None, label: None },
    };
    let sid = Sid::new(at(ms), HERE, [7; 8]);
    let (epochs, secret) = (Epochs::default(), Secret::new([7; 32]));
    let (session, _) = Session::open(grant, &rules, sid, epochs, at(ms), secret);
    (Key::Session(sid), Record::Session(Box::new(session)))
}

fn put(store: &Embedded, key: &Key, expected: Version, record: Record, review: Review) -> Tick {
    let mut batch = Batch::default();
    batch.put(key.clone(), expected, record, review);
    match block_on(store.commit(HERE, batch)).expect("the store takes writes") {
        Commit::Done(done) => done.tick,
        Commit::Conflict(key) => panic!("{key} has another version"),
    }
}

fn version(store: &Embedded, key: &Key) -> Option<Version> {
    let found = block_on(store.load(HERE, std::slice::from_ref(key))).expect("a load").remove(0);
    found.map(|found| found.version)
}

#[test]
fn a_session_is_found_whichever_is_the_newest_and_after_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let (middle, record) = session(2000);
    assert_eq!(version(&store, &middle), None);
    let first = put(&store, &middle, Version::ZERO, record, Review::Never);
    assert_eq!(version(&store, &middle), Some(first));
    // An earlier one, as of a clock that was set back, and a later one.
    for ms in [1000, 3000] {
        let (key, record) = session(ms);
        assert_eq!(version(&store, &key), None);
        let tick = put(&store, &key, Version::ZERO, record, Review::Never);
        assert_eq!(version(&store, &key), Some(tick));
    }
    drop(store);

    let store = open(dir.path());
    assert_eq!(version(&store, &session(4000).0), None);
    assert_eq!(version(&store, &middle), Some(first));
    let (newest, record) = session(3000);
    let mut batch = Batch::default();
    batch.put(newest.clone(), Version::ZERO, record, Review::Never);
    let again = block_on(store.commit(HERE, batch)).expect("an answer");
    assert_eq!(again, Commit::Conflict(newest));
}

#[test]
fn a_partitions_record_is_the_last_one_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let mut last = Version::ZERO;
    for epoch in 1..=5 {
        let record = Record::Partition(PartitionState { epoch, ..PartitionState::default() });
        last = put(&store, &Key::Partition, last, record, Review::Never);
        for _ in 0..2 {
            let found = block_on(store.load(HERE, &[Key::Partition])).expect("a load").remove(0);
            let found = found.expect("a record");
            assert_eq!(found.version, last);
            assert_eq!(found.record.as_partition().expect("its state").epoch, epoch);
        }
    }
    let mut batch = Batch::default();
    batch.expect(Key::Partition, last).delete(session(1).0, Version::ZERO);
    assert!(matches!(block_on(store.commit(HERE, batch)), Ok(Commit::Done(_))));
    let mut batch = Batch::default();
    batch.expect(Key::Partition, Version::ZERO).delete(session(1).0, Version::ZERO);
    assert_eq!(block_on(store.commit(HERE, batch)).ok(), Some(Commit::Conflict(Key::Partition)));
}

#[test]
fn what_is_filed_earlier_than_what_was_cleaned_up_is_due() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let due = |limit| block_on(store.due(HERE, at(1000), limit)).expect("what is due");
    let file = |ms, expected| {
        let (key, record) = session(ms);
        let tick = put(&store, &key, expected, record, Review::At(at(ms)));
        (key, tick)
    };
    let (later, _) = file(500, Version::ZERO);
    let (last, tick) = file(900, Version::ZERO);
    assert_eq!(due(0), []);
    assert_eq!(due(1), std::slice::from_ref(&later));
    assert_eq!(due(9), [later.clone(), last.clone()]);
    let (earlier, _) = file(100, Version::ZERO);
    assert_eq!(due(9), [earlier.clone(), later.clone(), last.clone()]);
    let mut batch = Batch::default();
    batch.delete(earlier.clone(), version(&store, &earlier).expect("a version"));
    batch.delete(later.clone(), version(&store, &later).expect("a version"));
    assert!(matches!(block_on(store.commit(HERE, batch)), Ok(Commit::Done(_))));
    assert_eq!(due(9), std::slice::from_ref(&last));
    // The same record, filed anew before all that was removed.
    let (_, record) = session(900);
    put(&store, &last, tick, record, Review::At(at(1)));
    assert_eq!(due(9), [last]);
}

#[test]
fn a_log_is_trimmed_to_its_end_in_pieces() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let mut writer = block_on(Writer::resume(&store, HERE.0));
    for _ in 0..10 {
        block_on(writer.commit(&store, 10));
    }
    let trim = |limit| block_on(store.trim(HERE, Log::Feed, Timestamp::MAX, limit)).ok();
    assert_eq!([trim(4), trim(4), trim(4), trim(4)], [Some(4), Some(4), Some(2), Some(0)]);
    block_on(writer.commit(&store, 10));
    let left = block_on(store.log(HERE, Log::Feed, Tick::ZERO, 10)).expect("a log");
    assert_eq!(left.len(), 1);
    assert_eq!(trim(4), Some(1));
}

#[test]
fn a_clock_that_is_set_back_finds_nothing_due_and_later_all_of_it() {
    let world = tempfile::tempdir().expect("a directory");
    let store = open(world.path());
    let (key, record) = session(700);
    put(&store, &key, Version::ZERO, record, Review::At(at(1500)));
    let due = |before| block_on(store.due(HERE, at(before), 9)).expect("what is due");
    // Everything before this instant was looked through.
    assert!(due(1000).is_empty());
    assert!(due(500).is_empty());
    assert!(due(1000).is_empty());
    assert_eq!(due(1501), [key]);
}
