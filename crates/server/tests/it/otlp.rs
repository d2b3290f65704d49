//! Traces and metrics by OTLP, as a collector receives them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::cli_tls::certificate;
use crate::cli_world::{Node, program};
use crate::http::Ask;
use crate::world::{ADA, PASSWORD, World, login};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Bodies, each with the path it was sent to.
type Kept = Mutex<Vec<(String, Vec<u8>)>>;

/// A collector that keeps what it is sent, by path.
struct Collector {
    url: String,
    kept: Arc<Kept>,
}

impl Collector {
    /// Listens from now on; its thread ends with the test.
    fn start() -> Self {
        Self::listen("http", serve)
    }

    /// The same over TLS, by the certificate in a folder.
    fn start_tls(dir: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(dir.join("tls.pem")).expect("a file");
        let chain = chain.collect::<Result<_, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_file(dir.join("tls.key")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        let config = Arc::new(config);
        Self::listen("https", move |stream, keeps| {
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            serve(StreamOwned::new(session, stream), keeps);
        })
    }

    fn listen(scheme: &str, serve: impl Fn(TcpStream, &Kept) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("{scheme}://{}", listener.local_addr().expect("an address"));
        let serve = Arc::new(serve);
        let kept: Arc<Kept> = Arc::default();
        let keeps = Arc::clone(&kept);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (keeps, serve) = (Arc::clone(&keeps), Arc::clone(&serve));
                std::thread::spawn(move || serve(stream, &keeps));
            }
        });
        Self { url, kept }
    }

    fn received(&self, path: &str) -> Vec<Vec<u8>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|(to, _)| to == path).map(|(_, body)| body.clone()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let decoded = |body: Vec<u8>| {
            ExportTraceServiceRequest::decode(body.as_slice()).expect("a trace message")
        };
        let messages = self.received("/v1/traces").into_iter().map(decoded);
        let resources = messages.flat_map(|message| message.resource_spans);
        let scopes = resources.flat_map(|of_resource| of_resource.scope_spans);
        scopes.flat_map(|of_scope| of_scope.spans).collect()
    }

    /// The metrics that came last, and the attributes of who sent them.
    fn metrics(&self) -> (Vec<KeyValue>, BTreeMap<String, Metric>) {
        let last = self.received("/v1/metrics").pop().expect("metrics");
        let mut message =
            ExportMetricsServiceRequest::decode(last.as_slice()).expect("a metrics message");
        let of_resource = message.resource_metrics.pop().expect("a resource");
        let metrics = of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
        let named = metrics.map(|metric| (metric.name.clone(), metric)).collect();
        (of_resource.resource.expect("a resource").attributes, named)
    }
}

