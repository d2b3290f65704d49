//! Why a request is not answered by its handler, and the answer it gets instead.

use bytes::Bytes;
use cloakroom_core::csrf::CsrfRefusal;
use cloakroom_core::guard::Fault;
use cloakroom_core::rate::whole_seconds;
use cloakroom_core::refusal::Refusal;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Why a request, or what a handler asked of a session, is refused.
///
/// With the feature `axum` it is an answer: handlers may return it by `?`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no [`CloakroomLayer`](crate::CloakroomLayer) around what uses it: 500.
    #[error(
        "{used} is used in {route}, but no Cloakroom layer is installed; add \
         `.layer(cloakroom.layer())` after the routes"
    )]
    MissingLayer {
        /// What was used.
        used: &'static str,
        /// Where: method and path.
        route: String,
    },
    /// The answer is no: the status and code of the HTTP contract.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody is signed in, and the request is a browser's for a page: a redirect.
    #[error("sign-in is required")]
    SignIn {
        /// The sign-in page, with where to come back to.
        location: String,
    },
    /// The request may be forged: 403.
    #[error(transparent)]
    Forged(#[from] CsrfRefusal),
    /// Too many requests of this session: 429.
    #[error("too many requests of this session")]
    Limited(RateNote),
    /// A form is larger than what is read to find its CSRF token: 413.
    #[error("the form is over {max} bytes")]
    FormTooLarge {
        /// The bound, in bytes.
        max: usize,
    },
    /// A value can't be written to the session, or what is there is of another type: 500.
    #[error("the session's {key:?}: {why}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody can tell just now: 503. Nothing was decided and no cookie was touched.
    #[error("the session authority can't be reached")]
    Unavailable {
        /// When to ask again, in seconds.
        retry_after_secs: u64,
    },
}

/// What is told about a limit: the headers of draft-ietf-httpapi-ratelimit-headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateNote {
    pub(crate) policy: HeaderValue,
    pub(crate) state: HeaderValue,
    pub(crate) retry_after_secs: u64,
}

impl RateNote {
    pub(crate) fn write(&self, headers: &mut http::HeaderMap) {
        headers.append(RATE_LIMIT_POLICY, self.policy.clone());
        headers.append(RATE_LIMIT, self.state.clone());
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(refusal) => Self::Refused(refusal),
            Fault::Unavailable { why, retry_after } => {
                tracing::debug!(%why, "the session authority can't tell");
                Self::Unavailable { retry_after_secs: whole_seconds(retry_after).max(1) }
            }
        }
    }
}

impl Error {
    /// The status of the answer.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::MissingLayer { .. } | Self::Value { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Refused(refusal) => status_of(refusal),
            Self::SignIn { .. } => StatusCode::FOUND,
            Self::Forged(_) => StatusCode::FORBIDDEN,
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::FormTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The stable code of the HTTP contract.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MissingLayer { .. } | Self::Value { .. } => "internal",
            Self::Refused(refusal) => refusal.code(),
            Self::SignIn { .. } => "credentials_required",
            Self::Forged(_) => "csrf_failed",
            Self::Limited(_) => "rate_limited",
            Self::FormTooLarge { .. } => "body_too_large",
            Self::Unavailable { .. } => "store_unavailable",
        }
    }

    /// The answer: problem details (RFC 9457), or a redirect to the sign-in page.
    pub fn to_response(&self) -> Response<Full<Bytes>> {
        let status = self.status();
        let mut body = json!({
            "type": format!("urn:cloakroom:problem:{}", self.code()),
            "title": status.canonical_reason().unwrap_or("Refused"),
            "status": status.as_u16(),
            "detail": self.detail(),
            "code": self.code(),
        });
        if let Self::Refused(Refusal::SessionEnded(reason)) = self {
            body["reason"] = reason.as_str().into();
        }
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::SignIn { location } => {
                headers.insert(LOCATION, header_value(location));
            }
            Self::Limited(note) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(note.retry_after_secs));
                note.write(headers);
            }
            Self::Unavailable { retry_after_secs } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(*retry_after_secs));
            }
            Self::Refused(refusal) if status == StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge(refusal)));
            }
            Self::MissingLayer { .. } => tracing::error!("{self}"),
            Self::Value { .. } => tracing::error!(error = %self, "a session's data can't be used"),
            Self::Refused(_) | Self::Forged(_) | Self::FormTooLarge { .. } => {}
        }
        response
    }

    /// What the caller is told. A missing layer is told in full: it never gets past the first try.
    fn detail(&self) -> String {
        match self {
            Self::Value { .. } => "the session's data can't be used".to_owned(),
            Self::MissingLayer { .. }
            | Self::Refused(_)
            | Self::SignIn { .. }
            | Self::Forged(_)
            | Self::Limited(_)
            | Self::FormTooLarge { .. }
            | Self::Unavailable { .. } => self.to_string(),
        }
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Error {
    fn into_response(self) -> axum::response::Response {
        self.to_response().map(axum::body::Body::new)
    }
}

/// The status of the HTTP contract.
const fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::CredentialsRequired
        | Refusal::CredentialsInvalid
        | Refusal::TokenExpired
        | Refusal::TokenInvalid
        | Refusal::TokenWrongType
        | Refusal::RefreshTokenReused
        | Refusal::ReauthenticationRequired
        | Refusal::SessionEnded(_) => StatusCode::UNAUTHORIZED,
        Refusal::RefreshTokenRequired => StatusCode::BAD_REQUEST,
        Refusal::InsufficientClaims | Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
        Refusal::NotFound => StatusCode::NOT_FOUND,
        Refusal::Conflict(_) | Refusal::TooManySessions => StatusCode::CONFLICT,
        Refusal::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::InvalidMember { .. } | Refusal::PasswordRejected(_) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Refusal::LoginThrottled { .. } => StatusCode::TOO_MANY_REQUESTS,
    }
}

/// RFC 6750 section 3: without an `error` where no credential was judged.
const fn challenge(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::CredentialsRequired | Refusal::CredentialsInvalid => "Bearer",
        // RFC 9470 section 3.
        Refusal::ReauthenticationRequired => "Bearer error=\"insufficient_user_authentication\"",
        Refusal::TokenExpired
        | Refusal::TokenInvalid
        | Refusal::TokenWrongType
        | Refusal::RefreshTokenReused
        | Refusal::RefreshTokenRequired
        | Refusal::SessionEnded(_)
        | Refusal::InsufficientClaims
        | Refusal::Forbidden(_)
        | Refusal::NotFound
        | Refusal::Conflict(_)
        | Refusal::TooManySessions
        | Refusal::PreconditionFailed
        | Refusal::TooLarge { .. }
        | Refusal::InvalidMember { .. }
        | Refusal::PasswordRejected(_)
        | Refusal::LoginThrottled { .. } => "Bearer error=\"invalid_token\"",
    }
}

/// A header's value of our own making; what can't be one is left empty.
pub(crate) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
