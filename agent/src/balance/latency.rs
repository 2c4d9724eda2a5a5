//! A moving average of latency that remembers peaks. (Twitter finagle, `PeakEwma`.)

use std::time::{Duration, Instant};

/// After this long without a sample, an old latency counts 1/e.
const DECAY: Duration = Duration::from_secs(10);

/// What a failure counts at least when nothing else is known of the endpoint.
const FIRST_FAILURE: f64 = 1.0;

/// Failures in a row double an average up to this many seconds.
const WORST_FAILURE: f64 = 10.0;

/// It jumps to a worse sample and forgets it exponentially.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Latency {
    /// No answer yet.
    #[default]
    Unknown,
    Known {
        seconds: f64,
        at: Instant,
    },
}

impl Latency {
    /// The average now, in seconds; `None` before the first answer.
    pub(super) fn at(self, now: Instant) -> Option<f64> {
        match self {
            Self::Unknown => None,
            Self::Known { seconds, at } => Some(seconds * kept(now.saturating_duration_since(at))),
        }
    }

    /// When the newest sample came.
    pub(super) fn learned(self) -> Option<Instant> {
        match self {
            Self::Unknown => None,
            Self::Known { at, .. } => Some(at),
        }
    }

    /// After an answer that took `took` and ended at `now`.
    #[must_use]
    pub(super) fn after_answer(self, took: Duration, now: Instant) -> Self {
        self.after(took.as_secs_f64(), now)
    }

    /// After a failure that took `took`. A server that fails at once is not a fast one: a failure counts no less
    /// than twice the average so far, and so pushes it up however quick it was.
    #[must_use]
    pub(super) fn after_failure(self, took: Duration, now: Instant) -> Self {
        let least = match self.at(now) {
            Some(seconds) => (2.0 * seconds).min(WORST_FAILURE),
            None => FIRST_FAILURE,
        };
        self.after(took.as_secs_f64().max(least), now)
    }

    fn after(self, sample: f64, now: Instant) -> Self {
        let seconds = match self {
            Self::Known { seconds, at } => {
                let kept = kept(now.saturating_duration_since(at));
                // A peak is compared as it stands now, not as it was.
                let average = seconds * kept;
                if sample < average {
                    average + sample * (1.0 - kept)
                } else {
                    sample
                }
            }
            Self::Unknown => sample,
        };
        Self::Known { seconds, at: now }
    }
}

/// How much of an old value is left after `elapsed`, 1 to 0.
fn kept(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn a_worse_sample_counts_at_once_and_a_better_one_in_time() {
        let start = start();
        let peak = Latency::Unknown
            .after_answer(10 * MS, start)
            .after_answer(100 * MS, start);
        assert_eq!(peak.at(start), Some(0.1));
        let same_time = peak.after_answer(10 * MS, start);
        assert_eq!(
            same_time.at(start),
            Some(0.1),
            "no time has passed, the peak stands"
        );
        let later = start + DECAY;
        let after = same_time.after_answer(10 * MS, later).at(later).unwrap();
        assert!(
            (0.04..0.05).contains(&after),
            "one decay later 1/e of the peak is left: {after}"
        );
    }

    #[test]
    fn a_sample_above_the_decayed_peak_is_a_new_peak() {
        let start = start();
        let later = start + 3 * DECAY;
        let latency = Latency::Unknown
            .after_answer(100 * MS, start)
            .after_answer(50 * MS, later);
        assert_eq!(latency.at(later), Some(0.05));
    }

    #[test]
    fn a_steady_latency_stays_what_it_is() {
        let mut now = start();
        let mut latency = Latency::Unknown;
        for _ in 0..10_000 {
            now += 7 * MS;
            latency = latency.after_answer(20 * MS, now);
            let seconds = latency.at(now).unwrap();
            assert!((0.0199..0.0201).contains(&seconds), "{seconds}");
        }
    }

    #[test]
    fn a_quick_failure_never_looks_fast() {
        let start = start();
        let good = Latency::Unknown.after_answer(20 * MS, start);
        let mut bad = good;
        let mut before = good.at(start).unwrap();
        for _ in 0..20 {
            bad = bad.after_failure(Duration::from_micros(50), start);
            let after = bad.at(start).unwrap();
            assert!(after >= before, "{after} after {before}");
            before = after;
        }
        assert_eq!(before, WORST_FAILURE);
        let first = Latency::Unknown.after_failure(Duration::from_micros(50), start);
        assert_eq!(first.at(start), Some(FIRST_FAILURE));
        let slow = good.after_failure(Duration::from_secs(60), start);
        assert_eq!(slow.at(start), Some(60.0));
    }
}
