//! One record of each kind and one entry of each variant, with nothing left at its default.

use std::time::Duration;

use cloakroom_core::event::{Actor, Event, EventKind, FeedEntry};
use cloakroom_core::keys::{Algorithm, KeyRecord, KeyState, Kid};
use cloakroom_core::refresh::{Predecessor, RefreshState};
use cloakroom_core::session::{
    Client, Delivery, EndReason, Ending, Holder, Lifecycle, Object, Session,
};
use cloakroom_core::store_key::WrappedKey;
use cloakroom_core::subject::{Bump, PartitionState, PasswordReset, SubjectState, User};
use cloakroom_core::types::{Sid, Subject, Timestamp, TokenHash};

use crate::record::{ApiKey, DeniedToken, HandlePointer, IdentifierPointer, StoreSettings};
use crate::{Entry, Key, Record};

/// A record of each kind, under a fitting key.
pub fn one_of_each_kind() -> Vec<(Key, Record)> {
    let subject = subject("usr_1");
    vec![
        (Key::Session(sid(1)), Record::Session(Box::new(refreshed_session()))),
        (Key::Data(sid(1)), Record::Data(object())),
        (Key::Subject(subject.clone()), Record::Subject(subject_state())),
        (Key::Index(subject.clone()), Record::Index(vec![sid(2), sid(1), sid(3)])),
        (Key::User(subject.clone()), Record::User(user())),
        (
            Key::Identifier([2; 32]),
            Record::Identifier(IdentifierPointer { user: subject, at: at(5) }),
        ),
        (
            Key::Handle([4; 32]),
            Record::Handle(HandlePointer { sid: sid(5), at: at(8), until: Some(at(9)) }),
        ),
        (Key::DeniedToken("1-jti".into()), Record::DeniedToken(DeniedToken { until: at(6) })),
        (Key::Throttle([3; 32]), Record::Throttle(u64::MAX)),
        (Key::Partition, Record::Partition(PartitionState { epoch: 7, bumped_at: at(7) })),
        (Key::SigningKey("kid-1".into()), Record::SigningKey(signing_key())),
        (Key::ApiKey(sid(4)), Record::ApiKey(api_key())),
        (Key::StoreKey, Record::StoreKey(WrappedKey::from_bytes((0..61).collect()))),
        (
            Key::Settings,
            Record::Settings(StoreSettings {
                partitions: 256,
                store_id: [8; 16],
                created_at: at(8),
            }),
        ),
    ]
}

/// More records, of which a kind has more than one form.
pub fn other_forms() -> Vec<(Key, Record)> {
    let plain = anonymous_session();
    let ended = ended_session();
    let new = SubjectState::new(subject("usr_2"));
    let reset = PasswordReset { secret: TokenHash::from_bytes([53; 32]), until: at(54) };
    let revoked = KeyRecord { state: KeyState::Revoked, private: Vec::new(), ..signing_key() };
    vec![
        (Key::Session(plain.sid), Record::Session(Box::new(plain))),
        (Key::Session(ended.sid), Record::Session(Box::new(ended))),
        (Key::Data(sid(6)), Record::Data(Object::new())),
        (Key::User(subject("usr_3")), Record::User(User { reset: Some(reset), ..user() })),
        (Key::Subject(new.subject.clone()), Record::Subject(new)),
        (Key::Index(subject("usr_2")), Record::Index(Vec::new())),
        (Key::SigningKey("kid-2".into()), Record::SigningKey(revoked)),
    ]
}

/// A feed entry of each variant and an audit event of each actor.
pub fn entries() -> Vec<Entry> {
    let mut entries = vec![
        Entry::Feed(FeedEntry::SessionEnded {
            sid: sid(1),
            reason: EndReason::RefreshReused,
            until: at(1),
        }),
        Entry::Feed(FeedEntry::SessionSteppedUp { sid: sid(1), auth_time: at(2) }),
        Entry::Feed(FeedEntry::SubjectRaised {
            subject: subject("usr_1"),
            epoch: 3,
            except: Some(sid(2)),
            reason: EndReason::PasswordChanged,
            at: at(3),
        }),
        Entry::Feed(FeedEntry::TokenDenied { jti: "1-jti".to_owned(), until: at(4) }),
        Entry::Feed(FeedEntry::KeyChanged { kid: "kid-1".to_owned(), state: "retired".to_owned() }),
        Entry::Feed(FeedEntry::AllEnded { at: at(5) }),
        Entry::Feed(FeedEntry::SessionChanged { sid: sid(3) }),
        Entry::Feed(FeedEntry::SubjectChanged { subject: subject("usr_1") }),
        Entry::Feed(FeedEntry::RecordChanged),
    ];
    let actors = [
        Actor::User(Some(subject("usr_1"))),
        Actor::User(None),
        Actor::ApiKey("backend".to_owned()),
        Actor::Operator,
        Actor::System,
    ];
    entries.extend(actors.into_iter().map(|actor| Entry::Audit(Box::new(event(actor)))));
    entries.push(audit("plain"));
    entries
}

/// An audit event of which only the reason differs.
pub fn audit(reason: &str) -> Entry {
    Entry::Audit(Box::new(Event {
        kind: EventKind::SessionDataChanged,
        at: at(1),
        sid: None,
        subject: None,
        actor: Actor::System,
        client: Client::default(),
        request_id: None,
        reason: Some(reason.to_owned()),
        count: 1,
    }))
}

