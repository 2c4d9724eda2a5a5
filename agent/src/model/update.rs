//! What discovery tells the snapshot.

use std::{net::SocketAddr, sync::Arc};

use super::{EndpointState, GroupId, Pod, PodName, Service, ServiceName, ServicePortName};

/// One thing that changed in the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A pod is new or different.
    Pod(Arc<Pod>),
    PodGone(PodName),
    /// The pod of this control group is of a strict namespace and is to be enrolled: until it is, what it dials is
    /// refused. `None`: that is so no more.
    Strict(PodName, Option<GroupId>),
    /// A service is new or different, in any of its ports, endpoints or policies.
    Service(Arc<Service>),
    ServiceGone(ServiceName),
    /// The node's own zone is known, another one, or not known any more.
    Zone(Option<Arc<str>>),
    /// An active health check says that an endpoint of a port is [`EndpointState::Ready`] or
    /// [`EndpointState::Unhealthy`]. Discovery's word on the same endpoint stands beside it; the worse counts.
    Health {
        port: ServicePortName,
        endpoint: SocketAddr,
        state: EndpointState,
    },
}
