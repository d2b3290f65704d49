//! `/admin/v1/subjects`: a subject's sessions, epoch and claims.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::{ApiKeyIdentity, SubjectPatch, SubjectView};
use cloakroom_core::session::Object;
use hyper::StatusCode;
use serde::Serialize;
use serde_json::json as object;

use super::guard::actor_of;
use super::query::Segment;
use super::view::{ended, listed, no_content, with_durability};
use crate::http::{Ask, Need, json};
use crate::problem::Problem;
use crate::site::Site;

pub(super) async fn sessions(
    State(site): State<Arc<Site>>,
    subject: Segment,
) -> Result<Response, Problem> {
    let found = site.authority.sessions_of(&subject.subject()?).await?;
    let sessions: Vec<_> = found.iter().map(|found| listed(&site, found)).collect();
    // A subject's sessions are bounded (session.max_per_subject), so this is all of them.
    Ok(json(StatusCode::OK, &object!({"sessions": sessions, "next": null})))
}

pub(super) async fn sign_out(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    subject: Segment,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let done = site.authority.end_subject(&subject.subject()?, &ctx).await?;
    let response = json(StatusCode::OK, &object!({"revoked": done.revoked}));
    Ok(ended(response, done.durability))
}

pub(super) async fn read(
    State(site): State<Arc<Site>>,
    subject: Segment,
) -> Result<Response, Problem> {
    let found = site.authority.subject(&subject.subject()?).await?;
    Ok(answer(&found))
}

pub(super) async fn change(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    subject: Segment,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let mut members = ask.members(Need::Required).await?;
    let patch = SubjectPatch {
        claims: members.opt_object("claims")?,
        disabled: members.opt_bool("disabled")?,
    };
    members.finish()?;
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let changed = site.authority.patch_subject(&subject.subject()?, patch, &ctx).await?;
    Ok(with_durability(answer(&changed), changed.ended))
}

pub(super) async fn erase(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    subject: Segment,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let done = site.authority.erase_subject(&subject.subject()?, &ctx).await?;
    Ok(ended(no_content(), done.durability))
}

#[derive(Serialize)]
struct View<'a> {
    id: &'a str,
    epoch: u64,
    claims: &'a Object,
    disabled: bool,
    live_sessions: usize,
}

fn answer(found: &SubjectView) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        subject: View<'a>,
    }
    let state = &found.state;
    let subject = View {
        id: state.subject.as_str(),
        epoch: state.epoch,
        claims: &state.claims,
        disabled: state.disabled_at.is_some(),
        live_sessions: found.live_sessions,
    };
    json(StatusCode::OK, &Answer { subject })
}