/// A `bearer` session that was refreshed with an idempotency key.
pub fn refreshed_session() -> Session {
    let predecessor = Predecessor {
        secret: TokenHash::from_bytes([11; 32]),
        issued_at: at(11),
        nonce: [12; 16],
        idempotency: Some([13; 32]),
    };
    let refresh = RefreshState {
        lineage: 2,
        generation: 3,
        current: TokenHash::from_bytes([14; 32]),
        rotated_at: at(14),
        predecessor: Some(predecessor),
    };
    Session {
        sid: sid(1),
        subject: Some(subject("usr_1")),
        subject_epoch: 4,
        partition_epoch: 5,
        lifecycle: Lifecycle::Live,
        created_at: at(15),
        last_seen_at: at(16),
        auth_time: at(17),
        idle_timeout: Duration::from_secs(1800),
        lifetime: Duration::from_millis(86_400_001),
        expires_at: at(18),
        remember: true,
        amr: vec!["pwd".to_owned(), "otp".to_owned()],
        acr: "aal2".to_owned(),
        actor: Some("support@example.com".to_owned()),
        claims: object(),
        client: client(),
        delivery: Delivery::Bearer,
        holder: Holder::Refresh(refresh),
    }
}

/// A `cookie` session before a sign-in, with nothing that it need not have.
pub fn anonymous_session() -> Session {
    let secret = TokenHash::from_bytes([21; 32]);
    Session {
        sid: sid(2),
        subject: None,
        subject_epoch: 0,
        remember: false,
        amr: Vec::new(),
        acr: String::new(),
        actor: None,
        claims: Object::new(),
        client: Client::default(),
        delivery: Delivery::Cookie,
        holder: Holder::Cookie { lineage: 0, secret },
        ..refreshed_session()
    }
}

/// A `split` session that another one replaced, before its first rotation.
pub fn ended_session() -> Session {
    let ending = Ending { at: at(30), reason: EndReason::Replaced, successor: Some(sid(1)) };
    let first = RefreshState::first(0, TokenHash::from_bytes([31; 32]), at(31));
    Session {
        sid: sid(3),
        lifecycle: Lifecycle::Ended(ending),
        delivery: Delivery::Split,
        holder: Holder::Refresh(first),
        ..refreshed_session()
    }
}

/// An object of all that JSON has, at its edges.
pub fn object() -> Object {
    let text = r#"{
        "": null,
        "a\"\\\u0000\n": "b\"\\\u0000\n",
        "name": "Ada \u00e9\ud83d\udd11 e\u0301",
        "numbers": [0, -1, 18446744073709551615, -9223372036854775808, 1.5, 1e300, 5e-324, -0.0],
        "deep": {"a": [{"b": [[], {}]}]},
        "yes": true,
        "no": false,
        "$ne": "} ' ; -- * ?"
    }"#;
    serde_json::from_str(text).expect("an object")
}

fn subject_state() -> SubjectState {
    SubjectState {
        subject: subject("usr_1"),
        epoch: 2,
        bumps: vec![
            Bump { epoch: 1, at: at(41), reason: EndReason::SignedOutEverywhere },
            Bump { epoch: 2, at: at(42), reason: EndReason::PasswordChanged },
        ],
        claims: object(),
        disabled_at: Some(at(43)),
        password_changed_at: Some(at(44)),
    }
}

fn user() -> User {
    User {
        id: subject("usr_1"),
        identifier: "Ada@Example.com".to_owned(),
        identifier_hash: [2; 32],
        password: Some("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g".to_owned()),
        created_at: at(51),
        password_changed_at: Some(at(52)),
        reset: None,
    }
}

fn signing_key() -> KeyRecord {
    KeyRecord {
        kid: Kid::new("kid-1"),
        algorithm: Algorithm::EdDsa,
        state: KeyState::Retired,
        created_at: at(61),
        activates_at: at(62),
        retires_at: Some(at(63)),
        removed_at: Some(at(64)),
        public: vec![65; 32],
        private: vec![255; 77],
    }
}

fn api_key() -> ApiKey {
    ApiKey {
        id: sid(4),
        name: "billing".to_owned(),
        scopes: vec!["sessions:read".to_owned(), "users:write".to_owned()],
        secret: TokenHash::from_bytes([71; 32]),
        created_at: at(72),
        expires_at: Some(at(73)),
        last_used_at: Some(at(74)),
    }
}

fn event(actor: Actor) -> Event {
    Event {
        kind: EventKind::SigninFailed,
        at: at(81),
        sid: Some(sid(1)),
        subject: Some(subject("usr_1")),
        actor,
        client: client(),
        request_id: Some("req-1".to_owned()),
        reason: Some("<b>bounded</b>, untrusted".to_owned()),
        count: 82,
    }
}

fn client() -> Client {
    Client {
        ip: "2001:db8::7".parse().ok(),
        user_agent: Some("Mozilla/5.0 (\"quoted\")".to_owned()),
        label: Some("Ada's laptop".to_owned()),
    }
}

fn sid(number: u8) -> Sid {
    Sid::new(at(0), super::HERE, [number; 8])
}

fn subject(text: &str) -> Subject {
    Subject::parse(text).expect("a subject")
}

/// An instant of our own in November 2026.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_795_500_000_000 + ms)
}
