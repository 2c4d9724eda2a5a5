//! What a row of probes says of an endpoint. Pure: no IO, and `now` is an argument.

use std::time::Instant;

use crate::model::{EndpointState, HealthCheck};

/// What is known of an endpoint's health.
///
/// ```text
///               pass                    fail × unhealthyThreshold
///  ┌─▶ Unknown ──────▶ Healthy ──────────────────────────────────▶ Unhealthy
///  │      │               ▲                                            │
///  │      │ fail          └──────── pass × healthyThreshold ───────────┤
///  │      ▼                                                            │
///  │   Unhealthy that has never passed ── pass ──▶ Healthy             │
///  start
/// ```
/// The first verdict decides alone, either way: thresholds keep a verdict from flapping, and at the start there is
/// none that could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No probe has ended yet. The endpoint is used.
    Unknown,
    Healthy,
    /// `passed_before`: it was healthy once. One that never was comes in with its first success.
    Unhealthy {
        passed_before: bool,
    },
}

impl Verdict {
    /// What this says to the snapshot.
    pub fn endpoint_state(self) -> EndpointState {
        match self {
            Self::Unknown | Self::Healthy => EndpointState::Ready,
            Self::Unhealthy { .. } => EndpointState::Unhealthy,
        }
    }

    /// The word in tables and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
}

/// Results in a row until the verdict changes, each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub unhealthy: u32,
    pub healthy: u32,
}

impl From<&HealthCheck> for Thresholds {
    fn from(check: &HealthCheck) -> Self {
        Self {
            unhealthy: check.unhealthy_threshold.max(1),
            healthy: check.healthy_threshold.max(1),
        }
    }
}

/// A verdict that is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub from: Verdict,
    pub to: Verdict,
}

/// One endpoint's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    verdict: Verdict,
    /// When the verdict became what it is.
    since: Instant,
    last: Option<Outcome>,
    /// How many results in a row were like the last.
    consecutive: u32,
}

impl State {
    pub fn new(now: Instant) -> Self {
        Self {
            verdict: Verdict::Unknown,
            since: now,
            last: None,
            consecutive: 0,
        }
    }

    /// Takes the result of a probe. A change when the verdict is another one now.
    pub fn observe(&mut self, outcome: Outcome, thresholds: Thresholds, now: Instant) -> Option<Change> {
        self.consecutive = match self.last {
            Some(last) if last == outcome => self.consecutive.saturating_add(1),
            _ => 1,
        };
        self.last = Some(outcome);
        let to = match (self.verdict, outcome) {
            (Verdict::Unknown | Verdict::Unhealthy { passed_before: false }, Outcome::Passed) => {
                Verdict::Healthy
            }
            (Verdict::Unknown, Outcome::Failed) => Verdict::Unhealthy { passed_before: false },
            (Verdict::Healthy, Outcome::Failed) if self.consecutive >= thresholds.unhealthy => {
                Verdict::Unhealthy { passed_before: true }
            }
            (Verdict::Unhealthy { .. }, Outcome::Passed) if self.consecutive >= thresholds.healthy => {
                Verdict::Healthy
            }
            (same, _) => same,
        };
        if to == self.verdict {
            return None;
        }
        let from = std::mem::replace(&mut self.verdict, to);
        self.since = now;
        Some(Change { from, to })
    }

    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    pub fn last(&self) -> Option<Outcome> {
        self.last
    }

    pub fn consecutive(&self) -> u32 {
        self.consecutive
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    const THRESHOLDS: Thresholds = Thresholds {
        unhealthy: 3,
        healthy: 2,
    };

    fn outcome(passed: bool) -> Outcome {
        if passed { Outcome::Passed } else { Outcome::Failed }
    }

    /// `results`: `+` passes, `-` fails. `verdicts`: what holds after each, `h` or `u`.
    #[track_caller]
    fn check(results: &str, verdicts: &str) {
        let mut state = State::new(start());
        let seen: String = results
            .chars()
            .map(|c| {
                state.observe(outcome(c == '+'), THRESHOLDS, start());
                match state.verdict() {
                    Verdict::Healthy => 'h',
                    Verdict::Unhealthy { .. } => 'u',
                    Verdict::Unknown => '?',
                }
            })
            .collect();
        assert_eq!(seen, verdicts, "{results}");
    }

    #[test]
    fn follows_the_table() {
        // The first verdict decides alone.
        check("+", "h");
        check("-", "u");
        // One that has never passed comes in with its first success, however often it failed.
        check("-----+", "uuuuuh");
        // Three failures in a row take it out; a success between them starts the count anew.
        check("+---", "hhhu");
        check("+--+--+---", "hhhhhhhhhu");
        // Two successes in a row bring it back; a failure between them starts the count anew.
        check("+---++", "hhhuuh");
        check("+---+-+-++", "hhhuuuuuuh");
        // Having been healthy once, it needs both from then on.
        check("-+---+-++", "uhhhuuuuh");
    }

    #[test]
    fn since_moves_with_the_verdict_only() {
        let t0 = start();
        let at = |seconds| t0 + Duration::from_secs(seconds);
        let mut state = State::new(t0);
        let change = state.observe(Outcome::Passed, THRESHOLDS, at(1));
        let expect = Change {
            from: Verdict::Unknown,
            to: Verdict::Healthy,
        };
        assert_eq!((change, state.since()), (Some(expect), at(1)));
        assert_eq!(state.observe(Outcome::Passed, THRESHOLDS, at(2)), None);
        assert_eq!((state.since(), state.consecutive()), (at(1), 2));
    }

    proptest! {
        /// What the verdict is, told from the whole history at once.
        #[test]
        fn a_verdict_is_what_the_last_results_say(
            results in vec(any::<bool>(), 1..60),
            unhealthy in 1u32..6,
            healthy in 1u32..6,
        ) {
            let thresholds = Thresholds { unhealthy, healthy };
            let mut state = State::new(start());
            for seen in 1..=results.len() {
                let before = state.verdict();
                let result = outcome(results[seen - 1]);
                let change = state.observe(result, thresholds, start());
                let row = results[..seen].iter().rev().take_while(|r| **r == results[seen - 1]).count();
                prop_assert_eq!(state.consecutive() as usize, row);
                prop_assert_eq!(change.is_some(), state.verdict() != before);
                match change {
                    // A change follows the last result, after enough of them.
                    Some(Change { from: Verdict::Healthy, to }) => {
                        prop_assert_eq!(to, Verdict::Unhealthy { passed_before: true });
                        prop_assert!(row >= unhealthy as usize && result == Outcome::Failed);
                    }
                    Some(Change { from: Verdict::Unhealthy { passed_before: true }, to }) => {
                        prop_assert_eq!(to, Verdict::Healthy);
                        prop_assert!(row >= healthy as usize && result == Outcome::Passed);
                    }
                    Some(_) => prop_assert!(!results[..seen - 1].contains(&true)),
                    None => {
                        // And it is never late.
                        if state.verdict() == Verdict::Healthy && result == Outcome::Failed {
                            prop_assert!(row < unhealthy as usize);
                        }
                        if matches!(state.verdict(), Verdict::Unhealthy { .. }) && result == Outcome::Passed {
                            prop_assert!(row < healthy as usize);
                        }
                    }
                }
            }
        }
    }
}
