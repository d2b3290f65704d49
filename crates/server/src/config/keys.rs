//! Every key there is: one declaration gives its type, default, meaning and example.

use std::path::PathBuf;
use std::time::Duration;

use cloakroom_core::cookie::SameSite;
use cloakroom_core::csrf::CsrfMode;
use cloakroom_core::keys::{Algorithm, Hs256Secret};
use cloakroom_core::origin::Origin;
use cloakroom_core::rate::Quota;
use cloakroom_core::store_key::MasterKey;
use cloakroom_core::token::access::ExtraClaims;
use ipnet::IpNet;

use super::kinds::{
    Argon2Params, BasePath, ByteSize, HostName, Listener, LogFormat, LogLevel, Namespace, OnLimit,
    SignInUrl, StoreUrl,
};
use super::load::Reader;
use super::tables::{AalCaps, ClaimHeaders, Policies};
use super::value::{Setting, Shape};

/// What a key is when nobody sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Preset {
    /// This value, written as the environment would give it.
    Value(&'static str),
    /// No value.
    Unset,
    /// A value that follows from others, in words.
    Derived(&'static str),
}

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Its full dotted name.
    pub(super) name: &'static str,
    /// Its form.
    pub(super) shape: Shape,
    /// Its default.
    pub(super) preset: Preset,
    /// What it does, in one sentence.
    pub(super) meaning: &'static str,
    /// A value other than the default, written as the environment would give it.
    pub(super) example: &'static str,
}

impl Key {
    /// The name of its environment variable.
    pub(super) fn variable(&self) -> String {
        variable_of(self.name)
    }

    /// The name of the key that names a file with the secret, where it is a secret.
    pub(super) fn file_name(&self) -> Option<String> {
        self.shape.is_secret().then(|| format!("{}_file", self.name))
    }
}

/// The environment variable of a dotted name.
pub(super) fn variable_of(name: &str) -> String {
    format!("CLOAKROOM_{}", name.to_ascii_uppercase().replace('.', "__"))
}

