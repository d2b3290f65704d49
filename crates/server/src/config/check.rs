//! What no single key can know: whether the settings are safe and make sense together.

use std::time::Duration;

use cloakroom_core::cookie::SameSite;
use cloakroom_core::keys::Algorithm;
use cloakroom_core::limits::{BODY_BYTES_MAX, JWKS_CACHE, LIFETIME_MAX};
use cloakroom_core::origin::{Origin, Scheme};
use cloakroom_core::password::PasswordRules;

use super::kinds::{Listener, StoreUrl};
use super::load::Entries;
use super::source::Problem;
use super::{Config, Purpose};

/// Collects refusals and warnings, each with the place where its key was set.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    entries: &'a Entries,
    purpose: Purpose,
    /// What stops the start.
    pub(super) problems: Vec<Problem>,
    /// What deserves a look.
    pub(super) warnings: Vec<Problem>,
}

impl<'a> Judge<'a> {
    /// Goes on from what reading the keys found.
    pub(super) const fn new(
        entries: &'a Entries,
        purpose: Purpose,
        problems: Vec<Problem>,
    ) -> Self {
        Self { entries, purpose, problems, warnings: Vec::new() }
    }

    /// Refuses to start because of a key.
    pub(super) fn refuse(&mut self, key: &'static str, text: impl Into<String>) {
        self.problems.push(Problem::new(self.entries.source(key, &[]), key, text));
    }

    /// Refuses to start without a secret; whoever only asks a node is told that a node wants it.
    fn want(&mut self, key: &'static str, text: impl Into<String>) {
        let text = text.into();
        match self.purpose {
            Purpose::Node => self.refuse(key, text),
            Purpose::Command => {
                self.warn(key, format!("{text}. Only `cloakroom serve` needs it"));
            }
        }
    }

    /// Points at a key.
    fn warn(&mut self, key: &'static str, text: impl Into<String>) {
        self.warnings.push(Problem::new(self.entries.source(key, &[]), key, text));
    }

    /// Whether nobody set the key; one that was set badly has its own problem already.
    fn lacks(&self, key: &'static str) -> bool {
        !self.entries.is_set(key)
    }

    fn within(&mut self, key: &'static str, value: impl TryInto<u64>, least: u64, most: u64) {
        let value = value.try_into().unwrap_or(u64::MAX);
        if value < least || value > most {
            self.refuse(key, format!("must be from {least} to {most}"));
        }
    }

    fn lasts(&mut self, key: &'static str, span: Duration, least: Duration, most: Duration) {
        if span < least {
            self.refuse(key, format!("must be at least {}", in_words(least)));
        } else if span > most {
            self.refuse(key, format!("must be at most {}", in_words(most)));
        }
    }
}

/// Judges everything; the order is that of the table of keys.
pub(super) fn everything(judge: &mut Judge<'_>, config: &Config) {
    telemetry(judge, config);
    public_listener(judge, config);
    admin_listener(judge, config);
    proxies(judge, config);
    capacities(judge, config);
    network_store(judge, config);
    master_key(judge, config);
    token(judge, config);
    lifetimes(judge, config);
    idle_within_absolute(judge, config);
    sizes(judge, config);
    cookie(judge, config);
    forward_auth(judge, config);
    password(judge, config);
    intervals(judge, config);
}

/// Where traces and metrics go: OTLP over HTTP, with the protocol's own paths below it.
fn telemetry(judge: &mut Judge<'_>, config: &Config) {
    const KEY: &str = "telemetry.otlp_endpoint";
    let Some(endpoint) = &config.telemetry.otlp_endpoint else { return };
    if !crate::telemetry::IS_BUILT_IN {
        judge.refuse(KEY, "this program was built without OTLP (feature `otlp`): leave it out");
    }
    let uri = endpoint.parse::<hyper::Uri>().ok();
    let scheme = uri.as_ref().and_then(hyper::Uri::scheme_str);
    let authority = uri.as_ref().and_then(hyper::Uri::authority);
    let has_query = uri.as_ref().is_some_and(|uri| uri.query().is_some());
    match authority {
        Some(authority) if authority.as_str().contains('@') => {
            judge.refuse(KEY, "no user or password in it");
        }
        Some(_) if matches!(scheme, Some("http" | "https")) && !has_query => {}
        Some(_) | None => {
            judge.refuse(KEY, "is the base URL of OTLP over HTTP, such as http://127.0.0.1:4318");
        }
    }
}

