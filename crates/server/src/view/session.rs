//! A session as its user sees it.

use cloakroom_core::session::{Holder, Object, Session};
use cloakroom_core::types::Timestamp;
use serde::Serialize;

use super::device::Device;
use super::time::rfc3339;

/// A session in an answer. Shows nothing that lets anybody be it.
#[derive(Debug, Serialize)]
pub struct SessionView<'a> {
    id: String,
    subject: Option<&'a str>,
    created_at: String,
    last_seen_at: String,
    auth_time: String,
    idle_expires_at: String,
    expires_at: String,
    amr: &'a [String],
    acr: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    delivery: &'static str,
    claims: &'a Object,
    client: ClientView<'a>,
    current: bool,
}

#[derive(Debug, Serialize)]
struct ClientView<'a> {
    ip: Option<String>,
    user_agent: Option<&'a str>,
    browser: Option<String>,
    os: Option<&'static str>,
    device: Option<&'static str>,
    label: Option<&'a str>,
}

impl<'a> SessionView<'a> {
    /// A session of a list.
    pub fn new(session: &'a Session, claims: &'a Object, current: bool) -> Self {
        let (seen, idle) = (session.last_seen_at, session.idle_expires_at());
        Self::with_times(session, claims, seen, idle, current)
    }

    /// The session that is asking at `now`, which is a use that isn't written down yet.
    pub fn in_use(session: &'a Session, claims: &'a Object, now: Timestamp) -> Self {
        let idle = match session.holder {
            Holder::Cookie { .. } => session.tokens_end(now),
            Holder::Refresh(_) => session.idle_expires_at(),
        };
        let seen = session.last_seen_at.max(now);
        Self::with_times(session, claims, seen, idle, true)
    }

    fn with_times(
        session: &'a Session,
        claims: &'a Object,
        seen: Timestamp,
        idle: Timestamp,
        current: bool,
    ) -> Self {
        let client = &session.client;
        let device = client.user_agent.as_deref().map(Device::of).unwrap_or_default();
        Self {
            id: session.sid.to_string(),
            subject: session.subject.as_ref().map(|subject| subject.as_str()),
            created_at: rfc3339(session.created_at),
            last_seen_at: rfc3339(seen),
            auth_time: rfc3339(session.auth_time),
            idle_expires_at: rfc3339(idle),
            expires_at: rfc3339(session.expires_at),
            amr: &session.amr,
            acr: &session.acr,
            actor: session.actor.as_deref(),
            delivery: session.delivery.as_str(),
            claims,
            client: ClientView {
                ip: client.ip.map(|ip| ip.to_string()),
                user_agent: client.user_agent.as_deref(),
                browser: device.browser,
                os: device.os,
                device: device.kind,
                label: client.label.as_deref(),
            },
            current,
        }
    }
}
