//! The commands' way to a running authority: its admin listener.

mod streamed;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use cloakroom_core::types::Secret;
use serde_json::Value;
use ureq::http::{Method, Request, request};

use super::failure::Failure;
use super::output::inert;
use super::socket;
use crate::config::{Config, Flags, Listener, Loaded, Surroundings};
use crate::outbound::Identity;
use crate::{node_files, outbound};

pub(super) use streamed::{EventStream, Message, SILENCE_MAX};

/// Where the authority is and what opens it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Authority")]
pub struct Reach {
    /// URL of the admin listener; default: from the configuration
    #[arg(long, env = "CLOAKROOM_ADMIN_URL", value_name = "URL")]
    admin_url: Option<String>,
    /// File with an API key; default: $CLOAKROOM_API_KEY, else this machine's own root key
    #[arg(long, env = "CLOAKROOM_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Certificate authority (PEM) that vouches for the admin listener; default: public ones
    #[arg(long, env = "CLOAKROOM_ADMIN_CA", value_name = "FILE")]
    admin_ca: Option<PathBuf>,
    /// Certificate (PEM) to show where the admin listener asks for one
    #[arg(long, env = "CLOAKROOM_CLIENT_CERT", value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// Key (PEM) of --client-cert
    #[arg(long, env = "CLOAKROOM_CLIENT_KEY", value_name = "FILE")]
    client_key: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Where this machine's configuration is.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// Configuration file; default: ./cloakroom.toml, then /etc/cloakroom/cloakroom.toml
    #[arg(long, global = true, env = "CLOAKROOM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory, where this node's root key is
    #[arg(long, global = true, env = "CLOAKROOM_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Place {
    /// What it says, for reading the configuration. An empty value counts as unset.
    pub fn flags(&self) -> Flags {
        Flags { config: filled(self.config.clone()), data: filled(self.data.clone()) }
    }

    /// The configuration of this machine.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub(super) fn load(&self) -> Result<Box<Config>, Failure> {
        let loaded = Loaded::for_command(&self.flags(), &Surroundings::of_process());
        loaded.outcome.map_err(|problems| {
            let lines: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
            Failure::Usage(lines.join("\nerror: "))
        })
    }
}

impl Reach {
    /// Where this machine's configuration is.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// Gets ready to ask; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// A wrong URL or configuration, an unreadable file, no API key where one is needed.
    pub fn client(&self, key: KeyWanted) -> Result<Client, Failure> {
        let url = self.admin_url.clone().filter(|url| !url.is_empty());
        let given = self.given_key()?;
        let needs_config = url.is_none() || (given.is_none() && key == KeyWanted::Yes);
        let config = needs_config.then(|| self.place.load()).transpose()?;
        let endpoint = match (url, &config) {
            (Some(url), _) => Endpoint::parse(&url)?,
            (None, Some(config)) => Endpoint::of_config(config),
            (None, None) => Endpoint::of_default(),
        };
        let (key, key_source) = match (given, &config, key) {
            (Some((key, source)), ..) => (Some(key), source),
            (None, Some(config), KeyWanted::Yes) => {
                (Some(root_key(config)?), config.root_api_key_file.display().to_string())
            }
            (None, _, _) => (None, "nowhere".to_owned()),
        };
        let identity = self.identity()?;
        let agent = agent(filled(self.admin_ca.clone()).as_deref(), identity.as_ref())?;
        Ok(Client { endpoint, key, key_source, agent, identity })
    }

