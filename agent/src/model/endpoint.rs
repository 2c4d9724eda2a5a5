//! One address that answers for a service.

use std::{
    net::{IpAddr, SocketAddr},
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
    /// Where it answers in the other family, when it has both: it is one endpoint all the same, known by `address`.
    pub other: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl Endpoint {
    /// A ready endpoint of weight 1 in no zone.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            weight: 1,
            state: EndpointState::Ready,
            zone: None,
            other: None,
        }
    }

    /// Of the two the one of this family.
    pub fn address_in(&self, family: Family) -> Option<SocketAddr> {
        self.addresses()
            .find(|address| Family::of(address.ip()) == family)
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        [Some(self.address), self.other].into_iter().flatten()
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
    Unknown { instead: Option<Endpoint> },
    /// Not all that answer are known, or nobody is: whoever serves the service's own virtual address decides. The reason is
    /// a sentence for an operator.
    LeftToNode { instead: Endpoint, why: &'static str },
}

impl Endpoints {
    /// Whether there is nothing to wait for.
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }

    /// The service's own virtual address, where it stands for whoever answers.
    pub fn instead(&self) -> Option<&Endpoint> {
        match self {
            Self::Known(_) => None,
            Self::Unknown { instead } => instead.as_ref(),
            Self::LeftToNode { instead, .. } => Some(instead),
        }
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
            Self::Unknown { .. } | Self::LeftToNode { .. } => &[],
        }
    }
}

impl DerefMut for Endpoints {
    fn deref_mut(&mut self) -> &mut [Endpoint] {
        match self {
            Self::Known(known) => known,
            Self::Unknown { .. } | Self::LeftToNode { .. } => &mut [],
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
