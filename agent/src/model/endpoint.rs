//! One address that answers for a service.

use std::net::SocketAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Share of the requests relative to the other endpoints, at least 1.
    pub weight: u32,
}
