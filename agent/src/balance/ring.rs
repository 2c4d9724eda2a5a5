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

    /// What a ring takes of memory, at most.
    pub(super) fn bytes(endpoints: &[(SocketAddr, u32)], min_size: u32) -> usize {
        let all: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let points = all.saturating_mul(min_size.into()).min(MAX_POINTS);
        // Each endpoint has a point, however many there are.
        usize::try_from(points).unwrap_or(usize::MAX).max(endpoints.len()) * size_of::<(u64, u16)>()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(weights: &[u32]) -> Vec<(SocketAddr, u32)> {
        (1u8..)
            .zip(weights)
            .map(|(i, w)| (([10, 0, 0, i], 80).into(), *w))
            .collect()
    }

    fn owner(ring: &Ring, list: &[(SocketAddr, u32)], key: u64) -> SocketAddr {
        list[ring.owners(hash::again(key, 0)).next().unwrap()].0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// When one leaves, only its keys move; seen the other way, when one comes, keys move only to it.
        #[test]
        fn only_the_keys_of_the_one_that_leaves_move(
            weights in prop::collection::vec(1u32..4, 2..12), gone: prop::sample::Index, seed: u64,
        ) {
            let before = list(&weights);
            let gone = gone.index(before.len());
            let mut after = before.clone();
            let (leaving, _) = after.remove(gone);
            // The order of the list means nothing.
            fastrand::Rng::with_seed(seed).shuffle(&mut after);
            let (ring, smaller) = (Ring::new(&before, 1024), Ring::new(&after, 1024));
            for key in 0..2000 {
                let was = owner(&ring, &before, key);
                let is = owner(&smaller, &after, key);
                prop_assert!(was == is || was == leaving, "key {key} moved from {was} to {is}");
                prop_assert_ne!(is, leaving);
            }
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        for weights in [vec![1; 3], vec![1; 40], vec![1, 2, 3], vec![100, 50, 50]] {
            let list = list(&weights);
            let ring = Ring::new(&list, 1024);
            let mut counts = vec![0f64; list.len()];
            let n = 50_000;
            for key in 0..n {
                counts[ring.owners(hash::again(key, 0)).next().unwrap()] += 1.0;
            }
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let share = n as f64 * f64::from(*weight) / f64::from(total);
                // 1,024 points spread by 3 %, 40 endpoints' extremes by three times that.
                assert!(
                    (count / share - 1.0).abs() < 0.15,
                    "{count} of {share} by {weights:?}"
                );
            }
        }
    }

    #[test]
    fn its_size_is_bounded_from_both_sides() {
        assert_eq!(Ring::new(&list(&[1]), 1024).len(), 1024);
        assert_eq!(Ring::new(&list(&[1; 64]), 1024).len(), 65_536);
        for (weights, min) in [
            (vec![1; 200], 1024),
            (vec![1_000_000; 3], 1024),
            (vec![1], u32::MAX),
        ] {
            let len = Ring::new(&list(&weights), min).len();
            assert!((32_000..=65_536).contains(&len), "{len} points");
        }
        let lopsided = Ring::new(&list(&[u32::MAX, 1]), 1024);
        assert!((0..2).all(|i| lopsided.owners(0).any(|owner| owner == i)));
        assert_eq!(Ring::new(&[], 1024).owners(5).next(), None);
    }
}
