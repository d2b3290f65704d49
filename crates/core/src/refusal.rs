//! Why a request is refused: a closed list, each with its stable code.

use crate::session::EndReason;

/// A refusal: the answer is no, and this is why. A fault ("I can't tell") is never one of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No credential that counts here was presented.
    #[error("sign-in is required")]
    CredentialsRequired,
    /// Unknown user, wrong password, disabled user: never told apart.
    #[error("the identifier or the password is wrong")]
    CredentialsInvalid,
    /// A genuine token after its time.
    #[error("the token has expired")]
    TokenExpired,
    /// Not a token of ours, or one that was superseded.
    #[error("the token is invalid")]
    TokenInvalid,
    /// A credential of another kind than the place takes.
    #[error("a credential of another type belongs here")]
    TokenWrongType,
    /// A refresh token that was rotated away: the session was ended.
    #[error("the refresh token was used before; the session has been ended")]
    RefreshTokenReused,
    /// No refresh token was presented, or two were.
    #[error("exactly one refresh token is required")]
    RefreshTokenRequired,
    /// The sign-in is not recent or not strong enough.
    #[error("a more recent or stronger sign-in is required")]
    ReauthenticationRequired,
    /// The session is over.
    #[error("the session has ended")]
    SessionEnded(EndReason),
    /// The session lacks a claim that is required.
    #[error("the session lacks a required claim")]
    InsufficientClaims,
    /// This session may not do this (for example: one that was opened on behalf of the user).
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such thing, or not for this caller.
    #[error("not found")]
    NotFound,
    /// What was asked for clashes with what is there.
    #[error("{0}")]
    Conflict(&'static str),
    /// The subject has as many sessions as it may have (policy `refuse`).
    #[error("the subject has as many live sessions as it may have")]
    TooManySessions,
    /// `If-Match` names another version than the current one.
    #[error("the data has changed since that version")]
    PreconditionFailed,
    /// Data or claims are over their bound; names the largest member.
    #[error("over {max} bytes; the largest member is {largest:?}")]
    TooLarge {
        /// The bound, in bytes.
        max: usize,
        /// The largest member's name.
        largest: String,
    },
    /// A member of the request has a value that can't be taken.
    #[error("{member}: {why}")]
    InvalidMember {
        /// The member.
        member: String,
        /// Why it can't be taken.
        why: String,
    },
    /// The new password can't be taken.
    #[error("{0}")]
    PasswordRejected(String),
    /// Too many failed sign-ins.
    #[error("too many failed sign-ins; try again later")]
    LoginThrottled {
        /// Seconds until the next attempt may succeed.
        retry_after_secs: u64,
    },
}

impl Refusal {
    /// A session that somebody opened on behalf of a user ends itself only, and proves nothing.
    pub const ON_BEHALF: Self =
        Self::Forbidden("a session opened on behalf of a user can't do this");

    /// The stable code of the HTTP contract.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CredentialsRequired => "credentials_required",
            Self::CredentialsInvalid => "credentials_invalid",
            Self::TokenExpired => "token_expired",
            Self::TokenInvalid => "token_invalid",
            Self::TokenWrongType => "token_wrong_type",
            Self::RefreshTokenReused => "refresh_token_reused",
            Self::RefreshTokenRequired => "refresh_token_required",
            Self::ReauthenticationRequired => "reauthentication_required",
            Self::SessionEnded(_) => "session_ended",
            Self::InsufficientClaims => "insufficient_claims",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict(_) => "conflict",
            Self::TooManySessions => "too_many_sessions",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge { .. } => "body_too_large",
            Self::InvalidMember { .. } => "invalid_member",
            Self::PasswordRejected(_) => "password_rejected",
            Self::LoginThrottled { .. } => "login_throttled",
        }
    }
}
