//! What a scrape tells of the kernel programs.

use std::fmt;

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

use super::{
    names,
    sample::NodeSample,
    series::{count, describe, gauge},
};

pub(super) fn encode(node: &NodeSample, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let mut metric = describe(encoder, names::POD_KERNEL, MetricType::Counter)?;
    for (namespace, pod, decision, n) in &node.pod_decisions {
        count(
            &mut metric,
            &[("namespace", namespace), ("pod", pod), ("decision", decision)],
            *n,
        )?;
    }
    let mut metric = describe(encoder, names::NODE_KERNEL, MetricType::Counter)?;
    for (decision, n) in &node.node_decisions {
        count(&mut metric, &[("decision", decision)], *n)?;
    }
    for (name, value) in [
        (names::INBOUND_OVER_SHARE, node.inbound_over_share),
        (names::GROUP_LOSSES, node.group_losses),
    ] {
        count(&mut describe(encoder, name, MetricType::Counter)?, &[], value)?;
    }
    let mut metric = describe(encoder, names::OTHER_PROGRAMS, MetricType::Gauge)?;
    for (order, n) in &node.other_programs {
        gauge(&mut metric, &[("order", order)], *n)?;
    }
    Ok(())
}