    /// What is shown to a listener that asks for a certificate.
    fn identity(&self) -> Result<Option<Identity>, Failure> {
        match (filled(self.client_cert.clone()), filled(self.client_key.clone())) {
            (Some(cert), Some(key)) => Ok(Some(Identity { cert, key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(Failure::Usage("--client-cert needs --client-key".into())),
            (None, Some(_)) => Err(Failure::Usage("--client-key needs --client-cert".into())),
        }
    }

    /// The key that was given by file or environment, and where it is from.
    fn given_key(&self) -> Result<Option<(Secret<String>, String)>, Failure> {
        if let Some(path) = filled(self.api_key_file.clone()) {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
            let key = Secret::new(text.trim_end_matches(['\r', '\n']).to_owned());
            if key.expose().is_empty() {
                return Err(Failure::Usage(format!("{}: holds no key", path.display())));
            }
            return Ok(Some((key, path.display().to_string())));
        }
        let text = std::env::var("CLOAKROOM_API_KEY").unwrap_or_default();
        let source = "CLOAKROOM_API_KEY".to_owned();
        Ok((!text.is_empty()).then(|| (Secret::new(text), source)))
    }
}

/// Whether a command needs an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyWanted {
    /// It does.
    Yes,
    /// It asks what anybody may ask.
    No,
}

fn filled(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

fn root_key(config: &Config) -> Result<Secret<String>, Failure> {
    let path = &config.root_api_key_file;
    match node_files::root_key(config) {
        Ok(Some(key)) => Ok(Secret::new(key.expose_text().to_owned())),
        Ok(None) => Err(Failure::NotAllowed(format!(
            "no API key: {} is not there; run this where the authority runs, or give \
             --data DIR, --api-key-file FILE or CLOAKROOM_API_KEY",
            path.display()
        ))),
        Err(error) => Err(Failure::NotAllowed(format!("no API key: {error}"))),
    }
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    /// `http://…` or `https://…`, without a slash at the end.
    Url(String),
    /// A Unix domain socket.
    Socket(PathBuf),
}

impl Endpoint {
    /// Takes `http://` to this machine only: the key would be readable on the way elsewhere.
    fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Socket(path.into()));
        }
        let text = text.trim_end_matches('/');
        let uri: ureq::http::Uri = text.parse().map_err(|_| {
            Failure::Usage("--admin-url: not a URL such as http://127.0.0.1:7401".into())
        })?;
        let host = uri.host().unwrap_or_default();
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        match uri.scheme_str() {
            _ if host.is_empty() || !matches!(path, "" | "/") => {
                let why = "--admin-url: a scheme, a host and a port, such as http://127.0.0.1:7401";
                Err(Failure::Usage(why.into()))
            }
            _ if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
                let why = "--admin-url: no user in it; keys come by --api-key-file";
                Err(Failure::Usage(why.into()))
            }
            Some("https") => Ok(Self::Url(text.to_owned())),
            Some("http") if is_loopback(host) => Ok(Self::Url(text.to_owned())),
            Some("http") => Err(Failure::Usage(
                "--admin-url: http:// would show the API key to everyone on the way; use https://"
                    .into(),
            )),
            Some(_) | None => {
                Err(Failure::Usage("--admin-url: begins with https://, http:// or unix:".into()))
            }
        }
    }

    fn of_config(config: &Config) -> Self {
        match &config.server.admin {
            Listener::Unix(path) => Self::Socket(path.clone()),
            Listener::Tcp(address) => {
                let scheme = if config.admin_tls.is_some() { "https" } else { "http" };
                Self::Url(format!("{scheme}://{}", reachable(*address)))
            }
        }
    }

    fn of_default() -> Self {
        Self::Url("http://127.0.0.1:7401".to_owned())
    }
}

/// A listener on all addresses is reached by this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Asks a running authority.
pub struct Client {
    endpoint: Endpoint,
    key: Option<Secret<String>>,
    /// Where the key is from, for people.
    key_source: String,
    agent: ureq::Agent,
    /// What was shown of who this is.
    identity: Option<Identity>,
}

/// What the authority answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; null where there is none.
    pub body: Value,
}

