//! The JSON of the HTTP contract, as far as a backend reads it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::guard::{Device, Issued, Pass, Via};
use cloakroom_core::json::Map;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Client, EndReason};
use cloakroom_core::token::access::AccessClaims;
use cloakroom_core::types::{Secret, Subject, Timestamp};
use serde_json::Value;

/// An instant in RFC 3339.
pub(crate) fn time(value: &Value) -> Option<Timestamp> {
    let at: jiff::Timestamp = value.as_str()?.parse().ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

/// A session as holders of an API key see it, and for how long it may be kept.
pub(crate) fn session(view: &Value) -> Option<(Pass, Kept)> {
    let text = |name: &str| view.get(name).and_then(Value::as_str);
    let at = |name: &str| view.get(name).and_then(time);
    let subject = match view.get("subject")? {
        Value::Null => None,
        Value::String(subject) => Some(Subject::parse(subject).ok()?),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let amr = view.get("amr")?.as_array()?.iter();
    let csrf_key = URL_SAFE_NO_PAD.decode(text("csrf_key")?).ok()?;
    let pass = Pass {
        sid: text("id")?.parse().ok()?,
        subject,
        claims: view.get("claims")?.as_object()?.clone(),
        auth_time: at("auth_time")?,
        amr: amr.filter_map(Value::as_str).map(str::to_owned).collect(),
        acr: text("acr")?.to_owned(),
        actor: text("actor").map(str::to_owned),
        via: Via::Cookie,
        csrf_key: Some(Secret::new(csrf_key.try_into().ok()?)),
    };
    let idle = at("idle_expires_at")?.since(at("last_seen_at")?);
    Some((pass, Kept { until: at("expires_at")?, slack: idle / 20 }))
}

/// Whether a session of a listing has ended.
pub(crate) fn has_ended(view: &Value) -> bool {
    view.get("ended").is_some_and(|ended| !ended.is_null())
}

/// A session of a listing; none: it can't be read.
pub(crate) fn device(view: &Value) -> Option<Device> {
    let at = |name: &str| view.get(name).and_then(time);
    let client = view.get("client")?;
    let text = |name: &str| client.get(name).and_then(Value::as_str);
    Some(Device {
        sid: view.get("id")?.as_str()?.parse().ok()?,
        created_at: at("created_at")?,
        last_seen_at: at("last_seen_at")?,
        client: Client {
            ip: text("ip").and_then(|ip| ip.parse().ok()),
            user_agent: text("user_agent").map(str::to_owned),
            label: text("label").map(str::to_owned),
        },
    })
}

/// For how long a session's view may be kept without asking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// The session's absolute end.
    pub(crate) until: Timestamp,
    /// How late its use may be told: a twentieth of its idle timeout, as the authority has it.
    pub(crate) slack: Duration,
}

/// What a verified access token says of its session.
pub(crate) fn pass_of(claims: AccessClaims) -> Pass {
    Pass {
        sid: claims.sid,
        subject: Some(claims.subject),
        claims: claims.claims,
        auth_time: claims.auth_time,
        amr: claims.amr,
        acr: claims.acr,
        actor: claims.actor.map(|actor| actor.as_str().to_owned()),
        via: Via::Access,
        csrf_key: None,
    }
}

/// The credentials of an answer to an opening or a refresh.
pub(crate) fn issued(answer: &Map) -> Option<Issued> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let secret = |name: &str| text(name).map(|text| Secret::new(text.to_owned()));
    let access = match secret("access_token") {
        Some(access) => Some((access, answer.get("expires_in")?.as_u64()?)),
        None => None,
    };
    let token = match &access {
        Some(_) => secret("refresh_token")?,
        None => secret("session_token")?,
    };
    let refresh_expires_in = answer.get("refresh_expires_in").and_then(Value::as_u64);
    Some(Issued { token, access, refresh_expires_in })
}

/// The refusal of a problem's `code`; none: this isn't a "no" that we know.
pub(crate) fn refusal(problem: &Map) -> Option<Refusal> {
    let text = |name: &str| problem.get(name).and_then(Value::as_str);
    let detail = || text("detail").unwrap_or_default().to_owned();
    let member = || text("member").unwrap_or_default().to_owned();
    Some(match text("code")? {
        "credentials_required" => Refusal::CredentialsRequired,
        "token_expired" => Refusal::TokenExpired,
        "token_invalid" => Refusal::TokenInvalid,
        "token_wrong_type" => Refusal::TokenWrongType,
        "refresh_token_reused" => Refusal::RefreshTokenReused,
        "refresh_token_required" => Refusal::RefreshTokenRequired,
        "session_ended" => {
            let reason = text("reason").and_then(EndReason::parse);
            Refusal::SessionEnded(reason.unwrap_or(EndReason::EndedByOperator))
        }
        "not_found" => Refusal::NotFound,
        "conflict" => Refusal::Conflict("the authority found a conflict"),
        "too_many_sessions" => Refusal::TooManySessions,
        "precondition_failed" => Refusal::PreconditionFailed,
        "body_too_large" => Refusal::TooLarge { max: 0, largest: member() },
        "invalid_member" | "unknown_member" => {
            Refusal::InvalidMember { member: member(), why: detail() }
        }
        _ => return None,
    })
}

/// The refusal behind a failed refresh: RFC 6749 has one `error` for all of them, the authority's
/// own `code` tells them apart, or its description where an earlier version has no code.
pub(crate) fn grant_refusal(answer: &Map) -> Option<Refusal> {
    if answer.get("error")?.as_str()? != "invalid_grant" {
        return None;
    }
    if let Some(refusal) = refusal(answer) {
        return Some(refusal);
    }
    let told = answer.get("error_description").and_then(Value::as_str).unwrap_or_default();
    let known = [
        Refusal::TokenExpired,
        Refusal::TokenWrongType,
        Refusal::RefreshTokenReused,
        // All reasons read the same here; what it was is in the session's record.
        Refusal::SessionEnded(EndReason::SignedOut),
    ];
    let found = known.into_iter().find(|refusal| refusal.to_string() == told);
    Some(found.unwrap_or(Refusal::TokenInvalid))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_refresh_tells_why() {
        let told = |text: &str| {
            let answer = json!({"error": "invalid_grant", "error_description": text});
            grant_refusal(answer.as_object().expect("an object"))
        };
        for refusal in [
            Refusal::TokenExpired,
            Refusal::TokenWrongType,
            Refusal::RefreshTokenReused,
            Refusal::TokenInvalid,
        ] {
            assert_eq!(told(&refusal.to_string()), Some(refusal));
        }
        assert_eq!(told("something else"), Some(Refusal::TokenInvalid));
        // A code is what counts, whatever the words.
        let answer = json!({
            "error": "invalid_grant", "error_description": "the token has expired",
            "code": "session_ended", "reason": "password_changed",
        });
        let ended = Refusal::SessionEnded(EndReason::PasswordChanged);
        assert_eq!(grant_refusal(answer.as_object().expect("an object")), Some(ended));
        let fault = json!({"error": "temporarily_unavailable"});
        assert_eq!(grant_refusal(fault.as_object().expect("an object")), None);
    }
}
