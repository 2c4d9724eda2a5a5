//! How long enrolments took.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds, in microseconds.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

/// Written by the publisher, read by a scrape.
#[derive(Debug, Default)]
pub struct EnrolmentTimes {
    /// Not cumulative; the last has no bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl EnrolmentTimes {
    pub(super) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    /// (upper bound, how many were in this bucket); without a bound for the last.
    pub fn buckets(&self) -> Vec<(Option<Duration>, u64)> {
        let bounds = BOUNDS.iter().map(|micros| Some(Duration::from_micros(*micros)));
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        bounds.chain([None]).zip(counts).collect()
    }

    /// Of all durations.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_that_bounds_it() {
        let times = EnrolmentTimes::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001] {
            times.observe(Duration::from_micros(micros));
        }
        let filled: Vec<(usize, u64)> = times
            .buckets()
            .iter()
            .map(|(_, n)| *n)
            .enumerate()
            .filter(|(_, n)| *n > 0)
            .collect();
        assert_eq!(filled, [(0, 2), (1, 1), (13, 1), (14, 1)]);
        assert_eq!(times.sum(), Duration::from_micros(20_001_002));
        assert_eq!(times.buckets().last().map(|(bound, _)| *bound), Some(None));
    }
}