impl Client {
    /// The same with another API key.
    pub fn with_key(&self, key: Secret<String>) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            key: Some(key),
            key_source: "the input".to_owned(),
            agent: self.agent.clone(),
            identity: self.identity.clone(),
        }
    }

    /// GET, successful.
    ///
    /// # Errors
    ///
    /// A refusal, or no way to the authority.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.order(Method::GET, path)
    }

    /// A request with a JSON body, successful.
    ///
    /// # Errors
    ///
    /// A refusal, or no way to the authority.
    pub fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        let answer = self.send(method, path, Some(Body::Json(body)))?;
        self.of_authority(answer)
    }

    /// A request without a body, successful.
    ///
    /// # Errors
    ///
    /// A refusal, or no way to the authority.
    pub fn order(&self, method: Method, path: &str) -> Result<Value, Failure> {
        let answer = self.send(method, path, None)?;
        self.of_authority(answer)
    }

    /// The body of a success. Where our key isn't known, which one it was; where this can't be an
    /// admin listener, that.
    fn of_authority(&self, answer: Answer) -> Result<Value, Failure> {
        // The public listener has no such place; on the admin listener a thing is missing.
        let is_ours = answer.body["detail"].as_str().is_some_and(|detail| detail != NO_PLACE);
        let status = answer.status;
        answer.successful().map_err(|failure| match status {
            401 => failure.with(&format!(
                "; the key is from {}: --data DIR or --api-key-file FILE names another",
                self.key_source
            )),
            404 if !is_ours => failure.with("; is that the admin listener?"),
            _ => failure,
        })
    }

    /// Sends a request; any answer will do.
    ///
    /// # Errors
    ///
    /// No way to the authority.
    pub fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Body<'_>>,
    ) -> Result<Answer, Failure> {
        let bytes = body.as_ref().map(Body::bytes);
        let kind = body.as_ref().map(Body::content_type);
        let (status, text) = match &self.endpoint {
            Endpoint::Url(base) => self.send_to(base, method, path, kind, bytes)?,
            Endpoint::Socket(socket) => {
                let key = self.key.as_ref();
                let asked = socket::Asked { method: method.as_str(), path, kind, body: bytes, key };
                socket::ask(socket, &asked).map_err(|error| {
                    Failure::Unreachable(format!(
                        "can't reach the authority at unix:{}: {error}",
                        socket.display()
                    ))
                })?
            }
        };
        Ok(Answer { status, body: serde_json::from_slice(&text).unwrap_or(Value::Null) })
    }

    /// A request with our key.
    fn request(&self, method: Method, base: &str, path: &str) -> request::Builder {
        let request = Request::builder().method(method).uri(format!("{base}{path}"));
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {}", key.expose())),
            None => request,
        }
    }

    fn unreachable(&self, base: &str, error: &ureq::Error) -> Failure {
        let text = format!("can't reach the authority at {base}: {error}");
        let hint = match (&self.identity, is_refused_certificate(&text)) {
            (_, false) => String::new(),
            (None, true) => "; it asks for a certificate: --client-cert FILE --client-key FILE \
                (or CLOAKROOM_CLIENT_CERT and CLOAKROOM_CLIENT_KEY)"
                .to_owned(),
            (Some(identity), true) => {
                let cert = identity.cert.display();
                format!("; it doesn't take {cert}: see its server.admin_tls.client_ca_file")
            }
        };
        Failure::Unreachable(text).with(&hint)
    }

    fn send_to(
        &self,
        base: &str,
        method: Method,
        path: &str,
        kind: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let mut request = self.request(method, base, path);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let mut response = match body {
            Some(body) => self.agent.run(request.body(body).map_err(malformed)?),
            None => self.agent.run(request.body(()).map_err(malformed)?),
        }
        .map_err(|error| self.unreachable(base, &error))?;
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| self.unreachable(base, &error))?;
        Ok((status, text))
    }
}

fn malformed(_: ureq::http::Error) -> Failure {
    Failure::Usage("the API key has characters that no key has".into())
}

/// A request's body.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// JSON.
    Json(&'a Value),
    /// `application/x-www-form-urlencoded`, for `/oauth2/*`.
    Form(&'a str),
}

impl Body<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Json(value) => value.to_string().into_bytes(),
            Self::Form(text) => text.as_bytes().to_vec(),
        }
    }

    const fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            Self::Form(_) => "application/x-www-form-urlencoded",
        }
    }
}

impl Answer {
    /// The body of a success; what a refusal means for the command.
    ///
    /// # Errors
    ///
    /// Any status that isn't 2xx.
    pub fn successful(self) -> Result<Value, Failure> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let exit = match self.status {
            401 | 403 => 5,
            404 => 4,
            502..=504 => 3,
            _ => 1,
        };
        Err(Failure::Refused { exit, text: self.explanation(), problem: self.body })
    }

    /// What the answer says of itself, in one line.
    pub fn explanation(&self) -> String {
        let member = |name: &str| self.body.get(name).and_then(Value::as_str);
        let Some(code) = member("code").or(member("error")) else {
            return format!("the authority answered {}", self.status);
        };
        let detail = member("detail").or(member("error_description")).unwrap_or_default();
        let mut text = format!("{detail} ({code})");
        if let Some(name) = member("member") {
            text = format!("{name}: {text}");
        }
        if let Some(id) = member("request_id") {
            text = format!("{text}, request {id}");
        }
        inert(&text)
    }
}

