//! `GET /admin/v1/stats`: what this node has done, and what it is doing.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cloakroom::{Sample, Stat};
use hyper::StatusCode;
use serde_json::{Map, Value, json as object};

use super::view::time;
use crate::http::json;
use crate::site::Site;

pub(super) async fn read(State(site): State<Arc<Site>>) -> Response {
    let stats = site.authority.stats();
    let (revocations, events) = site.authority.stream_listeners();
    let passwords = site.authority.password_load();
    let points: Vec<Value> = stats.series.windows(2).map(point).collect();
    let answer = object!({"stats": {
        "started_at": time(stats.started_at),
        "at": time(stats.now.at),
        "totals": named(|stat| stats.now.total(stat)),
        "streams": {"revocations": revocations, "events": events},
        "passwords": {"running": passwords.running, "waiting": passwords.waiting},
        "series": points,
    }});
    json(StatusCode::OK, &answer)
}

/// What happened between two looks.
fn point(looks: &[Sample]) -> Value {
    let [before, after] = looks else { return Value::Null };
    let grown = |stat| after.total(stat).saturating_sub(before.total(stat));
    let mut point = named(grown);
    point.insert("from".to_owned(), time(before.at).into());
    point.insert("to".to_owned(), time(after.at).into());
    Value::Object(point)
}

fn named(count: impl Fn(Stat) -> u64) -> Map<String, Value> {
    Stat::ALL.into_iter().map(|stat| (stat.name().to_owned(), count(stat).into())).collect()
}
