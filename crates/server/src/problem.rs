//! The only place where an error becomes a status.
//!
//! A handler returns a [`Problem`]; the shell writes it down once, with the request's id: as
//! problem details (RFC 9457), and below `/oauth2` as RFC 6749 section 5.2 has it.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use cloakroom::Error;
use cloakroom_core::csrf::CsrfRefusal;
use cloakroom_core::forwarded::MalformedForwarded;
use cloakroom_core::json::JsonError;
use cloakroom_core::policy::PolicyRefusal;
use cloakroom_core::rate::{Admission, whole_seconds};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::EndReason;
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Map, Value};

/// Seconds after which an unavailable store is worth another try.
const RETRY_AFTER_SECS: u64 = 1;

macro_rules! codes {
    ($( $variant:ident = $status:ident, $text:literal, $title:literal; )+) => {
        /// The stable code of an error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // Each is its text; the reference lists them.
        pub enum Code { $( $variant, )+ }

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[ $( Self::$variant, )+ ];

            /// Its stable text.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }

            /// The status it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $( Self::$variant => StatusCode::$status, )+ }
            }

            /// Its title.
            pub(crate) const fn title(self) -> &'static str {
                match self { $( Self::$variant => $title, )+ }
            }

            /// The `type` of its problem details.
            pub(crate) fn kind(self) -> String {
                format!("urn:cloakroom:problem:{}", self.as_str())
            }
        }
    };
}

codes! {
    MalformedRequest = BAD_REQUEST, "malformed_request", "Malformed request";
    RefreshTokenRequired = BAD_REQUEST, "refresh_token_required", "Refresh token required";
    CredentialsRequired = UNAUTHORIZED, "credentials_required", "Sign-in required";
    CredentialsInvalid = UNAUTHORIZED, "credentials_invalid", "Wrong credentials";
    TokenExpired = UNAUTHORIZED, "token_expired", "Token expired";
    TokenInvalid = UNAUTHORIZED, "token_invalid", "Token invalid";
    TokenWrongType = UNAUTHORIZED, "token_wrong_type", "Token of another type";
    RefreshTokenReused = UNAUTHORIZED, "refresh_token_reused", "Refresh token used before";
    ReauthenticationRequired = UNAUTHORIZED, "reauthentication_required",
        "Reauthentication required";
    SessionEnded = UNAUTHORIZED, "session_ended", "Session ended";
    CsrfFailed = FORBIDDEN, "csrf_failed", "Cross-site request refused";
    InsufficientClaims = FORBIDDEN, "insufficient_claims", "Insufficient claims";
    InsufficientScope = FORBIDDEN, "insufficient_scope", "Insufficient scope";
    Forbidden = FORBIDDEN, "forbidden", "Forbidden";
    NotFound = NOT_FOUND, "not_found", "Not found";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed";
    Conflict = CONFLICT, "conflict", "Conflict";
    HandleEnded = CONFLICT, "session_ended", "Session ended";
    TooManySessions = CONFLICT, "too_many_sessions", "Too many sessions";
    PreconditionFailed = PRECONDITION_FAILED, "precondition_failed", "Precondition failed";
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body_too_large", "Too large";
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type",
        "Unsupported media type";
    UnknownMember = UNPROCESSABLE_ENTITY, "unknown_member", "Unknown member";
    InvalidMember = UNPROCESSABLE_ENTITY, "invalid_member", "Invalid member";
    PasswordRejected = UNPROCESSABLE_ENTITY, "password_rejected", "Password rejected";
    RateLimited = TOO_MANY_REQUESTS, "rate_limited", "Too many requests";
    LoginThrottled = TOO_MANY_REQUESTS, "login_throttled", "Too many failed sign-ins";
    Internal = INTERNAL_SERVER_ERROR, "internal", "Internal error";
    StoreUnavailable = SERVICE_UNAVAILABLE, "store_unavailable", "Store unavailable";
    Overloaded = SERVICE_UNAVAILABLE, "overloaded", "Overloaded";
}

impl Code {
    /// The `error` of RFC 6749 section 5.2 or RFC 6750 section 3.1 that comes nearest.
    pub(crate) fn oauth(self) -> &'static str {
        match self.status() {
            StatusCode::UNAUTHORIZED => "invalid_client",
            StatusCode::FORBIDDEN => "insufficient_scope",
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                "temporarily_unavailable"
            }
            status if status.is_server_error() => "server_error",
            _ => "invalid_request",
        }
    }
}

