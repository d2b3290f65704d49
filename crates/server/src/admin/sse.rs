//! Server-sent events (the WHATWG HTML standard, section 9.2): a stream that ends with its key,
//! with its reader's patience, and with the node.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use cloakroom::{Subscription, Told};
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use tokio::time::Instant;

use super::listeners::Seat;
use crate::http::Pulse;
use crate::site::Site;

/// How often a silent stream looks at its key and at the node.
const LOOK: Duration = Duration::from_millis(500);
/// A stream that has nothing to say says so this often, so that nothing between closes it.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Tells the client when to come again, in milliseconds, and that the stream has begun.
const OPENING: &str = "retry: 1000\n\n";
/// Asks nginx not to hold the stream back.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How one thing told is written down.
pub(super) type Write = fn(&Told) -> String;

/// A stream of what `subscription` is told.
pub(super) fn answer(
    site: Arc<Site>,
    seat: Seat,
    pulse: Option<Pulse>,
    subscription: Subscription,
    write: Write,
) -> Response {
    let talk = Talk { site, seat, pulse, subscription, write, spoke_at: Instant::now() };
    let mut response = Response::new(Body::new(Stream::of(talk)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    response
}

/// One message. `data` is JSON, which has no line ends, so nothing in it can begin a line.
pub(super) fn message(event: &str, id: Option<&str>, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
    match id {
        Some(id) => format!("event: {event}\nid: {id}\ndata: {data}\n\n"),
        None => format!("event: {event}\ndata: {data}\n\n"),
    }
}

struct Talk {
    site: Arc<Site>,
    seat: Seat,
    pulse: Option<Pulse>,
    subscription: Subscription,
    write: Write,
    spoke_at: Instant,
}

impl Talk {
    /// The next bytes; none: the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.site.is_draining() || !self.seat.stands().await {
                return None;
            }
            let told = self.site.authority.told(&mut self.subscription);
            // Giving up on waiting loses nothing: what was read stays with the subscription.
            match tokio::time::timeout(LOOK, told).await {
                Ok(Ok(Some(told))) if told.is_empty() => {}
                Ok(Ok(Some(told))) => return Some(self.written(&told)),
                Ok(Ok(None)) => return None,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a stream breaks off; its reader may resume");
                    return None;
                }
                Err(_) if self.spoke_at.elapsed() >= SILENCE_MAX => {
                    return Some(Bytes::from_static(b":\n\n"));
                }
                Err(_) => {}
            }
        }
    }

    fn written(&self, told: &[Arc<Told>]) -> Bytes {
        let texts: Vec<Arc<str>> = told.iter().map(|one| one.text(self.write)).collect();
        Bytes::from(texts.concat())
    }
}

type Work = Pin<Box<dyn Future<Output = (Talk, Option<Bytes>)> + Send>>;

/// The body: polled only while the client takes what it is sent. None: it is over.
struct Stream(Option<Work>);

impl Stream {
    fn of(talk: Talk) -> Self {
        let opening = Bytes::from_static(OPENING.as_bytes());
        Self(Some(Box::pin(async move { (talk, Some(opening)) })))
    }
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(work) = &mut self.0 else { return Poll::Ready(None) };
        let (mut talk, bytes) = match work.as_mut().poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready((talk, Some(bytes))) => (talk, bytes),
            Poll::Ready((_, None)) => {
                self.0 = None;
                return Poll::Ready(None);
            }
        };
        if let Some(pulse) = &talk.pulse {
            pulse.beat();
        }
        talk.spoke_at = Instant::now();
        self.0 = Some(Box::pin(async move {
            let next = talk.next().await;
            (talk, next)
        }));
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn m2_data_cannot_forge_lines() {
        let hostile = json!({"reason": "x\r\n\r\nevent: key\rdata: {}\u{2028}\u{85}"});
        let text = message("session", Some("01"), &hostile);
        assert_eq!(text.lines().count(), 4, "{text:?}");
        assert!(!text.contains('\r') && text.ends_with("}\n\n"), "{text:?}");
        assert_eq!(text.matches("\nevent:").count(), 0);
    }
}
