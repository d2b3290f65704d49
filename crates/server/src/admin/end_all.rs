//! `POST /admin/v1/sessions/end-all` and `POST /admin/v1/sweep`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::ApiKeyIdentity;
use hyper::StatusCode;
use serde_json::json as object;

use super::guard::actor_of;
use super::view::{ended, standing_durability, time};
use crate::http::{Ask, json};
use crate::problem::Problem;
use crate::site::Site;

/// Ends every session there is. Where it fails a part may have ended; it can be repeated.
pub(super) async fn end_all(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let before = site.authority.end_everything(&ctx).await?;
    let response = json(StatusCode::OK, &object!({"ended_before": time(before)}));
    Ok(ended(response, standing_durability(&site)))
}

/// Removes what has expired now.
pub(super) async fn sweep(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let swept = site.authority.sweep().await?;
    if let Err(error) = site.authority.report_sweep(swept, &ctx).await {
        // It is done all the same.
        tracing::warn!(%error, "a clean-up isn't in the audit log");
    }
    Ok(json(StatusCode::OK, &object!({"removed": swept.removed})))
}
