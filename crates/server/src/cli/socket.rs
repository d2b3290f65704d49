//! HTTP over a Unix domain socket: one request, one answer, one connection.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use cloakroom_core::types::Secret;

use super::client::SILENCE_MAX;

/// A request.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) kind: Option<&'a str>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) key: Option<&'a Secret<String>>,
}

pub(super) fn ask(socket: &Path, asked: &Asked<'_>) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = connect(socket, Duration::from_secs(120))?;
    // The authority closes after the answer, so its end needs no counting.
    let mut head = format!(
        "{} {} HTTP/1.1\r\nconnection: close\r\n{}",
        asked.method,
        asked.path,
        common(asked.key)?,
    );
    if let Some(kind) = asked.kind {
        head.push_str(&format!("content-type: {kind}\r\n"));
    }
    let body = asked.body.as_deref().unwrap_or_default();
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(no_http)
}

/// Asks for an answer that has no end: its status, and its body as it comes.
pub(super) fn open(
    socket: &Path,
    path: &str,
    key: Option<&Secret<String>>,
    after: Option<&str>,
) -> io::Result<(u16, Box<dyn Read + Send>)> {
    let mut stream = connect(socket, SILENCE_MAX)?;
    // HTTP/1.0: the body comes as it is, without chunks.
    let mut head = format!("GET {path} HTTP/1.0\r\naccept: text/event-stream\r\n{}", common(key)?);
    if let Some(after) = after {
        head.push_str(&format!("last-event-id: {}\r\n", visible(after)?));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = BufReader::new(stream);
    let mut head = Vec::new();
    let mut within = answer.by_ref().take(HEAD_BYTES_MAX);
    while !head.ends_with(b"\r\n\r\n") {
        if within.read_until(b'\n', &mut head)? == 0 {
            return Err(no_http());
        }
    }
    let status = str::from_utf8(&head).ok().and_then(status_of).ok_or_else(no_http)?;
    Ok((status, Box::new(answer)))
}

fn connect(socket: &Path, patience: Duration) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    Ok(stream)
}

/// The header lines of every request.
fn common(key: Option<&Secret<String>>) -> io::Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = format!("host: localhost\r\nuser-agent: cloakroom/{version}\r\n");
    if let Some(key) = key {
        lines.push_str(&format!("authorization: Bearer {}\r\n", visible(key.expose())?));
    }
    Ok(lines)
}

fn no_http() -> io::Error {
    io::Error::other("the answer is no HTTP")
}

/// The largest answer read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The largest head of an answer without an end, in bytes.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// A key with a line break in it would be a header of the caller's choice.
fn visible(key: &str) -> io::Result<String> {
    if key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(key.to_owned())
    } else {
        Err(io::Error::other("the API key has characters that no key has"))
    }
}

/// Status and body of an answer that ended with its connection (RFC 9112 section 6).
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = str::from_utf8(answer.get(..end)?).ok()?;
    let body = answer.get(end + 4..)?;
    let mut lines = head.split("\r\n");
    let status = status_of(lines.next()?)?;
    let chunked = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("transfer-encoding")
            && value.trim().eq_ignore_ascii_case("chunked")
    });
    let body = if chunked { joined(body)? } else { body.to_vec() };
    Some((status, body))
}

/// The status in the first line of an answer.
fn status_of(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

/// The chunks of a chunked body, joined (RFC 9112 section 7.1).
fn joined(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = str::from_utf8(rest.get(..end)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        rest = rest.get(end + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(plain), Some((200, b"{}".to_vec())));
        let chunked = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n\
            2\r\n{}\r\n1\r\n \r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Some((404, b"{} ".to_vec())));
        for broken in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"SSH-2.0\r\n\r\n",
            b"HTTP/1.1 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{}",
        ] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_key_can_not_add_a_header() {
        assert!(visible("cka_abc-_").is_ok());
        assert!(visible("cka_a\r\nhost: b").is_err());
    }
}
