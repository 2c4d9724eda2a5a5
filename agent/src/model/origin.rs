//! Where a redirected connection was meant to go.

use std::net::SocketAddr;

use super::DestinationId;

/// Tells the destination of a connection that came in at a pod's outbound listener.
pub trait Origins {
    /// From the cookie of the pod's network namespace, and the accepted socket's own and its peer's address; `None` when the kernel did not redirect it.
    fn destination(&self, netns_cookie: u64, local: SocketAddr, peer: SocketAddr) -> Option<DestinationId>;
}
