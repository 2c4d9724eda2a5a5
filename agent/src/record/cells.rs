//! Numbers that one worker writes and a scrape reads.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A number with a single writer. The writer needs no locked instruction; readers may lag.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(super) fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).saturating_sub(n), Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds in seconds. Spaced as native histograms of scale 0 would be, rounded to what people read.
pub(super) const BOUNDS: [f64; 17] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0,
];

const BOUNDS_MICROS: [u64; 17] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000, 20_000_000, 30_000_000, 60_000_000,
];

/// Counts of durations by bucket, not cumulative; the last bucket has no bound.
#[derive(Debug, Default)]
pub(super) struct Durations {
    buckets: [Cell; BOUNDS.len() + 1],
    sum_micros: Cell,
}

impl Durations {
    pub(super) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS_MICROS.partition_point(|bound| *bound < micros)].add(1);
        self.sum_micros.add(micros);
    }

    pub(super) fn add_to(&self, sum: &mut DurationsSum) {
        for (total, cell) in sum.buckets.iter_mut().zip(&self.buckets) {
            *total += cell.get();
        }
        sum.sum_micros += self.sum_micros.get();
    }
}

/// The sum of several workers' [`Durations`].
#[derive(Debug, Default)]
pub(super) struct DurationsSum {
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    pub(super) sum_micros: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_that_bounds_it() {
        let check = |micros: u64, bucket: usize| {
            let durations = Durations::default();
            durations.observe(Duration::from_micros(micros));
            let mut sum = DurationsSum::default();
            durations.add_to(&mut sum);
            assert_eq!(
                sum.buckets.iter().position(|n| *n == 1),
                Some(bucket),
                "{micros} µs"
            );
        };
        check(0, 0);
        check(500, 0);
        check(501, 1);
        check(60_000_000, 16);
        check(60_000_001, 17);
        for (seconds, micros) in BOUNDS.iter().zip(BOUNDS_MICROS) {
            assert_eq!(Duration::from_secs_f64(*seconds), Duration::from_micros(micros));
        }
    }
}
