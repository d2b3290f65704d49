//! Traces and metrics by OTLP (`telemetry.otlp_endpoint`), where this build has it.
//!
//! A request's span is the child of the one that its `traceparent` names (W3C Trace Context), and
//! what is asked of the store for it is a child of it. Nothing of this is there for a node without
//! an endpoint: no span, no queue, no thread.

#[cfg(not(feature = "otlp"))]
mod absent;
#[cfg(feature = "otlp")]
mod exporting;
#[cfg(feature = "otlp")]
mod figures;

use std::sync::Arc;

use hyper::HeaderMap;
use tokio::sync::watch;

use crate::site::Site;
#[cfg(not(feature = "otlp"))]
use absent::{Sink, Trace, report};
#[cfg(feature = "otlp")]
use exporting::{Sink, Trace};
#[cfg(feature = "otlp")]
use figures::report;

/// Whether this build can send anything.
pub(crate) const IS_BUILT_IN: bool = cfg!(feature = "otlp");

/// Where a node's traces go; nowhere, unless an endpoint is configured.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Option<Arc<Sink>>);

/// The span of a request that is being answered.
#[derive(Debug)]
pub(crate) struct RequestSpan(Trace);

/// A part of a request's work; it ends when this is dropped.
pub(crate) struct Part(#[allow(dead_code, reason = "held for its end")] Option<Trace>);

/// What is told of an answered request.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "otlp"), allow(dead_code))]
pub(crate) struct Answered<'a> {
    /// Which listener took it.
    pub(crate) listener: &'static str,
    /// Its method.
    pub(crate) method: &'a str,
    /// The template of its route.
    pub(crate) route: &'a str,
    /// The status it was answered with.
    pub(crate) status: u16,
    /// Its id.
    pub(crate) request_id: &'a str,
    /// What was wrong, if something was.
    pub(crate) code: Option<&'static str>,
}

tokio::task_local! {
    /// The span of the request that this task works for.
    static CURRENT: Trace;
}

impl Telemetry {
    /// Begins to send to an endpoint, if there is one.
    pub fn start(endpoint: Option<&str>) -> Self {
        Self(endpoint.and_then(Sink::start).map(Arc::new))
    }

    /// Begins a request's span, if somebody wants to know.
    pub(crate) fn request(&self, headers: &HeaderMap) -> Option<RequestSpan> {
        let sink = self.0.as_ref()?;
        Some(RequestSpan(Trace::of_request(sink, headers)))
    }

    /// Sends the metrics of a site now and then, until `stopping` says so, and once more then.
    pub(crate) async fn report(&self, site: Arc<Site>, stopping: watch::Receiver<bool>) {
        if let Some(sink) = &self.0 {
            report(Arc::clone(sink), site, stopping).await;
        }
    }

    /// Sends what waits to be sent.
    pub(crate) async fn finish(&self) {
        if let Some(sink) = self.0.clone() {
            // It waits for a thread of its own; a panic there has nothing to tell any more.
            let _ = tokio::task::spawn_blocking(move || sink.finish()).await;
        }
    }
}

impl RequestSpan {
    /// Does some work for the request.
    pub(crate) async fn scope<T>(&self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self.0.clone(), work).await
    }

    /// Ends the span.
    pub(crate) fn end(self, answered: &Answered<'_>) {
        self.0.end_request(answered);
    }
}

/// Begins a part of the request that this task works for, if that has a span.
pub(crate) fn part(name: &'static str) -> Part {
    Part(CURRENT.try_with(|trace| trace.part(name)).ok())
}
