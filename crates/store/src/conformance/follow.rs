//! A load brings along what the found records name, from the same state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloakroom_core::session::Session;
use cloakroom_core::subject::SubjectState;
use cloakroom_core::types::{Sid, Subject};

use super::*;
use crate::{Follow, Found};

/// Names that a store which looks for them inside a record might take for something else.
const NAMES: [&str; 9] =
    ["usr_1", "a\"b", "\\", "a\\\"b", "%00", "\u{e9} \u{1f511}", "\",\"sub\":\"b", "{}:", "/"];

fn subject(name: &str) -> Subject {
    Subject::parse(name).expect("a subject")
}

fn sid(number: u16) -> Sid {
    let [high, low] = number.to_be_bytes();
    Sid::new(Timestamp::from_secs(1_795_500_000), HERE, [7, 7, 7, 7, 7, 7, high, low])
}

fn session(number: u16, name: Option<&str>) -> Record {
    let subject = name.map(subject);
    Record::Session(Box::new(Session { sid: sid(number), subject, ..samples::refreshed_session() }))
}

fn state(name: &str, epoch: u64) -> Record {
    Record::Subject(SubjectState { epoch, ..SubjectState::new(subject(name)) })
}

async fn follow<S: Store>(store: &S, keys: &[Key], follow: Follow) -> Found {
    let found = store.load_following(HERE, keys, follow).await.expect("a load");
    assert_eq!(found.asked.len(), keys.len(), "one answer for each key");
    found
}

async fn store_all<S: Store>(store: &S, records: Vec<(Key, Record)>) {
    let mut batch = Batch::default();
    for (key, record) in records {
        batch.put(key, Version::ZERO, record, Review::Never);
    }
    done(store, batch).await;
}

/// The keys that were followed, of what was there and of what wasn't.
fn followed(found: &Found) -> (BTreeSet<Key>, BTreeSet<Key>) {
    let keys = |is_there: bool| {
        let some = found.followed.iter().filter(|(_, found)| found.is_some() == is_there);
        some.map(|(key, _)| key.clone()).collect()
    };
    (keys(true), keys(false))
}

/// Whatever it is called; and one that names none brings none.
pub async fn a_session_brings_the_subject_that_it_names<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    for ((name, number), epoch) in NAMES.into_iter().zip(1..).zip(1..) {
        // A store that remembers whose a session was must not take that for what it is now.
        let key = Key::Session(sid(number));
        let mut batch = Batch::default();
        batch.put(key.clone(), Version::ZERO, session(number, Some("before")), Review::Never);
        let before = done(&store, batch).await.tick;
        let mut batch = Batch::default();
        batch.put(key, before, session(number, Some(name)), Review::Never);
        let index = Record::Index(vec![sid(number)]);
        batch.put(Key::Index(subject(name)), Version::ZERO, index, Review::Never);
        let key = Key::Subject(subject(name));
        batch.put(key, Version::ZERO, state(name, epoch), Review::Never);
        done(&store, batch).await;
        let keys = [Key::Partition, Key::Session(sid(number))];
        let found = follow(&store, &keys, Follow::Subject).await;
        assert!(found.asked[0].is_none() && found.asked[1].is_some());
        let [(key, Some(brought))] = &found.followed[..] else { panic!("{name}: {found:?}") };
        assert_eq!(*key, Key::Subject(subject(name)));
        assert_eq!(brought.record.as_subject().map(|state| state.epoch), Some(epoch));
        assert_eq!(Some(brought.version), found.asked[1].as_ref().map(|found| found.version));
        let nothing = follow(&store, &keys, Follow::Nothing).await;
        assert!(nothing.followed.is_empty() && nothing.asked[1].is_some());
    }
    // The second time it may come by another way.
    for (name, number) in NAMES.into_iter().zip(1..) {
        let found = follow(&store, &[Key::Session(sid(number))], Follow::Subject).await;
        assert_eq!(followed(&found), ([Key::Subject(subject(name))].into(), BTreeSet::new()));
    }
    store_all(&store, vec![(Key::Session(sid(99)), session(99, None))]).await;
    let found = follow(&store, &[Key::Session(sid(99))], Follow::Subject).await;
    assert!(found.asked[0].is_some() && found.followed.is_empty());
    let found = follow(&store, &[Key::Session(sid(98))], Follow::Subject).await;
    assert!(found.asked[0].is_none() && found.followed.is_empty());
    assert!(follow(&store, &[], Follow::Subject).await.followed.is_empty());
}

/// Beside the subject's record.
pub async fn a_session_brings_its_subjects_index<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let records = vec![
        (Key::Session(sid(1)), session(1, Some("ada"))),
        (Key::Subject(subject("ada")), state("ada", 1)),
        (Key::Index(subject("ada")), Record::Index(vec![sid(1), sid(2)])),
        (Key::Session(sid(2)), session(2, Some("ada"))),
    ];
    store_all(&store, records).await;
    let found = follow(&store, &[Key::Session(sid(1))], Follow::SubjectAndIndex).await;
    let both = [Key::Subject(subject("ada")), Key::Index(subject("ada"))];
    assert_eq!(followed(&found), (both.into(), BTreeSet::new()));
    let index = found.followed.iter().find_map(|(_, found)| found.as_ref()?.record.as_index());
    assert_eq!(index, Some(&vec![sid(1), sid(2)]));
}

