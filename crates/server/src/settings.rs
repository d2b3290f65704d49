//! From what the operator wrote to what the engine wants to know.

use cloakroom::{LoginLimits, OnLimit, Settings, VerifySettings};
use cloakroom_core::password::{PasswordRules, UnsafePasswordRules};
use cloakroom_core::refresh::RefreshRules;
use cloakroom_core::session::SessionRules;

use crate::config::{self, Config};

/// Records of each kind that a node keeps in memory.
const CACHE_CAPACITY: u64 = 200_000;

/// The engine's settings. `shared`: other processes write to the store too.
pub(crate) fn of_config(config: &Config, shared: bool) -> Result<Settings, UnsafePasswordRules> {
    let token = &config.token;
    let argon2 = config.password.argon2;
    Ok(Settings {
        issuer: token.issuer.clone(),
        audience: token.audience.clone(),
        algorithm: token.algorithm,
        hs256_secret: token.hs256_secret.clone(),
        access_ttl: token.access_ttl,
        extra_claims: token.extra_claims.clone(),
        key_rotation: token.key_rotation,
        gateway_audience: config.forward_auth.audience.clone(),
        gateway_ttl: config.forward_auth.token_ttl,
        refresh: RefreshRules {
            grace: config.refresh.grace,
            retry_window: config.refresh.retry_window,
        },
        session: session_rules(config),
        max_per_subject: usize::try_from(config.session.max_per_subject).unwrap_or(usize::MAX),
        on_limit: match config.session.on_limit {
            config::OnLimit::EndOldest => OnLimit::EndOldest,
            config::OnLimit::Refuse => OnLimit::Refuse,
        },
        max_data: config.session.max_data.as_usize(),
        max_claims: config.session.max_claims.as_usize(),
        keep_ended: config.session.keep_ended,
        events_keep: config.events.keep,
        verify: VerifySettings {
            cache: !shared || config.verify.cache,
            max_staleness: shared.then_some(config.verify.max_staleness),
            outage_grace: config.outage.grace,
            capacity: CACHE_CAPACITY,
        },
        login_limits: LoginLimits {
            login: config.limit.login,
            identifier: config.limit.login_identifier,
            network: config.limit.login_network,
        },
        password: PasswordRules::new(config.password.min_length, config.password.max_length)?,
        argon2: (argon2.memory_kib, argon2.passes, argon2.lanes),
        password_pool: config.password.pool,
        store_timeout: config.store.timeout,
    })
}

fn session_rules(config: &Config) -> SessionRules {
    let session = &config.session;
    let caps = session.aal_caps.iter();
    SessionRules {
        idle: session.idle,
        idle_remember: session.idle_remember,
        idle_anonymous: session.idle_anonymous,
        absolute: session.absolute,
        absolute_remember: session.absolute_remember,
        refresh_ttl: config.refresh.ttl,
        aal_caps: caps.map(|(acr, cap)| (acr.to_owned(), cap.idle, cap.absolute)).collect(),
    }
}
