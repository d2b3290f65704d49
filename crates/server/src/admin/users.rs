//! `/admin/v1/users`: the directory.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::{ApiKeyIdentity, NewPassword, NewUser, UserPatch, UserView};
use cloakroom_core::identifier::Identifier;
use cloakroom_core::session::Object;
use hyper::StatusCode;
use hyper::header::LOCATION;
use serde::Serialize;
use serde_json::json as object;

use super::guard::actor_of;
use super::query::{Query, Segment};
use super::view::{ended, header_value, no_content, time, with_durability};
use crate::http::{Ask, Need, json};
use crate::problem::Problem;
use crate::site::Site;

pub(super) async fn list(State(site): State<Arc<Site>>, ask: Ask) -> Result<Response, Problem> {
    let mut query = Query::of(&ask)?;
    let (identifier, limit) = (query.filter("identifier")?, query.limit()?);
    let after = query.text("after");
    query.finish()?;
    if let Some(Err(malformed)) = identifier.as_deref().map(Identifier::parse) {
        return Err(Problem::invalid_member("identifier", malformed.to_string()));
    }
    let (found, next) = match identifier {
        Some(identifier) => {
            let found = site.authority.user_by_identifier(&identifier).await?;
            (found.into_iter().collect(), None)
        }
        None => {
            let page = site.authority.users(after.as_deref(), limit).await?;
            (page.users, page.next)
        }
    };
    let users: Vec<View<'_>> = found.iter().map(View::of).collect();
    Ok(json(StatusCode::OK, &object!({"users": users, "next": next})))
}

pub(super) async fn create(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let mut members = ask.members(Need::Required).await?;
    let password = members.opt_secret("password")?.map(NewPassword::Chosen);
    let hash = members.opt_secret("password_hash")?.map(NewPassword::Hash);
    if password.is_some() && hash.is_some() {
        return Err(Problem::invalid_member("password_hash", "not beside a password"));
    }
    let user = NewUser {
        identifier: members.text("identifier")?,
        password: password.or(hash),
        claims: members.opt_object("claims")?.unwrap_or_default(),
        disabled: members.opt_bool("disabled")?.unwrap_or(false),
    };
    let dry_run = members.opt_bool("dry_run")?.unwrap_or(false);
    let allow_same = members.opt_bool("allow_same")?.unwrap_or(false);
    members.finish()?;
    // What an import that was cut short has made already.
    if allow_same && let Some(found) = site.authority.same_user(&user).await? {
        return Ok(if dry_run { no_content() } else { answer(StatusCode::OK, &found) });
    }
    if dry_run {
        site.authority.check_user(user).await?;
        return Ok(no_content());
    }
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let made = site.authority.create_user(user, &ctx).await?;
    let mut response = answer(StatusCode::CREATED, &made);
    let location = format!("/admin/v1/users/{}", made.id);
    response.headers_mut().insert(LOCATION, header_value(&location));
    Ok(response)
}

pub(super) async fn read(State(site): State<Arc<Site>>, id: Segment) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, &site.authority.user(&id.subject()?).await?))
}

pub(super) async fn change(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    id: Segment,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let mut members = ask.members(Need::Required).await?;
    let patch = UserPatch {
        identifier: members.opt_text("identifier")?,
        password: members.opt_secret("password")?,
        claims: members.opt_object("claims")?,
        disabled: members.opt_bool("disabled")?,
    };
    members.finish()?;
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let changed = site.authority.patch_user(&id.subject()?, patch, &ctx).await?;
    Ok(with_durability(answer(StatusCode::OK, &changed), changed.ended))
}

pub(super) async fn delete(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    id: Segment,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let done = site.authority.delete_user(&id.subject()?, &ctx).await?;
    Ok(ended(no_content(), done.durability))
}

/// Makes a token by which the user's password may be set once; the operator's own mail carries it.
pub(super) async fn reset(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    id: Segment,
    ask: Ask,
) -> Result<Response, Problem> {
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let (token, until) = site.authority.issue_reset(&id.subject()?, &ctx).await?;
    let answer = object!({"token": token.expose(), "expires_at": time(until)});
    Ok(json(StatusCode::CREATED, &answer))
}

#[derive(Serialize)]
struct View<'a> {
    id: &'a str,
    identifier: &'a str,
    disabled: bool,
    claims: &'a Object,
    created_at: String,
    password_changed_at: Option<String>,
}

impl<'a> View<'a> {
    fn of(user: &'a UserView) -> Self {
        Self {
            id: user.id.as_str(),
            identifier: &user.identifier,
            disabled: user.disabled,
            claims: &user.claims,
            created_at: time(user.created_at),
            password_changed_at: user.password_changed_at.map(time),
        }
    }
}

fn answer(status: StatusCode, user: &UserView) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        user: View<'a>,
    }
    json(status, &Answer { user: View::of(user) })
}
