//! Spans by the OpenTelemetry SDK, encoded by its own protocol and sent over HTTP.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use prost::Message as _;
use ureq::tls::TlsConfig;

use super::Answered;
use crate::outbound;

/// How long one message may take to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stopping node waits for its last spans to be sent.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);
/// Where a collector's authority is named, by OpenTelemetry's own convention.
const CA_VARIABLE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
/// What the SDK and the collector know this program by.
const NAME: &str = "cloakroom";

/// Sends encoded messages to the endpoint.
#[derive(Debug)]
pub(super) struct Sender {
    base: String,
    agent: ureq::Agent,
    failing: AtomicBool,
}

impl Sender {
    fn new(endpoint: &str, tls: TlsConfig) -> Self {
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(SEND_TIMEOUT))
            .max_redirects(0)
            .build()
            .new_agent();
        let base = endpoint.trim_end_matches('/').to_owned();
        Self { base, agent, failing: AtomicBool::new(false) }
    }

    /// Sends one message; waits for the answer, so never on a runtime's own thread. A failure is
    /// told in the log once, until it works again.
    pub(super) fn send(&self, path: &str, message: Vec<u8>) -> Result<(), String> {
        let url = format!("{}{path}", self.base);
        let request = self.agent.post(&url).header("content-type", "application/x-protobuf");
        let sent = request.send(message).map(drop).map_err(|error| error.to_string());
        let failed_before = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        if let Err(error) = &sent
            && !failed_before
        {
            tracing::warn!(error, path, "traces and metrics can't be sent");
        }
        sent
    }
}

#[derive(Clone, Debug)]
struct Exporter {
    sender: Arc<Sender>,
    resource: Arc<ResourceAttributesWithSchema>,
}

impl SpanExporter for Exporter {
    /// Called on a thread of the SDK's own.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let message = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        self.sender.send("/v1/traces", message).map_err(OTelSdkError::InternalFailure)
    }
}

/// Where spans and metrics go.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) sender: Arc<Sender>,
    pub(super) resource: Resource,
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

impl Sink {
    /// Begins to send. The SDK's own variables (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
    /// `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`) count, and `OTEL_EXPORTER_OTLP_CERTIFICATE`
    /// names the authority that vouches for the collector.
    pub(super) fn start(endpoint: &str) -> Option<Self> {
        let ca = std::env::var_os(CA_VARIABLE).filter(|path| !path.is_empty());
        let tls = match outbound::tls(ca.as_deref().map(Path::new), None) {
            Ok(tls) => tls,
            Err(error) => {
                tracing::error!(error, "{CA_VARIABLE}: traces and metrics are not sent");
                return None;
            }
        };
        let sender = Arc::new(Sender::new(endpoint, tls));
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(NAME);
        }
        let resource = resource
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let exporter = Exporter {
            sender: Arc::clone(&sender),
            resource: Arc::new(ResourceAttributesWithSchema::from(&resource)),
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_batch_exporter(exporter)
            .build();
        let tracer = provider.tracer(NAME);
        let propagator = TraceContextPropagator::new();
        Some(Self { sender, resource, provider, tracer, propagator })
    }

    /// Sends the spans that wait, and ends.
    pub(super) fn finish(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FINISH_TIMEOUT) {
            tracing::debug!(%error, "the last spans are not sent");
        }
    }
}

/// A header that is there twice says nothing.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        value.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// A span, and all that its children need.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    sink: Arc<Sink>,
    context: Context,
}

impl Trace {
    /// Begins the span of a request; the context that came with it is its parent.
    pub(super) fn of_request(sink: &Arc<Sink>, headers: &HeaderMap) -> Self {
        let parent = sink.propagator.extract_with_context(&Context::new(), &Headers(headers));
        let builder = sink.tracer.span_builder("request").with_kind(SpanKind::Server);
        let span = builder.start_with_context(&sink.tracer, &parent);
        Self { sink: Arc::clone(sink), context: parent.with_span(span) }
    }

    /// Begins a child of this span. It ends when the last of its clones is dropped.
    pub(super) fn part(&self, name: &'static str) -> Self {
        let builder = self.sink.tracer.span_builder(name).with_kind(SpanKind::Client);
        let span = builder.start_with_context(&self.sink.tracer, &self.context);
        Self { sink: Arc::clone(&self.sink), context: self.context.with_span(span) }
    }

    /// Ends a request's span, named by what OpenTelemetry's conventions for HTTP ask for.
    pub(super) fn end_request(&self, answered: &Answered<'_>) {
        let span = self.context.span();
        span.update_name(format!("{} {}", answered.method, answered.route));
        span.set_attribute(KeyValue::new("http.request.method", answered.method.to_owned()));
        span.set_attribute(KeyValue::new("http.route", answered.route.to_owned()));
        let status = i64::from(answered.status);
        span.set_attribute(KeyValue::new("http.response.status_code", status));
        span.set_attribute(KeyValue::new("cloakroom.listener", answered.listener));
        let id = answered.request_id.to_owned();
        span.set_attribute(KeyValue::new("cloakroom.request_id", id));
        if let Some(code) = answered.code {
            span.set_attribute(KeyValue::new("error.type", code));
        }
        if answered.status >= 500 {
            span.set_status(Status::error(answered.code.unwrap_or_default()));
        }
        span.end();
    }
}
