//! Metrics as they are read at one instant, before anybody writes them down.

use std::fmt;

use cloakroom::Distribution;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its samples end in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by their length.
    Histogram,
    /// Text that doesn't change; its sample ends in `_info`.
    Info,
}

/// What a metric is measured in. The unit ends its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// In nothing: a count.
    Count,
    /// In seconds.
    Seconds,
    /// In bytes.
    Bytes,
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a counter of seconds.
    Sum(f64),
    /// Of a gauge.
    Level(f64),
    /// Of a histogram.
    Spans(Distribution),
    /// Of an info, which has only labels.
    Text,
}

/// A metric: its name, what it means, and a value for each of its label sets.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its name without unit and suffix.
    pub name: &'static str,
    /// What it means, in one sentence without a full stop.
    pub help: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// What it is measured in.
    pub measure: Measure,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The values of its labels, each with its value.
    pub points: Vec<(Vec<String>, Value)>,
}

impl Family {
    /// A metric without values yet.
    pub const fn new(
        name: &'static str,
        help: &'static str,
        kind: Kind,
        measure: Measure,
        labels: &'static [&'static str],
    ) -> Self {
        Self { name, help, kind, measure, labels, points: Vec::new() }
    }

    /// A counter.
    pub const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self::new(name, help, Kind::Counter, Measure::Count, labels)
    }

    /// A gauge.
    pub const fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self::new(name, help, Kind::Gauge, Measure::Count, labels)
    }

    /// A gauge of seconds.
    pub const fn seconds(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self::new(name, help, Kind::Gauge, Measure::Seconds, labels)
    }

    /// A histogram of durations.
    pub const fn spans(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self::new(name, help, Kind::Histogram, Measure::Seconds, labels)
    }

    /// Adds a value.
    pub fn with(mut self, labels: &[&str], value: Value) -> Self {
        self.points.push((labels.iter().map(|label| (*label).to_owned()).collect(), value));
        self
    }

    /// Adds a counter's value.
    pub fn count(self, labels: &[&str], count: u64) -> Self {
        self.with(labels, Value::Count(count))
    }

    /// Adds a gauge's value.
    pub fn level(self, labels: &[&str], level: f64) -> Self {
        self.with(labels, Value::Level(level))
    }

    /// Its name as its samples begin, with the unit.
    pub fn full_name(&self) -> String {
        match self.measure {
            Measure::Count => self.name.to_owned(),
            Measure::Seconds => format!("{}_seconds", self.name),
            Measure::Bytes => format!("{}_bytes", self.name),
        }
    }
}

/// A count as a gauge's level: exact up to 2^53, far above any queue's length.
#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub fn level_of(count: impl TryInto<u64>) -> f64 {
    count.try_into().map_or(f64::MAX, |count| count as f64)
}

/// All metrics of one instant, to be written in the format of OpenMetrics 1.0.
#[derive(Debug)]
pub struct Snapshot(pub Vec<Family>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let unit = match family.measure {
                Measure::Count => None,
                Measure::Seconds => Some(Unit::Seconds),
                Measure::Bytes => Some(Unit::Bytes),
            };
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, unit.as_ref(), kind)?;
            for (values, value) in &family.points {
                let labels: Vec<(&str, &str)> =
                    family.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                if labels.is_empty() || family.kind == Kind::Info {
                    write(&mut metric, &labels, value)?;
                } else {
                    write(&mut metric.encode_family(&labels)?, &labels, value)?;
                }
            }
        }
        Ok(())
    }
}

type NoExemplar<'a> = Option<&'a Exemplar<Vec<(&'static str, &'static str)>, f64>>;

fn write(metric: &mut MetricEncoder<'_>, labels: &Vec<(&str, &str)>, value: &Value) -> fmt::Result {
    const NONE: NoExemplar<'static> = None;
    match value {
        Value::Count(count) => metric.encode_counter(count, NONE),
        Value::Sum(sum) => metric.encode_counter(sum, NONE),
        Value::Level(level) => metric.encode_gauge(level),
        Value::Spans(spans) => metric.encode_histogram::<Vec<(&str, &str)>>(
            spans.sum,
            spans.count(),
            &spans.buckets,
            None,
        ),
        Value::Text => metric.encode_info(labels),
    }
}
