//! Where the servers are and how to speak to them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cloakroom_core::types::Secret;

use crate::error::RedisError;

/// How to reach a store on Redis.
#[derive(Debug)]
pub struct RedisSettings {
    /// `redis://`, `rediss://`, `redis+cluster://h1:p1,h2:p2` or `redis+sentinel://h1,h2/master`,
    /// with `user:password@` before the hosts and a database number as the last part of the path.
    pub url: Secret<String>,
    /// What keys begin with; several stores on one server have several.
    pub namespace: String,
    /// How many partitions a new store gets; one that exists keeps its own.
    pub partitions: u16,
    /// The longest that a call may take.
    pub timeout: Duration,
    /// Most connections to a master.
    pub pool: usize,
    /// Certificates, where the URL asks for TLS.
    pub tls: TlsFiles,
    /// How long an ending waits for every replica; zero: never.
    pub replica_wait: Duration,
}

/// PEM files for TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Authorities that vouch for the server; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// Certificate chain to show to the server.
    pub cert: Option<PathBuf>,
    /// Private key of that certificate.
    pub key: Option<PathBuf>,
}

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Address {
    /// `host`, `host:port`, `[::1]` or `[::1]:port`.
    pub(crate) fn parse(text: &str, port: u16) -> Option<Self> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) => digits.parse().ok().filter(|port| *port != 0)?,
            None if rest.is_empty() => port,
            None => return None,
        };
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

/// A user of the server and their password.
#[derive(Debug, Default)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret<String>>,
}

/// How the servers are arranged.
#[derive(Debug)]
pub(crate) enum Topology {
    /// One server.
    Standalone(Address),
    /// The masters of a cluster, which any of these names.
    Cluster(Vec<Address>),
    /// The master that any of these sentinels names.
    Sentinel { sentinels: Vec<Address>, master: String, login: Login },
}

/// All that a URL says.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) topology: Topology,
    pub(crate) login: Login,
    pub(crate) database: i64,
    pub(crate) is_tls: bool,
}

impl Target {
    /// Reads a URL. An error never repeats it: it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, RedisError> {
        let (scheme, rest) = url.split_once("://").ok_or(RedisError::Url(SCHEMES))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (parse_login(login)?, rest),
            None => (Login::default(), rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_tls = scheme.starts_with("rediss");
        let (topology, database) = match scheme {
            "redis" | "rediss" => {
                let [address] = <[Address; 1]>::try_from(addresses(hosts, 6379)?)
                    .map_err(|_| RedisError::Url("it names several servers of which one"))?;
                (Topology::Standalone(address), path)
            }
            "redis+cluster" | "rediss+cluster" => {
                (Topology::Cluster(addresses(hosts, 6379)?), path)
            }
            "redis+sentinel" | "rediss+sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(RedisError::Url("the master's name is missing after the hosts"));
                }
                let sentinels = addresses(hosts, 26_379)?;
                let login = sentinel_login(query)?;
                (Topology::Sentinel { sentinels, master: decode(master)?, login }, database)
            }
            _ => return Err(RedisError::Url(SCHEMES)),
        };
        if !query.is_empty() && !matches!(topology, Topology::Sentinel { .. }) {
            return Err(RedisError::Url("it has parameters, and there are none"));
        }
        let database = parse_database(database)?;
        if database != 0 && matches!(topology, Topology::Cluster(_)) {
            return Err(RedisError::Url("a cluster has no databases but 0"));
        }
        Ok(Self { topology, login, database, is_tls })
    }
}

const SCHEMES: &str = "it begins with none of `redis://`, `rediss://`, `redis+cluster://`, \
     `rediss+cluster://`, `redis+sentinel://`, `rediss+sentinel://`";

fn addresses(hosts: &str, port: u16) -> Result<Vec<Address>, RedisError> {
    let parse = |host| Address::parse(host, port).ok_or(RedisError::Url("a host is malformed"));
    hosts.split(',').map(parse).collect()
}

/// `user:password`, or a password alone.
fn parse_login(text: &str) -> Result<Login, RedisError> {
    let (user, password) = text.split_once(':').unwrap_or(("", text));
    let filled = |text: &str| if text.is_empty() { Ok(None) } else { decode(text).map(Some) };
    Ok(Login { user: filled(user)?, password: filled(password)?.map(Secret::new) })
}

