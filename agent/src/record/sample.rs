//! What is known of the node beside its traffic.

use std::{sync::Arc, time::Duration};

use super::{guarded::GuardSample, kube::KubeSample, log_writer::LogSample};
use crate::{model::ServicePortName, share};

/// What is known of the node beside its traffic; read when a scrape comes.
#[derive(Clone, Debug, Default)]
pub struct NodeSample {
    /// (namespace, pod, decision, count) from the kernel's counters.
    pub pod_decisions: Vec<(String, String, &'static str, u64)>,
    /// (decision, count) for connections of no enrolled pod.
    pub node_decisions: Vec<(&'static str, u64)>,
    pub pods_enrolled: u64,
    pub pods_waiting: u64,
    /// Known, and not to be enrolled.
    pub pods_left_alone: u64,
    /// Waiting, and what they dial is refused.
    pub pods_held: u64,
    /// (when they run, seen from the agent's; programs of others in the kernel).
    pub other_programs: Vec<(&'static str, u64)>,
    /// `None` when nothing tells the agent of pods as they come.
    pub enrolments: Option<Histogram>,
    pub inbound_over_share: u64,
    pub group_losses: u64,
    pub destinations: u64,
    pub destinations_contested: u64,
    pub snapshot_version: u64,
    pub snapshot_age: Duration,
    pub heartbeat_age: Option<Duration>,
    pub config_rejected: Rejected,
    /// (service port, state, endpoints).
    pub endpoints: Vec<(ServicePortName, &'static str, u64)>,
    /// (result, health checks that ended so).
    pub health: Vec<(&'static str, u64)>,
    pub probes_held_back: u64,
    /// (result, DNS lookups that ended so).
    pub dns_lookups: Vec<(&'static str, u64)>,
    pub guards: Vec<GuardSample>,
    /// (budget, namespace, what was refused).
    pub refused: Vec<(&'static str, Arc<str>, u64)>,
    /// What pods hold and have cost.
    pub accounts: Vec<share::Sample>,
    pub access_log: LogSample,
    pub own_log: OwnLog,
    /// (window, connections that were ended for others).
    pub displaced: Vec<(&'static str, u64)>,
    /// `None` without a cluster.
    pub kube: Option<KubeSample>,
}

/// Durations by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// (upper bound in seconds, how many were in this bucket); the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Of all durations, in seconds.
    pub sum: f64,
}

/// Whether the newest configuration is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rejected {
    #[default]
    No,
    Yes,
}

/// Lines of the agent's own log that were not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnLog {
    pub dropped: u64,
    pub suppressed: u64,
}
