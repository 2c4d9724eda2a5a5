//! What discovery tells the snapshot.

use std::sync::Arc;

use super::{Pod, PodName, Service, ServiceName};

/// One thing that changed in the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A pod is new or different.
    Pod(Arc<Pod>),
    PodGone(PodName),
    /// A service is new or different, in any of its ports, endpoints or policies.
    Service(Arc<Service>),
    ServiceGone(ServiceName),
}