/// Why a request isn't granted, ready to be written down.
///
/// Holds nothing that a client sent but names of members, which are bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    member: Option<String>,
    reason: Option<&'static str>,
    retry_after_secs: Option<u64>,
    /// How far the store's clock is ahead, where that is it.
    store_clock_ahead_ms: Option<i64>,
    /// Below `/oauth2`: what is wrong with the grant, where that is it.
    grant: Option<GrantFault>,
    /// What only the operator is told.
    aside: Option<Box<Aside>>,
}

/// What is wrong with a grant (RFC 6749 section 5.2); answered with 400, whatever the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GrantFault {
    /// It can't be used.
    Invalid,
    /// It is of a type that nobody knows.
    Unsupported,
}

impl GrantFault {
    const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid_grant",
            Self::Unsupported => "unsupported_grant_type",
        }
    }
}

/// What is for metrics and the log, and for no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Aside {
    /// Why the check against forged requests failed.
    Forged(CsrfRefusal),
    /// What is wrong here.
    Fault(Box<str>),
}

impl Problem {
    /// A problem of this code.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after_secs =
            matches!(code, Code::StoreUnavailable | Code::Overloaded).then_some(RETRY_AFTER_SECS);
        let detail = detail.into();
        Self {
            code,
            detail,
            member: None,
            reason: None,
            retry_after_secs,
            store_clock_ahead_ms: None,
            grant: None,
            aside: None,
        }
    }

    /// Why the check against forged requests failed.
    pub(crate) fn csrf_refusal(&self) -> Option<CsrfRefusal> {
        match self.aside.as_deref() {
            Some(Aside::Forged(refusal)) => Some(*refusal),
            Some(Aside::Fault(_)) | None => None,
        }
    }

    /// What is wrong here: for the log, never for whoever asked.
    pub(crate) fn fault(&self) -> Option<&str> {
        match self.aside.as_deref() {
            Some(Aside::Fault(fault)) => Some(fault),
            Some(Aside::Forged(_)) | None => None,
        }
    }

    /// A request that can't be read.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::MalformedRequest, detail)
    }

    /// Nothing is there, or not for this caller.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "there is nothing here")
    }

    /// The method isn't for this place.
    pub fn method_not_allowed() -> Self {
        Self::new(Code::MethodNotAllowed, "this place doesn't take that method")
    }

    /// A member that nobody knows.
    pub fn unknown_member(name: &str) -> Self {
        let problem = Self::new(Code::UnknownMember, "the body has a member that isn't known");
        Self { member: Some(shown(name)), ..problem }
    }

    /// A parameter of a query that nobody knows.
    pub fn unknown_parameter(name: &str) -> Self {
        let problem = Self::new(Code::UnknownMember, "the query has a parameter that isn't known");
        Self { member: Some(shown(name)), ..problem }
    }

    /// A member with a value that can't be taken.
    pub fn invalid_member(name: &str, why: impl Into<Cow<'static, str>>) -> Self {
        let problem = Self::new(Code::InvalidMember, why);
        Self { member: Some(shown(name)), ..problem }
    }

    /// A session under a handle is over; nothing lives again under it.
    pub fn handle_ended(reason: EndReason) -> Self {
        let problem = Self::new(Code::HandleEnded, "the session of this handle has ended");
        Self { reason: Some(reason.as_str()), ..problem }
    }

    /// More came than the quota has.
    pub fn rate_limited(retry_after: std::time::Duration) -> Self {
        let problem = Self::new(Code::RateLimited, "too many requests; try again later");
        Self { retry_after_secs: Some(whole_seconds(retry_after).max(1)), ..problem }
    }

    /// The same from an admission; nothing if it was granted.
    pub fn of_admission(admission: Admission) -> Option<Self> {
        match admission {
            Admission::Admitted { .. } => None,
            Admission::Refused { retry_after, .. } => Some(Self::rate_limited(retry_after)),
        }
    }

    /// This node's clock is too far from the store's.
    pub(crate) fn clock_is_off(store_ahead_ms: i64) -> Self {
        let side = if store_ahead_ms < 0 { "ahead of" } else { "behind" };
        let apart = store_ahead_ms.unsigned_abs();
        let detail = format!("this node's clock is {apart} ms {side} the store's");
        let problem = Self::new(Code::Overloaded, detail);
        Self { store_clock_ahead_ms: Some(store_ahead_ms), ..problem }
    }

    /// A grant that can't be used (RFC 6749 section 5.2), for the reason of another problem.
    #[must_use]
    pub fn as_invalid_grant(self) -> Self {
        if self.code.status() == StatusCode::UNAUTHORIZED {
            Self { grant: Some(GrantFault::Invalid), ..self }
        } else {
            self
        }
    }

    /// A grant that this place doesn't know (RFC 6749 section 5.2).
    pub fn unsupported_grant() -> Self {
        let problem = Self::malformed("the one grant type is refresh_token");
        Self { grant: Some(GrantFault::Unsupported), ..problem }
    }

    /// Its code.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Its status.
    pub const fn status(&self) -> StatusCode {
        match self.grant {
            Some(GrantFault::Invalid | GrantFault::Unsupported) => StatusCode::BAD_REQUEST,
            None => self.code.status(),
        }
    }

    /// Writes it into a response, whose headers of its own are kept.
    pub(crate) fn write(&self, response: &mut Response, request_id: &str, form: Form) {
        let (kind, body) = match form {
            Form::Details => ("application/problem+json", self.details(request_id).to_string()),
            Form::OAuth => ("application/json", self.oauth_error().to_string()),
        };
        *response.status_mut() = self.status();
        *response.body_mut() = Body::from(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        // The router has counted the empty body that was there before.
        headers.remove(CONTENT_LENGTH);
        if let Some(secs) = self.retry_after_secs {
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(self.challenge(form)));
        }
    }

    fn details(&self, request_id: &str) -> Details<'_> {
        Details {
            kind: self.code.kind(),
            title: self.code.title(),
            status: self.status().as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            request_id: request_id.to_owned(),
            member: self.member.as_deref(),
            reason: self.reason,
            store_clock_ahead_ms: self.store_clock_ahead_ms,
        }
    }

    fn oauth_error(&self) -> Value {
        let mut error = Map::new();
        let name = self.grant.map_or_else(|| self.code.oauth(), GrantFault::name);
        error.insert("error".into(), name.into());
        error.insert("error_description".into(), self.detail.as_ref().into());
        // Extensions of ours: RFC 6749's errors don't tell a reuse from an end.
        error.insert("code".into(), self.code.as_str().into());
        if let Some(reason) = self.reason {
            error.insert("reason".into(), reason.into());
        }
        Value::Object(error)
    }

    /// The challenge (RFC 6750 section 3): without an `error` where no credential was judged.
    const fn challenge(&self, form: Form) -> &'static str {
        match (form, self.code) {
            (Form::OAuth, _) => "Bearer, Basic realm=\"cloakroom\"",
            (Form::Details, Code::CredentialsRequired | Code::CredentialsInvalid) => "Bearer",
            // RFC 9470 section 3.
            (Form::Details, Code::ReauthenticationRequired) => {
                "Bearer error=\"insufficient_user_authentication\""
            }
            (Form::Details, _) => "Bearer error=\"invalid_token\"",
        }
    }
}

