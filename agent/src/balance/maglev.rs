//! A table of slots that endpoints take in turns, each by its own permutation.
//! (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016, section 3.4.)

use std::net::SocketAddr;

use super::hash;

/// The largest table: 2 MiB. A prime, so that every skip visits all slots.
const MAX_SIZE: u32 = 1_048_573;

/// Who owns which slot.
#[derive(Debug)]
pub(super) struct Maglev {
    slots: Vec<u16>,
}

/// An endpoint's way through the table.
struct Way {
    index: u16,
    weight: f64,
    /// Its next slot in its own order.
    at: usize,
    skip: usize,
    /// Slots that its weight has earned and that it has not taken.
    credit: f64,
}

impl Maglev {
    /// `endpoints` are addresses with weights; their indices are what [`Maglev::owners`] yields. `size` becomes the
    /// next prime, at most 1,048,573.
    pub(super) fn new(endpoints: &[(SocketAddr, u32)], size: u32) -> Self {
        let size = prime_from(size.clamp(3, MAX_SIZE));
        let mut sorted: Vec<(u16, SocketAddr, u32)> =
            (0u16..).zip(endpoints).map(|(i, (a, w))| (i, *a, *w)).collect();
        // The order of turns must not depend on the order of the list.
        sorted.sort_by_key(|(_, address, _)| *address);
        let heaviest = f64::from(sorted.iter().map(|(_, _, w)| *w).max().unwrap_or(1).max(1));
        let mut ways: Vec<Way> = (sorted.into_iter())
            .map(|(index, address, weight)| Way {
                index,
                weight: f64::from(weight) / heaviest,
                at: below(hash::point(address, 0), size),
                skip: below(hash::point(address, 1), size - 1) + 1,
                credit: 0.0,
            })
            .collect();
        Self {
            slots: fill(&mut ways, size as usize),
        }
    }

    /// What a table of this size takes of memory.
    pub(super) fn bytes(size: u32) -> usize {
        size.clamp(3, MAX_SIZE) as usize * size_of::<u16>()
    }

    /// The endpoint that a key belongs to, then those that have it while the ones before cannot. May repeat.
    pub(super) fn owners(&self, key: u64) -> impl Iterator<Item = usize> {
        let size = self.slots.len() as u64;
        // Its own slot first; then anywhere, so that the keys of one that is out go to all others.
        (0..).map_while(move |n| {
            let key = if n == 0 { key } else { hash::again(key, n) };
            let slot = usize::try_from(key.checked_rem(size)?).ok()?;
            self.slots.get(slot).map(|i| usize::from(*i))
        })
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> &[u16] {
        &self.slots
    }
}

/// A number below `size`, which is not zero.
fn below(hash: u64, size: u32) -> usize {
    usize::try_from(hash % u64::from(size)).unwrap_or(0)
}

fn fill(ways: &mut [Way], size: usize) -> Vec<u16> {
    const FREE: u16 = u16::MAX;
    if ways.is_empty() {
        return Vec::new();
    }
    let mut slots = vec![FREE; size];
    let mut left = size;
    loop {
        for way in &mut *ways {
            way.credit += way.weight;
            if way.credit < 1.0 {
                continue;
            }
            way.credit -= 1.0;
            // At most `size` steps, as skip and size have no common divisor and a slot is free.
            let slot = loop {
                let slot = way.at;
                way.at = (way.at + way.skip) % size;
                if slots[slot] == FREE {
                    break slot;
                }
            };
            slots[slot] = way.index;
            left -= 1;
            if left == 0 {
                return slots;
            }
        }
    }
}

/// The smallest prime that is at least `n`.
fn prime_from(n: u32) -> u32 {
    let is_prime = |n: u32| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (n..).find(|n| is_prime(*n)).unwrap_or(MAX_SIZE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(weights: &[u32]) -> Vec<(SocketAddr, u32)> {
        (0u16..)
            .zip(weights)
            .map(|(i, w)| {
                let [high, low] = i.to_be_bytes();
                (([10, 0, high, low], 80).into(), *w)
            })
            .collect()
    }

    fn counts(maglev: &Maglev, n: usize) -> Vec<f64> {
        let mut counts = vec![0.0; n];
        for slot in maglev.slots() {
            counts[usize::from(*slot)] += 1.0;
        }
        counts
    }

    #[test]
    fn equal_weights_differ_by_one_slot_at_most() {
        for n in [1, 3, 100] {
            let counts = counts(&Maglev::new(&list(&vec![1; n]), 65_537), n);
            let (least, most) = (
                counts.iter().copied().fold(f64::MAX, f64::min),
                counts.iter().copied().fold(0.0, f64::max),
            );
            assert!(most - least <= 1.0, "{least} to {most} of {n}");
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let weights = [1, 2, 3, 10];
        for (count, weight) in counts(&Maglev::new(&list(&weights), 65_537), 4)
            .iter()
            .zip(weights)
        {
            let share = 65_537.0 * f64::from(weight) / 16.0;
            assert!((count / share - 1.0).abs() < 0.001, "{count} of {share}");
        }
    }

    #[test]
    fn about_one_share_more_moves_than_must_when_one_leaves() {
        for n in [3usize, 10, 100] {
            let before = list(&vec![1; n]);
            let was = Maglev::new(&before, 65_537);
            for gone in [0, n / 2, n - 1] {
                let mut after = before.clone();
                let (leaving, _) = after.remove(gone);
                after.reverse();
                let is = Maglev::new(&after, 65_537);
                let moved = (was.slots().iter().zip(is.slots()))
                    .filter(|(a, b)| before[usize::from(**a)].0 != after[usize::from(**b)].0)
                    .count();
                let part = moved as f64 / 65_537.0;
                assert!(part <= 2.0 / n as f64, "{part} of the keys of {n}");
                assert!(is.slots().iter().all(|i| after[usize::from(*i)].0 != leaving));
            }
        }
    }

    #[test]
    fn the_size_is_a_prime_within_bounds() {
        for (asked, size) in [(0, 3), (4, 5), (65_536, 65_537), (u32::MAX, 1_048_573)] {
            assert_eq!(Maglev::new(&list(&[1]), asked).slots().len(), size);
        }
        assert_eq!(Maglev::new(&[], 65_537).owners(7).next(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_slot_has_an_owner_whatever_the_weights(
            weights in prop::collection::vec(prop_oneof![1u32..10, Just(u32::MAX)], 1..20), size in 2u32..3000,
        ) {
            let n = weights.len();
            let maglev = Maglev::new(&list(&weights), size);
            prop_assert!(maglev.slots().iter().all(|i| usize::from(*i) < n));
        }
    }
}