/// The `Set-Cookie` lines of the public listener's answer to a visitor's GET; why there is none.
pub(super) fn public_answer(config: &Config, path: &str) -> Result<Vec<String>, String> {
    let Listener::Tcp(address) = config.server.public else {
        return Err("the public listener is a socket".to_owned());
    };
    let scheme = if config.public_tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}{path}", reachable(address));
    let agent = agent(None, None).map_err(|failure| failure.to_string())?;
    let answer = agent.get(&url).call().map_err(|error| format!("{url}: {error}"))?;
    let lines = answer.headers().get_all("set-cookie").iter();
    Ok(lines.filter_map(|line| line.to_str().ok().map(str::to_owned)).collect())
}

/// What a listener says of a place that it doesn't have.
const NO_PLACE: &str = "there is nothing here";

/// The largest answer that a command reads, in bytes; a page of 200 full sessions is smaller.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long a command waits for an answer; sweeping a large store takes a while.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether an error is the other side's word that our certificate is missing or no good: the alert
/// by the name that `rustls` has for it (RFC 8446 section 6.2).
fn is_refused_certificate(error: &str) -> bool {
    let alerts = [
        "CertificateRequired",
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "UnknownCA",
        "HandshakeFailure",
        "DecryptError",
        "AccessDenied",
    ];
    error.contains("received fatal alert") && alerts.iter().any(|alert| error.contains(alert))
}

fn agent(ca: Option<&Path>, identity: Option<&Identity>) -> Result<ureq::Agent, Failure> {
    let config = ureq::Agent::config_builder()
        .tls_config(outbound::tls(ca, identity).map_err(Failure::Usage)?)
        // The key goes to the authority alone: through no proxy, after no redirect.
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(ANSWER_TIMEOUT))
        .user_agent(concat!("cloakroom/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(config.new_agent())
}

/// A path segment or a query's value, percent-encoded (RFC 3986 section 2.1).
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_key_goes_in_clear_to_this_machine_only() {
        for good in [
            "http://127.0.0.1:7401",
            "http://localhost:7401/",
            "http://[::1]:7401",
            "https://cloakroom.internal:7401",
            "unix:/run/cloakroom/admin.sock",
        ] {
            assert!(Endpoint::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://cloakroom.internal:7401",
            "http://10.0.0.1:7401",
            "http://localhost.evil.example:7401",
            "http://127.0.0.1@evil.example",
            "https://user@cloakroom.internal",
            "https://cloakroom.internal/admin",
            "ftp://127.0.0.1",
            "127.0.0.1:7401",
            "",
        ] {
            let failure = Endpoint::parse(bad).expect_err(bad);
            assert_eq!(failure.code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_by_this_machines_own() {
        let of = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(of("0.0.0.0:7401"), "127.0.0.1:7401");
        assert_eq!(of("[::]:7401"), "[::1]:7401");
        assert_eq!(of("10.0.0.9:7401"), "10.0.0.9:7401");
    }

    #[test]
    fn each_status_has_its_exit_code() {
        let body = json!({"code": "x", "detail": "why", "request_id": "r\u{1b}"});
        for (status, code) in [
            (400, 1),
            (401, 5),
            (403, 5),
            (404, 4),
            (409, 1),
            (412, 1),
            (422, 1),
            (429, 1),
            (500, 1),
            (503, 3),
        ] {
            let failure = Answer { status, body: body.clone() }.successful().expect_err("refused");
            assert_eq!(failure.code(), code, "{status}");
            assert_eq!(failure.to_string(), "why (x), request r\\u{1b}");
        }
        assert!(Answer { status: 204, body: Value::Null }.successful().is_ok());
    }

    #[test]
    fn segments_are_encoded_whole() {
        assert_eq!(encoded("a/b?c=d&e%f ä"), "a%2Fb%3Fc%3Dd%26e%25f%20%C3%A4");
        assert_eq!(encoded("usr_01J"), "usr_01J");
    }
}
