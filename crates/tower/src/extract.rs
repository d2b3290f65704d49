//! Extractors for axum.

use std::ops::Deref;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use cloakroom_core::session::Object;
use cloakroom_core::types::{Sid, Subject, Timestamp};
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::require::missing_layer;
use crate::session::Session;
use crate::visit::Visit;

/// The signed-in user. A request of nobody gets 401, or the sign-in page.
///
/// This is what makes a handler need a sign-in.
#[derive(Clone, Debug, PartialEq)]
pub struct CurrentUser {
    /// The subject that the sign-in named: your own id of the user.
    pub id: Subject,
    /// The session's claims.
    pub claims: Object,
    /// The session's id.
    pub session_id: Sid,
    /// When the user last proved who they are.
    pub auth_time: Timestamp,
}

impl CurrentUser {
    /// The user's id as text.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// A claim that is a text.
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }
}

/// The claims of the signed-in user's session as a type of your own. Claims that aren't of that
/// type get 403 `insufficient_claims`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims<T>(pub T);

impl<T> Deref for Claims<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

fn visit(parts: &Parts, used: &'static str) -> Result<Visit, Error> {
    parts
        .extensions
        .get::<Visit>()
        .cloned()
        .ok_or_else(|| missing_layer(used, &parts.method, &parts.uri))
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(Self { visit: visit(parts, "Session")? })
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = Error;

    /// A session that is there already, a visitor's or a user's.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Error> {
        let visit = visit(parts, "Session")?;
        Ok(visit.live()?.is_some().then_some(Self { visit }))
    }
}

impl<S: Sync> FromRequestParts<S> for CurrentUser {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let visit = visit(parts, "CurrentUser")?;
        let pass = visit.user()?;
        let Some(id) = pass.subject.clone() else {
            return Err(cloakroom_core::refusal::Refusal::CredentialsRequired.into());
        };
        Ok(Self {
            id,
            claims: pass.claims.clone(),
            session_id: pass.sid,
            auth_time: pass.auth_time,
        })
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for CurrentUser {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Error> {
        let visit = visit(parts, "CurrentUser")?;
        match visit.live()? {
            Some(pass) if pass.subject.is_some() => {
                let user: Result<Self, Error> =
                    <Self as FromRequestParts<S>>::from_request_parts(parts, state).await;
                user.map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Claims<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let pass = visit(parts, "Claims")?.user()?;
        serde_json::from_value(Value::Object(pass.claims.clone()))
            .map(Claims)
            .map_err(|_| cloakroom_core::refusal::Refusal::InsufficientClaims.into())
    }
}

/// A fresh CSRF token, for a form's hidden field or for a script; see [`Session::csrf_token`].
///
/// ```
/// use axum::response::Html;
/// use cloakroom_tower::CsrfToken;
///
/// async fn form(CsrfToken(token): CsrfToken) -> Html<String> {
///     Html(format!(
///         r#"<form method="post" action="/sign-out">
///            <input type="hidden" name="csrf_token" value="{token}"><button>Sign out</button>
///            </form>"#
///     ))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrfToken(pub String);

impl<S: Sync> FromRequestParts<S> for CsrfToken {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let session = Session { visit: visit(parts, "CsrfToken")? };
        session.csrf_token().await.map(Self)
    }
}
