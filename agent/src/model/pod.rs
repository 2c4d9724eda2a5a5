//! A pod of this node: one network namespace.

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc};

use super::{InboundLimits, Protocol, Slot};

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: PodName,
    /// What the pod is a replica of; the label of its metrics.
    pub workload: Arc<str>,
    /// A file that names the network namespace: `/run/netns/x` or `/proc/PID/ns/net`.
    pub netns: PathBuf,
    /// Ports on which calls to this pod pass the engine, in ascending order, each once.
    pub inbound: Vec<InboundPort>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundPort {
    pub port: u16,
    pub protocol: Protocol,
    pub limits: InboundLimits,
}

/// What has become of a pod that the configuration names.
#[derive(Clone, Debug, PartialEq)]
pub struct PodStatus {
    pub pod: Arc<Pod>,
    pub slot: Slot,
    pub state: PodState,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PodState {
    /// The kernel redirects its connections.
    Enrolled {
        netns_cookie: u64,
        addresses: Vec<IpAddr>,
    },
    /// It is left alone; enrolment is tried again. The reason is a sentence for an operator.
    Waiting { reason: String },
}
