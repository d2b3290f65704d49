//! Answers that have no end: server-sent events (the WHATWG HTML standard, section 9.2), read as
//! they come.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use serde_json::Value;
use ureq::http::Method;

use super::{Answer, Client, Endpoint};
use crate::cli::failure::Failure;
use crate::cli::socket;

/// A message of a stream. One without a name and data says only that the stream is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What kind it is.
    pub event: String,
    /// The cursor behind it.
    pub id: Option<String>,
    /// What it says: JSON.
    pub data: String,
}

/// A stream that is open.
pub struct EventStream(BufReader<Box<dyn Read + Send>>);

impl Client {
    /// Opens a stream of server-sent events: after a cursor, or from now on.
    ///
    /// # Errors
    ///
    /// A refusal, or no way to the authority.
    pub fn listen(&self, path: &str, after: Option<&str>) -> Result<EventStream, Failure> {
        let (status, mut body) = match &self.endpoint {
            Endpoint::Url(base) => self.listen_to(base, path, after)?,
            Endpoint::Socket(socket) => socket::open(socket, path, self.key.as_ref(), after)
                .map_err(|error| {
                    let at = socket.display();
                    Failure::Unreachable(format!("can't reach the authority at unix:{at}: {error}"))
                })?,
        };
        if status == 200 {
            return Ok(EventStream(BufReader::new(body)));
        }
        let mut text = Vec::new();
        // What can't be read of it is explained by its status.
        let _ = body.by_ref().take(REFUSAL_BYTES_MAX).read_to_end(&mut text);
        let body = serde_json::from_slice(&text).unwrap_or(Value::Null);
        match self.of_authority(Answer { status, body }) {
            Ok(_) => Err(Failure::Failed(format!("the authority answered {status}, no stream"))),
            Err(failure) => Err(failure),
        }
    }

    fn listen_to(
        &self,
        base: &str,
        path: &str,
        after: Option<&str>,
    ) -> Result<(u16, Box<dyn Read + Send>), Failure> {
        let mut request = self.request(Method::GET, base, path);
        request = request.header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let request = request.body(()).map_err(super::malformed)?;
        let request = self.agent.configure_request(request);
        let request = request.timeout_global(None).timeout_per_read(Some(SILENCE_MAX)).build();
        let response = self.agent.run(request).map_err(|error| self.unreachable(base, &error))?;
        let status = response.status().as_u16();
        Ok((status, Box::new(response.into_body().into_reader())))
    }
}

impl EventStream {
    /// The next message; none: the stream is over.
    ///
    /// # Errors
    ///
    /// The connection's; one that is silent for too long is lost.
    pub fn next(&mut self) -> io::Result<Option<Message>> {
        next_of(&mut self.0)
    }
}

fn next_of(lines: &mut dyn BufRead) -> io::Result<Option<Message>> {
    let mut message = Message::default();
    loop {
        let mut line = Vec::new();
        let mut within = lines.take(LINE_BYTES_MAX);
        within.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            // A message that the end cut off is none; it comes again to whoever resumes.
            return match within.limit() {
                0 => Err(io::Error::other("a line of the stream has no end")),
                _ => Ok(None),
            };
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            return Ok(Some(message));
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut message.event),
            "id" => message.id = Some(value.to_owned()),
            "data" => message.data.push_str(value),
            // Comments, and fields that say nothing here.
            _ => {}
        }
    }
}

/// A stream says something every ten seconds at the least: one that is silent for so long is dead.
pub(in crate::cli) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The longest line, in bytes; an event is far smaller.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// The longest account of a refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_whole_or_not_at_all() {
        let text =
            "retry: 1000\n\n:\n\nevent: event\nid: 01\ndata: {\"a\":\ndata:1}\r\n\nevent: half";
        let mut lines = text.as_bytes();
        let mut read = || next_of(&mut lines).expect("readable");
        assert_eq!(read(), Some(Message::default()));
        assert_eq!(read(), Some(Message::default()));
        let whole = Message {
            event: "event".to_owned(),
            id: Some("01".to_owned()),
            data: "{\"a\":1}".to_owned(),
        };
        assert_eq!(read(), Some(whole));
        assert_eq!(read(), None);
    }

    #[test]
    fn a_line_without_end_fills_no_memory() {
        let endless = io::repeat(b'x').take(4 * LINE_BYTES_MAX);
        assert!(next_of(&mut BufReader::new(endless)).is_err());
    }
}
