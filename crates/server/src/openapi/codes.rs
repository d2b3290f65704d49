//! Error codes as the document has them: one schema for each, and sets of those that go together.

use cloakroom_core::session::EndReason;
use serde_json::{Map, Value, json};

use super::shape::{described, has, may, object, one_of_texts, text};
use crate::problem::Code;

/// The request id of every example.
pub(super) const REQUEST_ID: &str = "01JH6Z3V4Q8R5T7W9XBDFGHJKM";

/// What any request may be answered, whatever it asks for.
pub(super) const EVERY: &[Code] = &[Code::MalformedRequest, Code::Internal, Code::Overloaded];
/// What a JSON body may be refused with.
pub(super) const BODY: &[Code] =
    &[Code::BodyTooLarge, Code::UnsupportedMediaType, Code::UnknownMember, Code::InvalidMember];
/// What a query may be refused with.
pub(super) const QUERY: &[Code] = &[Code::UnknownMember, Code::InvalidMember];
/// What a request may be refused with where a body or a query isn't read.
pub(super) const UNREAD: &[Code] =
    &[Code::BodyTooLarge, Code::UnsupportedMediaType, Code::UnknownMember];
/// What a form may be refused with.
pub(super) const FORM: &[Code] = &[Code::BodyTooLarge, Code::UnsupportedMediaType];
/// What a credential of a session may be refused with.
pub(super) const SESSION: &[Code] = &[
    Code::CredentialsRequired,
    Code::TokenExpired,
    Code::TokenInvalid,
    Code::TokenWrongType,
    Code::SessionEnded,
    Code::RateLimited,
    Code::StoreUnavailable,
];
/// What an API key, or a request that comes with it, may be refused with on the admin listener.
pub(super) const API_KEY: &[Code] = &[
    Code::CredentialsRequired,
    Code::TokenExpired,
    Code::TokenInvalid,
    Code::TokenWrongType,
    Code::Forbidden,
    Code::RateLimited,
    Code::StoreUnavailable,
];

/// The name of a code's schema. Two codes share their text and differ by status.
pub(super) fn schema_name(code: Code) -> String {
    let camel = code.as_str().split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_ascii_uppercase())
    });
    format!("Problem{}{}", code.status().as_u16(), camel.collect::<String>())
}

/// The schemas of all codes, each by its name.
pub(super) fn schemas() -> Map<String, Value> {
    Code::ALL.iter().map(|code| (schema_name(*code), schema(*code))).collect()
}

fn schema(code: Code) -> Value {
    let constant = |value: Value| json!({"const": value});
    let mut members = vec![
        has("type", "", constant(code.kind().into())),
        has("title", "", constant(code.title().into())),
        has("status", "", constant(code.status().as_u16().into())),
        has("detail", "what was wrong in this case, for people", text(detail(code))),
        has("code", "", constant(code.as_str().into())),
        has("request_id", "the answer's `X-Request-Id`", text(REQUEST_ID)),
    ];
    match code {
        Code::UnknownMember | Code::InvalidMember | Code::PasswordRejected => {
            members.push(has("member", "the member or parameter that is meant", text("password")));
        }
        Code::BodyTooLarge => {
            members.push(may("member", "the largest member", text("cart")));
        }
        Code::SessionEnded | Code::HandleEnded => {
            let reasons = EndReason::ALL.map(EndReason::as_str);
            members.push(has("reason", "why it ended", one_of_texts(reasons)));
        }
        Code::Overloaded => {
            let ahead = json!({"type": "integer", "examples": [5004]});
            let when = "readyz only, where this node's clock is too far from the store's";
            members.push(may("store_clock_ahead_ms", when, ahead));
        }
        Code::MalformedRequest
        | Code::RefreshTokenRequired
        | Code::CredentialsRequired
        | Code::CredentialsInvalid
        | Code::TokenExpired
        | Code::TokenInvalid
        | Code::TokenWrongType
        | Code::RefreshTokenReused
        | Code::ReauthenticationRequired
        | Code::CsrfFailed
        | Code::InsufficientClaims
        | Code::InsufficientScope
        | Code::Forbidden
        | Code::NotFound
        | Code::MethodNotAllowed
        | Code::Conflict
        | Code::TooManySessions
        | Code::PreconditionFailed
        | Code::UnsupportedMediaType
        | Code::RateLimited
        | Code::LoginThrottled
        | Code::Internal
        | Code::StoreUnavailable => {}
    }
    described(object(members), about(code))
}

