//! How to reach a database, and the URL that says so.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cloakroom_core::types::Secret;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::ConnectError;

/// How to open a store.
pub struct PostgresSettings {
    /// `postgres://user:password@host/database?sslmode=…`, as `libpq` reads it.
    pub url: Secret<String>,
    /// The schema that holds the store; made when it is missing.
    pub schema: String,
    /// How many partitions a new store gets; one that exists keeps its own.
    pub partitions: u16,
    /// How long a call may take, waiting for a connection included.
    pub timeout: Duration,
    /// Most connections at once.
    pub pool: usize,
    /// What TLS needs beyond the URL.
    pub tls: TlsFiles,
    /// Whether an older schema is brought up to date, or else refused.
    pub migrate: bool,
}

/// Files for TLS, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that vouch for the server; none: the machine's own.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and those that vouch for it, where the server asks for one.
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
}

impl fmt::Debug for PostgresSettings {
    /// Leaves the URL out: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("schema", &self.schema)
            .field("partitions", &self.partitions)
            .field("timeout", &self.timeout)
            .field("pool", &self.pool)
            .field("tls", &self.tls)
            .field("migrate", &self.migrate)
            .finish_non_exhaustive()
    }
}

/// Whether and how the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsMode {
    /// Plain text.
    Off,
    /// TLS; the server's certificate must be vouched for, whatever name it bears.
    VerifyCa,
    /// TLS; the certificate must be vouched for and bear the name that was connected to.
    VerifyFull,
}

/// A URL, read.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) config: Config,
    pub(crate) tls: TlsMode,
}

impl Target {
    /// Reads a URL. The parser's own words are dropped: they may quote what was given.
    pub(crate) fn parse(url: &str) -> Result<Self, ConnectError> {
        let (plain, mode) = take_sslmode(url);
        let mut config: Config = plain.parse().map_err(|_| ConnectError::Url)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(ConnectError::Url);
        }
        let tls = match mode.as_deref() {
            Some("disable") => TlsMode::Off,
            Some("verify-ca") => TlsMode::VerifyCa,
            Some("require" | "verify-full") => TlsMode::VerifyFull,
            // What is near needs no protection on its way; all else is protected unless the
            // operator says otherwise. Nothing is tried in plain text first or in between: who
            // stands in the way would choose that.
            None if is_local(&config) => TlsMode::Off,
            None => TlsMode::VerifyFull,
            Some(other) => return Err(ConnectError::SslMode(other.to_owned())),
        };
        config.ssl_mode(match tls {
            TlsMode::Off => SslMode::Disable,
            TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        if config.get_application_name().is_none() {
            config.application_name("cloakroom");
        }
        Ok(Self { config, tls })
    }
}

/// Takes `sslmode` out of a URL: the client library knows fewer modes than we do.
fn take_sslmode(url: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let (mut mode, mut kept) = (None, Vec::new());
    for part in query.split('&') {
        match part.strip_prefix("sslmode=") {
            Some(value) => mode = Some(value.to_owned()),
            None => kept.push(part),
        }
    }
    let plain =
        if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    (plain, mode)
}

/// Whether all hosts are this machine.
fn is_local(config: &Config) -> bool {
    let is_loopback = |address: &std::net::IpAddr| address.is_loopback();
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address| is_loopback(&address))
        }
        Host::Unix(_) => true,
    });
    hosts && config.get_hostaddrs().iter().all(is_loopback)
}

/// A schema's name, which needs no quoting anywhere.
pub(crate) fn check_schema(name: &str) -> Result<(), ConnectError> {
    if is_schema_name(name) { Ok(()) } else { Err(ConnectError::Schema(name.to_owned())) }
}

/// Whether a schema may be called so: 1 to 48 of a-z, 0-9 and `_`, the first of them no digit.
pub fn is_schema_name(name: &str) -> bool {
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let rest = letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    // PostgreSQL cuts longer names silently, and keeps `pg_` for itself.
    first && rest && name.len() <= SCHEMA_BYTES_MAX && !name.starts_with("pg_")
}

/// Leaves room for a suffix below PostgreSQL's own 63 bytes.
const SCHEMA_BYTES_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> TlsMode {
        Target::parse(url).expect("a URL").tls
    }

    #[test]
    fn a_far_server_is_verified_unless_the_operator_says_otherwise() {
        assert_eq!(mode("postgres://u:p@db.example/x"), TlsMode::VerifyFull);
        assert_eq!(mode("postgres://u:p@db.example/x?sslmode=require"), TlsMode::VerifyFull);
        let verify_ca = "postgres://u@db.example/x?connect_timeout=1&sslmode=verify-ca";
        assert_eq!(mode(verify_ca), TlsMode::VerifyCa);
        assert_eq!(mode("postgres://u@db.example/x?sslmode=disable"), TlsMode::Off);
        assert_eq!(mode("postgres://u@127.0.0.1,[::1],localhost/x"), TlsMode::Off);
        assert_eq!(mode("postgres://u@127.0.0.1,db.example/x"), TlsMode::VerifyFull);
        assert_eq!(mode("postgres:///x?host=/run/postgresql&user=u"), TlsMode::Off);
    }

    #[test]
    fn a_mode_that_anybody_in_the_way_can_turn_off_is_refused() {
        for weak in ["allow", "prefer", ""] {
            let error = Target::parse(&format!("postgres://u@h/x?sslmode={weak}")).err();
            assert!(matches!(error, Some(ConnectError::SslMode(_))), "{weak}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_doesnt_quote_it() {
        for url in ["postgres://u:hush@h:port/x", "postgres://u:hush@h/x?hush=1", "hush", ""] {
            let error = Target::parse(url).expect_err("it is malformed");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }

    #[test]
    fn settings_dont_show_their_url() {
        let settings = PostgresSettings {
            url: Secret::new("postgres://u:hush@h/x".to_owned()),
            schema: "cloakroom".to_owned(),
            partitions: 256,
            timeout: Duration::from_secs(2),
            pool: 16,
            tls: TlsFiles::default(),
            migrate: true,
        };
        assert!(!format!("{settings:?}").contains("hush"));
    }

    #[test]
    fn a_schema_needs_no_quoting() {
        assert!(check_schema("cloakroom_2").is_ok());
        let odd = ["", "2a", "A", "a-b", "a.b", "pg_a", "a\"", "\u{e9}"];
        for name in odd.map(str::to_owned).into_iter().chain(["a".repeat(49)]) {
            assert!(check_schema(&name).is_err(), "{name}");
        }
    }
}
