//! Keys and values of the maps.

/// Room for a name in a map's value, zero-padded; a longer name is cut.
pub const LABEL_BYTES: usize = 64;

/// A TCP address of either family. IPv4 is written as `::ffff:a.b.c.d`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressKey {
    pub ip_be: [u32; 4],
    pub port_be: u16,
    pub zero: u16,
}

impl AddressKey {
    #[inline(always)]
    pub const fn v4(ip_be: u32, port_be: u16) -> Self {
        Self {
            ip_be: [0, 0, 0xffff_u32.to_be(), ip_be],
            port_be,
            zero: 0,
        }
    }

    #[inline(always)]
    pub const fn v6(ip_be: [u32; 4], port_be: u16) -> Self {
        Self {
            ip_be,
            port_be,
            zero: 0,
        }
    }

    /// Is it `[::1]`, or in 127.0.0.0/8?
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            return u32::from_be(self.ip_be[3]) >> 24 == 127;
        }
        self.ip_be[0] == 0 && self.ip_be[1] == 0 && self.ip_be[2] == 0 && self.ip_be[3] == 1_u32.to_be()
    }

    /// Is it `[::]` or 0.0.0.0? A socket that dials one of these reaches its own host.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.ip_be[0] == 0
            && self.ip_be[1] == 0
            && self.ip_be[3] == 0
            && (self.ip_be[2] == 0 || self.ip_be[2] == 0xffff_u32.to_be())
    }

    /// Is it an IPv4 address?
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.ip_be[0] == 0 && self.ip_be[1] == 0 && self.ip_be[2] == 0xffff_u32.to_be()
    }
}

/// An address and port inside one network namespace: two pods may have the same on an interface of their own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PodAddressKey {
    pub netns_cookie: u64,
    pub address: AddressKey,
    pub zero: u32,
}

impl PodAddressKey {
    #[inline(always)]
    pub const fn new(netns_cookie: u64, address: AddressKey) -> Self {
        Self {
            netns_cookie,
            address,
            zero: 0,
        }
    }
}

/// A connection as the side that opened it sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    pub local_ip_be: [u32; 4],
    pub remote_ip_be: [u32; 4],
    pub local_port_be: u16,
    pub remote_port_be: u16,
}

impl ConnectionKey {
    /// As the other side sees it.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            local_ip_be: self.remote_ip_be,
            remote_ip_be: self.local_ip_be,
            local_port_be: self.remote_port_be,
            remote_port_be: self.local_port_be,
        }
    }
}

/// A connection inside one network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PodConnectionKey {
    pub netns_cookie: u64,
    pub connection: ConnectionKey,
    pub zero: u32,
}

impl PodConnectionKey {
    #[inline(always)]
    pub const fn new(netns_cookie: u64, connection: ConnectionKey) -> Self {
        Self {
            netns_cookie,
            connection,
            zero: 0,
        }
    }
}

/// How many ports of `[::1]` redirected IPv6 connections are spread over, the listener's own and those above it, so that a
/// pod with few ephemeral ports is not limited to as many connections.
pub const V6_PORTS: u16 = 16;

/// An enrolled pod. Its key is the cookie of its network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    pub netns_cookie: u64,
    pub slot: u32,
    /// Port of the pod's outbound listener on `[::1]`, the first of [`V6_PORTS`]; 0 when the pod has no `::1`.
    pub v6_port_be: u16,
    /// Ports of its other listeners: outbound and inbound on an IPv4 loopback address, inbound on `[::1]`.
    pub ports_be: [u16; 3],
    pub zero: u32,
    /// What its sockets are shown as their own address, by family, where a redirected one stands on the loopback; zeros
    /// where it is not known.
    pub own4_be: u32,
    pub own6_be: [u32; 4],
    pub zeros: u32,
    /// `namespace/name`.
    pub label: [u8; LABEL_BYTES],
}

impl Pod {
    /// Is it one of the ports of `[::1]` that are the agent's?
    #[inline(always)]
    pub const fn has_v6_port(&self, port: u16) -> bool {
        let first = u16::from_be(self.v6_port_be);
        first != 0 && port.wrapping_sub(first) < V6_PORTS
    }
}

/// Connections to a destination are handed to the agent.
pub const BY_AGENT: u32 = 0;
/// Nobody answers: they are refused.
pub const BY_NOBODY: u32 = 1;
/// Whoever answers without the mesh does: they are left alone.
pub const BY_NODE: u32 = 2;

/// A destination that the mesh serves. Its key is the address that pods dial.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// How many connections have been redirected; the kernel counts it up.
    pub hits: u64,
    pub id: u32,
    /// Who answers connections to it: one of `BY_`.
    pub answered_by: u32,
    /// `namespace/service:port`.
    pub label: [u8; LABEL_BYTES],
}

/// A pod whose connections are refused until it is enrolled. Its key is the id of its control group.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// How many connections have been refused; the kernel counts it up.
    pub hits: u64,
    /// `namespace/name`.
    pub label: [u8; LABEL_BYTES],
}

/// What a redirected socket keeps.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Remembered {
    /// What the application dialled.
    pub dialled: AddressKey,
    /// What it was given instead. An entry counts only while this is the socket's peer: after a failed connect
    /// the same socket may have been connected elsewhere.
    pub redirected: AddressKey,
    pub id: u32,
}

/// The agent's sign of life.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    /// `CLOCK_MONOTONIC` of the last one in nanoseconds, 0 before the first.
    pub at_ns: u64,
    /// Older than this, and connections are left alone.
    pub stale_after_ns: u64,
}

/// Which of a pod's listeners; see [`Listener::index`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// On an IPv4 loopback address, for connections that the pod opens.
    Outbound = 0,
    /// On an IPv4 loopback address, for IPv4 connections to the pod.
    Inbound4 = 1,
    /// On `[::1]`, for IPv6 connections to the pod.
    Inbound6 = 2,
    /// On `[::1]`, for IPv6 connections that the pod opens.
    Outbound6 = 3,
}

impl Listener {
    pub const ALL: [Self; 4] = [Self::Outbound, Self::Inbound4, Self::Inbound6, Self::Outbound6];

    /// Its place in the listeners' map, below four times the number of slots.
    #[inline(always)]
    pub const fn index(self, slot: u32) -> u32 {
        slot << 2 | self as u32
    }
}

const _: () = {
    assert!(size_of::<AddressKey>() == 20);
    assert!(size_of::<PodAddressKey>() == 32);
    assert!(size_of::<ConnectionKey>() == 36);
    assert!(size_of::<PodConnectionKey>() == 48);
    assert!(size_of::<Pod>() == 112);
    assert!(size_of::<Destination>() == 80);
    assert!(size_of::<Held>() == 72);
    assert!(size_of::<Remembered>() == 44);
    assert!(size_of::<Beat>() == 16);
};

/// The kernel hands any bytes, and any bytes are a value of these types: integers, without padding.
#[cfg(feature = "user")]
mod user {
    // SAFETY: see the module.
    unsafe impl aya::Pod for super::AddressKey {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for super::PodAddressKey {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for super::ConnectionKey {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for super::PodConnectionKey {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for super::Pod {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for super::Destination {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for super::Held {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for super::Beat {}
}