/// Settings of a store over the network, where they go together.
fn network_store(judge: &mut Judge<'_>, config: &Config) {
    let store = &config.store;
    for (set, other, key, missing) in [
        (&store.tls_cert_file, &store.tls_key_file, "store.tls.cert_file", "store.tls.key_file"),
        (&store.tls_key_file, &store.tls_cert_file, "store.tls.key_file", "store.tls.cert_file"),
    ] {
        if set.is_some() && other.is_none() {
            judge.refuse(key, format!("needs `{missing}` beside it"));
        }
    }
    if store.url.is_embedded() {
        for key in ["store.tls.ca_file", "store.tls.cert_file", "store.replica_wait"] {
            if judge.entries.is_set(key) {
                judge.warn(key, "is used with a store over the network only");
            }
        }
        if judge.entries.is_set("verify.cache") {
            judge.warn("verify.cache", "is used with a store over the network only");
        }
        return;
    }
    if store.replica_wait >= store.timeout {
        judge.refuse("store.replica_wait", "must be shorter than `store.timeout`");
    }
    // A schema's name is cut and folded where it isn't plain; a prefix of keys may be more.
    if let StoreUrl::Postgres(_) = &store.url
        && !cloakroom_postgres::is_schema_name(store.namespace.as_str())
    {
        judge.refuse(
            "store.namespace",
            "names a schema on PostgreSQL: it must have at most 48 of a-z, 0-9 and `_`, and not \
             begin with `pg_`",
        );
    }
    // A replica's lag and a slow reading of the log must still fit in.
    if config.verify.cache && config.verify.max_staleness < 2 * STALENESS_MIN {
        judge.warn("verify.max_staleness", "is so short that most verifies read the store");
    }
}

fn public_listener(judge: &mut Judge<'_>, config: &Config) {
    let server = &config.server;
    let exposed = !server.public.is_local();
    if exposed && config.public_tls.is_none() && server.trusted_proxies.is_empty() {
        judge.refuse(
            "server.public",
            format!(
                "is {}, off loopback, where credentials would cross the network in clear: set \
                 `server.tls.cert_file` and `server.tls.key_file`, or, behind a proxy that speaks \
                 TLS, `server.trusted_proxies`",
                server.public
            ),
        );
    }
    let plain = server.origin.scheme() == Scheme::Http;
    if plain && config.public_tls.is_some() {
        judge.warn("server.origin", "is `http://…` although the public listener speaks TLS");
    } else if plain && !is_loopback(&server.origin) {
        judge.warn("server.origin", "is `http://…` off loopback: credentials travel in clear");
    } else if exposed && is_loopback(&server.origin) {
        judge.warn("server.origin", "is on loopback although the public listener isn't");
    }
}

fn admin_listener(judge: &mut Judge<'_>, config: &Config) {
    let server = &config.server;
    if !server.admin.is_local() && config.admin_tls.is_none() {
        judge.refuse(
            "server.admin",
            format!(
                "is {}, off loopback: set `server.admin_tls.cert_file` and \
                 `server.admin_tls.key_file`, or listen on loopback",
                server.admin
            ),
        );
    }
    if config.admin_tls.is_none() && judge.entries.is_set("server.admin_tls.client_ca_file") {
        judge.refuse(
            "server.admin_tls.client_ca_file",
            "asks for client certificates, which need `server.admin_tls.cert_file` and \
             `server.admin_tls.key_file`",
        );
    }
    let any_port = matches!(&server.admin, Listener::Tcp(address) if address.port() == 0);
    if server.admin == server.public && !any_port {
        judge.refuse("server.admin", "is the public listener: browsers must not reach it");
    }
}

fn proxies(judge: &mut Judge<'_>, config: &Config) {
    if config.server.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        judge.warn(
            "server.trusted_proxies",
            "trusts every address there is: any client can choose what address, host and scheme \
             it seems to have; name the proxies' networks",
        );
    }
}

fn capacities(judge: &mut Judge<'_>, config: &Config) {
    judge.within("server.max_connections", config.server.max_connections, 1, 1_000_000);
    judge.within("store.pool", config.store.pool, 1, 1024);
    judge.within("store.partitions", config.store.partitions, 1, 1024);
    judge.within("session.max_per_subject", config.session.max_per_subject, 1, 10_000);
    judge.within("password.pool", config.password.pool, 1, 1024);
}

