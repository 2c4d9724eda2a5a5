//! When a silent HTTP/2 connection is asked for a sign of life.
//!
//! gRPC's servers end a connection that asks too often (gRFC A8, "Server Enforcement"). Unless told otherwise they permit
//! one PING in five minutes while calls are open and the server itself says nothing, and one in two hours without a call.
//! So many are sent and no more, whatever the policy says: a stream that is silent for an hour lives. That the endpoint's
//! host has gone is found out by TCP in any case.

use std::time::Duration;

use tokio::time::Instant;

use crate::transport::Pulse;

/// Between two, while calls are open.
const PERMITTED_EVERY: Duration = Duration::from_secs(300);
/// For an answer, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// What is known of a connection that is looked at each `every`.
#[derive(Debug)]
pub(super) struct Keepalive {
    every: Duration,
    /// Bytes that had come at the last look.
    read: u64,
    asked: Option<Instant>,
}

impl Keepalive {
    pub(super) fn new(every: Duration, pulse: &Pulse) -> Self {
        Self {
            every,
            read: pulse.read(),
            asked: None,
        }
    }

    pub(super) fn every(&self) -> Duration {
        self.every
    }

    /// How long the answer may take.
    pub(super) fn wait(&self) -> Duration {
        self.every.min(LONGEST_WAIT)
    }

    /// Whether to ask now: `read` bytes have come so far, and calls are open or not.
    pub(super) fn asks(&mut self, read: u64, is_called: bool, now: Instant) -> bool {
        let is_silent = !self.moved(read);
        let permitted = (self.asked).is_none_or(|at| now.saturating_duration_since(at) >= PERMITTED_EVERY);
        let asks = is_silent && is_called && permitted;
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// Whether anything has come since the last look.
    pub(super) fn moved(&mut self, read: u64) -> bool {
        std::mem::replace(&mut self.read, read) != read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_silent_connection_with_calls_is_asked_and_no_more_than_servers_permit() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut keepalive = Keepalive::new(Duration::from_secs(1), &Pulse::of_nothing());
        assert!(!keepalive.asks(9, true, at(1)), "something came");
        assert!(!keepalive.asks(9, false, at(2)), "nobody calls");
        assert!(keepalive.asks(9, true, at(3)));
        // The answer comes, and the stream goes on to be silent.
        let asked: Vec<u64> = (4..1000)
            .filter(|second| keepalive.asks(26, true, at(*second)))
            .collect();
        assert_eq!(asked, [303, 603, 903]);
    }

    #[test]
    fn an_answer_may_take_as_long_as_the_silence_and_not_for_ever() {
        let wait = |seconds| Keepalive::new(Duration::from_secs(seconds), &Pulse::of_nothing()).wait();
        assert_eq!(wait(3), Duration::from_secs(3));
        assert_eq!(wait(3600), Duration::from_secs(20));
    }
}
