//! POST `/auth/reauthenticate` and `/auth/password`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::answer::credentials;
use super::gate::{Rules, actor_of, authenticate};
use crate::http::{Ask, Need};
use crate::problem::Problem;
use crate::site::Site;

/// Lets the user of a session prove again who they are.
pub(super) async fn reauthenticate(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let verified = authenticate(&site, &ask, Rules::USER).await?;
    let mut members = ask.members(Need::Required).await?;
    let password = members.secret("password")?;
    members.finish()?;
    let ctx = ask.context(actor_of(&verified), site.trusted());
    let opened = site.authority.reauthenticate(&verified, password, &ctx).await?;
    Ok(credentials(&site, &opened))
}

/// Changes the user's password; the user's other sessions end.
pub(super) async fn change(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let verified = authenticate(&site, &ask, Rules::USER).await?;
    let mut members = ask.members(Need::Required).await?;
    let current = members.secret("current_password")?;
    let new = members.secret("new_password")?;
    members.finish()?;
    let ctx = ask.context(actor_of(&verified), site.trusted());
    let opened = site.authority.change_password(&verified, current, new, &ctx).await?;
    Ok(credentials(&site, &opened))
}
