//! `GET /admin/v1/revocations` and its stream: what verifiers must know.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::{ApiKeyIdentity, RaisedSubject, Revocations, Signal, Told};
use cloakroom_core::event::FeedEntry;
use cloakroom_core::given::Given;
use cloakroom_core::types::{Sid, Subject, Timestamp};
use hyper::StatusCode;
use serde_json::{Value, json as object};

use super::listeners::Seat;
use super::sse;
use super::view::time;
use crate::http::{Ask, Pulse, json};
use crate::problem::Problem;
use crate::site::Site;

pub(super) async fn snapshot(State(site): State<Arc<Site>>) -> Result<Response, Problem> {
    let found = site.authority.revocations().await?;
    Ok(json(StatusCode::OK, &snapshot_view(&found)))
}

pub(super) async fn stream(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    pulse: Option<Extension<Pulse>>,
    ask: Ask,
) -> Result<Response, Problem> {
    let seat = Seat::take(&site, &identity)?;
    let heard = site.authority.listen_to_revocations(last_event_id(&ask)).await?;
    let pulse = pulse.map(|Extension(pulse)| pulse);
    Ok(sse::answer(site, seat, pulse, heard, written))
}

/// Where a client wants to go on. Two of them name no place, which is told as such.
pub(super) fn last_event_id(ask: &Ask) -> Option<&[u8]> {
    match ask.header("last-event-id") {
        Given::Absent => None,
        Given::One(id) => Some(id),
        Given::Several => Some(b""),
    }
}

fn written(told: &Told) -> String {
    let (event, data) = match &told.signal {
        Signal::Feed(entry) => entry_view(entry),
        Signal::Heartbeat { at } => ("heartbeat", object!({"at": time(*at)})),
        Signal::Reset => ("reset", object!({})),
        // The feed has none.
        Signal::Event(_) => return String::new(),
    };
    sse::message(event, told.cursor.as_deref(), &data)
}

fn entry_view(entry: &FeedEntry) -> (&'static str, Value) {
    match entry {
        FeedEntry::SessionEnded { sid, reason, until } => {
            ("session", ended_view(*sid, reason.as_str(), *until))
        }
        FeedEntry::SessionSteppedUp { sid, auth_time } => {
            ("session", stepped_up_view(*sid, *auth_time))
        }
        FeedEntry::SubjectRaised { subject, epoch, except, reason: _, at: _ } => {
            let raised = RaisedSubject { epoch: *epoch, except: *except };
            ("subject", subject_view(subject, raised))
        }
        FeedEntry::TokenDenied { jti, until } => ("token", token_view(jti, *until)),
        FeedEntry::KeyChanged { kid, state } => ("key", key_view(kid, state)),
        FeedEntry::AllEnded { at } => ("all", object!({"at": time(*at)})),
        FeedEntry::SessionChanged { sid } => ("changed", object!({"sid": sid.to_string()})),
        FeedEntry::SubjectChanged { subject } => {
            ("changed", object!({"subject": subject.as_str()}))
        }
        // Told to nobody: it says nothing about anything that verifiers know.
        FeedEntry::RecordChanged => ("changed", object!({})),
    }
}

fn snapshot_view(found: &Revocations) -> Value {
    let ended =
        found.ended.iter().map(|(sid, (why, until))| ended_view(*sid, why.as_str(), *until));
    let stepped_up = found.stepped_up.iter().map(|(sid, at)| stepped_up_view(*sid, *at));
    let subjects = found.subjects.iter().map(|(subject, raised)| subject_view(subject, *raised));
    let tokens = found.tokens.iter().map(|(jti, until)| token_view(jti, *until));
    let keys = found.keys.iter().map(|(kid, state)| key_view(kid, state));
    object!({
        "sessions": ended.chain(stepped_up).collect::<Vec<_>>(),
        "subjects": subjects.collect::<Vec<_>>(),
        "tokens": tokens.collect::<Vec<_>>(),
        "keys": keys.collect::<Vec<_>>(),
        "all": found.all.map(|at| object!({"at": time(at)})),
        "cursor": found.cursor,
    })
}

fn ended_view(sid: Sid, reason: &str, until: Timestamp) -> Value {
    object!({"sid": sid.to_string(), "reason": reason, "until": time(until)})
}

fn stepped_up_view(sid: Sid, auth_time: Timestamp) -> Value {
    object!({"sid": sid.to_string(), "auth_time": time(auth_time)})
}

fn subject_view(subject: &Subject, raised: RaisedSubject) -> Value {
    let mut view = object!({"subject": subject.as_str(), "epoch": raised.epoch});
    if let Some(sid) = raised.except {
        view["except"] = sid.to_string().into();
    }
    view
}

fn token_view(jti: &str, until: Timestamp) -> Value {
    object!({"jti": jti, "until": time(until)})
}

fn key_view(kid: &str, state: &str) -> Value {
    object!({"kid": kid, "state": state})
}
