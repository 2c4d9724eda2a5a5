//! One address that answers for a service.

use std::{
    net::SocketAddr,
    ops::{Deref, DerefMut},
    sync::Arc,
};

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

/// Who answers for a service port.
///
/// Reads as a slice: of nobody, while that is not known.
#[derive(Clone, Debug, PartialEq)]
pub enum Endpoints {
    /// Each address once.
    Known(Vec<Endpoint>),
    /// Nobody has asked yet. Whoever cannot wait for the answer may go to this, the service's own virtual address, and
    /// have it decided there.
    Unknown { instead: Option<SocketAddr> },
}

impl Endpoints {
    pub fn is_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }
}

impl Default for Endpoints {
    fn default() -> Self {
        Self::Known(Vec::new())
    }
}

impl From<Vec<Endpoint>> for Endpoints {
    fn from(known: Vec<Endpoint>) -> Self {
        Self::Known(known)
    }
}

impl FromIterator<Endpoint> for Endpoints {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(known: I) -> Self {
        Self::Known(known.into_iter().collect())
    }
}

impl Deref for Endpoints {
    type Target = [Endpoint];

    fn deref(&self) -> &[Endpoint] {
        match self {
            Self::Known(known) => known,
            Self::Unknown { .. } => &[],
        }
    }
}

impl DerefMut for Endpoints {
    fn deref_mut(&mut self) -> &mut [Endpoint] {
        match self {
            Self::Known(known) => known,
            Self::Unknown { .. } => &mut [],
        }
    }
}

impl<'a> IntoIterator for &'a Endpoints {
    type Item = &'a Endpoint;
    type IntoIter = std::slice::Iter<'a, Endpoint>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
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