/// Answers the requests of one connection.
fn serve<S: Read + Write>(stream: S, kept: &Kept) {
    let mut asks = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if asks.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            asks.read_line(&mut header).expect("a header");
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(text) = header.strip_prefix("content-length:") {
                length = text.trim().parse().expect("a length");
            }
            if let Some(kind) = header.strip_prefix("content-type:") {
                assert_eq!(kind.trim(), "application/x-protobuf");
            }
        }
        let mut body = vec![0; length];
        asks.read_exact(&mut body).expect("a body");
        kept.lock().unwrap_or_else(PoisonError::into_inner).push((path, body));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        asks.get_mut().write_all(answer).expect("a socket");
        asks.get_mut().flush().expect("a socket");
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|found| found.value.as_ref()).and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{key} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_go_on_from_the_callers_context_and_metrics_come_along() {
    let collector = Collector::start();
    let settings = [("store.url", "memory:"), ("telemetry.otlp_endpoint", collector.url.as_str())];
    let world = World::start(&settings).await;
    world.user(ADA).await;
    let context = format!("00-{TRACE}-{PARENT}-01");
    let ask = login(ADA, "bearer").header("traceparent", &context).header("x-request-id", "r-1");
    let tokens = world.send(ask).await;
    tokens.ok();
    let access = tokens.text("access_token");
    world.send(Ask::get("/auth/verify").bearer(&access)).await.ok();
    world.send(Ask::get("/auth/session").bearer("junk")).await;
    world.stop().await;

    let spans = collector.spans();
    let signin = spans.iter().find(|span| span.name == "POST /auth/login").expect("its span");
    assert_eq!(
        (hex(&signin.trace_id).as_str(), hex(&signin.parent_span_id).as_str()),
        (TRACE, PARENT)
    );
    assert_eq!(signin.kind(), SpanKind::Server);
    assert_eq!(attribute(&signin.attributes, "http.route"), "/auth/login");
    assert_eq!(attribute(&signin.attributes, "http.response.status_code"), "200");
    assert_eq!(attribute(&signin.attributes, "cloakroom.request_id"), "r-1");
    let commit = spans
        .iter()
        .find(|span| span.name == "store.commit" && span.parent_span_id == signin.span_id);
    let commit = commit.expect("what it asked of the store");
    assert_eq!(commit.trace_id, signin.trace_id);
    assert!(commit.start_time_unix_nano >= signin.start_time_unix_nano);
    assert!(commit.end_time_unix_nano <= signin.end_time_unix_nano);
    let refused = spans.iter().find(|span| span.name == "GET /auth/session").expect("its span");
    assert!(refused.parent_span_id.is_empty(), "nobody named a parent");
    assert_eq!(attribute(&refused.attributes, "error.type"), "token_invalid");
    assert!(spans.iter().any(|span| span.name == "GET /auth/verify"));

    let (resource, metrics) = collector.metrics();
    assert_eq!(attribute(&resource, "service.name"), "cloakroom");
    let Some(metric::Data::Sum(signins)) = &metrics["cloakroom_signins"].data else {
        panic!("no sum: {:?}", metrics["cloakroom_signins"]);
    };
    assert!(signins.is_monotonic);
    let ok =
        signins.data_points.iter().find(|point| attribute(&point.attributes, "outcome") == "ok");
    assert_eq!(ok.expect("a point").value, Some(number_data_point::Value::AsInt(1)));
    let duration = &metrics["cloakroom_http_request_duration"];
    assert_eq!(duration.unit, "s");
    let Some(metric::Data::Histogram(durations)) = &duration.data else {
        panic!("no histogram: {duration:?}");
    };
    let point = durations.data_points.first().expect("a point");
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);

    for body in [collector.received("/v1/traces"), collector.received("/v1/metrics")].concat() {
        let text = String::from_utf8_lossy(&body);
        for secret in [PASSWORD, &access, &tokens.text("refresh_token"), ADA] {
            assert!(!text.contains(secret), "{secret} was sent to the collector");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_harms_nothing() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port");
    let endpoint = format!("http://{nobody}");
    let settings = [("store.url", "memory:"), ("telemetry.otlp_endpoint", endpoint.as_str())];
    let world = World::start(&settings).await;
    world.user(ADA).await;
    world.send(login(ADA, "bearer")).await.ok();
    let began = std::time::Instant::now();
    world.stop().await;
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
}

/// A node that sends to a collector over TLS, told of its certificate or not; what it logged.
fn sends_to(collector: &Collector, ca: Option<&Path>) -> String {
    let data = TempDir::new().expect("a directory");
    let mut command = program();
    command.args(["serve", "--json", "--data"]).arg(data.path());
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    command.env("CLOAKROOM_STORE__URL", "memory:");
    command.env("CLOAKROOM_TELEMETRY__OTLP_ENDPOINT", &collector.url);
    command.env_remove("OTEL_EXPORTER_OTLP_CERTIFICATE");
    if let Some(ca) = ca {
        command.env("OTEL_EXPORTER_OTLP_CERTIFICATE", ca);
    }
    let node = Node::start(&mut command, "}");
    let said: serde_json::Value = serde_json::from_str(&node.greeting).expect("JSON");
    let admin = said["admin"].as_str().expect("a URL");
    ureq::get(format!("{admin}/healthz")).call().expect("an answer");
    let (code, log) = node.stop("-TERM");
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

#[test]
fn a_collector_over_tls_is_sent_traces_and_metrics() {
    let dir = TempDir::new().expect("a directory");
    certificate(dir.path());
    let collector = Collector::start_tls(dir.path());
    let log = sends_to(&collector, Some(&dir.path().join("tls.pem")));
    assert!(!log.contains("can't be sent"), "{log}");
    assert!(collector.spans().iter().any(|span| span.name == "GET /healthz"));
    let (resource, metrics) = collector.metrics();
    assert_eq!(attribute(&resource, "service.name"), "cloakroom");
    assert!(!metrics.is_empty());
}

#[test]
fn a_collector_that_nobody_vouches_for_gets_nothing_and_the_log_says_so() {
    let dir = TempDir::new().expect("a directory");
    certificate(dir.path());
    let collector = Collector::start_tls(dir.path());
    let log = sends_to(&collector, None);
    assert!(log.contains("traces and metrics can't be sent"), "{log}");
    assert!(collector.received("/v1/metrics").is_empty());
    let log = sends_to(&collector, Some(&dir.path().join("nowhere.pem")));
    assert!(log.contains("OTEL_EXPORTER_OTLP_CERTIFICATE: traces and metrics are not"), "{log}");
}
