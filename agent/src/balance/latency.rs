//! How slow an endpoint is: a moving average of the logarithm of its latency.
//!
//! It estimates the median and not the mean, so that one slow answer moves it little, however slow it was, and many move
//! it soon: ten times as slow is known after seven answers.

use std::{
    f64::consts::{LN_2, LN_10},
    time::{Duration, Instant},
};

/// An endpoint is compared by its latency after so many answers. The first ones of a cold start are slow, and the mean of
/// fewer is chance.
const ENOUGH: u8 = 20;

/// The part that the newest answer has in the average: grows with the time since the last by [`NEWEST_A_SECOND`], so that
/// the average is over a second or two at least, within these.
const NEWEST: (f64, f64) = (0.02, 1.0 / ENOUGH as f64);
const NEWEST_A_SECOND: f64 = 0.5;

/// The difference from the average that an answer counts with at most, in logarithms: eight times as long. A failure
/// counts as such an answer, so that who fails every fourth request seems twice as slow as it is, see [`Seen::SLOWER`].
const OUTLIER: f64 = 3.0 * LN_2;

/// Failures do not make an average worse than this: the logarithm of ten seconds.
const WORST_FAILURE: f64 = LN_10;

/// What was learned counts for so long. After that the endpoint is looked at again, by one request.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// Failures in a row of an endpoint that has not answered at all, until others are preferred, and for how long. A server
/// that is just starting may refuse one connection.
const FIRST_FAILURES: u8 = 2;
const FIRST_FAILURES_COUNT_FOR: Duration = Duration::from_secs(2);

/// No answer takes less, so that there is a logarithm.
const LEAST: Duration = Duration::from_micros(1);

/// What is known of an endpoint's latency.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latency {
    /// The average of the logarithms of seconds.
    log: f64,
    answers: u8,
    /// Before the first answer.
    failures: u8,
    learned: Option<Instant>,
}

/// What a choice between two endpoints is made by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Seen {
    /// Nothing is known, or not any more: one request at a time may find out.
    Nothing,
    /// A few answers, which say little.
    Little,
    /// No answer and several failures.
    Failures,
    /// The logarithm of seconds.
    Usual(f64),
}

impl Seen {
    /// Who takes twice as long as another is slower; less than that is noise.
    pub(super) const SLOWER: f64 = LN_2;
}

impl Latency {
    /// The usual latency in seconds; `None` before the first answer.
    pub(super) fn usual(self) -> Option<f64> {
        (self.answers > 0).then(|| self.log.exp())
    }

    /// When the newest answer or failure came.
    pub(super) fn learned(self) -> Option<Instant> {
        self.learned
    }

    pub(super) fn seen(self, now: Instant) -> Seen {
        let age = self.age(now);
        match self.answers {
            0 if self.failures >= FIRST_FAILURES && age < FIRST_FAILURES_COUNT_FOR => Seen::Failures,
            0 => Seen::Nothing,
            _ if age >= STALE_AFTER => Seen::Nothing,
            answers if answers < ENOUGH => Seen::Little,
            _ => Seen::Usual(self.log),
        }
    }

    /// Of what was learned last.
    fn age(self, now: Instant) -> Duration {
        let age = self.learned.map(|at| now.saturating_duration_since(at));
        age.unwrap_or(Duration::MAX)
    }

    /// The part that something new has in the average.
    fn newest(self, now: Instant) -> f64 {
        let (least, most) = NEWEST;
        (self.age(now).as_secs_f64() * NEWEST_A_SECOND).clamp(least, most)
    }

    /// After an answer that took `took` and ended at `now`.
    #[must_use]
    pub(super) fn after_answer(self, took: Duration, now: Instant) -> Self {
        let sample = took.max(LEAST).as_secs_f64().ln();
        let answers = self.answers.saturating_add(1);
        // Who was looked at again and is not slow any more is believed. Who still is stays what it was.
        let recovered = self.age(now) >= STALE_AFTER && sample < self.log - Seen::SLOWER;
        let log = if answers <= ENOUGH {
            self.log + (sample - self.log) / f64::from(answers)
        } else if recovered {
            sample
        } else {
            self.log + self.newest(now) * (sample - self.log).clamp(-OUTLIER, OUTLIER)
        };
        Self {
            log,
            answers,
            failures: 0,
            learned: Some(now),
        }
    }

