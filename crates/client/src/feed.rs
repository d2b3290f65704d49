//! Server-sent events, taken apart as the bytes come in (WHATWG HTML section 9.2.6).

use serde_json::Value;

/// A line's bytes, at most: no event of ours is nearly as long.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Where to go on from.
    pub id: Option<String>,
    /// What kind of event it is.
    pub event: String,
    /// Its data.
    pub data: Value,
}

/// The stream can't be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is malformed")]
pub struct MalformedStream;

/// A stream as far as it has come in.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    id: Option<String>,
    event: String,
    data: String,
}

impl Events {
    /// Takes more bytes, and gives the events that are complete now.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Message>, MalformedStream> {
        let mut complete = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    complete.extend(self.take_line(&line)?);
                }
                b'\r' => {}
                byte if self.line.len() < LINE_BYTES_MAX => self.line.push(*byte),
                _ => return Err(MalformedStream),
            }
        }
        Ok(complete)
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Option<Message>, MalformedStream> {
        let line = str::from_utf8(line).map_err(|_| MalformedStream)?;
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => self.event = value.to_owned(),
            "data" => {
                if self.data.len() + value.len() > LINE_BYTES_MAX {
                    return Err(MalformedStream);
                }
                self.data.push_str(value);
            }
            // A comment, or a field of a later version.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Result<Option<Message>, MalformedStream> {
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        let id = self.id.take();
        if event.is_empty() && data.is_empty() {
            return Ok(None);
        }
        let data = serde_json::from_str(&data).map_err(|_| MalformedStream)?;
        Ok(Some(Message { id, event, data }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        let stream =
            b": hello\n\nid: 1\nevent: session\ndata: {\"sid\": \"x\"}\n\nevent: heartbeat\r\n\
                       data: {}\r\n\r\n";
        let session =
            Message { id: Some("1".into()), event: "session".into(), data: json!({"sid": "x"}) };
        let beat = Message { id: None, event: "heartbeat".into(), data: json!({}) };
        for size in 1..stream.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                found.extend(events.feed(piece).expect("well-formed"));
            }
            assert_eq!(found, [session.clone(), beat.clone()], "{size}");
        }
    }

    #[test]
    fn a_stream_can_not_grow_without_bound_or_mean_nothing() {
        let mut events = Events::default();
        assert_eq!(events.feed(&vec![b'x'; LINE_BYTES_MAX + 1]), Err(MalformedStream));
        let mut events = Events::default();
        assert_eq!(events.feed(b"event: session\ndata: {\n\n"), Err(MalformedStream));
        let mut events = Events::default();
        assert_eq!(events.feed(b"data: \xff\n\n"), Err(MalformedStream));
    }
}
