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
