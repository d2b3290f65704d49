//! The stored shapes of log entries.

use std::borrow::Cow;

use cloakroom_core::event::{Actor, Event, FeedEntry};
use serde::{Deserialize, Serialize};

use super::DecodeError;
use super::bytes::{Happened, Id, Ms, Reason, Who, read, write};
use super::shape::ClientShape;
use crate::Entry;

pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    match entry {
        Entry::Feed(feed) => write(&EntryShape::Feed(feed.into())),
        Entry::Audit(event) => write(&EntryShape::Audit((&**event).into())),
    }
}

pub(super) fn decode(stored: &[u8]) -> Result<Entry, DecodeError> {
    Ok(match read::<EntryShape<'_>>(stored)? {
        EntryShape::Feed(shape) => Entry::Feed(shape.into()),
        EntryShape::Audit(shape) => Entry::Audit(Box::new(shape.into())),
    })
}

#[derive(Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "lives for one call, on the stack")]
enum EntryShape<'a> {
    #[serde(rename = "f")]
    Feed(FeedShape<'a>),
    #[serde(rename = "a")]
    Audit(EventShape<'a>),
}

#[derive(Serialize, Deserialize)]
enum FeedShape<'a> {
    #[serde(rename = "ended")]
    SessionEnded {
        id: Id,
        #[serde(rename = "why")]
        reason: Reason,
        #[serde(rename = "u")]
        until: Ms,
    },
    #[serde(rename = "stepped")]
    SessionSteppedUp {
        id: Id,
        #[serde(rename = "at")]
        auth_time: Ms,
    },
    #[serde(rename = "raised")]
    SubjectRaised {
        #[serde(rename = "sub")]
        subject: Who,
        #[serde(rename = "e")]
        epoch: u64,
        #[serde(rename = "but", default, skip_serializing_if = "Option::is_none")]
        except: Option<Id>,
        #[serde(rename = "why")]
        reason: Reason,
        #[serde(default)]
        at: Ms,
    },
    #[serde(rename = "denied")]
    TokenDenied {
        jti: Cow<'a, str>,
        #[serde(rename = "u")]
        until: Ms,
    },
    #[serde(rename = "key")]
    KeyChanged {
        kid: Cow<'a, str>,
        #[serde(rename = "st")]
        state: Cow<'a, str>,
    },
    #[serde(rename = "all")]
    AllEnded { at: Ms },
    #[serde(rename = "session")]
    SessionChanged { id: Id },
    #[serde(rename = "subject")]
    SubjectChanged {
        #[serde(rename = "sub")]
        subject: Who,
    },
    #[serde(rename = "record")]
    RecordChanged {},
}

#[derive(Serialize, Deserialize)]
struct EventShape<'a> {
    #[serde(rename = "k")]
    kind: Happened,
    at: Ms,
    #[serde(rename = "id", default, skip_serializing_if = "Option::is_none")]
    sid: Option<Id>,
    #[serde(rename = "sub", default, skip_serializing_if = "Option::is_none")]
    subject: Option<Who>,
    #[serde(rename = "act")]
    actor: ActorShape<'a>,
    #[serde(rename = "by", default)]
    client: ClientShape<'a>,
    #[serde(rename = "req", default, skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    #[serde(rename = "why", default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(rename = "n", default = "one", skip_serializing_if = "is_one")]
    count: u32,
}

#[derive(Serialize, Deserialize)]
enum ActorShape<'a> {
    #[serde(rename = "user")]
    User(Option<Who>),
    #[serde(rename = "key")]
    ApiKey(Cow<'a, str>),
    #[serde(rename = "root")]
    Operator,
    #[serde(rename = "own")]
    System,
}