/// All of them from so many on, and none of fewer; however many they are.
pub async fn an_index_brings_the_sessions_that_it_lists<H: Harness>(harness: &H) {
    const MANY: u16 = 300;
    let store = harness.fresh().await;
    let listed: Vec<Sid> = (1..=MANY).map(sid).collect();
    let mut records: Vec<_> = (1..=MANY)
        .map(|number| (Key::Session(sid(number)), session(number, Some("ada"))))
        .collect();
    records.push((Key::Index(subject("ada")), Record::Index(listed.clone())));
    records.push((Key::Index(subject("bob")), Record::Index(Vec::new())));
    store_all(&store, records).await;
    let keys = [Key::Index(subject("ada")), Key::Index(subject("bob")), Key::Partition];
    for at_least in [0, 1, usize::from(MANY)] {
        let found = follow(&store, &keys, Follow::Sessions { at_least }).await;
        let all = listed.iter().copied().map(Key::Session).collect();
        assert_eq!(followed(&found), (all, BTreeSet::new()));
        assert_eq!(found.followed.len(), listed.len());
        for (key, found) in &found.followed {
            let named = found.as_ref().and_then(|found| found.record.as_session());
            assert_eq!(named.map(|session| Key::Session(session.sid)).as_ref(), Some(key));
        }
    }
    let more = Follow::Sessions { at_least: usize::from(MANY) + 1 };
    assert!(follow(&store, &keys, more).await.followed.is_empty());
}

/// Not once for each that names it, and not where it was asked for by itself.
pub async fn what_is_followed_is_followed_once<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let records = vec![
        (Key::Session(sid(1)), session(1, Some("ada"))),
        (Key::Session(sid(2)), session(2, Some("bob"))),
        (Key::Session(sid(3)), session(3, Some("ada"))),
        (Key::Subject(subject("ada")), state("ada", 1)),
        (Key::Subject(subject("bob")), state("bob", 2)),
        (Key::Index(subject("ada")), Record::Index(vec![sid(1), sid(3)])),
    ];
    store_all(&store, records).await;
    let sessions = [1, 2, 3, 1].map(|number| Key::Session(sid(number)));
    let found = follow(&store, &sessions, Follow::Subject).await;
    assert!(found.asked.iter().all(Option::is_some));
    assert_eq!(found.followed.len(), 2);
    let both = ["ada", "bob"].map(|name| Key::Subject(subject(name)));
    assert_eq!(followed(&found), (both.into(), BTreeSet::new()));
    let keys = [Key::Session(sid(1)), Key::Subject(subject("ada"))];
    let found = follow(&store, &keys, Follow::Subject).await;
    assert!(found.asked.iter().all(Option::is_some) && found.followed.is_empty());
    let keys = [Key::Session(sid(3)), Key::Index(subject("ada"))];
    let found = follow(&store, &keys, Follow::Sessions { at_least: 1 }).await;
    assert_eq!(followed(&found), ([Key::Session(sid(1))].into(), BTreeSet::new()));
}

/// Whoever finds a name without a record must be able to tell it from a name that wasn't followed.
pub async fn what_is_followed_and_not_there_is_said_to_be_absent<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let records = vec![
        (Key::Session(sid(1)), session(1, Some("ada"))),
        (Key::Index(subject("ada")), Record::Index(vec![sid(1), sid(2)])),
    ];
    store_all(&store, records).await;
    let found = follow(&store, &[Key::Session(sid(1))], Follow::SubjectAndIndex).await;
    let (there, absent) =
        ([Key::Index(subject("ada"))].into(), [Key::Subject(subject("ada"))].into());
    assert_eq!(followed(&found), (there, absent));
    let index = [Key::Index(subject("ada"))];
    let found = follow(&store, &index, Follow::Sessions { at_least: 0 }).await;
    let (there, absent) = ([Key::Session(sid(1))].into(), [Key::Session(sid(2))].into());
    assert_eq!(followed(&found), (there, absent));
    let mut batch = Batch::default();
    let expired = Some(Timestamp::EPOCH);
    batch.put_until(Key::Session(sid(2)), Version::ZERO, session(2, None), Review::Never, expired);
    done(&store, batch).await;
    let found = follow(&store, &index, Follow::Sessions { at_least: 0 }).await;
    assert_eq!(followed(&found).1, [Key::Session(sid(2))].into());
}

const COMMITS: u64 = 100;

/// A session and its subject that are always written together are never seen apart.
pub async fn what_is_followed_is_of_one_state_with_what_names_it<H: Harness>(harness: &H) {
    let store = Arc::new(harness.fresh().await);
    let keys = [Key::Session(sid(1)), Key::Subject(subject("ada"))];
    write_both(&*store, &keys, 0).await;
    let is_written = Arc::new(AtomicBool::new(false));
    let (writing, written, both) = (Arc::clone(&store), Arc::clone(&is_written), keys.clone());
    let mut tasks: Vec<Task> = vec![Box::pin(async move {
        for epoch in 1..=COMMITS {
            write_both(&*writing, &both, epoch).await;
        }
        written.store(true, Ordering::SeqCst);
    })];
    for _ in 0..3 {
        let (store, is_written, keys) = (Arc::clone(&store), Arc::clone(&is_written), keys.clone());
        tasks.push(Box::pin(async move {
            while !is_written.load(Ordering::SeqCst) {
                let found = follow(&*store, &keys[..1], Follow::Subject).await;
                let [(_, Some(brought))] = &found.followed[..] else { panic!("{found:?}") };
                let named = found.asked[0].as_ref().expect("a session");
                assert_eq!(brought.version, named.version, "torn: {found:?}");
                give_way().await;
            }
        }));
    }
    harness.together(tasks).await;
}

/// Writes both in one commit; nobody else writes them.
async fn write_both<S: Store>(store: &S, keys: &[Key; 2], epoch: u64) {
    let mut batch = Batch::default();
    let records = [session(1, Some("ada")), state("ada", epoch)];
    for (key, record) in keys.iter().zip(records) {
        batch.put(key.clone(), version(store, key).await, record, Review::Keep);
    }
    done(store, batch).await;
}