fn master_key(judge: &mut Judge<'_>, config: &Config) {
    if !config.store.url.is_embedded() && judge.lacks("master_key") {
        judge.want(
            "master_key",
            "is needed by a store over the network: draw 32 random bytes (`openssl rand -base64 \
             32`) into a file and name it in `master_key_file`, or let systemd hand it over",
        );
    }
    if judge.lacks("master_key") && config.master_key_previous.is_some() {
        judge.want("master_key_previous", "needs the `master_key` that follows it");
    }
}

fn token(judge: &mut Judge<'_>, config: &Config) {
    let token = &config.token;
    match (token.algorithm, !judge.lacks("token.hs256_secret")) {
        (Algorithm::Hs256, false) => judge.want(
            "token.algorithm",
            "is `HS256`, which needs `token.hs256_secret` or `token.hs256_secret_file`",
        ),
        (Algorithm::EdDsa | Algorithm::Es256 | Algorithm::Rs256, true) => {
            judge.warn("token.hs256_secret", "is used with `token.algorithm = \"HS256\"` only");
        }
        (Algorithm::Hs256, true)
        | (Algorithm::EdDsa | Algorithm::Es256 | Algorithm::Rs256, false) => {}
    }
    if token.audience.is_empty() {
        judge.refuse("token.audience", "must name an audience");
    }
    // A key must have been in every verifier's cache before the next one takes over.
    judge.lasts("token.key_rotation", token.key_rotation, 2 * JWKS_CACHE, Duration::MAX);
}

fn lifetimes(judge: &mut Judge<'_>, config: &Config) {
    let session = &config.session;
    for (key, span) in [
        ("token.access_ttl", config.token.access_ttl),
        ("refresh.ttl", config.refresh.ttl),
        ("session.idle", session.idle),
        ("session.idle_remember", session.idle_remember),
        ("session.idle_anonymous", session.idle_anonymous),
        ("session.absolute", session.absolute),
        ("session.absolute_remember", session.absolute_remember),
    ] {
        judge.lasts(key, span, SECOND, LIFETIME_MAX);
    }
    judge.lasts("refresh.retry_window", config.refresh.retry_window, Duration::ZERO, LIFETIME_MAX);
    judge.lasts("session.keep_ended", session.keep_ended, 10 * MINUTE, LIFETIME_MAX);
    if config.refresh.grace >= config.refresh.ttl {
        judge.refuse(
            "refresh.grace",
            "must be shorter than `refresh.ttl`: reuse would never be noticed",
        );
    }
}

/// An idle timeout that somebody asked for and that the lifetime would never let happen.
///
/// A default is let pass: a short lifetime by itself is no mistake, and it ends the session.
fn idle_within_absolute(judge: &mut Judge<'_>, config: &Config) {
    let session = &config.session;
    for (key, idle, name, absolute) in [
        ("session.idle", session.idle, "session.absolute", session.absolute),
        ("session.idle_anonymous", session.idle_anonymous, "session.absolute", session.absolute),
        (
            "session.idle_remember",
            session.idle_remember,
            "session.absolute_remember",
            session.absolute_remember,
        ),
    ] {
        if idle > absolute && judge.entries.is_set(key) {
            judge.refuse(key, format!("must not be longer than `{name}`"));
        }
    }
}

fn sizes(judge: &mut Judge<'_>, config: &Config) {
    let body = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX);
    judge.within("session.max_data", config.session.max_data.bytes(), 2, body - ENVELOPE_BYTES);
    judge.within("session.max_claims", config.session.max_claims.bytes(), 2, CLAIMS_BYTES_MAX);
}

fn cookie(judge: &mut Judge<'_>, config: &Config) {
    let (cookie, server) = (&config.cookie, &config.server);
    let https = server.origin.scheme() == Scheme::Https;
    if !cookie.secure && !server.public.is_local() {
        judge.refuse(
            "cookie.secure",
            "is `false`, which is allowed only while `server.public` is on loopback",
        );
    } else if !cookie.secure && https {
        judge.warn("cookie.secure", "is `false` although `server.origin` is `https://…`");
    } else if cookie.secure && !https && !is_loopback(&server.origin) {
        judge.warn(
            "cookie.secure",
            "is `true` and `server.origin` is `http://…`: browsers drop the cookies",
        );
    }
    if !cookie.secure && cookie.same_site == SameSite::None {
        judge.refuse("cookie.same_site", "is `None`, which browsers take with `Secure` only");
    }
    if !cookie.secure && cookie.partitioned {
        judge.refuse("cookie.partitioned", "is `true`, which browsers take with `Secure` only");
    }
    if let Some(domain) = &cookie.domain {
        cookie_domain(judge, &server.origin, domain);
    }
}

