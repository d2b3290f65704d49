//! POST `/auth/register`, where `registration.enabled` is set.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cloakroom_core::event::Actor;
use hyper::StatusCode;
use serde::Serialize;

use super::sessions::UserName;
use crate::gate::check_sign_in_csrf;
use crate::http::{Ask, Need, json};
use crate::problem::Problem;
use crate::site::Site;

#[derive(Serialize)]
struct Registered {
    user: UserName,
}

/// Makes a user, and no session: the user signs in next.
pub(super) async fn register(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    site.admit_network(&ask)?;
    check_sign_in_csrf(&site, &ask).await?;
    let mut members = ask.members(Need::Required).await?;
    let identifier = members.text("identifier")?;
    let password = members.secret("password")?;
    members.finish()?;
    let ctx = ask.context(Actor::User(None), site.trusted());
    let user = site.authority.register(&identifier, password, &ctx).await?;
    Ok(json(StatusCode::CREATED, &Registered { user: user.into() }))
}
