//! `POST /admin/v1/tokens/revoke`: one access token is over, its session lives on.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::{ApiKeyIdentity, Introspection};
use cloakroom_core::token::Looks;
use cloakroom_core::types::{Secret, Timestamp};

use super::guard::actor_of;
use super::view::{ended, no_content, parse_time, standing_durability};
use crate::http::{Ask, Members, Need};
use crate::problem::Problem;
use crate::site::Site;

/// Which token.
enum Which {
    Named { jti: String, expires_at: Timestamp },
    Held(Secret<String>),
}

pub(super) async fn revoke(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let which = read(ask.members(Need::Required).await?)?;
    let (jti, expires_at) = match which {
        Which::Named { jti, expires_at } => (jti, expires_at),
        Which::Held(token) => match held(&site, &token).await? {
            Some(named) => named,
            // What counts for nothing already can't count for less (RFC 7009 section 2.2).
            None => return Ok(ended(no_content(), standing_durability(&site))),
        },
    };
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let done = site.authority.deny_token(&jti, expires_at, &ctx).await?;
    Ok(ended(no_content(), done.durability))
}

fn read(mut members: Members) -> Result<Which, Problem> {
    let token = members.opt_secret("token")?;
    let jti = members.opt_text("jti")?;
    let expires_at = members.opt_text("expires_at")?;
    members.finish()?;
    match (token, jti, expires_at) {
        (Some(token), None, None) => Ok(Which::Held(token)),
        (None, Some(jti), Some(expires_at)) => {
            let expires_at = parse_time(&expires_at).ok_or_else(|| {
                Problem::invalid_member("expires_at", "must be a time such as 2030-01-31T12:00:00Z")
            })?;
            Ok(Which::Named { jti, expires_at })
        }
        (None, Some(_), None) => Err(Problem::invalid_member("expires_at", "is required")),
        (None, None, _) => Err(Problem::invalid_member("jti", "is required, or `token` is")),
        (Some(_), ..) => {
            Err(Problem::invalid_member("token", "stands alone, without `jti` and `expires_at`"))
        }
    }
}

async fn held(site: &Site, token: &Secret<String>) -> Result<Option<(String, Timestamp)>, Problem> {
    match Looks::of(token.expose()) {
        Looks::Jwt => {}
        Looks::Opaque(_) | Looks::Csrf | Looks::Unknown => {
            let why = "must be an access token; end the session of any other";
            return Err(Problem::invalid_member("token", why));
        }
    }
    match site.authority.introspect(token.expose()).await? {
        Some(Introspection::Access(claims, _)) => Ok(Some((claims.jti.clone(), claims.expires_at))),
        Some(Introspection::Refresh(_) | Introspection::Session(_)) | None => Ok(None),
    }
}
