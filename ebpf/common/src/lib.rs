//! What the kernel programs and the agent both know: keys and values of the maps, and the encoding of a
//! redirected address.
//!
//! Every type is `repr(C)` without implicit padding, because the kernel compares and copies keys byte by byte.
//! A field that ends in `_be` is in network byte order; all others are in the machine's.
#![no_std]

mod own;
mod redirect;
mod tables;
mod paths;

pub use own::{OWN_COOKIE, OWN_SLOT};
pub use paths::{Counters, NODE_COUNTERS, PATHS, Path};
pub use redirect::{DESTINATIONS, PREFIX, PREFIX_BITS, Redirect, SLOTS};
pub use tables::{
    AddressKey, BY_AGENT, BY_NOBODY, BY_NODE, Beat, ConnectionKey, Destination, Held, LABEL_BYTES, Listener,
    Pod, PodAddressKey, PodConnectionKey, Remembered, V6_PORTS,
};

/// `SO_MARK` of the sockets that the agent opens inside pods. The kernel programs leave such sockets alone.
///
/// The value keeps clear of the bits that kube-proxy (0x4000, 0x8000), Cilium (0x0f00), the AWS CNI (0x80) and
/// Calico (0xffff0000) give a meaning. A mark does not leave the network namespace.
pub const MARK: u32 = 0x305e;

/// How long a connection that the agent opened is known to the namespace where it arrives, in nanoseconds:
/// longer than a SYN and its first retransmissions take.
pub const ORIGIN_LIFETIME_NS: u64 = 30_000_000_000;