impl<'a> From<&'a FeedEntry> for FeedShape<'a> {
    fn from(entry: &'a FeedEntry) -> Self {
        match entry {
            FeedEntry::SessionEnded { sid, reason, until } => {
                Self::SessionEnded { id: Id(*sid), reason: Reason(*reason), until: Ms(*until) }
            }
            FeedEntry::SessionSteppedUp { sid, auth_time } => {
                Self::SessionSteppedUp { id: Id(*sid), auth_time: Ms(*auth_time) }
            }
            FeedEntry::SubjectRaised { subject, epoch, except, reason, at } => {
                Self::SubjectRaised {
                    subject: Who(subject.clone()),
                    epoch: *epoch,
                    except: except.map(Id),
                    reason: Reason(*reason),
                    at: Ms(*at),
                }
            }
            FeedEntry::TokenDenied { jti, until } => {
                Self::TokenDenied { jti: Cow::Borrowed(jti), until: Ms(*until) }
            }
            FeedEntry::KeyChanged { kid, state } => {
                Self::KeyChanged { kid: Cow::Borrowed(kid), state: Cow::Borrowed(state) }
            }
            FeedEntry::AllEnded { at } => Self::AllEnded { at: Ms(*at) },
            FeedEntry::SessionChanged { sid } => Self::SessionChanged { id: Id(*sid) },
            FeedEntry::SubjectChanged { subject } => {
                Self::SubjectChanged { subject: Who(subject.clone()) }
            }
            FeedEntry::RecordChanged => Self::RecordChanged {},
        }
    }
}

impl From<FeedShape<'_>> for FeedEntry {
    fn from(shape: FeedShape<'_>) -> Self {
        match shape {
            FeedShape::SessionEnded { id, reason, until } => {
                Self::SessionEnded { sid: id.0, reason: reason.0, until: until.0 }
            }
            FeedShape::SessionSteppedUp { id, auth_time } => {
                Self::SessionSteppedUp { sid: id.0, auth_time: auth_time.0 }
            }
            FeedShape::SubjectRaised { subject, epoch, except, reason, at } => {
                Self::SubjectRaised {
                    subject: subject.0,
                    epoch,
                    except: except.map(|id| id.0),
                    reason: reason.0,
                    at: at.0,
                }
            }
            FeedShape::TokenDenied { jti, until } => {
                Self::TokenDenied { jti: jti.into_owned(), until: until.0 }
            }
            FeedShape::KeyChanged { kid, state } => {
                Self::KeyChanged { kid: kid.into_owned(), state: state.into_owned() }
            }
            FeedShape::AllEnded { at } => Self::AllEnded { at: at.0 },
            FeedShape::SessionChanged { id } => Self::SessionChanged { sid: id.0 },
            FeedShape::SubjectChanged { subject } => Self::SubjectChanged { subject: subject.0 },
            FeedShape::RecordChanged {} => Self::RecordChanged,
        }
    }
}

impl<'a> From<&'a Event> for EventShape<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            kind: Happened(event.kind),
            at: Ms(event.at),
            sid: event.sid.map(Id),
            subject: event.subject.clone().map(Who),
            actor: match &event.actor {
                Actor::User(user) => ActorShape::User(user.clone().map(Who)),
                Actor::ApiKey(id) => ActorShape::ApiKey(Cow::Borrowed(id)),
                Actor::Operator => ActorShape::Operator,
                Actor::System => ActorShape::System,
            },
            client: (&event.client).into(),
            request_id: event.request_id.as_deref().map(Cow::Borrowed),
            reason: event.reason.as_deref().map(Cow::Borrowed),
            count: event.count,
        }
    }
}

impl From<EventShape<'_>> for Event {
    fn from(shape: EventShape<'_>) -> Self {
        Self {
            kind: shape.kind.0,
            at: shape.at.0,
            sid: shape.sid.map(|id| id.0),
            subject: shape.subject.map(|who| who.0),
            actor: match shape.actor {
                ActorShape::User(user) => Actor::User(user.map(|who| who.0)),
                ActorShape::ApiKey(id) => Actor::ApiKey(id.into_owned()),
                ActorShape::Operator => Actor::Operator,
                ActorShape::System => Actor::System,
            },
            client: shape.client.into(),
            request_id: shape.request_id.map(Cow::into_owned),
            reason: shape.reason.map(Cow::into_owned),
            count: shape.count,
        }
    }
}

fn one() -> u32 {
    1
}

fn is_one(count: &u32) -> bool {
    *count == 1
}
