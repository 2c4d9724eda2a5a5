//! A ring of points, as ketama's: a key belongs to the endpoint of the next point.

use std::net::SocketAddr;

use super::hash;

/// The most points of a ring, some 16 bytes each.
const MAX_POINTS: u64 = 65_536;

/// Points of all endpoints, in order.
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<(u64, u16)>,
}

impl Ring {
    /// `endpoints` are addresses with weights; their indices are what [`Ring::owners`] yields.
    ///
    /// An endpoint has `min_size` points per unit of weight, however many others there are, so that nobody's points
    /// move when another comes or leaves. Only when the ring would exceed 65,536 points is that halved, for all
    /// alike, until it fits.
    pub(super) fn new(endpoints: &[(SocketAddr, u32)], min_size: u32) -> Self {
        let min_size = u64::from(min_size.max(1));
        let all: u64 = endpoints.iter().map(|(_, w)| u64::from(*w)).sum();
        let halvings = (0..u64::BITS).find(|h| all.saturating_mul(min_size) >> h <= MAX_POINTS);
        let mut points: Vec<(u64, SocketAddr, u16)> = Vec::new();
        for (i, (address, weight)) in (0u16..).zip(endpoints) {
            let count = (u64::from(*weight) * min_size) >> halvings.unwrap_or(0);
            points.extend((0..count.max(1)).map(|n| (hash::point(*address, n), *address, i)));
        }
        // Equal points are in the order of addresses, whatever the order of the list.
        points.sort_unstable();
        Self {
            points: points.into_iter().map(|(at, _, i)| (at, i)).collect(),
        }
    }

    /// The endpoint that a key belongs to, then those that would have it without the ones before. May repeat.
    pub(super) fn owners(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(at, _)| *at < key);
        let (before, from) = self.points.split_at(start);
        from.iter().chain(before).map(|(_, i)| usize::from(*i))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }
}
