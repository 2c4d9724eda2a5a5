//! Weighted round robin: whose turn is earliest goes next (earliest deadline first, as Envoy's EdfScheduler).

use std::{cmp::Reverse, collections::BinaryHeap};

/// Virtual time between two turns of an endpoint of weight 1. Turns are whole numbers, so that a long life
/// does not lose precision as a float would.
const PERIOD: u64 = 1 << 32;

/// Turns of a fixed set of endpoints, by index.
#[derive(Debug)]
pub(super) struct RoundRobin {
    /// (deadline, order of entry, index): the smallest is next. The order of entry keeps equals in turn.
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    weights: Vec<u32>,
    entries: u64,
    /// Room for those passed over within one call.
    passed: Vec<Reverse<(u64, u64, usize)>>,
}

impl RoundRobin {
    /// Starts at a random endpoint, so that the workers of a node do not all begin with the first.
    pub(super) fn new(weights: impl Iterator<Item = u32>, rng: &mut fastrand::Rng) -> Self {
        let weights: Vec<u32> = weights.map(|w| w.max(1)).collect();
        let mut this = Self {
            queue: BinaryHeap::new(),
            weights,
            entries: 0,
            passed: Vec::new(),
        };
        let start = if this.weights.is_empty() {
            0
        } else {
            rng.usize(..this.weights.len())
        };
        for i in (start..this.weights.len()).chain(0..start) {
            this.enter(0, i, 1.0);
        }
        this
    }

    /// The next usable endpoint; those passed over keep their turn. `ramp` is the part of its share that an endpoint
    /// may have now, above 0, up to 1.
    pub(super) fn next(
        &mut self,
        usable: impl Fn(usize) -> bool,
        ramp: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let mut chosen = None;
        while let Some(Reverse(turn)) = self.queue.pop() {
            if usable(turn.2) {
                self.enter(turn.0, turn.2, ramp(turn.2));
                chosen = Some(turn.2);
                break;
            }
            self.passed.push(Reverse(turn));
        }
        self.queue.extend(self.passed.drain(..));
        chosen
    }

    fn enter(&mut self, now: u64, index: usize, ramp: f64) {
        self.entries += 1;
        let period = PERIOD / u64::from(self.weights[index]);
        // Slow start lengthens the way to the next turn.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` of a positive float saturates"
        )]
        let period = if ramp < 1.0 {
            (period as f64 / ramp) as u64
        } else {
            period
        };
        self.queue
            .push(Reverse((now.saturating_add(period), self.entries, index)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Over any stretch of turns, nobody is ahead or behind its share by more than one turn per endpoint.
        #[test]
        fn shares_follow_the_weights(weights in prop::collection::vec(1u32..20, 1..12), seed: u64, n in 1usize..2000) {
            let mut turns = RoundRobin::new(weights.iter().copied(), &mut fastrand::Rng::with_seed(seed));
            let mut counts = vec![0u32; weights.len()];
            for _ in 0..n {
                counts[turns.next(|_| true, |_| 1.0).unwrap()] += 1;
            }
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let share = n as f64 * f64::from(*weight) / f64::from(total);
                prop_assert!((f64::from(*count) - share).abs() <= weights.len() as f64, "{counts:?} of {weights:?}");
            }
        }
    }
}
