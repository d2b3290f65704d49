//! POST `/auth/reauthenticate` and `/auth/password`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cloakroom::is_reset_token;
use cloakroom_core::event::Actor;
use hyper::StatusCode;
use serde_json::json as object;

use super::answer::credentials;
use crate::gate::{Rules, actor_of, authenticate};
use crate::http::{Ask, Members, Need, json};
use crate::problem::Problem;
use crate::site::Site;
use crate::view::with_durability;

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
///
/// A one-time token in place of the current password needs no session: it is for those who can't
/// sign in. Then all of the user's sessions end.
pub(super) async fn change(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let members = ask.members(Need::Required).await;
    let given = members.as_ref().ok().and_then(|members| members.peek_text("current_password"));
    if given.is_some_and(is_reset_token) {
        return reset(&site, &ask, members?).await;
    }
    let verified = authenticate(&site, &ask, Rules::USER).await?;
    let mut members = members?;
    let current = members.secret("current_password")?;
    let new = members.secret("new_password")?;
    members.finish()?;
    let ctx = ask.context(actor_of(&verified), site.trusted());
    let opened = site.authority.change_password(&verified, current, new, &ctx).await?;
    Ok(credentials(&site, &opened))
}

async fn reset(site: &Site, ask: &Ask, mut members: Members) -> Result<Response, Problem> {
    site.admit_network(ask)?;
    let token = members.secret("current_password")?;
    let new = members.secret("new_password")?;
    members.finish()?;
    let ctx = ask.context(Actor::User(None), site.trusted());
    let (user, ended) = site.authority.reset_password(token.expose(), new, &ctx).await?;
    let user = site.authority.user(&user).await?;
    let answer = object!({"user": {"id": user.id.as_str(), "identifier": user.identifier}});
    Ok(with_durability(json(StatusCode::OK, &answer), Some(ended.durability)))
}
