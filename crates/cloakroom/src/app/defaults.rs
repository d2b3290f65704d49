//! The settings of an application that has none of its own: those of the server.

use std::time::Duration;

use cloakroom_core::keys::Algorithm;
use cloakroom_core::password::PasswordRules;
use cloakroom_core::rate::{MalformedQuota, Quota};
use cloakroom_core::refresh::RefreshRules;
use cloakroom_core::session::SessionRules;
use cloakroom_core::token::access::ExtraClaims;

use super::StartError;
use crate::settings::{LoginLimits, OnLimit, Settings, VerifySettings};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Settings {
    /// What the server has where its operator says nothing, for a store with no other writer.
    /// Tokens are from `cloakroom` for `cloakroom`.
    pub fn standard() -> Result<Self, StartError> {
        let faulty = |fault: MalformedQuota| StartError::Settings(fault.to_string());
        let quota = |count, window| Quota::new(count, window).map_err(faulty);
        Ok(Self {
            issuer: "cloakroom".to_owned(),
            audience: vec!["cloakroom".to_owned()],
            algorithm: Algorithm::EdDsa,
            hs256_secret: None,
            access_ttl: 15 * MINUTE,
            extra_claims: ExtraClaims::default(),
            key_rotation: 30 * DAY,
            gateway_audience: "upstream".to_owned(),
            gateway_ttl: MINUTE,
            refresh: RefreshRules { grace: 30 * SECOND, retry_window: DAY },
            session: session_rules(),
            max_per_subject: 100,
            on_limit: OnLimit::EndOldest,
            max_data: 16 * 1024,
            max_claims: 4 * 1024,
            keep_ended: DAY,
            events_keep: 90 * DAY,
            verify: VerifySettings {
                cache: true,
                max_staleness: None,
                outage_grace: Duration::ZERO,
                capacity: 200_000,
            },
            login_limits: LoginLimits {
                login: quota(5, 15 * MINUTE)?,
                identifier: quota(100, HOUR)?,
                network: quota(50, 15 * MINUTE)?,
            },
            password: PasswordRules::new(15, 256)
                .map_err(|unsafe_rules| StartError::Settings(unsafe_rules.0.to_owned()))?,
            argon2: (19_456, 2, 1),
            password_pool: 2,
            store_timeout: 2 * SECOND,
        })
    }

    /// The same for a store that other processes write to: every verification reads it.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.verify.cache = false;
        self.verify.max_staleness = Some(2 * SECOND);
        self
    }
}

fn session_rules() -> SessionRules {
    SessionRules {
        idle: DAY,
        idle_remember: 14 * DAY,
        idle_anonymous: HOUR,
        absolute: 7 * DAY,
        absolute_remember: 30 * DAY,
        refresh_ttl: 7 * DAY,
        aal_caps: Vec::new(),
    }
}
