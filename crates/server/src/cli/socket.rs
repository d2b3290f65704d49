//! HTTP over a Unix domain socket: one request, one answer, one connection.

use std::io;
use std::path::Path;

use cloakroom_core::types::Secret;

/// A request.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) kind: Option<&'a str>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) key: Option<&'a Secret<String>>,
}

#[cfg(unix)]
pub(super) fn ask(socket: &Path, asked: &Asked<'_>) -> io::Result<(u16, Vec<u8>)> {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    // The authority closes after the answer, so its end needs no counting.
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nuser-agent: cloakroom/{}\r\n",
        asked.method,
        asked.path,
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(key) = asked.key {
        head.push_str("authorization: Bearer ");
        head.push_str(&visible(key.expose())?);
        head.push_str("\r\n");
    }
    if let Some(kind) = asked.kind {
        head.push_str(&format!("content-type: {kind}\r\n"));
    }
    let body = asked.body.as_deref().unwrap_or_default();
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::other("the answer is no HTTP"))
}

#[cfg(not(unix))]
pub(super) fn ask(_: &Path, _: &Asked<'_>) -> io::Result<(u16, Vec<u8>)> {
    Err(io::Error::other("this system has no such sockets"))
}

/// The largest answer read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

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
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let chunked = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("transfer-encoding")
            && value.trim().eq_ignore_ascii_case("chunked")
    });
    let body = if chunked { joined(body)? } else { body.to_vec() };
    Some((status, body))
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