/// When a code is answered.
pub(super) const fn about(code: Code) -> &'static str {
    match code {
        Code::MalformedRequest => "The request can't be read.",
        Code::RefreshTokenRequired => "There is no refresh token in the request, or two.",
        Code::CredentialsRequired => {
            "Nothing that counts here was presented: sign in, or send a key."
        }
        Code::CredentialsInvalid => {
            "Unknown user, wrong password or disabled user: never told apart."
        }
        Code::TokenExpired => "The token is genuine and its time is over: refresh.",
        Code::TokenInvalid => "The token isn't one of ours, or was superseded.",
        Code::TokenWrongType => "A token of ours, but of another kind than this place takes.",
        Code::RefreshTokenReused => {
            "The refresh token was rotated away before; its session has been ended."
        }
        Code::ReauthenticationRequired => "The sign-in isn't recent or strong enough: step up.",
        Code::SessionEnded => "The session is over; `reason` says why.",
        Code::CsrfFailed => "The request didn't prove that one of our own pages sent it.",
        Code::InsufficientClaims => "The session lacks a claim that the policy requires.",
        Code::InsufficientScope => "The API key lacks the scope that this needs.",
        Code::Forbidden => {
            "This caller may not do this: a session opened on behalf of a user, a key that would \
             give what it lacks, or a foreign `Host` or `Origin` on the admin listener."
        }
        Code::NotFound => "There is no such thing, or not for this caller.",
        Code::MethodNotAllowed => "There is such a place, but it doesn't take this method.",
        Code::Conflict => "What was asked for clashes with what is there.",
        Code::HandleEnded => {
            "The session of this handle is over; nothing lives again under it. `reason` says why."
        }
        Code::TooManySessions => {
            "The subject has as many live sessions as it may have (`session.on_limit`: `refuse`)."
        }
        Code::PreconditionFailed => "`If-Match` names another version than the current one.",
        Code::BodyTooLarge => "The body, or data or claims in it, is over its bound.",
        Code::UnsupportedMediaType => "The body is of another `Content-Type`, or encoded.",
        Code::UnknownMember => "The body or query has a member that isn't known here.",
        Code::InvalidMember => "A member or parameter is missing, ill-typed or out of its range.",
        Code::PasswordRejected => "The new password can't be taken; `detail` says why.",
        Code::RateLimited => "Too many requests; try again after `Retry-After`.",
        Code::LoginThrottled => "Too many failed sign-ins; try again after `Retry-After`.",
        Code::Internal => "Something is wrong in the server; its log has the request id.",
        Code::StoreUnavailable => "The session store can't be reached; nothing can be said.",
        Code::Overloaded => "Too much is waiting, the request took too long, or the node drains.",
    }
}

/// A `detail` as an example.
const fn detail(code: Code) -> &'static str {
    match code {
        Code::MalformedRequest => "the body is no JSON object",
        Code::RefreshTokenRequired => "exactly one refresh token is required",
        Code::CredentialsRequired => "sign-in is required",
        Code::CredentialsInvalid => "the identifier or the password is wrong",
        Code::TokenExpired => "the token has expired",
        Code::TokenInvalid => "the token is invalid",
        Code::TokenWrongType => "a credential of another type belongs here",
        Code::RefreshTokenReused => "the refresh token was used before; the session has been ended",
        Code::ReauthenticationRequired => "a more recent or stronger sign-in is required",
        Code::SessionEnded => "the session has ended",
        Code::CsrfFailed => "step 4: X-CSRF-Token is missing",
        Code::InsufficientClaims => "the session lacks a required claim",
        Code::InsufficientScope => "this needs a key with the scope sessions:write",
        Code::Forbidden => "a session opened on behalf of a user can't do this",
        Code::NotFound => "there is nothing here",
        Code::MethodNotAllowed => "this place doesn't take that method",
        Code::Conflict => "the identifier is taken",
        Code::HandleEnded => "the session of this handle has ended",
        Code::TooManySessions => "the subject has as many live sessions as it may have",
        Code::PreconditionFailed => "the data has changed since that version",
        Code::BodyTooLarge => "over 16384 bytes",
        Code::UnsupportedMediaType => "the body must be application/json in UTF-8",
        Code::UnknownMember => "the body has a member that isn't known",
        Code::InvalidMember => "is required",
        Code::PasswordRejected => "must have 15 characters at least",
        Code::RateLimited => "too many requests; try again later",
        Code::LoginThrottled => "too many failed sign-ins; try again later",
        Code::Internal => "something went wrong here",
        Code::StoreUnavailable => "the session store can't be reached",
        Code::Overloaded => "too much is waiting already",
    }
}
