//! A small HTTP/1.1 client: what it sends is what the test says, byte for byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::contract::{Seen, listener_at};

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Ask {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self { method, target, headers: Vec::new(), body: None }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    pub fn delete(target: &str) -> Self {
        Self::new("DELETE", target)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn cookie(self, line: &str) -> Self {
        self.header("cookie", line)
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string().as_bytes())
    }

    pub fn form(self, body: &str) -> Self {
        self.body("application/x-www-form-urlencoded", body.as_bytes())
    }

    pub fn body(mut self, kind: &str, body: &[u8]) -> Self {
        if !kind.is_empty() {
            self = self.header("content-type", kind);
        }
        self.body = Some(body.to_vec());
        self
    }

    fn encode(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            head.push_str("host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let declared = self.headers.iter().any(|(name, _)| name == "content-length");
        if let Some(body) = self.body.as_ref().filter(|_| !declared) {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("connection: close\r\n\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header that is there once or not at all.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() <= 1, "{name} is repeated: {values:?}");
        values.first().copied()
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// A member of the body by its path, as in `session.id`; null if there is none.
    pub fn at(&self, path: &str) -> Value {
        let body = self.json();
        path.split('.').fold(body, |value, name| match name.parse::<usize>() {
            Ok(at) => value[at].clone(),
            Err(_) => value[name].clone(),
        })
    }

    /// The same where it is text.
    pub fn text(&self, path: &str) -> String {
        match self.at(path) {
            Value::String(text) => text,
            other => panic!("{path} is {other} in {}", String::from_utf8_lossy(&self.body)),
        }
    }

    /// The error's code, checked against the form that every error has.
    pub fn code(&self) -> String {
        let kind = self.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{self:?}");
        assert_eq!(self.at("status"), self.status);
        for member in ["type", "title", "detail", "request_id"] {
            assert!(!self.text(member).is_empty());
        }
        assert_eq!(Some(self.text("request_id").as_str()), self.header("x-request-id"));
        self.text("code")
    }

    /// Status and code together: what most refusals are judged by.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.code(), code);
        self
    }

    #[track_caller]
    pub fn ok(&self) -> &Self {
        self.is(200)
    }

    #[track_caller]
    pub fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The value that a cookie is set to.
    pub fn set_cookie(&self, name: &str) -> Option<String> {
        self.all("set-cookie").into_iter().find_map(|line| {
            let (found, rest) = line.split_once('=')?;
            (found == name).then(|| rest.split(';').next().unwrap_or_default().to_owned())
        })
    }
}

/// Sends a request on a connection of its own; what is answered has to be in the OpenAPI document.
pub async fn send(address: SocketAddr, ask: &Ask) -> Answer {
    let answer = send_raw(address, &ask.encode()).await;
    let answer = parse(&answer).unwrap_or_else(|| panic!("no answer to {ask:?}"));
    let headers = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let (method, target) = (ask.method.as_str(), ask.target.as_str());
    let (status, body) = (answer.status, answer.body.as_slice());
    let listener = listener_at(address);
    Seen { listener, method, target, status, headers: headers.collect(), body }.judge();
    answer
}

/// Sends bytes and reads until the server closes.
pub async fn send_raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the server accepts");
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// Reads one answer.
pub fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Answer { status, headers, body: bytes[end + 4..].to_vec() })
}

/// Something with a cookie jar that says where its requests come from, as browsers do.
#[derive(Clone, Debug)]
pub struct Browser {
    address: SocketAddr,
    pub jar: BTreeMap<String, String>,
    pub csrf: Option<String>,
}

impl Browser {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, jar: BTreeMap::new(), csrf: None }
    }

    /// The `Cookie` line that the jar makes.
    pub fn cookie_line(&self) -> String {
        let pairs: Vec<String> = self.jar.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.join("; ")
    }

    /// Sends a request of one of our own pages: with the jar, and with the token if there is one.
    pub async fn send(&mut self, ask: Ask) -> Answer {
        let mut ask = ask.header("sec-fetch-site", "same-origin");
        if let Some(csrf) = &self.csrf {
            ask = ask.header("x-csrf-token", csrf);
        }
        self.send_bare(ask).await
    }

    /// Sends a request with the jar and nothing else.
    pub async fn send_bare(&mut self, ask: Ask) -> Answer {
        let ask = if self.jar.is_empty() { ask } else { ask.cookie(&self.cookie_line()) };
        let answer = send(self.address, &ask).await;
        self.keep(&answer);
        answer
    }

    fn keep(&mut self, answer: &Answer) {
        for line in answer.all("set-cookie") {
            let (name, rest) = line.split_once('=').expect("a cookie has a name");
            let value = rest.split(';').next().unwrap_or_default();
            if line.contains("Max-Age=0") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        if answer.header("content-type") == Some("application/json")
            && !answer.body.is_empty()
            && let Value::String(token) = answer.at("csrf_token")
        {
            self.csrf = Some(token);
        }
    }
}
