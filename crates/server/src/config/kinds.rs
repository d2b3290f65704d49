//! The types of the settings, each parsed once and valid from then on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloakroom_core::cookie::SameSite;
use cloakroom_core::csrf::CsrfMode;
use cloakroom_core::keys::{Algorithm, Hs256Secret};
use cloakroom_core::origin::Origin;
use cloakroom_core::rate::{MalformedQuota, Quota};
use cloakroom_core::store_key::MasterKey;
use cloakroom_core::types::Secret;
use ipnet::IpNet;

use super::value::{FromText, Shape};

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix domain socket.
    Unix(PathBuf),
}

impl Listener {
    /// Whether only processes of this machine reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromText for Listener {
    const FORM: Shape = Shape::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if Path::new(path).is_absolute() {
                Ok(Self::Unix(path.into()))
            } else {
                Err("needs an absolute path: `unix:/run/cloakroom/public.sock`".to_owned())
            };
        }
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            "is an address and a port such as `127.0.0.1:7400`, or `unix:/path`".to_owned()
        })
    }
}

/// The path below which the session's own endpoints are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasePath(String);

impl BasePath {
    /// Its text: begins with a slash and doesn't end with one.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromText for BasePath {
    const FORM: Shape = Shape::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err("begins with `/`, such as `/auth`".to_owned());
        };
        // A route pattern, a cookie's Path and a URL all spell these characters alike.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        let good =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
        if rest.split('/').all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err("has segments of letters, digits, `-`, `_`, `.` or `~`, and no slash at the end"
                .to_owned())
        }
    }
}

/// Which store, and where.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    /// The embedded store in this data directory.
    File(PathBuf),
    /// The reference store: gone with the process.
    Memory,
    /// Redis or Valkey.
    Redis {
        /// How its servers are arranged.
        topology: RedisTopology,
        /// The URL as given; may hold a password.
        url: Secret<String>,
    },
    /// PostgreSQL; the URL as given may hold a password.
    Postgres(Secret<String>),
}

/// How a Redis deployment is arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisTopology {
    /// One server.
    Standalone,
    /// Redis Cluster.
    Cluster,
    /// A server that Sentinels name.
    Sentinel,
}

impl StoreUrl {
    /// Whether the store lives inside this process, so that its keys may be generated here.
    pub const fn is_embedded(&self) -> bool {
        match self {
            Self::File(_) | Self::Memory => true,
            Self::Redis { .. } | Self::Postgres(_) => false,
        }
    }

    /// Reads a URL; an error never repeats it, since it may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }

    /// The URL for people, without its password.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => format!("file:{}", path.display()),
            Self::Memory => "memory:".to_owned(),
            Self::Redis { topology: _, url } | Self::Postgres(url) => masked_url(url.expose()),
        }
    }
}

impl FromText for StoreUrl {
    const FORM: Shape = Shape::Url;

    fn from_text(text: &str) -> Result<Self, String> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("names no directory: `file:./cloakroom-data`".to_owned())
            } else {
                Ok(Self::File(path.into()))
            };
        }
        let url = || Secret::new(text.to_owned());
        let redis = |topology| Ok(Self::Redis { topology, url: url() });
        // The URL itself may hold a password and is never repeated in the error.
        match text.split_once("://").map(|(scheme, _)| scheme) {
            Some("redis" | "rediss") => redis(RedisTopology::Standalone),
            Some("redis+cluster" | "rediss+cluster") => redis(RedisTopology::Cluster),
            Some("redis+sentinel" | "rediss+sentinel") => redis(RedisTopology::Sentinel),
            Some("postgres" | "postgresql") => Ok(Self::Postgres(url())),
            Some(_) | None => Err("is `file:DIR`, `memory:`, `redis://…`, `redis+cluster://…`, \
                 `redis+sentinel://…`, these three with TLS as `rediss…`, or `postgres://…`"
                .to_owned()),
        }
    }
}

/// The URL without its password, for people; nothing of what is no URL of a store.
pub(super) fn masked_url(url: &str) -> String {
    if StoreUrl::from_text(url).is_err() {
        return STARS.to_owned();
    }
    let Some((scheme, after)) = url.split_once("://") else {
        return url.to_owned();
    };
    if scheme == "file" {
        return url.to_owned();
    }
    // The last `@` ends the user information: a password may hold unescaped `@`, `/` and `?`.
    let (user, after) = match after.rsplit_once('@') {
        Some((user, after)) => (Some(user), after),
        None => (None, after),
    };
    let user = match user.map(|user| user.split_once(':')) {
        Some(Some((name, _))) => format!("{name}:{STARS}@"),
        Some(None) => format!("{STARS}@"),
        None => String::new(),
    };
    let (host, query) = match after.split_once('?') {
        Some((host, query)) => (host, Some(query)),
        None => (after, None),
    };
    let query = query.map(|query| {
        let members: Vec<_> = query.split('&').map(masked_member).collect();
        format!("?{}", members.join("&"))
    });
    format!("{scheme}://{user}{host}{}", query.unwrap_or_default())
}