/// Declares a group of keys: its struct, its part of the table, and how it is read.
macro_rules! group {
    ($(#[$meta:meta])* $name:ident { $(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty = $key:literal, $preset:expr, $example:literal;
    )+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        #[allow(unreachable_pub)] // Two groups are taken apart again and stay in this module.
        pub struct $name { $( $(#[doc = $doc])+ pub $field: $type, )+ }

        impl $name {
            /// The part of the table that describes this group.
            pub(super) const KEYS: &[Key] = &[ $( Key {
                name: $key,
                shape: <$type as Setting>::SHAPE,
                preset: $preset,
                meaning: concat!($($doc),+),
                example: $example,
            }, )+ ];

            /// Reads every key of the group; `None` if one of them has a problem.
            pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
                $( let $field = reader.read::<$type>($key); )+
                Some(Self { $( $field: $field?, )+ })
            }
        }
    };
}

use Preset::{Derived, Unset, Value};

group! {
    /// The listeners and what browsers see of them.
    Server {
        /// Public listener; an address with its port, or `unix:/path`.
        public: Listener = "server.public", Value("127.0.0.1:7400"), "127.0.0.1:8400";
        /// Admin listener, also `unix:/path`; never to be reachable by the public's browsers.
        admin: Listener = "server.admin", Value("127.0.0.1:7401"), "127.0.0.1:8401";
        /// Host names besides its own address by which the admin listener may be addressed.
        admin_hosts: Vec<HostName> = "server.admin_hosts", Value("[]"), "cloakroom.internal";
        /// The public origin that browsers see; the issuer's default.
        origin: Origin = "server.origin", Value("http://localhost:7400"),
            "https://app.example.com";
        /// The path below which the session's own endpoints are served.
        base_path: BasePath = "server.base_path", Value("/auth"), "/session";
        /// Networks whose `X-Forwarded-*` headers count.
        trusted_proxies: Vec<IpNet> = "server.trusted_proxies", Value("[]"),
            "10.0.0.0/8,fd00::/8";
        /// How long accepted requests may take to finish when the process is asked to stop.
        drain: Duration = "server.drain", Value("10s"), "20s";
        /// Connections served at once; more wait to be accepted.
        max_connections: usize = "server.max_connections", Value("10000"), "500";
        /// The longest a request may take, its body included; as long have a TLS handshake, a
        /// connection's first request to begin, each header, and HTTP/1.1 between two requests.
        /// HTTP/2 has six times that between requests.
        request_timeout: Duration = "server.request_timeout", Value("10s"), "5s";
    }
}

group! {
    /// The files by which the listeners speak TLS, as configured.
    TlsKeys {
        /// Certificate chain (PEM) of the public listener.
        cert_file: Option<PathBuf> = "server.tls.cert_file", Unset, "/etc/cloakroom/tls.pem";
        /// Private key (PEM) of the public listener.
        key_file: Option<PathBuf> = "server.tls.key_file", Unset, "/etc/cloakroom/tls.key";
        /// Certificate chain (PEM) of the admin listener; needed off loopback.
        admin_cert_file: Option<PathBuf> = "server.admin_tls.cert_file", Unset,
            "/etc/cloakroom/admin.pem";
        /// Private key (PEM) of the admin listener; needed off loopback.
        admin_key_file: Option<PathBuf> = "server.admin_tls.key_file", Unset,
            "/etc/cloakroom/admin.key";
        /// Authorities (PEM) one of which must have signed a client's certificate.
        admin_client_ca_file: Option<PathBuf> = "server.admin_tls.client_ca_file", Unset,
            "/etc/cloakroom/clients.pem";
    }
}

group! {
    /// Where everything is stored.
    Store {
        /// `file:DIR`, `memory:`, `redis://`, `redis+cluster://`, `redis+sentinel://`, these
        /// three with TLS (`rediss://`, `rediss+cluster://`, …) or `postgres://`.
        url: StoreUrl = "store.url", Value("file:./cloakroom-data"), "memory:";
        /// Key prefix (Redis) or schema (PostgreSQL), for several authorities on one server.
        namespace: Namespace = "store.namespace", Value("cloakroom"), "shop";
        /// The longest a call of the store may take.
        timeout: Duration = "store.timeout", Value("2s"), "1s";
        /// Connections to the store.
        pool: usize = "store.pool", Value("16"), "32";
        /// Partitions of the store, 1 to 1024; fixed when the store is created.
        partitions: u16 = "store.partitions", Value("256"), "16";
        /// Whether the schema is brought up to date at the start.
        migrate: bool = "store.migrate", Value("true"), "false";
        /// Authorities (PEM) that vouch for the store's server.
        tls_ca_file: Option<PathBuf> = "store.tls.ca_file", Unset, "/etc/cloakroom/store-ca.pem";
        /// Certificate chain (PEM) shown to the store's server.
        tls_cert_file: Option<PathBuf> = "store.tls.cert_file", Unset, "/etc/cloakroom/store.pem";
        /// Private key (PEM) of that certificate.
        tls_key_file: Option<PathBuf> = "store.tls.key_file", Unset, "/etc/cloakroom/store.key";
        /// Redis: how long an ending waits for every replica; `0`: never.
        replica_wait: Duration = "store.replica_wait", Value("100ms"), "50ms";
    }
}

group! {
    /// The keys that come from outside the store.
    Roots {
        /// 32 bytes in base64url that wrap the store's own key; stores over the network need it.
        master_key: Option<MasterKey> = "master_key",
            Derived("generated into the data directory (embedded only)"),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
        /// The master key before the current one, until `keys rewrap` has run.
        master_key_previous: Option<MasterKey> = "master_key_previous", Unset,
            "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8";
        /// File of the operator's own API key, which has all scopes on this node.
        root_api_key_file: PathBuf = "root_api_key_file",
            Derived("generated into the data directory"), "/run/cloakroom/root-api.key";
    }
}

group! {
    /// Access tokens.
    Token {
        /// The claim `iss`.
        issuer: String = "token.issuer", Derived("`server.origin`"), "https://id.example.com";
        /// The claim `aud`.
        audience: Vec<String> = "token.audience", Value("cloakroom"), "shop,api";
        /// What new access tokens are signed with.
        algorithm: Algorithm = "token.algorithm", Value("EdDSA"), "ES256";
        /// The shared secret of `HS256`, of at least 32 bytes.
        hs256_secret: Option<Hs256Secret> = "token.hs256_secret", Unset,
            "q3tWJv0Zy8rLk2NfX7mBdC5hG1sAeUoP4iTzRxYw";
        /// How long an access token lives.
        access_ttl: Duration = "token.access_ttl", Value("15m"), "10m";
        /// Constant claims, and the session's own under other names:
        /// `{ user_id = "$subject", type = "access" }`.
        extra_claims: ExtraClaims = "token.extra_claims", Value("{}"),
            "{ user_id = \"$subject\" }";
        /// How long a signing key signs before the next one does.
        key_rotation: Duration = "token.key_rotation", Value("30d"), "7d";
    }
}

group! {
    /// Refresh tokens.
    Refresh {
        /// How long a refresh token lives; restarts at each rotation.
        ttl: Duration = "refresh.ttl", Value("7d"), "14d";
        /// How long after a rotation the predecessor is answered with the same successor.
        grace: Duration = "refresh.grace", Derived("30s, at most half of `refresh.ttl`"), "10s";
        /// How long a refresh may be repeated with its `Idempotency-Key`.
        retry_window: Duration = "refresh.retry_window", Value("24h"), "12h";
    }
}

group! {
    /// How long sessions live and how large they grow.
    Session {
        /// Idle timeout of `cookie` sessions.
        idle: Duration = "session.idle", Value("24h"), "12h";
        /// Idle timeout of `cookie` sessions with `remember`.
        idle_remember: Duration = "session.idle_remember", Value("14d"), "7d";
        /// Idle timeout of sessions before a sign-in.
        idle_anonymous: Duration = "session.idle_anonymous", Value("1h"), "30m";
        /// Lifetime of `cookie` sessions.
        absolute: Duration = "session.absolute", Value("7d"), "6d";
        /// Lifetime of sessions with `remember`, and of `bearer` and `split` sessions.
        absolute_remember: Duration = "session.absolute_remember", Value("30d"), "60d";
        /// Caps on both for sessions of an `acr` (NIST SP 800-63B-4).
        aal_caps: AalCaps = "session.aal_caps",
            Value("{ aal2 = { idle = \"1h\", absolute = \"24h\" }, \
                aal3 = { idle = \"15m\", absolute = \"12h\" } }"),
            "{ aal2 = { idle = \"30m\", absolute = \"12h\" } }";
        /// Live sessions of one subject.
        max_per_subject: u32 = "session.max_per_subject", Value("100"), "5";
        /// What happens to one session more.
        on_limit: OnLimit = "session.on_limit", Value("end_oldest"), "refuse";
        /// The largest session data, as JSON.
        max_data: ByteSize = "session.max_data", Value("16KiB"), "8KiB";
        /// The largest claims of a session, as JSON.
        max_claims: ByteSize = "session.max_claims", Value("4KiB"), "2KiB";
        /// How long the reason of an end is known; at least 10m.
        keep_ended: Duration = "session.keep_ended", Value("24h"), "48h";
    }
}

group! {
    /// The attributes of cookies.
    Cookie {
        /// Whether cookies are `Secure`; `false` is for loopback only.
        secure: bool = "cookie.secure",
            Derived("`true` if the origin is `https` or the public listener is off loopback"),
            "true";
        /// The session cookie's `SameSite`.
        same_site: SameSite = "cookie.same_site", Value("Lax"), "Strict";
        /// The cookies' `Domain`; replaces the prefix `__Host-` by `__Secure-`.
        domain: Option<String> = "cookie.domain", Unset, "example.com";
        /// Whether cookies are `Partitioned` (CHIPS).
        partitioned: bool = "cookie.partitioned", Value("false"), "true";
    }
}

group! {
    /// Protection from cross-site request forgery.
    Csrf {
        /// `token`, or `origin` where every browser sends Fetch Metadata.
        mode: CsrfMode = "csrf.mode", Value("token"), "origin";
        /// Origins besides our own from which cookie-authenticated requests are taken.
        allowed_origins: Vec<Origin> = "csrf.allowed_origins", Value("[]"),
            "https://shop.example.com";
    }
}

group! {
    /// Cross-origin reading.
    Cors {
        /// Origins that may read answers, with credentials.
        allowed_origins: Vec<Origin> = "cors.allowed_origins", Value("[]"),
            "https://shop.example.com";
    }
}

group! {
    /// How sessions are verified.
    Verify {
        /// Whether verifies are answered from a cache that follows the feed; embedded: always.
        cache: bool = "verify.cache", Value("false"), "true";
        /// How far a cache or a verifier may be behind the store.
        max_staleness: Duration = "verify.max_staleness", Value("2s"), "3s";
    }
}

group! {
    /// While the store can't be reached.
    Outage {
        /// How long what was verified before the outage goes on; `0`: not at all.
        grace: Duration = "outage.grace", Value("0"), "30s";
    }
}

group! {
    /// How many requests are taken.
    Limit {
        /// Per session, on the session's own endpoints except `verify` and the look at itself.
        session: Quota = "limit.session", Value("100/15m"), "200/15m";
        /// Per session, on `verify` and the session's look at itself.
        verify: Quota = "limit.verify", Value("3000/1m"), "6000/1m";
        /// Per client address (IPv6: /64), on what isn't authenticated.
        network: Quota = "limit.network", Value("300/1m"), "600/1m";
        /// Failed sign-ins per identifier and network together.
        login: Quota = "limit.login", Value("5/15m"), "10/15m";
        /// Failed sign-ins per identifier from everywhere.
        login_identifier: Quota = "limit.login_identifier", Value("100/1h"), "200/1h";
        /// Failed sign-ins per network for all identifiers.
        login_network: Quota = "limit.login_network", Value("50/15m"), "80/15m";
    }
}

group! {
    /// Forward authentication for gateways.
    ForwardAuth {
        /// Named policies: `{ admin = { require = ["role:admin"], max_age = "5m",
        /// acr = "aal2", csrf = "token" } }`.
        policies: Policies = "forward_auth.policies", Value("{}"),
            "{ admin = { require = [\"role:admin\"], max_age = \"5m\", acr = \"aal2\" } }";
        /// How long the upstream's signed assertion lives at most.
        token_ttl: Duration = "forward_auth.token_ttl", Value("60s"), "30s";
        /// The audience of that assertion.
        audience: String = "forward_auth.audience", Value("upstream"), "backend";
        /// Claims that get a header `X-Auth-Claim-<name>` each.
        claim_headers: ClaimHeaders = "forward_auth.claim_headers", Value("[]"), "role,email";
        /// Where a page's visitor without a session is sent.
        sign_in_url: Option<SignInUrl> = "forward_auth.sign_in_url", Unset, "/auth/sign-in";
        /// Origins besides our own that a sign-in may return to.
        allowed_return_origins: Vec<Origin> = "forward_auth.allowed_return_origins", Value("[]"),
            "https://shop.example.com";
    }
}

group! {
    /// Passwords of the user directory.
    Password {
        /// The shortest new password, in characters.
        min_length: usize = "password.min_length", Value("15"), "16";
        /// The longest new password, in characters.
        max_length: usize = "password.max_length", Value("256"), "512";
        /// Parameters of argon2id for new hashes.
        argon2: Argon2Params = "password.argon2", Value("m=19456,t=2,p=1"), "m=47104,t=3,p=1";
        /// Hashes computed at once; the queue behind them is bounded.
        pool: usize = "password.pool", Derived("the number of cores"), "2";
    }
}

group! {
    /// Whether visitors make their own users.
    Registration {
        /// Whether `register` is served.
        enabled: bool = "registration.enabled", Value("false"), "true";
    }
}

group! {
    /// The audit log.
    Events {
        /// How long audit events are kept.
        keep: Duration = "events.keep", Derived("30d (Redis: 24h)"), "90d";
    }
}

group! {
    /// The removal of what has expired.
    Sweep {
        /// How often it runs.
        interval: Duration = "sweep.interval", Value("60m"), "15m";
    }
}

group! {
    /// Log lines, on standard error.
    Log {
        /// How they look.
        format: LogFormat = "log.format", Derived("`text` on a terminal, else `json`"), "json";
        /// The least severe that are written.
        level: LogLevel = "log.level", Value("info"), "debug";
    }
}

group! {
    /// Where traces and metrics go besides `/metrics`.
    Telemetry {
        /// The base URL of OTLP over HTTP, for traces and metrics.
        otlp_endpoint: Option<String> = "telemetry.otlp_endpoint", Unset,
            "http://127.0.0.1:4318";
    }
}

/// The groups in the order in which people read them.
const GROUPS: &[&[Key]] = &[
    Server::KEYS,
    TlsKeys::KEYS,
    Store::KEYS,
    Roots::KEYS,
    Token::KEYS,
    Refresh::KEYS,
    Session::KEYS,
    Cookie::KEYS,
    Csrf::KEYS,
    Cors::KEYS,
    Verify::KEYS,
    Outage::KEYS,
    Limit::KEYS,
    ForwardAuth::KEYS,
    Password::KEYS,
    Registration::KEYS,
    Events::KEYS,
    Sweep::KEYS,
    Log::KEYS,
    Telemetry::KEYS,
];

/// Every key.
pub(super) fn keys() -> impl Iterator<Item = &'static Key> {
    GROUPS.iter().copied().flatten()
}

/// Every name that a file may use: the keys and the `_file` variants of secrets.
pub(super) fn names() -> impl Iterator<Item = String> {
    keys().flat_map(|key| [Some(key.name.to_owned()), key.file_name()]).flatten()
}