/// The parameters `sentinel_user` and `sentinel_password`.
fn sentinel_login(query: &str) -> Result<Login, RedisError> {
    let mut login = Login::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_user", user)) => login.user = Some(decode(user)?),
            Some(("sentinel_password", password)) => {
                login.password = Some(Secret::new(decode(password)?));
            }
            Some(_) | None => {
                return Err(RedisError::Url(
                    "it has a parameter other than `sentinel_user` and `sentinel_password`",
                ));
            }
        }
    }
    Ok(login)
}

fn parse_database(text: &str) -> Result<i64, RedisError> {
    match text {
        "" => Ok(0),
        digits => digits
            .parse::<u16>()
            .map(i64::from)
            .map_err(|_| RedisError::Url("the database is no number")),
    }
}

/// Resolves percent-encoding (RFC 3986 section 2.1).
fn decode(text: &str) -> Result<String, RedisError> {
    let malformed = RedisError::Url("its percent-encoding is malformed");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let pair = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match pair {
            Some(byte) => bytes.push(byte),
            None => return Err(malformed),
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Target {
        Target::parse(url).expect("a URL")
    }

    fn address(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn one_server_with_all_that_a_url_can_say() {
        let target = parse("rediss://ada:p%40ss%2f@[::1]:7000/3");
        assert!(matches!(&target.topology, Topology::Standalone(a) if *a == address("::1", 7000)));
        assert_eq!((target.database, target.is_tls), (3, true));
        assert_eq!(target.login.user.as_deref(), Some("ada"));
        assert_eq!(target.login.password.expect("a password").expose(), "p@ss/");
        let target = parse("redis://host");
        assert!(matches!(&target.topology, Topology::Standalone(a) if *a == address("host", 6379)));
        assert!(!target.is_tls && target.login.password.is_none());
        let target = parse("redis://:pw@host");
        assert_eq!(target.login.user, None);
        assert_eq!(target.login.password.expect("a password").expose(), "pw");
    }

    #[test]
    fn several_servers_of_a_cluster_or_of_sentinels() {
        let target = parse("redis+cluster://:pw@a:1,b,c:3");
        let expected = [address("a", 1), address("b", 6379), address("c", 3)];
        assert!(matches!(&target.topology, Topology::Cluster(all) if *all == expected));
        let target = parse("redis+sentinel://:pw@a,b:2/main/4?sentinel_password=x%3d");
        let Topology::Sentinel { sentinels, master, login } = target.topology else {
            panic!("sentinels");
        };
        assert_eq!(sentinels, [address("a", 26_379), address("b", 2)]);
        assert_eq!((master.as_str(), target.database), ("main", 4));
        assert_eq!(login.password.expect("a password").expose(), "x=");
    }

    #[test]
    fn a_malformed_url_is_refused_and_not_repeated() {
        let urls = [
            "http://secret@h",
            "secret",
            "redis://:secret@",
            "redis://:secret@a,b",
            "redis://:secret@h:0",
            "redis://:secret@h/x",
            "redis://:secret%4@h",
            "redis://:secret@h?password=secret",
            "redis+cluster://:secret@h/1",
            "redis+sentinel://:secret@h",
            "redis+sentinel://:secret@h/m?secret=1",
        ];
        for url in urls {
            let refusal = Target::parse(url).expect_err(url);
            assert!(!refusal.to_string().contains("secret"), "{refusal}");
        }
    }

    #[test]
    fn settings_print_no_password() {
        let settings = RedisSettings {
            url: Secret::new("redis://:hunter2@h".to_owned()),
            namespace: "cloakroom".to_owned(),
            partitions: 256,
            timeout: Duration::from_secs(2),
            pool: 16,
            tls: TlsFiles::default(),
            replica_wait: Duration::ZERO,
        };
        assert!(!format!("{settings:?}").contains("hunter2"));
        let target = Target::parse(settings.url.expose()).expect("a URL");
        assert!(!format!("{target:?}").contains("hunter2"));
    }
}
