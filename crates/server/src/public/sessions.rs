//! GET `/auth/session`, GET `/auth/sessions`, DELETE `/auth/sessions/{sid}`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use cloakroom::{Error, UserView};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::types::{Sid, Subject};
use hyper::StatusCode;
use serde::Serialize;

use super::logout::signed_out;
use crate::gate::{Meter, Nobody, Presented, Rules, actor_of, authenticate};
use crate::http::{Ask, json};
use crate::problem::Problem;
use crate::site::Site;
use crate::view::SessionView;
use crate::view::with_durability;

#[derive(Serialize)]
struct Current<'a> {
    session: SessionView<'a>,
    user: Option<UserName>,
}

#[derive(Serialize)]
struct Sessions<'a> {
    sessions: Vec<SessionView<'a>>,
}

/// A user as the user's own answers show it.
#[derive(Serialize)]
pub(super) struct UserName {
    id: String,
    identifier: String,
}

impl From<UserView> for UserName {
    fn from(user: UserView) -> Self {
        Self { id: user.id.as_str().to_owned(), identifier: user.identifier }
    }
}

/// The session that asks, and whose it is. An anonymous one is nobody's.
pub(super) async fn current(State(site): State<Arc<Site>>, ask: Ask) -> Result<Response, Problem> {
    let rules = Rules { meter: Some(Meter::Verify), nobody: Nobody::Shown };
    let verified = authenticate(&site, &ask, rules).await?;
    let user = match &verified.session.subject {
        Some(subject) => user_of(&site, subject).await?,
        None => None,
    };
    let claims = verified.claims();
    let session = SessionView::in_use(&verified.session, &claims, site.authority.now());
    Ok(json(StatusCode::OK, &Current { session, user }))
}

/// The directory's user of a subject; a backend's own subjects aren't in it.
async fn user_of(site: &Site, subject: &Subject) -> Result<Option<UserName>, Problem> {
    match site.authority.user(subject).await {
        Ok(user) => Ok(Some(user.into())),
        Err(Error::Refused(_)) => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

/// The user's live sessions.
pub(super) async fn list(State(site): State<Arc<Site>>, ask: Ask) -> Result<Response, Problem> {
    let verified = authenticate(&site, &ask, Rules::USER).await?;
    let listed = site.authority.sessions_of(verified.user()?).await?;
    let current = verified.session.sid;
    let sessions = listed
        .iter()
        .map(|one| SessionView::new(&one.session, &one.claims, one.session.sid == current))
        .collect();
    Ok(json(StatusCode::OK, &Sessions { sessions }))
}

/// Ends one of the user's own sessions. Another's and one that never was get the same answer.
pub(super) async fn end(
    State(site): State<Arc<Site>>,
    Path(sid): Path<String>,
    ask: Ask,
) -> Result<Response, Problem> {
    let verified = authenticate(&site, &ask, Rules::USER).await?;
    let sid: Sid = sid.parse().map_err(|_| Refusal::NotFound)?;
    let ctx = ask.context(actor_of(&verified), site.trusted());
    let ended = site.authority.end_own(&verified, sid, &ctx).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if sid == verified.session.sid {
        let presented = Presented::of(ask.headers(), site.cookies.names());
        signed_out(&site, &mut response, &presented.cookies);
    }
    Ok(with_durability(response, Some(ended.durability)))
}
