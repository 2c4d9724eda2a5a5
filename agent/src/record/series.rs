//! Series of the page of metrics.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{cells::Cell, labels::ScopeKey, names::Name};

pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// A metric and the cell of `S` that it sums.
pub(super) type Summed<S> = (Name, fn(&S) -> &Cell);

/// The labels of everything that is counted by who calls whom. `port` is the destination's.
pub(super) fn traffic<'a>(key: &'a ScopeKey, port: &'a str) -> Labels<'a> {
    vec![
        ("direction", key.direction.as_str()),
        ("source_namespace", &key.source.namespace),
        ("source_workload", &key.source.workload),
        ("destination_namespace", &key.destination.service.namespace),
        ("destination_service", &key.destination.service.name),
        ("destination_port", port),
    ]
}

pub(super) fn describe<'e>(
    encoder: &'e mut DescriptorEncoder,
    (name, help): Name,
    kind: MetricType,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, kind)
}

pub(super) fn count(metric: &mut MetricEncoder, labels: &[(&'static str, &str)], n: u64) -> fmt::Result {
    metric
        .encode_family(&labels)?
        .encode_counter::<NoLabelSet, _, u64>(&n, None)
}

pub(super) fn gauge(metric: &mut MetricEncoder, labels: &[(&'static str, &str)], n: u64) -> fmt::Result {
    metric.encode_family(&labels)?.encode_gauge(&n)
}

pub(super) fn seconds(encoder: &mut DescriptorEncoder, name: Name, value: Option<Duration>) -> fmt::Result {
    let mut metric = describe(encoder, name, MetricType::Gauge)?;
    value.map_or(Ok(()), |v| metric.encode_gauge(&v.as_secs_f64()))
}
