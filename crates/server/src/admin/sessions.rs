//! `/admin/v1/sessions`: read, change, end, verify and touch sessions.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::{ApiKeyIdentity, Handle};
use cloakroom_core::limits::REASON_CHARS_MAX;
use cloakroom_core::types::Sid;
use hyper::StatusCode;
use serde_json::json as object;

use super::guard::actor_of;
use super::query::{Query, Segment};
use super::view::{ended, listed, no_content, session_of};
use crate::http::{Ask, Need, clean_text, json};
use crate::problem::Problem;
use crate::site::Site;

pub(super) async fn list(State(site): State<Arc<Site>>, ask: Ask) -> Result<Response, Problem> {
    let mut query = Query::of(&ask)?;
    let (limit, subject, after) = (query.limit()?, query.subject()?, query.text("after"));
    query.finish()?;
    let page = site.authority.page_sessions(after.as_deref(), limit, subject.as_ref()).await?;
    let sessions: Vec<_> = page.sessions.iter().map(|found| listed(&site, found)).collect();
    Ok(json(StatusCode::OK, &object!({"sessions": sessions, "next": page.next})))
}

pub(super) async fn read(State(site): State<Arc<Site>>, sid: Segment) -> Result<Response, Problem> {
    let found = site.authority.session(sid.sid()?).await?;
    Ok(json(StatusCode::OK, &object!({"session": listed(&site, &found)})))
}

pub(super) async fn change(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    sid: Segment,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let mut members = ask.members(Need::Required).await?;
    let claims = members.opt_object("claims")?;
    members.finish()?;
    let claims = claims.ok_or_else(|| Problem::invalid_member("claims", "is required"))?;
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let changed = site.authority.change_claims(sid.sid()?, &claims, &ctx).await?;
    Ok(json(StatusCode::OK, &object!({"session": listed(&site, &changed)})))
}

pub(super) async fn end(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    sid: Segment,
    ask: Ask,
) -> Result<Response, Problem> {
    let mut query = Query::of(&ask)?;
    let reason = query.text("reason").map(|words| clean_text(&words, REASON_CHARS_MAX));
    query.finish()?;
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let done = site.authority.end_session(sid.sid()?, reason.as_deref(), &ctx).await?;
    Ok(ended(no_content(), done.durability))
}

pub(super) async fn verify(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let mut members = ask.members(Need::Required).await?;
    let token = members.secret("token")?;
    members.finish()?;
    let verified = site.authority.verify_any(token.expose()).await?;
    let claims = verified.claims();
    let session = session_of(&site, &verified.session, &claims, None);
    Ok(json(StatusCode::OK, &object!({"session": session})))
}

pub(super) async fn touch(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let mut members = ask.members(Need::Required).await?;
    let sids = members.opt_texts("sids")?.unwrap_or_default();
    let handles = members.opt_texts("handles")?.unwrap_or_default();
    members.finish()?;
    let sids: Result<Vec<Sid>, _> = sids.iter().map(|sid| sid.parse()).collect();
    let sids = sids.map_err(|_| Problem::invalid_member("sids", "has what is no session's id"))?;
    let handles: Option<Vec<Handle>> = handles.iter().map(|text| Handle::parse(text)).collect();
    let handles =
        handles.ok_or_else(|| Problem::invalid_member("handles", "has what is no handle"))?;
    site.authority.touch(&sids).await?;
    site.authority.touch_handles(&handles).await?;
    Ok(no_content())
}
