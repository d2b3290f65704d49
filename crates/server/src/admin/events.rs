//! `GET /admin/v1/events` and its stream: the audit log.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::{ApiKeyIdentity, EventFilter, EventOrder, EventView, Signal, Told};
use cloakroom_core::event::{Actor, Event, EventKind};
use hyper::StatusCode;
use serde::Serialize;

use super::listeners::Seat;
use super::query::Query;
use super::revocations::last_event_id;
use super::sse;
use super::view::time;
use crate::http::{Ask, Pulse, json};
use crate::problem::Problem;
use crate::site::Site;

pub(super) async fn list(State(site): State<Arc<Site>>, ask: Ask) -> Result<Response, Problem> {
    let page = site.authority.events(filter(&ask)?).await?;
    let events = page.events.iter().map(View::of).collect();
    Ok(json(StatusCode::OK, &Answer { events, next: page.next }))
}

pub(super) async fn stream(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    pulse: Option<Extension<Pulse>>,
    ask: Ask,
) -> Result<Response, Problem> {
    let seat = Seat::take(&site, &identity)?;
    let heard = site.authority.listen_to_events(last_event_id(&ask)).await?;
    let pulse = pulse.map(|Extension(pulse)| pulse);
    Ok(sse::answer(site, seat, pulse, heard, written))
}

fn written(told: &Told) -> String {
    let cursor = told.cursor.as_deref();
    match &told.signal {
        Signal::Event(event) => {
            let id = told.id().unwrap_or_default();
            let view = View::new(&id, cursor.unwrap_or_default(), event);
            sse::message("event", cursor, &view)
        }
        Signal::Heartbeat { at } => {
            sse::message("heartbeat", cursor, &serde_json::json!({"at": time(*at)}))
        }
        Signal::Reset => sse::message("reset", None, &serde_json::json!({})),
        // The audit log has none.
        Signal::Feed(_) => String::new(),
    }
}

fn filter(ask: &Ask) -> Result<EventFilter, Problem> {
    let mut query = Query::of(ask)?;
    let order = match query.text("order").as_deref() {
        None | Some("asc") => EventOrder::Ascending,
        Some("desc") => EventOrder::Descending,
        Some(_) => return Err(Problem::invalid_member("order", "is asc or desc")),
    };
    let kind = query.text("type").map(|name| {
        EventKind::parse(&name).ok_or_else(|| Problem::invalid_member("type", "names no event"))
    });
    let filter = EventFilter {
        after: query.text("after"),
        order,
        kind: kind.transpose()?,
        subject: query.subject()?,
        sid: query.sid()?,
        limit: query.limit()?,
    };
    query.finish()?;
    Ok(filter)
}

#[derive(Serialize)]
struct Answer<'a> {
    events: Vec<View<'a>>,
    next: Option<String>,
}

#[derive(Serialize)]
struct View<'a> {
    id: &'a str,
    cursor: &'a str,
    time: String,
    #[serde(rename = "type")]
    kind: &'static str,
    sid: Option<String>,
    subject: Option<&'a str>,
    actor: ActorView<'a>,
    client: ClientView<'a>,
    request_id: Option<&'a str>,
    reason: Option<&'a str>,
    /// How many of its like it stands for: refusals are coalesced.
    count: u32,
}

#[derive(Serialize)]
struct ActorView<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: Option<&'a str>,
}

#[derive(Serialize)]
struct ClientView<'a> {
    ip: Option<String>,
    user_agent: Option<&'a str>,
}

impl<'a> View<'a> {
    fn of(view: &'a EventView) -> Self {
        Self::new(&view.id, &view.cursor, &view.event)
    }

    fn new(id: &'a str, cursor: &'a str, event: &'a Event) -> Self {
        let (kind, actor_id) = match &event.actor {
            Actor::User(subject) => ("user", subject.as_ref().map(|subject| subject.as_str())),
            Actor::ApiKey(id) => ("api_key", Some(id.as_str())),
            Actor::Operator => ("operator", None),
            Actor::System => ("system", None),
        };
        Self {
            id,
            cursor,
            time: time(event.at),
            kind: event.kind.as_str(),
            sid: event.sid.map(|sid| sid.to_string()),
            subject: event.subject.as_ref().map(|subject| subject.as_str()),
            actor: ActorView { kind, id: actor_id },
            client: ClientView {
                ip: event.client.ip.map(|ip| ip.to_string()),
                user_agent: event.client.user_agent.as_deref(),
            },
            request_id: event.request_id.as_deref(),
            reason: event.reason.as_deref(),
            count: event.count,
        }
    }
}
