//! Every record comes back as it was stored, whatever it is and whatever it is called.

use std::collections::BTreeSet;

use cloakroom_core::session::Object;
use cloakroom_core::subject::SubjectState;
use cloakroom_core::types::Subject;

use super::*;
use crate::record::{DeniedToken, encode};

/// Loaded or paged, each kind and each of its forms.
pub async fn every_kind_of_record_survives<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    for (key, record) in samples::one_of_each_kind().into_iter().chain(samples::other_forms()) {
        let mut batch = Batch::default();
        batch.put(key.clone(), Version::ZERO, record.clone(), Review::Never);
        done(&store, batch).await;
        let found = load(&store, &key).await.expect("a record");
        assert_eq!(found.record.kind(), key.kind());
        assert_eq!(encode(&found.record), encode(&record), "{key}");
        let page = store.page(HERE, key.kind(), None, 100).await.expect("a page");
        let paged = page.into_iter().find(|(paged, _)| *paged == key).expect("in the page");
        assert_eq!(encode(&paged.1.record), encode(&record), "{key}");
    }
}

/// Up to what a request can carry, many times over.
pub async fn large_data_survives<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let mut data = Object::new();
    for number in 0..200 {
        let text = format!("{number} \u{e9}\u{0}\"").repeat(400);
        data.insert(format!("member {number}"), text.into());
    }
    let key = samples::one_of_each_kind().remove(1).0;
    let record = Record::Data(data);
    assert!(encode(&record).len() > 512 * 1024);
    let mut batch = Batch::default();
    batch.put(key.clone(), Version::ZERO, record.clone(), Review::Never);
    done(&store, batch).await;
    let found = load(&store, &key).await.expect("a record");
    assert_eq!(encode(&found.record), encode(&record));
}

/// Names that some store could take for a separator, a pattern, a path or one another.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a",
        "A",
        "a ",
        " a",
        "a:b",
        "a}:{b",
        "{a}",
        "a:b:c",
        "a/b",
        "../a",
        "..",
        ".",
        "*",
        "?",
        "[a]",
        "%",
        "_",
        "a%00",
        "'",
        "''",
        "\"",
        "\\",
        "a\\",
        ";--",
        "$1",
        "NULL",
        "null",
        "0",
        "-1",
        "\u{e9}",
        "e\u{301}",
        "\u{df}",
        "ss",
        "\u{130}",
        "i\u{307}",
        "\u{10ffff}",
        "\u{ffff}",
        "\u{feff}a",
        "\u{200b}",
        "\u{202e}a",
        "\u{1f511}",
    ]
    .map(str::to_owned)
    .into();
    names.push("x".repeat(254));
    names.push("x".repeat(255));
    names.push("\u{e9}".repeat(127));
    names.push(format!("{}y", "x".repeat(254)));
    names
}

fn subject(name: &str) -> Subject {
    Subject::parse(name).expect("a subject")
}

/// Each name has its own record in each kind that is named by text.
pub async fn odd_names_do_not_collide<H: Harness>(harness: &H) {
    let store = harness.fresh().await;
    let names = odd_names();
    for (name, until) in names.iter().zip(0..) {
        let mut batch = Batch::default();
        let state = SubjectState { epoch: until, ..SubjectState::new(subject(name)) };
        batch.put(
            Key::Subject(subject(name)),
            Version::ZERO,
            Record::Subject(state),
            Review::Never,
        );
        batch.put(Key::Index(subject(name)), Version::ZERO, Record::Index(vec![]), Review::Never);
        let until = Timestamp::from_millis(i64::try_from(until).expect("a few names"));
        let denied = Record::DeniedToken(DeniedToken { until });
        let review = Review::At(Timestamp::EPOCH);
        batch.put(Key::DeniedToken(name.as_str().into()), Version::ZERO, denied, review);
        done(&store, batch).await;
    }
    for (name, until) in names.iter().zip(0..) {
        let found = load(&store, &Key::Subject(subject(name))).await.expect("a subject");
        let state = found.record.as_subject().expect("a subject");
        assert_eq!((state.epoch, state.subject.as_str()), (until, name.as_str()));
        let denied = load(&store, &Key::DeniedToken(name.as_str().into())).await.expect("denied");
        let denied = denied.record.as_denied_token().expect("denied");
        assert_eq!(denied.until.as_millis(), i64::try_from(until).expect("a few names"));
    }
    let due: BTreeSet<Key> = all_due(&store).await.into_iter().collect();
    let denied = names.iter().map(|name| Key::DeniedToken(name.as_str().into()));
    assert_eq!(due, denied.collect());
    let mut paged = BTreeSet::new();
    let mut after = None;
    loop {
        let page = store.page(HERE, Kind::Index, after.as_ref(), 2).await.expect("a page");
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        paged.extend(page.into_iter().map(|(key, _)| key));
    }
    assert_eq!(paged, names.iter().map(|name| Key::Index(subject(name))).collect());
}
