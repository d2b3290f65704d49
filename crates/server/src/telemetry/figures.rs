//! The metrics of `GET /metrics` as OTLP has them, sent now and then.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::exporting::Sink;
use crate::metrics::{Family, Kind, Measure, Value, gather};
use crate::site::Site;

/// How often metrics are sent.
const EVERY: Duration = Duration::from_secs(30);
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// Sends metrics until `stopping` says so, and once more then.
pub(super) async fn report(sink: Arc<Sink>, site: Arc<Site>, mut stopping: watch::Receiver<bool>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let over = tokio::select! {
            _ = ticks.tick() => false,
            _ = stopping.wait_for(|stop| *stop) => true,
        };
        let (sink, site) = (Arc::clone(&sink), Arc::clone(&site));
        // What fails is told by the sender, and sent with the next: counters only grow.
        let _ = tokio::task::spawn_blocking(move || send(&sink, &site)).await;
        if over {
            return;
        }
    }
}

fn send(sink: &Sink, site: &Site) -> Result<(), String> {
    let times = Times {
        began: u64::try_from(site.authority.stats().started_at.as_millis()).unwrap_or(0)
            * 1_000_000,
        now: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
    };
    let metrics = gather(site).iter().map(|family| metric_of(family, times)).collect();
    let message = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: ResourceAttributesWithSchema::from(&sink.resource).attributes.0,
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: "cloakroom".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    };
    sink.sender.send("/v1/metrics", message.encode_to_vec())
}

/// Both in nanoseconds since the epoch.
#[derive(Clone, Copy)]
struct Times {
    began: u64,
    now: u64,
}

fn metric_of(family: &Family, times: Times) -> Metric {
    let data = match family.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: numbers(family, times),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Kind::Gauge | Kind::Info => {
            metric::Data::Gauge(Gauge { data_points: numbers(family, times) })
        }
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: histograms(family, times),
            aggregation_temporality: CUMULATIVE,
        }),
    };
    let unit = match family.measure {
        Measure::Count => "1",
        Measure::Seconds => "s",
        Measure::Bytes => "By",
    };
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn attributes(family: &Family, labels: &[String]) -> Vec<KeyValue> {
    let attribute = |(key, text): (&&str, &String)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(text.clone())) }),
        ..KeyValue::default()
    };
    family.labels.iter().zip(labels).map(attribute).collect()
}

fn numbers(family: &Family, times: Times) -> Vec<NumberDataPoint> {
    let number = |(labels, value): &(Vec<String>, Value)| {
        let value = match value {
            Value::Count(count) => {
                number_data_point::Value::AsInt(i64::try_from(*count).unwrap_or(i64::MAX))
            }
            Value::Sum(level) | Value::Level(level) => number_data_point::Value::AsDouble(*level),
            Value::Text => number_data_point::Value::AsInt(1),
            Value::Spans(_) => return None,
        };
        Some(NumberDataPoint {
            attributes: attributes(family, labels),
            start_time_unix_nano: times.began,
            time_unix_nano: times.now,
            value: Some(value),
            ..NumberDataPoint::default()
        })
    };
    family.points.iter().filter_map(number).collect()
}

fn histograms(family: &Family, times: Times) -> Vec<HistogramDataPoint> {
    let point = |(labels, value): &(Vec<String>, Value)| match value {
        Value::Spans(spans) => Some(HistogramDataPoint {
            attributes: attributes(family, labels),
            start_time_unix_nano: times.began,
            time_unix_nano: times.now,
            count: spans.count(),
            sum: Some(spans.sum),
            bucket_counts: spans.buckets.iter().map(|(_, count)| *count).collect(),
            // The last bucket has no bound.
            explicit_bounds: spans
                .buckets
                .iter()
                .map(|(bound, _)| *bound)
                .filter(|bound| bound.is_finite())
                .collect(),
            ..HistogramDataPoint::default()
        }),
        Value::Count(_) | Value::Sum(_) | Value::Level(_) | Value::Text => None,
    };
    family.points.iter().filter_map(point).collect()
}
