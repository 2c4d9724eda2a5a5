//! A fixed list of candidates that can be drawn in proportion to their weights.

/// Weights by position. Drawing costs O(1) when they are equal and O(log n) otherwise.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// Sums up to and with each position; strictly rising.
    sums: Vec<u64>,
    least: u64,
    equal: bool,
}

impl Weights {
    /// Zero counts as one.
    pub(super) fn new(weights: impl Iterator<Item = u32>) -> Self {
        let (mut sum, mut least, mut most) = (0, u64::MAX, 0);
        let sums: Vec<u64> = weights
            .map(|w| {
                let w = u64::from(w.max(1));
                (least, most) = (least.min(w), most.max(w));
                sum += w;
                sum
            })
            .collect();
        Self {
            sums,
            least,
            equal: least >= most,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }

    pub(super) fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// The weight at `position` over the mean.
    pub(super) fn relative(&self, position: usize) -> f64 {
        if self.equal {
            return 1.0;
        }
        self.at(position) as f64 * self.len() as f64 / self.total() as f64
    }

    /// A position; `None` when there is none.
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        match self.len() {
            0 => None,
            n if self.equal => Some(rng.usize(..n)),
            _ => Some(self.position(rng.u64(..self.total()))),
        }
    }

    /// A position other than `first`; `None` when there is none.
    pub(super) fn draw_other(&self, first: usize, rng: &mut fastrand::Rng) -> Option<usize> {
        let n = self.len();
        if n < 2 {
            return None;
        }
        if self.equal {
            let i = rng.usize(..n - 1);
            return Some(if i < first { i } else { i + 1 });
        }
        let weight = self.at(first);
        let point = rng.u64(..self.total() - weight);
        let before = self.sums[first] - weight;
        Some(self.position(if point < before { point } else { point + weight }))
    }

    /// Whether `first`, drawn as the first of two, also makes the second, by the weight it has above the least.
    ///
    /// As if each endpoint of weight w were w ÷ least endpoints: two different ones of those are drawn, and both may
    /// be of the same endpoint. With this the shares are exactly the weights when neither of two is preferred.
    pub(super) fn is_both(&self, first: usize, rng: &mut fastrand::Rng) -> bool {
        if self.equal {
            return false;
        }
        let more = self.at(first) - self.least;
        more > 0 && rng.u64(..self.total() - self.least) < more
    }

    fn at(&self, position: usize) -> u64 {
        let before = position.checked_sub(1).map_or(0, |p| self.sums[p]);
        self.sums[position] - before
    }

    fn position(&self, point: u64) -> usize {
        self.sums.partition_point(|sum| *sum <= point)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// With a coin for a preference, the power of two choices gives each its weight.
        #[test]
        fn two_draws_and_a_coin_give_the_weights(list in prop::collection::vec(1u32..30, 2..8), seed: u64) {
            let weights = Weights::new(list.iter().copied());
            let mut rng = fastrand::Rng::with_seed(seed);
            let n = 20_000;
            let mut counts = vec![0f64; list.len()];
            for _ in 0..n {
                let first = weights.draw(&mut rng).unwrap();
                let second = if weights.is_both(first, &mut rng) {
                    first
                } else {
                    weights.draw_other(first, &mut rng).unwrap()
                };
                counts[if rng.bool() { first } else { second }] += 1.0;
            }
            for (count, weight) in counts.iter().zip(&list) {
                let share = f64::from(*weight) / weights.total() as f64;
                let deviation = (f64::from(n) * share * (1.0 - share)).sqrt();
                prop_assert!((count - f64::from(n) * share).abs() < 6.0 * deviation, "{counts:?} of {list:?}");
            }
        }
    }

    #[test]
    fn the_other_is_never_the_first() {
        let mut rng = fastrand::Rng::with_seed(1);
        for list in [vec![1, 1, 1], vec![5, 1, 9]] {
            let weights = Weights::new(list.into_iter());
            for first in 0..3 {
                for _ in 0..200 {
                    assert_ne!(weights.draw_other(first, &mut rng), Some(first));
                }
            }
        }
        assert_eq!(Weights::new([7].into_iter()).draw_other(0, &mut rng), None);
        assert_eq!(Weights::new([].into_iter()).draw(&mut rng), None);
    }
}
