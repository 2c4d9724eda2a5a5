//! What the workers counted that belongs to no caller, and what became of the logs.

use std::{fmt, sync::Arc};

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

use super::{
    cells::Cell,
    hub::WorkerShard,
    names,
    sample::NodeSample,
    series::{Summed, count, describe},
};

pub(super) fn encode(
    workers: &[Arc<WorkerShard>],
    node: &NodeSample,
    encoder: &mut DescriptorEncoder,
) -> fmt::Result {
    let sum = |cell: fn(&WorkerShard) -> &Cell| workers.iter().map(|worker| cell(worker).get()).sum();
    let counters: [Summed<WorkerShard>; 4] = [
        (names::SERIES_OVERFLOW, |w| &w.series_overflow),
        (names::OUTCOMES_OVERFLOW, |w| &w.outcomes_overflow),
        (names::ACCEPT_ERRORS, |w| &w.accept_errors),
        (names::ACCEPT_LIMIT, |w| &w.accept_limit),
    ];
    for (name, cell) in counters {
        let mut metric = describe(encoder, name, MetricType::Counter)?;
        count(&mut metric, &[], sum(cell))?;
    }
    let log = &node.access_log;
    let mut metric = describe(encoder, names::ACCESS_LOG_LINES, MetricType::Counter)?;
    count(&mut metric, &[], log.written)?;
    let mut metric = describe(encoder, names::ACCESS_LOG_DROPPED, MetricType::Counter)?;
    count(&mut metric, &[("reason", "share")], sum(|w| &w.access_dropped))?;
    count(&mut metric, &[("reason", "sink")], log.lost)?;
    let own = &node.own_log;
    let mut metric = describe(encoder, names::LOG_LEFT_OUT, MetricType::Counter)?;
    count(&mut metric, &[("reason", "sink")], own.dropped)?;
    count(&mut metric, &[("reason", "repeated")], own.suppressed)?;
    let mut metric = describe(encoder, names::WINDOW_DISPLACED, MetricType::Counter)?;
    for (window, n) in &node.displaced {
        count(&mut metric, &[("window", *window)], *n)?;
    }
    Ok(())
}
