//! POST `/auth/login`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cloakroom::{Carried, Login};
use cloakroom_core::event::Actor;
use cloakroom_core::limits::LABEL_CHARS_MAX;
use cloakroom_core::session::Delivery;

use super::answer::{clear_cookies, cookie_of, credentials};
use crate::gate::{Bearer, Presented, check_sign_in_csrf, one};
use crate::http::{Ask, Members, Need};
use crate::problem::Problem;
use crate::site::Site;

/// Signs a user in by identifier and password.
pub(super) async fn login(
    State(site): State<Arc<Site>>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    site.admit_network(&ask)?;
    check_sign_in_csrf(&site, &ask).await?;
    let login = read(ask.members(Need::Required).await?)?;
    let presented = Presented::of(ask.headers(), site.cookies.names());
    let login = Login { carried: carried(&presented), ..login };
    let ctx = ask.context(Actor::User(None), site.trusted());
    let opened = site.authority.sign_in(login, &ctx).await?;
    let mut response = credentials(&site, &opened);
    let kept = cookie_of(opened.session.delivery);
    clear_cookies(&site, response.headers_mut(), &presented.cookies, kept);
    Ok(response)
}

fn read(mut members: Members) -> Result<Login, Problem> {
    let login = Login {
        identifier: members.text("identifier")?,
        password: members.secret("password")?,
        delivery: delivery(&mut members)?,
        remember: members.opt_bool("remember")?.unwrap_or(false),
        label: label(&mut members)?,
        carried: Vec::new(),
    };
    members.finish()?;
    Ok(login)
}

fn delivery(members: &mut Members) -> Result<Delivery, Problem> {
    match members.opt_text("delivery")? {
        None => Ok(Delivery::Cookie),
        Some(name) => Delivery::parse(&name)
            .ok_or_else(|| Problem::invalid_member("delivery", "must be cookie, bearer or split")),
    }
}

fn label(members: &mut Members) -> Result<Option<String>, Problem> {
    let label = members.nullable_text("label")?;
    match label {
        Some(label) if label.chars().any(char::is_control) => {
            Err(Problem::invalid_member("label", "must have no control characters"))
        }
        Some(label) if label.chars().count() > LABEL_CHARS_MAX => {
            let why = format!("must be at most {LABEL_CHARS_MAX} characters");
            Err(Problem::invalid_member("label", why))
        }
        label => Ok(label.filter(|label| !label.is_empty())),
    }
}

/// What the request already carried: those sessions end, or an attacker who planted one would share
/// the new one (fixation).
fn carried(presented: &Presented<'_>) -> Vec<Carried> {
    let cookie = one(presented.cookies.session).map(|text| Carried::Cookie(text.to_owned()));
    let refresh = one(presented.cookies.refresh).map(|text| Carried::Refresh(text.to_owned()));
    let access = match presented.bearer {
        Bearer::Token(token) => Some(Carried::Access(token.to_owned())),
        Bearer::Absent | Bearer::Malformed => None,
    };
    [cookie, refresh, access].into_iter().flatten().collect()
}
