//! `/admin/v1/keys`: the signing keys.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::ApiKeyIdentity;
use cloakroom_core::keys::KeyRecord;
use hyper::StatusCode;
use serde::Serialize;
use serde_json::json as object;

use super::guard::actor_of;
use super::query::Segment;
use super::view::{ended, standing_durability, time};
use crate::http::{Ask, json};
use crate::problem::Problem;
use crate::site::Site;

pub(super) async fn list(State(site): State<Arc<Site>>) -> Response {
    answer(&site)
}

pub(super) async fn rotate(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    site.authority.rotate_keys(&ctx).await?;
    Ok(answer(&site))
}

pub(super) async fn revoke(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    kid: Segment,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    site.authority.revoke_key(kid.as_str(), &ctx).await?;
    Ok(ended(answer(&site), standing_durability(&site)))
}

/// Wraps the store's own key by this node's master key, where another still does.
pub(super) async fn rewrap(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let rewrapped = site.authority.rewrap_store_key(&ctx).await?;
    Ok(json(StatusCode::OK, &object!({"rewrapped": rewrapped})))
}

/// A key as it may be seen: no part of it but its name.
#[derive(Serialize)]
struct View {
    kid: String,
    alg: &'static str,
    state: &'static str,
    created_at: String,
    activates_at: String,
    retires_at: Option<String>,
    removed_at: Option<String>,
}

impl View {
    fn of(key: &KeyRecord) -> Self {
        Self {
            kid: key.kid.to_string(),
            alg: key.algorithm.name(),
            state: key.state.name(),
            created_at: time(key.created_at),
            activates_at: time(key.activates_at),
            retires_at: key.retires_at.map(time),
            removed_at: key.removed_at.map(time),
        }
    }
}

fn answer(site: &Site) -> Response {
    #[derive(Serialize)]
    struct Answer {
        keys: Vec<View>,
        next: Option<String>,
    }
    let keys = site.authority.key_records().iter().map(View::of).collect();
    json(StatusCode::OK, &Answer { keys, next: None })
}
