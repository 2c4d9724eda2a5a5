//! The power of two choices: two different candidates at random, the better wins.
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.)

use super::weights::Weights;

/// How many draws may hit an unusable candidate before all are looked at in turn.
const DRAWS: usize = 8;

/// Who may be drawn, by position in [`Weights`].
pub(super) struct Draw<'a, U, R> {
    pub(super) weights: &'a Weights,
    pub(super) usable: U,
    /// The part of its share that a candidate may have now, above 0, up to 1: it is passed over that often.
    pub(super) ramp: R,
}

impl<U: Fn(usize) -> bool, R: Fn(usize) -> f64> Draw<'_, U, R> {
    /// The better of two usable candidates: the second when it goes before the first. `None` when none is usable.
    pub(super) fn better(
        &self,
        goes_before: impl Fn(usize, usize) -> bool,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let first = self.one(rng)?;
        if self.weights.is_both(first, rng) {
            return Some(first);
        }
        let Some(second) = self.other(first, rng) else {
            return Some(first);
        };
        Some(if goes_before(second, first) { second } else { first })
    }

    /// A usable candidate; `None` when there is none.
    pub(super) fn one(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        let mut passed_over = None;
        for _ in 0..DRAWS {
            let i = self.weights.draw(rng)?;
            if (self.usable)(i) {
                if self.accepts(i, rng) {
                    return Some(i);
                }
                passed_over = Some(i);
            }
        }
        // All may be new: then nobody's share is smaller than another's.
        passed_over.or_else(|| self.scan(|i| (self.usable)(i), rng))
    }

    /// A usable candidate other than `first`; `None` when there is none, or when its slow start passes it over.
    fn other(&self, first: usize, rng: &mut fastrand::Rng) -> Option<usize> {
        let drawn = (0..DRAWS)
            .find_map(|_| self.weights.draw_other(first, rng).filter(|i| (self.usable)(*i)))
            .or_else(|| self.scan(|i| i != first && (self.usable)(i), rng))?;
        let (ramp, of_first) = ((self.ramp)(drawn), (self.ramp)(first));
        // Compared with the first: where all are new, two are still looked at.
        (ramp >= of_first || rng.f64() * of_first < ramp).then_some(drawn)
    }

    fn accepts(&self, i: usize, rng: &mut fastrand::Rng) -> bool {
        let ramp = (self.ramp)(i);
        ramp >= 1.0 || rng.f64() < ramp
    }

    fn scan(&self, usable: impl Fn(usize) -> bool, rng: &mut fastrand::Rng) -> Option<usize> {
        let len = self.weights.len();
        let start = rng.usize(..len);
        (start..len).chain(0..start).find(|i| usable(*i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(n: usize) -> Weights {
        Weights::new(std::iter::repeat_n(1, n))
    }

    #[test]
    fn finds_the_one_usable_candidate_among_many() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (n, only, found) in [(1000, Some(617), Some(617)), (10, None, None), (0, None, None)] {
            let draw = Draw {
                weights: &equal(n),
                usable: |i| Some(i) == only,
                ramp: |_| 1.0,
            };
            for _ in 0..100 {
                assert_eq!(draw.better(|_, _| false, &mut rng), found);
            }
        }
    }

    #[test]
    fn of_two_the_better_always_wins() {
        let mut rng = fastrand::Rng::with_seed(1);
        let draw = Draw {
            weights: &equal(2),
            usable: |_| true,
            ramp: |_| 1.0,
        };
        for _ in 0..100 {
            assert_eq!(draw.better(|own, _| own == 1, &mut rng), Some(1));
        }
    }

    #[test]
    fn a_candidate_in_slow_start_is_drawn_in_proportion() {
        let mut rng = fastrand::Rng::with_seed(1);
        let draw = Draw {
            weights: &equal(3),
            usable: |_| true,
            ramp: |i| [1.0, 1.0, 0.25][i],
        };
        let slow = (0..9000).filter(|_| draw.one(&mut rng) == Some(2)).count();
        // 0.25 of 2.25 shares.
        assert!((850..1150).contains(&slow), "{slow} of 9000");
    }
}
