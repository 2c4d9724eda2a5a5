//! One address that answers for a service.

use std::{net::SocketAddr, sync::Arc};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Share of the requests relative to the other endpoints, at least 1.
    pub weight: u32,
    pub state: EndpointState,
    pub zone: Option<Arc<str>>,
}

impl Endpoint {
    /// A ready endpoint of weight 1 in no zone.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            weight: 1,
            state: EndpointState::Ready,
            zone: None,
        }
    }
}

/// Whether an endpoint may get new requests, as discovery and health checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum EndpointState {
    #[default]
    Ready,
    /// It is going away: requests in flight finish, new ones go elsewhere.
    Terminating,
    /// Its active health check fails.
    Unhealthy,
}

impl EndpointState {
    pub const ALL: [Self; 3] = [Self::Ready, Self::Terminating, Self::Unhealthy];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Terminating => "terminating",
            Self::Unhealthy => "unhealthy",
        }
    }
}
