//! The columns that people read: taken from a record on its way in, never read back.

use std::net::IpAddr;
use std::time::SystemTime;

use cloakroom_core::event::{Event, FeedEntry};
use cloakroom_core::keys::{KeyRecord, KeyState};
use cloakroom_core::session::{Lifecycle, Session};
use cloakroom_core::subject::{SubjectState, User};
use cloakroom_core::types::Timestamp;
use cloakroom_store::Record;
use cloakroom_store::record::ApiKey;

use crate::names::escape;
use crate::time::system_time;

/// What the columns of a record hold; none where it has no such thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) subject: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) state: Option<&'static str>,
    pub(crate) reason: Option<&'static str>,
    pub(crate) epoch: Option<i64>,
    pub(crate) created_at: Option<SystemTime>,
    pub(crate) last_seen_at: Option<SystemTime>,
    pub(crate) ended_at: Option<SystemTime>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) client_ip: Option<IpAddr>,
}

impl Columns {
    /// Those of a record.
    pub(crate) fn of(record: &Record) -> Self {
        match record {
            Record::Session(session) => Self::of_session(session),
            Record::Subject(state) => Self::of_subject(state),
            Record::User(user) => Self::of_user(user),
            Record::SigningKey(key) => Self::of_signing_key(key),
            Record::ApiKey(key) => Self::of_api_key(key),
            Record::Handle(pointer) => {
                Self { created_at: Some(system_time(pointer.at)), ..Self::default() }
            }
            Record::Identifier(pointer) => Self {
                subject: Some(text(pointer.user.as_str())),
                created_at: Some(system_time(pointer.at)),
                ..Self::default()
            },
            Record::DeniedToken(denied) => {
                Self { expires_at: Some(system_time(denied.until)), ..Self::default() }
            }
            Record::Partition(state) => Self { epoch: Some(count(state.epoch)), ..Self::default() },
            Record::Settings(settings) => {
                Self { created_at: Some(system_time(settings.created_at)), ..Self::default() }
            }
            Record::Data(_) | Record::Index(_) | Record::Throttle(_) | Record::StoreKey(_) => {
                Self::default()
            }
        }
    }

    fn of_session(session: &Session) -> Self {
        let (state, ending) = match session.lifecycle {
            Lifecycle::Live => ("live", None),
            Lifecycle::Ended(ending) => ("ended", Some(ending)),
        };
        Self {
            subject: session.subject.as_ref().map(|subject| text(subject.as_str())),
            title: session.client.label.as_deref().map(shown),
            state: Some(state),
            reason: ending.map(|ending| ending.reason.as_str()),
            epoch: Some(count(session.subject_epoch)),
            created_at: Some(system_time(session.created_at)),
            last_seen_at: Some(system_time(session.last_seen_at)),
            ended_at: ending.map(|ending| system_time(ending.at)),
            expires_at: Some(system_time(session.expires_at)),
            client_ip: session.client.ip,
        }
    }

    fn of_subject(state: &SubjectState) -> Self {
        let is_disabled = state.disabled_at.is_some();
        Self {
            subject: Some(text(state.subject.as_str())),
            state: Some(if is_disabled { "disabled" } else { "enabled" }),
            epoch: Some(count(state.epoch)),
            ended_at: instant(state.disabled_at),
            ..Self::default()
        }
    }

    fn of_user(user: &User) -> Self {
        Self {
            subject: Some(text(user.id.as_str())),
            title: Some(shown(&user.identifier)),
            created_at: Some(system_time(user.created_at)),
            ..Self::default()
        }
    }

    fn of_signing_key(key: &KeyRecord) -> Self {
        let state = match key.state {
            KeyState::Next => "next",
            KeyState::Active => "active",
            KeyState::Retired => "retired",
            KeyState::Revoked => "revoked",
        };
        Self {
            title: Some(key.algorithm.name().to_owned()),
            state: Some(state),
            created_at: Some(system_time(key.created_at)),
            ended_at: instant(key.retires_at),
            expires_at: instant(key.removed_at),
            ..Self::default()
        }
    }

    fn of_api_key(key: &ApiKey) -> Self {
        Self {
            title: Some(shown(&key.name)),
            created_at: Some(system_time(key.created_at)),
            last_seen_at: instant(key.last_used_at),
            expires_at: instant(key.expires_at),
            ..Self::default()
        }
    }
}

/// The columns of an entry of either log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryColumns {
    pub(crate) kind: &'static str,
    pub(crate) sid: Option<String>,
    pub(crate) subject: Option<String>,
}

impl EntryColumns {
    /// Those of an entry of the feed.
    pub(crate) fn of_feed(entry: &FeedEntry) -> Self {
        let of_sid =
            |kind, sid: &dyn ToString| Self { kind, sid: Some(sid.to_string()), subject: None };
        let of_subject =
            |kind, subject: &str| Self { kind, sid: None, subject: Some(text(subject)) };
        let plain = |kind| Self { kind, ..Self::default() };
        match entry {
            FeedEntry::SessionEnded { sid, .. } => of_sid("session_ended", sid),
            FeedEntry::SessionSteppedUp { sid, .. } => of_sid("session_stepped_up", sid),
            FeedEntry::SessionChanged { sid } => of_sid("session_changed", sid),
            FeedEntry::SubjectRaised { subject, .. } => {
                of_subject("subject_raised", subject.as_str())
            }
            FeedEntry::SubjectChanged { subject } => {
                of_subject("subject_changed", subject.as_str())
            }
            FeedEntry::TokenDenied { .. } => plain("token_denied"),
            FeedEntry::KeyChanged { .. } => plain("key_changed"),
            FeedEntry::AllEnded { .. } => plain("all_ended"),
            FeedEntry::RecordChanged => plain("record_changed"),
        }
    }

    /// Those of an audit event.
    pub(crate) fn of_event(event: &Event) -> Self {
        Self {
            kind: event.kind.as_str(),
            sid: event.sid.map(|sid| sid.to_string()),
            subject: event.subject.as_ref().map(|subject| text(subject.as_str())),
        }
    }
}

/// A subject, as it is spelled in `name`.
fn text(subject: &str) -> String {
    escape(subject).into_owned()
}

/// A text for people, of what anybody may have typed. PostgreSQL takes no NUL.
fn shown(any: &str) -> String {
    any.replace('\0', "\u{fffd}")
}

fn instant(at: Option<Timestamp>) -> Option<SystemTime> {
    at.map(system_time)
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use cloakroom_store::conformance::samples;

    use super::*;

    #[test]
    fn an_ended_session_says_when_and_why() {
        let session = samples::ended_session();
        let columns = Columns::of(&Record::Session(Box::new(session.clone())));
        assert_eq!(columns.state, Some("ended"));
        assert_eq!(columns.reason, Some("replaced"));
        assert!(columns.ended_at.is_some());
        assert_eq!(columns.subject.as_deref(), session.subject.as_ref().map(|s| s.as_str()));
        let live = Columns::of(&Record::Session(Box::new(samples::anonymous_session())));
        assert_eq!((live.state, live.reason, live.ended_at), (Some("live"), None, None));
        assert_eq!(live.subject, None);
    }

    #[test]
    fn no_column_holds_what_proves_something() {
        for (_, record) in samples::one_of_each_kind() {
            let shown = format!("{:?}", Columns::of(&record));
            assert!(!shown.contains("argon2"), "{shown}");
        }
    }
}
