//! The stored forms: what was written by a release is read by the next.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloakroom_core::limits::JSON_DEPTH_MAX;
use cloakroom_core::refresh::{Predecessor, RefreshState};
use cloakroom_core::session::{
    Client, Delivery, EndReason, Ending, Holder, Lifecycle, Object, Session,
};
use cloakroom_core::types::{Sid, Subject, Timestamp, TokenHash};
use cloakroom_store::conformance::samples;
use cloakroom_store::record::{DecodeError, FORMAT, decode, decode_entry, encode, encode_entry};
use cloakroom_store::{Key, Kind, Record};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/records-1.txt")
}

fn records() -> impl Iterator<Item = (Key, Record)> {
    samples::one_of_each_kind().into_iter().chain(samples::other_forms())
}

/// A line for each record and entry: its kind and its bytes, of which only the first isn't text.
fn lines() -> String {
    let mut lines = String::new();
    let mut line = |name: &str, stored: &[u8]| {
        let (format, json) = stored.split_first().expect("a format");
        let json = std::str::from_utf8(json).expect("text");
        writeln!(lines, "{name} {format} {json}").expect("a line");
    };
    for (_, record) in records() {
        line(&format!("{:?}", record.kind()), &encode(&record));
    }
    for entry in samples::entries() {
        line("Entry", &encode_entry(&entry));
    }
    lines
}

/// Reads a line back: what it is, and its bytes.
fn parse(line: &str) -> (&str, Vec<u8>) {
    let mut parts = line.splitn(3, ' ');
    let mut part = || parts.next().expect("three parts");
    let (name, format, json) = (part(), part(), part());
    let mut stored = vec![format.parse().expect("a format")];
    stored.extend(json.as_bytes());
    (name, stored)
}

fn kind(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == name)
}

#[test]
fn the_stored_forms_are_the_golden_file() {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(golden(), lines()).expect("a writable golden file");
    }
    let golden = fs::read_to_string(golden()).unwrap_or_default();
    assert_eq!(
        golden,
        lines(),
        "UPDATE=1 cargo test rewrites it; what was released must stay readable"
    );
}

#[test]
fn what_a_release_wrote_is_read_as_what_it_was() {
    let golden = fs::read_to_string(golden()).expect("the golden file");
    let mut samples = records();
    let mut entries = samples::entries().into_iter();
    for line in golden.lines() {
        let (name, stored) = parse(line);
        if let Some(kind) = kind(name) {
            let (_, sample) = samples.next().expect("a sample");
            let read = decode(kind, &stored).expect(line);
            assert_eq!(format!("{read:?}"), format!("{sample:?}"));
            assert_eq!(encode(&read), stored);
        } else {
            let read = decode_entry(&stored).expect(line);
            assert_eq!(Some(read), entries.next());
        }
    }
    assert!(samples.next().is_none() && entries.next().is_none());
}

#[test]
fn members_that_are_not_known_are_ignored() {
    let golden = fs::read_to_string(golden()).expect("the golden file");
    for line in golden.lines() {
        let (name, stored) = parse(line);
        let Some(kind) = kind(name) else { continue };
        let mut later = stored.clone();
        later.truncate(later.len() - 1);
        let comma = if later.ends_with(b"{") { "" } else { "," };
        later.extend(format!("{comma}\"later\":{{\"a\":[1]}}}}").into_bytes());
        let read = decode(kind, &later).expect(line);
        assert_eq!(encode(&read), stored);
    }
}

