//! The addresses of a pod of this node, as the next hop is told them.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The first of each family. They may come after the pod has begun to call, and change.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses(Cell<First>);

#[derive(Clone, Copy, Debug, Default)]
struct First {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl OwnAddresses {
    pub(super) fn new(addresses: &[IpAddr]) -> Self {
        let own = Self::default();
        own.set(addresses);
        own
    }

    pub(super) fn set(&self, addresses: &[IpAddr]) {
        let mut first = First::default();
        for address in addresses {
            match address {
                IpAddr::V4(ip) => first.v4 = first.v4.or(Some(*ip)),
                IpAddr::V6(ip) => first.v6 = first.v6.or(Some(*ip)),
            }
        }
        self.0.set(first);
    }

    /// The one from which the pod calls `to`, as far as its family tells; `None` while none is known.
    pub(super) fn towards(&self, to: IpAddr) -> Option<IpAddr> {
        let First { v4, v6 } = self.0.get();
        let (v4, v6) = (v4.map(IpAddr::V4), v6.map(IpAddr::V6));
        match to {
            IpAddr::V4(_) => v4.or(v6),
            IpAddr::V6(_) => v6.or(v4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_calls_from_its_first_address_of_the_family_it_dials() {
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let c: IpAddr = "fd00::3".parse().unwrap();
        let own = OwnAddresses::new(&[c, a, b]);
        assert_eq!((own.towards(b), own.towards(c)), (Some(a), Some(c)));
        own.set(&[b]);
        assert_eq!((own.towards(a), own.towards(c)), (Some(b), Some(b)));
        own.set(&[]);
        assert_eq!(own.towards(a), None);
    }
}