fn cookie_domain(judge: &mut Judge<'_>, origin: &Origin, domain: &str) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label = |label: &str| !label.is_empty() && label.chars().all(plain);
    let numeric = domain.split('.').next_back().is_some_and(|last| last.parse::<u32>().is_ok());
    if !domain.contains('.') || !domain.split('.').all(label) || numeric {
        judge.refuse("cookie.domain", "must be a domain such as `example.com`, in lower case");
    } else if host(origin) != domain && !host(origin).ends_with(&format!(".{domain}")) {
        judge.warn("cookie.domain", "doesn't hold `server.origin`: browsers drop the cookies");
    }
}

fn forward_auth(judge: &mut Judge<'_>, config: &Config) {
    let forward = &config.forward_auth;
    if config.token.audience.contains(&forward.audience) {
        judge.refuse(
            "forward_auth.audience",
            "is in `token.audience` too: an upstream could use its assertion as an access token",
        );
    }
    judge.lasts("forward_auth.token_ttl", forward.token_ttl, SECOND, 10 * MINUTE);
}

fn password(judge: &mut Judge<'_>, config: &Config) {
    let password = &config.password;
    if let Err(why) = PasswordRules::new(password.min_length, password.max_length) {
        judge.refuse("password.min_length", format!("or `password.max_length` is refused: {why}"));
    }
    if (8..15).contains(&password.min_length) {
        judge.warn(
            "password.min_length",
            "is under 15, which NIST SP 800-63B-4 asks for where the password is the only factor",
        );
    }
}

fn intervals(judge: &mut Judge<'_>, config: &Config) {
    let year = 366 * 24 * 60 * MINUTE;
    judge.lasts("server.drain", config.server.drain, Duration::ZERO, 60 * MINUTE);
    judge.lasts("server.request_timeout", config.server.request_timeout, MILLI, 10 * MINUTE);
    judge.lasts("store.timeout", config.store.timeout, MILLI, MINUTE);
    judge.lasts("verify.max_staleness", config.verify.max_staleness, STALENESS_MIN, MINUTE);
    judge.lasts("outage.grace", config.outage.grace, Duration::ZERO, 24 * 60 * MINUTE);
    judge.lasts("events.keep", config.events.keep, MINUTE, 20 * year);
    judge.lasts("sweep.interval", config.sweep.interval, SECOND, 24 * 60 * MINUTE);
}

/// The host of an origin, without the port.
fn host(origin: &Origin) -> String {
    let authority = origin.authority();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host.to_owned(),
        Some(_) | None => authority,
    }
}

/// Whether browsers treat the origin as this machine's own (W3C Secure Contexts section 3.1).
fn is_loopback(origin: &Origin) -> bool {
    let host = host(origin);
    host == "localhost"
        || host.ends_with(".localhost")
        || host == "[::1]"
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// A span the way the configuration writes it.
fn in_words(span: Duration) -> String {
    match (span.as_secs(), span.subsec_millis()) {
        (seconds, 0) if seconds % 86_400 == 0 && seconds > 0 => format!("{}d", seconds / 86_400),
        (seconds, 0) if seconds % 60 == 0 && seconds > 0 => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        (_, _) => format!("{}ms", span.as_millis()),
    }
}

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// A heartbeat comes every 500 ms: nothing could be fresher than this for long.
const STALENESS_MIN: Duration = Duration::from_millis(600);
/// What a request's body holds besides the session's data, in bytes.
const ENVELOPE_BYTES: u64 = 4096;
/// Claims of a session that still fit into an access token together with as many of its subject,
/// in bytes: base64url makes 4 of 3, and the registered claims and the signature need 1 KiB.
const CLAIMS_BYTES_MAX: u64 = 5 * 1024;

const _: () = assert!(BODY_BYTES_MAX as u64 > ENVELOPE_BYTES);
const _: () =
    assert!(2 * CLAIMS_BYTES_MAX / 3 * 4 + 1024 <= cloakroom_core::limits::JWT_BYTES_MAX as u64);
