//! Who holds which of a window's places. Somebody new always gets one: at the cost of whoever has the most.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

/// How many connections a window serves at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub all: usize,
    pub of_peer: usize,
}

/// Whose connections count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Peer {
    /// Of an IPv6 address the network of a host, of which that may have every address.
    Address(IpAddr),
    /// Of this machine; 0 when it is not known.
    Process(i32),
}

impl Peer {
    pub(super) fn address(ip: IpAddr) -> Self {
        Self::Address(match ip.to_canonical() {
            IpAddr::V6(ip) => {
                let network = u128::from(ip) >> 64 << 64;
                IpAddr::V6(network.into())
            }
            v4 => v4,
        })
    }
}

/// The open connections; `T` is what ends one.
#[derive(Debug)]
pub(super) struct Places<T> {
    bounds: Bounds,
    /// Oldest first, with when they came.
    open: HashMap<Peer, VecDeque<(u64, T)>>,
    count: usize,
    came: u64,
}

impl<T> Places<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            open: HashMap::new(),
            count: 0,
            came: 0,
        }
    }

    /// Takes a place for a connection of `peer`. Gives its number, and a connection that must end for it: the peer's
    /// own oldest, or the oldest of whoever has the most.
    pub(super) fn enter(&mut self, peer: Peer, connection: T) -> (u64, Option<T>) {
        let own = self.open.get(&peer).map_or(0, VecDeque::len);
        let loser = if own >= self.bounds.of_peer {
            Some(peer)
        } else if self.count >= self.bounds.all {
            self.heaviest()
        } else {
            None
        };
        let ended = loser.and_then(|loser| {
            let (number, _) = self.open.get(&loser)?.front()?;
            self.leave(loser, *number)
        });
        self.came += 1;
        self.count += 1;
        self.open
            .entry(peer)
            .or_default()
            .push_back((self.came, connection));
        (self.came, ended)
    }

    /// Gives a place back; `None` when it has been given to another.
    pub(super) fn leave(&mut self, peer: Peer, number: u64) -> Option<T> {
        let of_peer = self.open.get_mut(&peer)?;
        let at = of_peer.iter().position(|(n, _)| *n == number)?;
        let (_, connection) = of_peer.remove(at)?;
        if of_peer.is_empty() {
            self.open.remove(&peer);
        }
        self.count -= 1;
        Some(connection)
    }

    /// Of those who have the most, whoever came first.
    fn heaviest(&self) -> Option<Peer> {
        let weight = |of_peer: &VecDeque<(u64, T)>| {
            let first = of_peer.front().map_or(0, |(number, _)| *number);
            (of_peer.len(), std::cmp::Reverse(first))
        };
        let heaviest = self.open.iter().max_by_key(|(_, of_peer)| weight(of_peer));
        heaviest.map(|(peer, _)| *peer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { all: 4, of_peer: 3 };

    fn peer(n: i32) -> Peer {
        Peer::Process(n)
    }

    #[test]
    fn who_has_the_most_makes_way() {
        let mut places = Places::new(BOUNDS);
        let mut enter = |who, what| places.enter(peer(who), what).1;
        assert_eq!(enter(1, "a"), None);
        assert_eq!(enter(1, "b"), None);
        assert_eq!(enter(1, "c"), None);
        assert_eq!(enter(1, "d"), Some("a"), "its own share");
        assert_eq!(enter(2, "e"), None);
        assert_eq!(enter(3, "f"), Some("b"), "all places are taken");
        assert_eq!(enter(4, "g"), Some("c"));
        assert_eq!(enter(5, "h"), Some("d"), "one each: the oldest");
        assert_eq!(enter(6, "i"), Some("e"));
    }

    #[test]
    fn addresses_of_one_host_are_one_peer() {
        let same = |a: &str, b: &str| Peer::address(a.parse().unwrap()) == Peer::address(b.parse().unwrap());
        assert!(same("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
        assert!(same("fd00::1", "fd00::ffff:2"));
        assert!(!same("fd00::1", "fd00:0:0:1::1"));
    }

    proptest! {
        #[test]
        fn bounds_are_kept(steps in proptest::collection::vec((0..6, any::<bool>()), 0..200)) {
            let mut places = Places::new(BOUNDS);
            let mut held = Vec::new();
            for (who, comes) in steps {
                if comes {
                    let (number, ended) = places.enter(peer(who), held.len());
                    held.push((peer(who), number));
                    prop_assert!(ended.is_none_or(|old| old < held.len()));
                } else if let Some((who, number)) = held.pop() {
                    places.leave(who, number);
                }
                let total: usize = places.open.values().map(VecDeque::len).sum();
                prop_assert_eq!(total, places.count);
                prop_assert!(total <= BOUNDS.all);
                prop_assert!(places.open.values().all(|of_peer| of_peer.len() <= BOUNDS.of_peer));
            }
        }
    }
}
