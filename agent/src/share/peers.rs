//! How many of a pod's places each caller from elsewhere has, so that one caller cannot take them all.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    rc::Rc,
};

/// Places that any peer may have at a worker, however little is left.
const ALWAYS: u64 = 4;

/// The peers of one pod's inbound ports, at one worker.
#[derive(Debug, Default)]
pub struct Peers(RefCell<HashMap<IpAddr, u64>>);

/// A peer's place, given back when it is dropped.
#[derive(Debug)]
pub struct Peer {
    of: Rc<Peers>,
    address: IpAddr,
}

impl Peers {
    /// A place for `address` while `left` more are free at this worker: a peer may have as many as it leaves free for
    /// the others.
    pub fn place(self: &Rc<Self>, address: IpAddr, left: u64) -> Option<Peer> {
        let address = who(address);
        let mut places = self.0.borrow_mut();
        let has = places.get(&address).copied().unwrap_or_default();
        if has >= left.max(ALWAYS) {
            return None;
        }
        places.insert(address, has + 1);
        drop(places);
        Some(Peer {
            of: self.clone(),
            address,
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut places = self.of.0.borrow_mut();
        if let Some(has) = places.get_mut(&self.address) {
            *has -= 1;
            if *has == 0 {
                places.remove(&self.address);
            }
        }
    }
}

/// Whoever has one address of IPv6 has the other 2⁶⁴ of its network too (RFC 4291 section 2.5.4).
fn who(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_leaves_as_many_places_as_it_has() {
        let peers = Rc::new(Peers::default());
        let stranger: IpAddr = [10, 0, 0, 9].into();
        let mut held = Vec::new();
        while let Some(place) = peers.place(stranger, 100 - held.len() as u64) {
            held.push(place);
        }
        assert_eq!(held.len(), 50);
        assert!(peers.place([10, 0, 0, 8].into(), 50).is_some());
        held.truncate(1);
        assert!(peers.place(stranger, 99).is_some());
        held.clear();
        assert!(peers.0.borrow().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        assert_eq!(who("fd00::1".parse().unwrap()), who("fd00::2".parse().unwrap()));
        assert_ne!(
            who("fd00:0:0:1::1".parse().unwrap()),
            who("fd00::1".parse().unwrap())
        );
        assert_ne!(
            who("::ffff:10.0.0.1".parse().unwrap()),
            who("::ffff:10.0.0.2".parse().unwrap())
        );
    }
}
