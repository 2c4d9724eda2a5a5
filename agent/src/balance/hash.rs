//! The hash behind ringHash and maglev: XXH3, whose values are the same on every machine and in every version, so
//! that all nodes send a key to the same endpoint.

use std::net::{IpAddr, SocketAddr};

use twox_hash::XxHash3_64;

/// The hash of what a policy's `HashKey` names (a header's value, a cookie's value, the octets of an address), for
/// [`super::Balancer::choose`].
pub fn hash_key(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// A point of `address`, the `n`-th of many.
pub(super) fn point(address: SocketAddr, n: u64) -> u64 {
    let mut bytes = [0; 18];
    let octets = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    bytes[..16].copy_from_slice(&octets);
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    XxHash3_64::oneshot_with_seed(n, &bytes)
}

/// Another number for the `n`-th try with the same key.
pub(super) fn again(key: u64, n: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(n, &key.to_le_bytes())
}
