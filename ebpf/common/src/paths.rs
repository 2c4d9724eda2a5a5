//! What can become of a connection, and how often it did.

/// How many counters a slot has; a power of two, so that an index can be masked.
pub const PATHS: usize = 32;

/// Index of the counters that belong to no pod.
pub const NODE_COUNTERS: u32 = crate::SLOTS as u32;

/// What a program decided. Each decision is counted once, under the pod that it concerns.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// connect: handed to the agent.
    Redirected = 0,
    /// connect: the mesh does not serve this address.
    PassedUnknown = 1,
    /// connect: not an enrolled pod. Counted for the node.
    PassedNotEnrolled = 2,
    /// connect: the agent shows no sign of life, or cannot take this pod's connections.
    PassedStale = 3,
    /// connect: an IPv6 address, and the pod has no `::1`.
    PassedNoIpv6 = 4,
    /// connect: the socket is bound to a device, from which the loopback cannot be reached.
    PassedBoundDevice = 5,
    /// connect: the socket's storage could not be allocated.
    PassedNoMemory = 6,
    /// lookup: a redirected SYN reached the outbound listener.
    SteeredOutbound = 7,
    /// lookup: a SYN for an enrolled port reached the inbound listener.
    SteeredInbound = 8,
    /// lookup: the connection comes from this node's agent and has passed it already.
    SkippedSameNode = 9,
    /// lookup: the connection comes from an address of the node.
    SkippedNodeAddress = 10,
    /// lookup: the connection came over the pod's own loopback.
    SkippedLoopback = 11,
    /// lookup: the agent shows no sign of life, or cannot take this pod's connections.
    SkippedStale = 12,
    /// lookup: no listener stood in the slot.
    NoListener = 13,
    /// origin: a connection of the agent could not be noted, and may be handed to it once more. Counted for the node.
    OriginLost = 14,
    /// connect: refused, the pod is held until it is enrolled. Counted for the node.
    RefusedStrict = 15,
    /// connect: refused, nobody answers for the destination.
    RefusedDead = 16,
}

/// One slot's counters on one CPU, by [`Path`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    pub by_path: [u64; PATHS],
}

const _: () = assert!(PATHS.is_power_of_two() && (Path::RefusedDead as usize) < PATHS);

// SAFETY: an array of integers.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Counters {}
