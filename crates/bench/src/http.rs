//! A blocking HTTP/1.1 client over one kept connection: enough for our own server, and it hides
//! nothing. An answer that didn't come is an error, never repeated behind the caller's back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take before it counts as none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// No answer that we ask for is larger.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: None }
    }

    /// With another header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With `Authorization: Bearer`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// With a JSON body.
    pub fn json(mut self, body: &Value) -> Self {
        self.body = Some(body.to_string());
        self.header("Content-Type", "application/json")
    }

    fn write(&self, host: &str) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        } else {
            text.push_str("\r\n");
        }
        text
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the first header of this name (given in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The text of a member of the body; empty where there is none.
    pub fn text(&self, member: &str) -> String {
        self.json()[member].as_str().unwrap_or_default().to_owned()
    }

    /// Status and body in one line, for a report.
    pub fn describe(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

/// A client of one address.
#[derive(Debug)]
pub struct Client {
    address: String,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client of `address` (host and port); it connects when it first sends.
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), connection: None }
    }

    /// Sends a request and waits for the answer. After an error the next one connects anew.
    pub fn send(&mut self, request: &Request) -> io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        connection.get_mut().write_all(request.write(&self.address).as_bytes())?;
        let (answer, keep) = read_answer(&mut connection)?;
        self.connection = keep.then_some(connection);
        Ok(answer)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(BufReader::new(stream))
    }
}

fn read_answer(connection: &mut impl BufRead) -> io::Result<(Answer, bool)> {
    let status_line = read_line(connection)?;
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| malformed("the status line"))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(connection)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("a header"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if !matches!(status, 204 | 304) {
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        let length: usize = length.ok_or_else(|| malformed("the length of the body"))?;
        if length > BODY_BYTES_MAX {
            return Err(malformed("the length of the body"));
        }
        answer.body.resize(length, 0);
        connection.read_exact(&mut answer.body)?;
    }
    let keep = answer.header("connection") != Some("close");
    Ok((answer, keep))
}

fn read_line(connection: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if connection.take(64 * 1024).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} can't be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_length_and_no_further() {
        let text = "HTTP/1.1 201 Created\r\nContent-Length: 7\r\nX-A:  b \r\n\r\n{\"a\":1}rest";
        let mut connection = text.as_bytes();
        let (answer, keep) = read_answer(&mut connection).expect("an answer");
        assert_eq!((answer.status, answer.header("x-a"), keep), (201, Some("b"), true));
        assert_eq!((&answer.json()["a"], connection), (&Value::from(1), &b"rest"[..]));
    }

    #[test]
    fn an_answer_cut_short_is_none() {
        for text in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "junk\r\n\r\n"] {
            assert!(read_answer(&mut text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_names_the_length_of_its_body() {
        let request = Request::new("POST", "/x").bearer("t").json(&serde_json::json!({"a": 1}));
        assert_eq!(
            request.write("h:1"),
            "POST /x HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer t\r\n\
             Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}"
        );
    }
}