/// What stands for a secret inside a text.
const STARS: &str = "********";

fn masked_member(member: &str) -> String {
    match member.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("pass") => {
            format!("{name}={STARS}")
        }
        Some(_) | None => member.to_owned(),
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size for a buffer; the greatest there is where it doesn't fit.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromText for ByteSize {
    const FORM: Shape = Shape::Size;

    fn from_text(text: &str) -> Result<Self, String> {
        let (number, unit) = number_and_unit(text);
        let factor: u64 = match unit {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            _ => return Err("is a size such as `16KiB`, `4096` or `1MiB`".to_owned()),
        };
        number
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| "is a size such as `16KiB`, `4096` or `1MiB`".to_owned())
    }
}

impl FromText for Duration {
    const FORM: Shape = Shape::Duration;

    fn from_text(text: &str) -> Result<Self, String> {
        const FORM: &str = "is a duration such as `500ms`, `30s`, `15m`, `24h`, `30d`";
        let (number, unit) = number_and_unit(text);
        let number = number.ok_or_else(|| FORM.to_owned())?;
        let seconds: u64 = match unit {
            "ms" => return Ok(Self::from_millis(number)),
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            "w" => 7 * 24 * 3600,
            "" if number == 0 => 0,
            "" => return Err(format!("has no unit: `{number}s`, `{number}m`?")),
            _ => return Err(FORM.to_owned()),
        };
        number.checked_mul(seconds).map(Self::from_secs).ok_or_else(|| "is too long".to_owned())
    }
}

/// Splits `15m` into its number and its unit.
fn number_and_unit(text: &str) -> (Option<u64>, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.parse().ok(), unit)
}

/// Parameters of argon2id for new password hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Params {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Argon2Params {
    /// The least that OWASP recommends: memory in KiB and passes, each pair enough by itself.
    const FLOORS: [(u32, u32); 5] = [(47104, 1), (19456, 2), (12288, 3), (9216, 4), (7168, 5)];
    /// More memory than this (1 GiB, in KiB) lets a handful of sign-ins exhaust a machine.
    const MEMORY_KIB_MAX: u32 = 1 << 20;
    /// More passes than this take seconds for each sign-in.
    const PASSES_MAX: u32 = 64;
    /// More lanes than this no machine of the field has to spare for one hash.
    const LANES_MAX: u32 = 16;

    fn judged(self) -> Result<Self, String> {
        let enough = |(memory, passes)| self.memory_kib >= memory && self.passes >= passes;
        if self.lanes == 0 || !Self::FLOORS.into_iter().any(enough) {
            return Err(
                "is weaker than `m=19456,t=2,p=1`, the least that OWASP recommends".to_owned()
            );
        }
        if self.memory_kib > Self::MEMORY_KIB_MAX
            || self.passes > Self::PASSES_MAX
            || self.lanes > Self::LANES_MAX
        {
            return Err("is more than `m=1048576,t=64,p=16`, which a few sign-ins at once would \
                 bring the machine down with"
                .to_owned());
        }
        Ok(self)
    }
}

impl FromText for Argon2Params {
    const FORM: Shape = Shape::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        const FORM: &str = "is written `m=19456,t=2,p=1`: memory in KiB, passes, lanes";
        let mut parts: BTreeMap<&str, u32> = BTreeMap::new();
        for part in text.split(',') {
            let (name, number) = part.split_once('=').ok_or_else(|| FORM.to_owned())?;
            let number = number.parse().map_err(|_| FORM.to_owned())?;
            if parts.insert(name, number).is_some() {
                return Err(FORM.to_owned());
            }
        }
        match (parts.len(), parts.get("m"), parts.get("t"), parts.get("p")) {
            (3, Some(&memory_kib), Some(&passes), Some(&lanes)) => {
                Self { memory_kib, passes, lanes }.judged()
            }
            _ => Err(FORM.to_owned()),
        }
    }
}

/// A key-prefix or schema name, the same in every store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromText for Namespace {
    const FORM: Shape = Shape::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if begins && text.len() <= 63 && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err("is 1 to 63 of a-z, 0-9, `_` and `-`, the first of them a letter".to_owned())
        }
    }
}

/// Where a visitor who isn't signed in is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInUrl(String);

impl SignInUrl {
    /// Its text: a path of our own origin, or an absolute URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromText for SignInUrl {
    const FORM: Shape = Shape::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        let path = text.starts_with('/') && !text.starts_with("//");
        let absolute = ["https://", "http://"]
            .iter()
            .filter_map(|scheme| text.strip_prefix(scheme))
            .any(|rest| !rest.is_empty() && !rest.starts_with('/'));
        if !visible || text.contains('#') || !(path || absolute) {
            return Err("is a path such as `/auth/sign-in`, or an `https://…` URL".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// Host names by which the admin listener may be addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    /// Its text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromText for HostName {
    const FORM: Shape = Shape::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
        if text.is_empty() || !text.chars().all(plain) {
            return Err(
                "holds host names such as `cloakroom.internal`, without scheme or path".to_owned()
            );
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl FromText for IpNet {
    const FORM: Shape = Shape::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        let one = text.parse::<IpAddr>().map(Self::from);
        one.or_else(|_| text.parse::<Self>().map(|network| network.trunc()))
            .map_err(|_| format!("holds `{text}`, which is no network such as `10.0.0.0/8`"))
    }
}

impl FromText for String {
    const FORM: Shape = Shape::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err("must not be empty or hold control characters".to_owned());
        }
        Ok(text.to_owned())
    }
}

impl FromText for PathBuf {
    const FORM: Shape = Shape::Path;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') {
            return Err("names no file".to_owned());
        }
        Ok(text.into())
    }
}

