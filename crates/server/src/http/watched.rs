//! Whether a request's body was read to its end.
//!
//! What is left of a body stands before the next request of an HTTP/1.1 connection, so the server
//! closes it. A client that isn't told would send its next request into the closing connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use hyper::Version;
use hyper::body::{Body as _, Bytes, Frame, SizeHint};

/// What is known of a body from outside.
#[derive(Clone, Debug)]
pub(super) struct Watch(Option<Arc<AtomicBool>>);

impl Watch {
    /// Watches a body, unless nothing would follow from it.
    pub(super) fn over(body: Body, version: Version) -> (Body, Self) {
        if body.is_end_stream() || version > Version::HTTP_11 {
            return (body, Self(None));
        }
        let ended = Arc::new(AtomicBool::new(false));
        let watched = Watched { body, ended: Arc::clone(&ended) };
        (Body::new(watched), Self(Some(ended)))
    }

    /// Whether something of the body is left unread.
    pub(super) fn is_unread(&self) -> bool {
        self.0.as_ref().is_some_and(|ended| !ended.load(Ordering::Relaxed))
    }
}

struct Watched {
    body: Body,
    ended: Arc<AtomicBool>,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.ended.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_is_unread_until_its_end() {
        let (body, watch) = Watch::over(Body::from("{}"), Version::HTTP_11);
        assert!(watch.is_unread());
        body.collect().await.expect("whole");
        assert!(!watch.is_unread());
        let (_, watch) = Watch::over(Body::empty(), Version::HTTP_11);
        assert!(!watch.is_unread());
        let (_, watch) = Watch::over(Body::from("{}"), Version::HTTP_2);
        assert!(!watch.is_unread());
    }
}
