//! What can become of a connection, and how often it did.

/// How many counters a slot has; a power of two, so that an index can be masked.
pub const PATHS: usize = 32;

/// Index of the counters that belong to no pod.
pub const NODE_COUNTERS: u32 = crate::SLOTS as u32;

/// Declares [`Path`], all its values and their names in one place.
macro_rules! paths {
    ($($(#[$doc:meta])* $path:ident = $index:literal as $name:literal,)*) => {
        /// What a program decided. Each decision is counted once, under the pod that it concerns.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Path {
            $($(#[$doc])* $path = $index,)*
        }

        impl Path {
            /// In the order of their indices.
            pub const ALL: &[Self] = &[$(Self::$path),*];

            /// As metrics and documents name it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$path => $name,)*
                }
            }
        }
    };
}

paths! {
    /// connect: handed to the agent.
    Redirected = 0 as "redirected",
    /// connect: the mesh does not serve this address.
    PassedUnknown = 1 as "passed_unknown",
    /// connect: not an enrolled pod. Counted for the node.
    PassedNotEnrolled = 2 as "passed_not_enrolled",
    /// connect: the agent shows no sign of life, or cannot take this pod's connections.
    PassedStale = 3 as "passed_stale",
    /// connect: an IPv6 address, and the pod has no `::1`.
    PassedNoIpv6 = 4 as "passed_no_ipv6",
    /// connect: the socket is bound to a device, from which the loopback cannot be reached.
    PassedBoundDevice = 5 as "passed_bound_device",
    /// connect: the socket's storage could not be allocated.
    PassedNoMemory = 6 as "passed_no_memory",
    /// lookup: a redirected SYN reached the outbound listener.
    SteeredOutbound = 7 as "steered_outbound",
    /// lookup: a SYN for an enrolled port reached the inbound listener.
    SteeredInbound = 8 as "steered_inbound",
    /// lookup: the connection comes from this node's agent and has passed it already.
    SkippedSameNode = 9 as "skipped_same_node",
    /// lookup: the connection comes from an address of the node.
    SkippedNodeAddress = 10 as "skipped_node_address",
    /// lookup: the connection came over the pod's own loopback.
    SkippedLoopback = 11 as "skipped_loopback",
    /// lookup: the agent shows no sign of life, or cannot take this pod's connections.
    SkippedStale = 12 as "skipped_stale",
    /// lookup: no listener stood in the slot.
    NoListener = 13 as "no_listener",
    /// origin: a connection of the agent could not be noted, and may be handed to it once more. Counted for the node.
    OriginLost = 14 as "origin_lost",
    /// connect: refused, the pod is held until it is enrolled. Counted for the node.
    RefusedStrict = 15 as "refused_strict",
    /// connect: refused, nobody answers for the destination.
    RefusedDead = 16 as "refused_dead",
    /// connect: who answers for the destination is for the node to decide.
    PassedLeftToNode = 17 as "passed_left_to_node",
}

/// One slot's counters on one CPU, by [`Path`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    pub by_path: [u64; PATHS],
}

const _: () = assert!(PATHS.is_power_of_two() && Path::ALL.len() <= PATHS);

// SAFETY: an array of integers.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Counters {}
