//! The power of two choices: two different candidates at random, the cheaper wins.
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.)

/// How many draws may hit an unusable candidate before all are looked at in turn.
const DRAWS: usize = 4;

/// The index of the cheaper of two usable candidates out of `0..len`; `None` when none is usable.
pub(super) fn choose(
    len: usize,
    usable: impl Fn(usize) -> bool,
    cost: impl Fn(usize) -> f64,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let first = draw(len, &usable, rng)?;
    let Some(second) = draw(len, |i| i != first && usable(i), rng) else {
        return Some(first);
    };
    Some(if cost(second) < cost(first) { second } else { first })
}

fn draw(len: usize, usable: impl Fn(usize) -> bool, rng: &mut fastrand::Rng) -> Option<usize> {
    if len == 0 {
        return None;
    }
    for _ in 0..DRAWS {
        let i = rng.usize(..len);
        if usable(i) {
            return Some(i);
        }
    }
    let start = rng.usize(..len);
    (start..len).chain(0..start).find(|&i| usable(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_one_usable_candidate_among_many() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..100 {
            assert_eq!(choose(1000, |i| i == 617, |_| 1.0, &mut rng), Some(617));
        }
        assert_eq!(choose(10, |_| false, |_| 1.0, &mut rng), None);
        assert_eq!(choose(0, |_| true, |_| 1.0, &mut rng), None);
    }

    #[test]
    fn of_two_the_cheaper_always_wins() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..100 {
            assert_eq!(choose(2, |_| true, |i| [2.0, 1.0][i], &mut rng), Some(1));
        }
    }
}
