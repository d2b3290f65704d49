//! `/admin/v1/handles/{handle}`: sessions under an id that another framework minted.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::{ApiKeyIdentity, Error, Handle, HandlePut, HandleView};
use cloakroom_core::limits::LIFETIME_MAX;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::types::Subject;
use hyper::StatusCode;
use hyper::header::{ETAG, LOCATION};
use serde_json::{Value, json as object};

use super::data::Condition;
use super::guard::actor_of;
use super::query::Segment;
use super::view::{ended, header_value, listed, no_content};
use crate::http::{Ask, Members, Need, json};
use crate::problem::{Code, Problem};
use crate::site::Site;

pub(super) async fn read(
    State(site): State<Arc<Site>>,
    handle: Segment,
) -> Result<Response, Problem> {
    let found = site.authority.handle(&parse(&handle)?).await.map_err(problem)?;
    Ok(answer(&site, StatusCode::OK, &found))
}

pub(super) async fn put(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    handle: Segment,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let name = parse(&handle)?;
    let condition = Condition::of(ask.headers())?;
    let mut members = ask.members(Need::Required).await?;
    let put = wanted(&mut members)?;
    members.finish()?;
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let current = async { Ok(site.authority.handle(&name).await.map_err(problem)?.version) };
    let condition = condition.against(current).await?;
    let stored = site.authority.put_handle(&name, put, condition, &ctx).await.map_err(problem)?;
    if !stored.is_new {
        let response = answer(&site, StatusCode::OK, &stored);
        return Ok(match stored.ended {
            Some(durability) => ended(response, durability),
            None => response,
        });
    }
    let mut response = answer(&site, StatusCode::CREATED, &stored);
    let location = format!("/admin/v1/handles/{}", handle.as_str());
    response.headers_mut().insert(LOCATION, header_value(&location));
    Ok(response)
}

pub(super) async fn delete(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    handle: Segment,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let done = site.authority.end_handle(&parse(&handle)?, &ctx).await.map_err(problem)?;
    Ok(ended(no_content(), done.durability))
}

/// What can't be a handle names no session; why it can't is told to whoever makes them.
fn parse(segment: &Segment) -> Result<Handle, Problem> {
    let detail = "no handle looks like this: it is a SHA-256 hash in base64url, 43 characters";
    Handle::parse(segment.as_str()).ok_or_else(|| Problem::new(Code::NotFound, detail))
}

/// An end is a conflict here: the id that names the session is the caller's own.
fn problem(error: Error) -> Problem {
    match error {
        Error::Refused(Refusal::SessionEnded(reason)) => Problem::handle_ended(reason),
        other => other.into(),
    }
}

fn wanted(members: &mut Members) -> Result<HandlePut, Problem> {
    let subject = members
        .nullable_text("subject")?
        .map(|text| Subject::parse(&text).map_err(|why| Problem::invalid_member("subject", why.0)));
    let data = members.opt_object("data")?;
    Ok(HandlePut {
        subject: subject.transpose()?,
        data: data.ok_or_else(|| Problem::invalid_member("data", "is required"))?,
        idle_timeout: seconds(members, "idle_timeout")?,
        lifetime: seconds(members, "lifetime")?,
    })
}

fn seconds(members: &mut Members, name: &str) -> Result<Option<Duration>, Problem> {
    let Some(secs) = members.opt_u64(name)? else { return Ok(None) };
    if (1..=LIFETIME_MAX.as_secs()).contains(&secs) {
        Ok(Some(Duration::from_secs(secs)))
    } else {
        let why = format!("is whole seconds from 1 to {}", LIFETIME_MAX.as_secs());
        Err(Problem::invalid_member(name, why))
    }
}

fn answer(site: &Site, status: StatusCode, view: &HandleView) -> Response {
    let body: Value = object!({"session": listed(site, &view.session), "data": view.data});
    let mut response = json(status, &body);
    response.headers_mut().insert(ETAG, header_value(&format!("\"{}\"", view.version.0)));
    response
}
