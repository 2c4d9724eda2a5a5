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