impl FromText for bool {
    const FORM: Shape = Shape::Flag;

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("is `true` or `false`".to_owned()),
        }
    }
}

macro_rules! whole_numbers {
    ($($type:ty),+) => { $(
        impl FromText for $type {
            const FORM: Shape = Shape::Number;

            fn from_text(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| {
                    format!("is a whole number from {} to {}", Self::MIN, Self::MAX)
                })
            }
        }
    )+ };
}

whole_numbers!(u16, u32, usize);

/// Reads a closed set of words.
macro_rules! words {
    ($name:ident { $( $variant:ident = $word:literal, )+ }) => {
        impl FromText for $name {
            const FORM: Shape = Shape::Choice(&[$($word),+]);

            fn from_text(text: &str) -> Result<Self, String> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err(format!("is one of {}", Self::FORM.words())),
                }
            }
        }
    };
}

words!(Algorithm { EdDsa = "EdDSA", Es256 = "ES256", Rs256 = "RS256", Hs256 = "HS256", });
words!(SameSite { Lax = "Lax", Strict = "Strict", None = "None", });
words!(CsrfMode { Token = "token", Origin = "origin", });

/// Declares a closed set of words.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $( $(#[$doc:meta])+ $variant:ident = $word:literal, )+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$doc])+ $variant, )+ }

        impl $name {
            /// The word that the configuration uses for it.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        words!($name { $( $variant = $word, )+ });
    };
}

choice! {
    /// What happens when a subject has as many sessions as it may have.
    OnLimit {
        /// The oldest session ends.
        EndOldest = "end_oldest",
        /// The new session is refused.
        Refuse = "refuse",
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// The least severe log lines that are written.
    LogLevel {
        /// Faults.
        Error = "error",
        /// And what deserves a look.
        Warn = "warn",
        /// And what happens.
        Info = "info",
        /// And why.
        Debug = "debug",
        /// And everything else.
        Trace = "trace",
    }
}

impl FromText for Origin {
    const FORM: Shape = Shape::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "*" => Err("takes no `*`: name each origin".to_owned()),
            // Sandboxed frames and local files all share this one.
            "null" => Err("takes no `null`: every sandboxed frame has that origin".to_owned()),
            _ => Self::parse(text).map_err(|why| {
                format!("has `{text}`, no bare origin like `https://app.example.com`: it {why}")
            }),
        }
    }
}

impl FromText for Quota {
    const FORM: Shape = Shape::Quota;

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|why: MalformedQuota| format!("is no quota: {why}"))
    }
}

impl FromText for MasterKey {
    const FORM: Shape = Shape::Secret;

    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|why| format!("is no master key: {why}"))
    }
}

impl FromText for Hs256Secret {
    const FORM: Shape = Shape::Secret;

    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|why| why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_have_one_reading() {
        for (text, millis) in [
            ("0", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("15m", 900_000),
            ("24h", 86_400_000),
            ("30d", 2_592_000_000),
            ("2w", 1_209_600_000),
        ] {
            assert_eq!(Duration::from_text(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "m", "1", "-1s", "+1s", "1.5h", "1 s", " 1s", "1S", "1h30m", "1y"] {
            assert!(Duration::from_text(bad).is_err(), "{bad}");
        }
        for (text, bytes) in [("4096", 4096), ("16KiB", 16384), ("1MiB", 1 << 20), ("2kB", 2000)] {
            assert_eq!(ByteSize::from_text(text), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "KiB", "1 KiB", "-1", "1kib", "1.5KiB", "18446744073709551615KiB"] {
            assert!(ByteSize::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("file:./data", "file:./data"),
            ("file:///var/lib/c@x", "file:///var/lib/c@x"),
            ("memory:", "memory:"),
            ("redis://host/0", "redis://host/0"),
            ("redis://:pw@host/0", "redis://:********@host/0"),
            ("redis://pw@host/0", "redis://********@host/0"),
            ("postgres://u:p@w/x?y@host/db?a=b", "postgres://u:********@host/db?a=b"),
            ("postgres://host/db?password=pw&a=b", "postgres://host/db?password=********&a=b"),
            (
                "redis+sentinel://u:pw@a,b/main?sentinel_user=s&sentinel_password=pw",
                "redis+sentinel://u:********@a,b/main?sentinel_user=s&sentinel_password=********",
            ),
            ("hunter2", "********"),
            ("mysql://u:pw@host", "********"),
        ] {
            assert_eq!(masked_url(url), shown);
        }
    }
}
