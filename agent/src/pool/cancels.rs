//! Streams that were cancelled not long ago. Frames for them may still be on their way, and h2 must know the stream
//! to pass over them: what it has forgotten counts as a fault of the endpoint, and a thousand of those end the
//! connection with everybody's calls. So a connection takes requests only while all that are open could be cancelled
//! and remembered.

use std::time::Duration;

use tokio::time::Instant;

/// Cancelled streams that a connection remembers.
pub(super) const MAX_REMEMBERED_STREAMS: usize = 2048;
/// For so long: an endpoint has heard of the cancellation by then.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(5);

/// Counts in two generations, each as long as a stream is remembered: no stream is remembered after both.
#[derive(Debug)]
pub(super) struct Cancels {
    began: Instant,
    current: usize,
    previous: usize,
}

impl Cancels {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            current: 0,
            previous: 0,
        }
    }

    pub(super) fn add(&mut self) {
        self.current += 1;
    }

    /// How many may still be remembered.
    pub(super) fn remembered(&self) -> usize {
        self.current + self.previous
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        // A second longer, since h2 looks at its own clock later than this one.
        if now.saturating_duration_since(self.began) > REMEMBERED_FOR + Duration::from_secs(1) {
            self.previous = std::mem::take(&mut self.current);
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_stream_counts_for_as_long_as_it_is_remembered() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut cancels = Cancels::new(start);
        cancels.sweep(start + 5 * second);
        cancels.add();
        cancels.sweep(start + 7 * second);
        cancels.add();
        assert_eq!(cancels.remembered(), 2);
        cancels.sweep(start + 13 * second);
        assert_eq!(cancels.remembered(), 2, "the second is six seconds old");
        cancels.sweep(start + 14 * second);
        assert_eq!(cancels.remembered(), 1);
        cancels.sweep(start + 21 * second);
        assert_eq!(cancels.remembered(), 0);
    }
}