/// How a problem is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Problem details (RFC 9457).
    Details,
    /// RFC 6749 section 5.2.
    OAuth,
}

#[derive(serde::Serialize)]
struct Details<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_clock_ahead_ms: Option<i64>,
}

impl std::fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = serde_json::to_string(self).map_err(|_| std::fmt::Error)?;
        f.write_str(&text)
    }
}

impl IntoResponse for Problem {
    /// A response that the shell completes: it knows the request's id.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let problem = Self::new(code_of(&refusal), refusal.to_string());
        match refusal {
            Refusal::SessionEnded(reason) => Self { reason: Some(reason.as_str()), ..problem },
            Refusal::InvalidMember { member, why } => Self::invalid_member(&member, why),
            Refusal::TooLarge { max, largest } => Self {
                detail: format!("over {max} bytes").into(),
                member: Some(shown(&largest)),
                ..problem
            },
            Refusal::PasswordRejected(_) => Self { member: Some("password".to_owned()), ..problem },
            Refusal::LoginThrottled { retry_after_secs } => {
                Self { retry_after_secs: Some(retry_after_secs.max(1)), ..problem }
            }
            Refusal::CredentialsRequired
            | Refusal::CredentialsInvalid
            | Refusal::TokenExpired
            | Refusal::TokenInvalid
            | Refusal::TokenWrongType
            | Refusal::RefreshTokenReused
            | Refusal::RefreshTokenRequired
            | Refusal::ReauthenticationRequired
            | Refusal::InsufficientClaims
            | Refusal::Forbidden(_)
            | Refusal::NotFound
            | Refusal::Conflict(_)
            | Refusal::TooManySessions
            | Refusal::PreconditionFailed => problem,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refusal.into(),
            Error::Unavailable(fault) => {
                let problem =
                    Self::new(Code::StoreUnavailable, "the session store can't be reached");
                // What exactly is wrong is for the operator, not for whoever asked.
                Self { aside: Some(Box::new(Aside::Fault(fault.to_string().into()))), ..problem }
            }
            Error::Overloaded => Self::new(Code::Overloaded, "too much is waiting already"),
        }
    }
}

