//! `/admin/v1/api-keys`: keys of backends. A secret is answered once, by the creation.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::{ApiKeyIdentity, ApiKeyView, NewApiKey};
use cloakroom_core::limits::LIFETIME_MAX;
use cloakroom_core::types::Sid;
use hyper::StatusCode;
use hyper::header::LOCATION;
use serde::Serialize;
use serde_json::json as object;

use super::guard::actor_of;
use super::query::{Query, Segment};
use super::view::{header_value, no_content, time};
use crate::http::{Ask, Need, json};
use crate::problem::Problem;
use crate::site::Site;

pub(super) async fn list(State(site): State<Arc<Site>>, ask: Ask) -> Result<Response, Problem> {
    let mut query = Query::of(&ask)?;
    let (after, limit) = (query.text("after"), query.limit()?);
    query.finish()?;
    let cursor = |text: String| {
        text.parse().map_err(|_| Problem::invalid_member("after", "is no cursor of this listing"))
    };
    let after: Option<Sid> = after.map(cursor).transpose()?;
    let (keys, next) = site.authority.api_keys(after, limit).await?;
    let keys: Vec<View<'_>> = keys.iter().map(View::of).collect();
    let next = next.map(|id| id.to_string());
    Ok(json(StatusCode::OK, &object!({"api_keys": keys, "next": next})))
}

pub(super) async fn create(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let mut members = ask.members(Need::Required).await?;
    let name = members.text("name")?;
    let scopes = members.opt_texts("scopes")?;
    let expires_in = members.opt_u64("expires_in")?;
    members.finish()?;
    let scopes = scopes.ok_or_else(|| Problem::invalid_member("scopes", "is required"))?;
    let in_range = |secs: &u64| (1..=LIFETIME_MAX.as_secs()).contains(secs);
    if !expires_in.as_ref().is_none_or(in_range) {
        let why = format!("is whole seconds from 1 to {}", LIFETIME_MAX.as_secs());
        return Err(Problem::invalid_member("expires_in", why));
    }
    let new = NewApiKey { name, scopes, expires_in: expires_in.map(Duration::from_secs) };
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let (made, secret) = site.authority.create_api_key(new, &identity, &ctx).await?;
    let answer = object!({"api_key": View::of(&made), "secret": secret.expose()});
    let mut response = json(StatusCode::CREATED, &answer);
    let location = format!("/admin/v1/api-keys/{}", made.id);
    response.headers_mut().insert(LOCATION, header_value(&location));
    Ok(response)
}

pub(super) async fn delete(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    id: Segment,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    site.authority.delete_api_key(id.sid()?, &ctx).await?;
    Ok(no_content())
}

#[derive(Serialize)]
struct View<'a> {
    id: String,
    name: &'a str,
    scopes: &'a [String],
    created_at: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
}

impl<'a> View<'a> {
    fn of(key: &'a ApiKeyView) -> Self {
        Self {
            id: key.id.to_string(),
            name: &key.name,
            scopes: &key.scopes,
            created_at: time(key.created_at),
            expires_at: key.expires_at.map(time),
            last_used_at: key.last_used_at.map(time),
        }
    }
}
