//! One connection: TLS or not, HTTP/1.1 or HTTP/2, each step of it bounded in time and size.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::listen::Stop;
use super::tls::Acceptor;
use crate::http::{Peer, Pulse, Shell};

/// Headers of a request, in bytes: far more than a browser's jar holds of one site.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 100;
/// Streams that a peer may open and reset before they are looked at (rapid reset).
const RESET_STREAMS_MAX: usize = 20;
/// Streams that we may have to reset before the peer is told to go away.
const ERROR_STREAMS_MAX: usize = 200;
/// Bytes of bodies that may be under way on a stream, and twice that on a connection: bodies have
/// 64 KiB at most.
const WINDOW_BYTES: u32 = 64 * 1024;
/// Times `request_timeout` that a connection over HTTP/2 may be kept open between requests.
const IDLE_TIMES: u32 = 6;

/// Serves the connections of one listener.
pub(super) struct Connections {
    shell: Arc<Shell>,
    tls: Option<Acceptor>,
    builder: Builder<TokioExecutor>,
    request_timeout: Duration,
    idle_timeout: Duration,
}

/// What a connection is doing.
struct Activity {
    requests: AtomicUsize,
    /// Whether anything was ever asked.
    was_asked: AtomicBool,
    /// When the last request was answered, in milliseconds since `born`.
    answered_ms: AtomicU64,
    born: Instant,
}

impl Connections {
    pub(super) fn new(shell: Shell, tls: Option<Acceptor>, request_timeout: Duration) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            // Also bounds how long a kept-alive connection says nothing.
            .header_read_timeout(request_timeout)
            // A request has 100 headers at most: the library's own bound. To say so as well would
            // have it make a list of them on the heap for each request.
            .max_buf_size(HEADER_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .max_local_error_reset_streams(ERROR_STREAMS_MAX)
            .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .keep_alive_interval(request_timeout)
            .keep_alive_timeout(request_timeout);
        let idle_timeout = request_timeout.saturating_mul(IDLE_TIMES);
        Self { shell: Arc::new(shell), tls, builder, request_timeout, idle_timeout }
    }

    /// Serves a connection to its end.
    pub(super) async fn serve<S>(&self, stream: S, peer: Peer, stopping: watch::Receiver<Stop>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(tls) = &self.tls else {
            return self.serve_plain(stream, peer, stopping).await;
        };
        match timeout(self.request_timeout, tls.current().accept(stream)).await {
            Ok(Ok(stream)) => self.serve_plain(stream, peer, stopping).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS connection came about"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve_plain<S>(&self, stream: S, peer: Peer, mut stopping: watch::Receiver<Stop>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::new());
        let service = service_fn(|mut request: Request<Incoming>| {
            let shell = Arc::clone(&self.shell);
            let activity = Arc::clone(&activity);
            async move {
                let _request = activity.begin();
                if shell.has_streams() {
                    let streamed = Arc::clone(&activity);
                    request.extensions_mut().insert(Pulse::new(move || streamed.touch()));
                }
                Ok::<Response<_>, Infallible>(shell.answer(peer, request).await)
            }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let mut closing = false;
        // The library's timer of headers begins only once it knows which HTTP is spoken.
        let mut look = pin!(sleep_until(Instant::now() + self.request_timeout));
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke");
                    }
                    return;
                }
                _ = stopping.wait_for(|stop| *stop == Stop::Draining), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = look.as_mut() => {
                    if !activity.was_asked.load(Ordering::Relaxed) {
                        // Whoever holds a place without a word goes without one.
                        tracing::debug!("a connection asked nothing in time");
                        return;
                    }
                    let over = activity.idle_for().is_some_and(|idle| idle >= self.idle_timeout);
                    if over && closing {
                        // It was told to go, and doesn't even read what was sent.
                        return;
                    }
                    if over {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    look.as_mut().reset(Instant::now() + self.request_timeout);
                }
            }
        }
    }
}

impl Activity {
    fn new() -> Self {
        let (requests, answered_ms) = (AtomicUsize::new(0), AtomicU64::new(0));
        let was_asked = AtomicBool::new(false);
        Self { requests, was_asked, answered_ms, born: Instant::now() }
    }

    fn begin(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.was_asked.store(true, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Notes that something was taken just now.
    fn touch(&self) {
        let ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.answered_ms.store(ms, Ordering::Relaxed);
    }

    /// For how long nothing was asked; `None`: something is.
    fn idle_for(&self) -> Option<Duration> {
        let idle = self.requests.load(Ordering::Relaxed) == 0;
        let answered = Duration::from_millis(self.answered_ms.load(Ordering::Relaxed));
        idle.then(|| self.born.elapsed().saturating_sub(answered))
    }
}

/// A request that is being answered.
struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.touch();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}