impl From<CsrfRefusal> for Problem {
    fn from(refusal: CsrfRefusal) -> Self {
        let problem = Self::new(Code::CsrfFailed, refusal.detail());
        Self { aside: Some(Box::new(Aside::Forged(refusal))), ..problem }
    }
}

impl From<PolicyRefusal> for Problem {
    fn from(refusal: PolicyRefusal) -> Self {
        let code = match refusal {
            PolicyRefusal::InsufficientClaims => Code::InsufficientClaims,
            PolicyRefusal::ReauthenticationRequired => Code::ReauthenticationRequired,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<MalformedForwarded> for Problem {
    fn from(malformed: MalformedForwarded) -> Self {
        Self::malformed(malformed.to_string())
    }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        Self::malformed(error.to_string())
    }
}

const fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::CredentialsRequired => Code::CredentialsRequired,
        Refusal::CredentialsInvalid => Code::CredentialsInvalid,
        Refusal::TokenExpired => Code::TokenExpired,
        Refusal::TokenInvalid => Code::TokenInvalid,
        Refusal::TokenWrongType => Code::TokenWrongType,
        Refusal::RefreshTokenReused => Code::RefreshTokenReused,
        Refusal::RefreshTokenRequired => Code::RefreshTokenRequired,
        Refusal::ReauthenticationRequired => Code::ReauthenticationRequired,
        Refusal::SessionEnded(_) => Code::SessionEnded,
        Refusal::InsufficientClaims => Code::InsufficientClaims,
        Refusal::Forbidden(_) => Code::Forbidden,
        Refusal::NotFound => Code::NotFound,
        Refusal::Conflict(_) => Code::Conflict,
        Refusal::TooManySessions => Code::TooManySessions,
        Refusal::PreconditionFailed => Code::PreconditionFailed,
        Refusal::TooLarge { .. } => Code::BodyTooLarge,
        Refusal::InvalidMember { .. } => Code::InvalidMember,
        Refusal::PasswordRejected(_) => Code::PasswordRejected,
        Refusal::LoginThrottled { .. } => Code::LoginThrottled,
    }
}

/// A member's name as far as it is repeated to whoever sent it.
fn shown(name: &str) -> String {
    name.chars().take(MEMBER_CHARS_SHOWN).collect()
}

/// A member's name is repeated this long.
const MEMBER_CHARS_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use cloakroom_core::session::EndReason;

    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_on_the_wire() {
        let text = || "x".to_owned();
        for refusal in [
            Refusal::CredentialsRequired,
            Refusal::CredentialsInvalid,
            Refusal::TokenExpired,
            Refusal::TokenInvalid,
            Refusal::TokenWrongType,
            Refusal::RefreshTokenReused,
            Refusal::RefreshTokenRequired,
            Refusal::ReauthenticationRequired,
            Refusal::SessionEnded(EndReason::SignedOut),
            Refusal::InsufficientClaims,
            Refusal::Forbidden("x"),
            Refusal::NotFound,
            Refusal::Conflict("x"),
            Refusal::TooManySessions,
            Refusal::PreconditionFailed,
            Refusal::TooLarge { max: 1, largest: text() },
            Refusal::InvalidMember { member: text(), why: text() },
            Refusal::PasswordRejected(text()),
            Refusal::LoginThrottled { retry_after_secs: 1 },
        ] {
            let code = refusal.code();
            assert_eq!(Problem::from(refusal).code().as_str(), code);
        }
    }

    #[test]
    fn k11_a_fault_of_the_store_is_told_without_its_particulars() {
        let error = cloakroom_store::StoreError::Unavailable("/var/lib/x: No space".into());
        let problem = Problem::from(Error::from(error));
        assert_eq!(
            (problem.status().as_u16(), problem.code().as_str()),
            (503, "store_unavailable")
        );
        let mut response = problem.clone().into_response();
        problem.write(&mut response, "id", Form::Details);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert!(!problem.details("id").to_string().contains("/var"));
    }

    #[test]
    fn h7_a_challenge_names_an_error_only_where_a_credential_was_judged() {
        let challenge = |code| Problem::new(code, "").challenge(Form::Details);
        assert_eq!(challenge(Code::CredentialsRequired), "Bearer");
        assert_eq!(challenge(Code::TokenInvalid), "Bearer error=\"invalid_token\"");
    }
}
