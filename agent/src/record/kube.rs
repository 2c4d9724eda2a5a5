//! The conversation with the API server, as metrics.

use std::{fmt, time::Duration};

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

use super::{
    names,
    series::{count, describe, gauge, seconds},
};

/// The conversation with the API server.
#[derive(Clone, Debug, Default)]
pub struct KubeSample {
    pub up: bool,
    /// Since the server last said anything; `None` when it never has.
    pub silence: Option<Duration>,
    /// ([resource, verb, result], requests).
    pub requests: Vec<([&'static str; 3], u64)>,
    /// (resource, open watches).
    pub watches: Vec<(&'static str, u64)>,
    /// (resource, lists read again).
    pub relists: Vec<(&'static str, u64)>,
    /// (resource, objects whose newest version is not in force).
    pub rejected: Vec<(&'static str, u64)>,
}

impl KubeSample {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut metric = describe(encoder, names::KUBE_REQUESTS, MetricType::Counter)?;
        for ([resource, verb, result], n) in &self.requests {
            let labels = [("resource", *resource), ("verb", *verb), ("result", *result)];
            count(&mut metric, &labels, *n)?;
        }
        let mut metric = describe(encoder, names::KUBE_RELISTS, MetricType::Counter)?;
        for (resource, n) in &self.relists {
            count(&mut metric, &[("resource", *resource)], *n)?;
        }
        let gauges = [
            (names::KUBE_WATCHES, &self.watches),
            (names::KUBE_REJECTED, &self.rejected),
        ];
        for (name, values) in gauges {
            let mut metric = describe(encoder, name, MetricType::Gauge)?;
            for (resource, n) in values {
                gauge(&mut metric, &[("resource", *resource)], *n)?;
            }
        }
        let mut metric = describe(encoder, names::KUBE_UP, MetricType::Gauge)?;
        gauge(&mut metric, &[], self.up.into())?;
        seconds(encoder, names::KUBE_SILENCE, self.silence)
    }
}