#[test]
fn optional_members_may_be_absent() {
    let least = [
        (Kind::Data, "{}"),
        (Kind::Index, "{}"),
        (Kind::Partition, r#"{"e":1}"#),
        (Kind::Subject, r#"{"sub":"a","e":1}"#),
        (Kind::Throttle, r#"{"t":1}"#),
    ];
    for (kind, json) in least {
        let mut stored = vec![FORMAT];
        stored.extend(json.as_bytes());
        assert_eq!(decode(kind, &stored).expect(json).kind(), kind);
    }
    let raised = br#"{"f":{"raised":{"sub":"a","e":1,"why":"signed_out_everywhere"}}}"#;
    assert!(decode_entry(&[&[FORMAT], raised.as_slice()].concat()).is_ok());
}

#[test]
fn another_format_is_refused_by_its_number() {
    for found in [0, FORMAT + 1, u8::MAX] {
        let stored = [found, b'{', b'}'];
        assert_eq!(decode(Kind::Data, &stored).err(), Some(DecodeError::Format { found }));
        assert_eq!(decode_entry(&stored).err(), Some(DecodeError::Format { found }));
    }
    let error = DecodeError::Format { found: 2 }.to_string();
    assert_eq!(error, "it has format 2, this release reads formats 1 to 1");
    assert_eq!(decode(Kind::Data, &[]).err(), Some(DecodeError::Empty));
}

#[test]
fn an_error_says_nothing_of_the_content() {
    let hidden = "hunter2";
    let jsons = [format!(r#"{{"t":"{hidden}"}}"#), format!(r#"{{"{hidden}"#), hidden.to_owned()];
    for json in jsons {
        let mut stored = vec![FORMAT];
        stored.extend(json.as_bytes());
        let error = decode(Kind::Throttle, &stored).expect_err("malformed");
        assert!(!format!("{error} {error:?}").contains(hidden), "{error:?}");
    }
}

#[test]
fn data_as_deep_as_it_may_be_is_read_back() {
    let deep = format!("{}1{}", "[".repeat(JSON_DEPTH_MAX), "]".repeat(JSON_DEPTH_MAX));
    let mut data = Object::new();
    data.insert("deep".to_owned(), serde_json::from_str(&deep).expect("JSON"));
    let read = decode(Kind::Data, &encode(&Record::Data(data.clone()))).expect("data");
    assert_eq!(read.into_data(), Some(data.clone()));
    let session = Session { claims: data, ..samples::refreshed_session() };
    let stored = encode(&Record::Session(Box::new(session)));
    assert!(decode(Kind::Session, &stored).is_ok());
}

#[test]
fn a_record_cut_short_is_refused() {
    for (_, record) in records() {
        let stored = encode(&record);
        for length in 0..stored.len() {
            assert!(decode(record.kind(), &stored[..length]).is_err());
        }
    }
}

#[test]
fn ids_hashes_and_names_have_one_stored_form() {
    let pointer = |user: &str| format!(r#"{{"u":"{user}","at":1}}"#);
    let key = |name: &str, value: &str| {
        let stored = encode(&records().nth(9).expect("a signing key").1);
        let json = String::from_utf8(stored[1..].to_vec()).expect("text");
        json.replacen(name, value, 1)
    };
    let index = |sid: &str| format!(r#"{{"s":["{sid}"]}}"#);
    let bad = [
        (Kind::Identifier, pointer("")),
        (Kind::Identifier, pointer(&"x".repeat(256))),
        (Kind::Index, index("01ARZ3NDEKTSV4RRFFQ69G5FAv")),
        (Kind::Index, index("01ARZ3NDEKTSV4RRFFQ69G5FA")),
        (Kind::SigningKey, key("EdDSA", "none")),
        (Kind::SigningKey, key("retired", "asleep")),
        (Kind::Settings, r#"{"n":65536,"id":"CAgICAgICAgICAgICAgICA","ct":1}"#.to_owned()),
        (Kind::Settings, r#"{"n":1,"id":"CAgICAgICAgICAgICAgI","ct":1}"#.to_owned()),
        (Kind::Settings, r#"{"n":1,"id":"CAgICAgICAgICAgICAgICAg","ct":1}"#.to_owned()),
        (Kind::Settings, r#"{"n":1,"id":"CAgICAgICAgICAgICAgICA==","ct":1}"#.to_owned()),
    ];
    for (kind, json) in bad {
        let mut stored = vec![FORMAT];
        stored.extend(json.as_bytes());
        assert!(decode(kind, &stored).is_err(), "{json}");
    }
    let mut good = vec![FORMAT];
    good.extend(br#"{"n":1,"id":"CAgICAgICAgICAgICAgICA","ct":1}"#);
    assert!(decode(Kind::Settings, &good).is_ok());
}

fn instants() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

fn sids() -> impl Strategy<Value = Sid> {
    any::<[u8; 16]>().prop_map(Sid::from_bytes)
}

fn hashes() -> impl Strategy<Value = TokenHash> {
    any::<[u8; 32]>().prop_map(TokenHash::from_bytes)
}

fn subjects() -> impl Strategy<Value = Subject> {
    "[^\\p{Cc}]{1,40}".prop_filter_map("too long", |text| Subject::parse(&text).ok())
}

fn lifecycles() -> impl Strategy<Value = Lifecycle> {
    let ended = (instants(), proptest::sample::select(&EndReason::ALL[..]), option::of(sids()));
    let ended = ended
        .prop_map(|(at, reason, successor)| Lifecycle::Ended(Ending { at, reason, successor }));
    prop_oneof![Just(Lifecycle::Live), ended]
}

fn holders() -> impl Strategy<Value = Holder> {
    let cookie = (any::<u32>(), hashes());
    let cookie = cookie.prop_map(|(lineage, secret)| Holder::Cookie { lineage, secret });
    let nonce_and_key = (any::<[u8; 16]>(), option::of(any::<[u8; 32]>()));
    let before = (hashes(), instants(), nonce_and_key).prop_map(|(secret, issued_at, drawn)| {
        Predecessor { secret, issued_at, nonce: drawn.0, idempotency: drawn.1 }
    });
    let refresh = (any::<u32>(), any::<u32>(), hashes(), instants(), option::of(before));
    let refresh = refresh.prop_map(|(lineage, generation, current, rotated_at, predecessor)| {
        let state = RefreshState { lineage, generation, current, rotated_at, predecessor };
        Holder::Refresh(state)
    });
    prop_oneof![cookie, refresh]
}

fn objects() -> impl Strategy<Value = Object> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            btree_map(any::<String>(), inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<serde_json::Value>()),
        ]
    });
    btree_map(any::<String>(), value, 0..4).prop_map(|members| members.into_iter().collect())
}

fn clients() -> impl Strategy<Value = Client> {
    let texts = (option::of(any::<String>()), option::of(any::<String>()));
    (option::of(any::<std::net::IpAddr>()), texts).prop_map(|(ip, (user_agent, label))| Client {
        ip,
        user_agent,
        label,
    })
}

/// Sessions of every shape: what is drawn here is put over the sample's members.
fn sessions() -> impl Strategy<Value = Session> {
    let who = (sids(), option::of(subjects()), any::<u64>(), any::<u64>());
    let when = (instants(), instants(), instants(), instants(), any::<[u64; 2]>());
    let how = (any::<bool>(), vec(any::<String>(), 0..3), any::<String>());
    let what = (option::of(any::<String>()), objects(), clients());
    let deliveries = [Delivery::Cookie, Delivery::Bearer, Delivery::Split];
    let held = (lifecycles(), holders(), proptest::sample::select(deliveries.to_vec()));
    (who, when, how, what, held).prop_map(|(who, when, how, what, held)| Session {
        sid: who.0,
        subject: who.1,
        subject_epoch: who.2,
        partition_epoch: who.3,
        lifecycle: held.0,
        created_at: when.0,
        last_seen_at: when.1,
        auth_time: when.2,
        idle_timeout: Duration::from_millis(when.4[0]),
        lifetime: Duration::from_millis(when.4[1]),
        expires_at: when.3,
        remember: how.0,
        amr: how.1,
        acr: how.2,
        actor: what.0,
        claims: what.1,
        client: what.2,
        delivery: held.2,
        holder: held.1,
    })
}

proptest! {
    #[test]
    fn a_session_is_read_as_it_was_written(session in sessions()) {
        let record = Record::Session(Box::new(session));
        let stored = encode(&record);
        let read = decode(Kind::Session, &stored).expect("a session");
        prop_assert_eq!(format!("{read:?}"), format!("{record:?}"));
        // What prints as `TokenHash(..)` is compared by its bytes.
        prop_assert_eq!(encode(&read), stored);
    }

    #[test]
    fn data_is_read_as_it_was_written(data in objects()) {
        let read = decode(Kind::Data, &encode(&Record::Data(data.clone()))).expect("data");
        prop_assert_eq!(read.into_data(), Some(data));
    }

    #[test]
    fn no_bytes_panic(format in 0..3_u8, rest in vec(any::<u8>(), 0..200)) {
        let mut stored = vec![format];
        stored.extend(rest);
        for kind in Kind::ALL {
            let _verdict = decode(kind, &stored);
        }
        let _verdict = decode_entry(&stored);
    }

    #[test]
    fn no_bent_record_panics(which in 0..19_usize, at in any::<proptest::sample::Index>(), to: u8) {
        let (_, record) = records().nth(which).expect("a sample");
        let mut stored = encode(&record);
        let at = at.index(stored.len());
        stored[at] = to;
        let _verdict = decode(record.kind(), &stored);
    }
}