    /// After a failure, however long it took: a server that fails at once is not a fast one.
    #[must_use]
    pub(super) fn after_failure(self, now: Instant) -> Self {
        if self.answers == 0 {
            return Self {
                failures: self.failures.saturating_add(1),
                learned: Some(now),
                ..self
            };
        }
        let log = self.log + self.newest(now) * OUTLIER;
        Self {
            log: log.min(WORST_FAILURE.max(self.log)),
            learned: Some(now),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// `known` after so many answers at 20 a second.
    fn after(known: Latency, answers: u32, took: Duration, now: &mut Instant) -> Latency {
        (0..answers).fold(known, |known, _| {
            *now += 50 * MS;
            known.after_answer(took, *now)
        })
    }

    /// Over 10 ms.
    fn ratio(latency: Latency) -> f64 {
        latency.usual().unwrap() / 0.01
    }

    #[test]
    fn one_slow_answer_is_noise_and_several_are_not() {
        let mut now = start();
        let usual = after(Latency::default(), 50, 10 * MS, &mut now);
        assert!((0.999..1.001).contains(&ratio(usual)));
        let once = after(usual, 1, 10_000 * MS, &mut now);
        assert!((1.03..1.1).contains(&ratio(once)), "{}", ratio(once));
        let slow = after(usual, 14, 100 * MS, &mut now);
        assert!((2.0..2.5).contains(&ratio(slow)), "{}", ratio(slow));
    }

    #[test]
    fn a_cold_start_is_forgotten_by_the_time_that_it_would_count() {
        let mut now = start();
        let cold = after(Latency::default(), 1, 1000 * MS, &mut now);
        let few = after(cold, u32::from(ENOUGH) - 2, 10 * MS, &mut now);
        assert_eq!(few.seen(now), Seen::Little);
        let enough = after(few, 1, 10 * MS, &mut now);
        assert_eq!(enough.seen(now), Seen::Usual(enough.log));
        assert!(ratio(enough) < 1.5, "{}", ratio(enough));
    }

    #[test]
    fn who_was_slow_is_looked_at_again_and_believed() {
        let mut now = start();
        let slow = after(Latency::default(), 50, 500 * MS, &mut now);
        let later = now + STALE_AFTER;
        assert_eq!(slow.seen(later - MS), Seen::Usual(slow.log));
        assert_eq!(slow.seen(later), Seen::Nothing);
        let still = slow.after_answer(400 * MS, later);
        assert!(matches!(still.seen(later), Seen::Usual(log) if (log - slow.log).abs() < 0.1));
        let recovered = slow.after_answer(10 * MS, later);
        assert_eq!(recovered.seen(later), Seen::Usual(recovered.log));
        assert!((0.999..1.001).contains(&ratio(recovered)));
    }

    #[test]
    fn a_quick_failure_never_looks_fast() {
        let mut now = start();
        let usual = after(Latency::default(), 50, 10 * MS, &mut now);
        let fails = |known: Latency, every: u32, now: &mut Instant| {
            (0..200).fold(known, |known, n| match n % every {
                0 => known.after_failure(*now + 50 * MS),
                _ => after(known, 1, 10 * MS, now),
            })
        };
        let seldom = ratio(fails(usual, 10, &mut now));
        assert!((1.0..1.5).contains(&seldom), "{seldom}");
        let often = ratio(fails(usual, 2, &mut now));
        assert!(often > 4.0, "{often}");
        assert_eq!(fails(usual, 1, &mut now).log, WORST_FAILURE);
    }

    #[test]
    fn who_never_answered_is_out_after_two_failures_and_tried_again() {
        let now = start();
        let one = Latency::default().after_failure(now);
        assert_eq!(one.seen(now), Seen::Nothing);
        let two = one.after_failure(now);
        assert_eq!(two.seen(now), Seen::Failures);
        assert_eq!(two.seen(now + FIRST_FAILURES_COUNT_FOR), Seen::Nothing);
        assert_eq!(two.after_answer(MS, now).seen(now), Seen::Little);
        assert_eq!(two.usual(), None);
    }
}
