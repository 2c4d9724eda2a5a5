//! Which of two endpoints a request goes to.

use std::time::Instant;

use super::{EndpointLoad, latency::Seen};

/// Who has had fewer turns than another makes up for so many at most, for their weight: one that was out, or is new,
/// gets no burst.
const OWED: f64 = 2.0;

/// Requests in flight that one may have more than another, by latency, before it matters: one call that hangs, or stands
/// for hours as a stream, is no reason to leave its endpoint out.
const SPARE: f64 = 1.0;

/// One of the two.
#[derive(Clone, Copy)]
pub(super) struct Contender<'a> {
    pub(super) load: &'a EndpointLoad,
    /// Its weight over the mean.
    pub(super) relative: f64,
}

impl Contender<'_> {
    /// Whether this one goes before `other`, by latency and requests in flight. Of who is about as quick the idler does.
    pub(super) fn is_quicker(self, other: Self, now: Instant) -> bool {
        match (self.load.seen(now), other.load.seen(now)) {
            (Seen::Usual(own), Seen::Usual(others)) if (own - others).abs() > Seen::SLOWER => {
                // The slower one's turn comes when the other has that many more requests.
                (own - others).exp() * (self.in_flight() + 1.0) < other.in_flight() + 1.0
            }
            (Seen::Failures, Seen::Failures) | (Seen::Nothing, Seen::Nothing) => {
                self.is_idler_by(other, SPARE)
            }
            (Seen::Failures, _) => false,
            (_, Seen::Failures) => true,
            (Seen::Nothing, _) if self.load.in_flight() > 0 => false,
            (_, Seen::Nothing) if other.load.in_flight() > 0 => true,
            _ => self.is_idler_by(other, SPARE),
        }
    }

    /// Whether this one goes before `other`, by requests in flight and then by whose turn it is.
    pub(super) fn is_idler(self, other: Self) -> bool {
        self.is_idler_by(other, 0.0)
    }

    /// The same, where `spare` requests more than the other has do not matter.
    fn is_idler_by(self, other: Self, spare: f64) -> bool {
        let (own, others) = (self.in_flight(), other.in_flight());
        if (own - others).abs() > spare / self.relative.min(other.relative) {
            return own < others;
        }
        let (own, others) = (self.load.turns.get(), other.load.turns.get());
        self.load.turns.set(own.max(others - OWED));
        other.load.turns.set(others.max(own - OWED));
        own < others
    }

    /// It was chosen; `ramp` is the part of its share that slow start leaves it.
    pub(super) fn take_turn(self, ramp: f64) {
        let turns = &self.load.turns;
        turns.set(turns.get() + 1.0 / (self.relative * ramp));
    }

    /// Requests in flight for its weight.
    fn in_flight(self) -> f64 {
        f64::from(self.load.in_flight()) / self.relative
    }
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, time::Duration};

    use super::*;
    use crate::{balance::Outliers, model::Endpoint};

    const MS: Duration = Duration::from_millis(1);

    fn load(n: u8) -> (Rc<EndpointLoad>, Instant) {
        let now = tokio::time::Instant::now().into_std();
        let endpoint = Endpoint::new(([10, 0, 0, n], 80).into());
        let host = Outliers::new(None).host(endpoint.address);
        (EndpointLoad::new(&endpoint, host, None, now), now)
    }

    fn of(load: &EndpointLoad) -> Contender<'_> {
        Contender { load, relative: 1.0 }
    }

    #[test]
    fn a_new_endpoint_is_tried_with_one_request_at_a_time() {
        let ((new, now), (known, _)) = (load(1), load(2));
        for _ in 0..30 {
            known.observe(10 * MS, now);
        }
        let _busy = (known.begin(), known.begin());
        assert!(of(&new).is_quicker(of(&known), now));
        let _first = new.begin();
        let _more: Vec<_> = (0..5).map(|_| known.begin()).collect();
        assert!(!of(&new).is_quicker(of(&known), now));
        assert!(of(&known).is_quicker(of(&new), now));
    }

    #[test]
    fn a_slower_one_is_chosen_when_the_other_has_that_many_more_requests() {
        let ((slow, now), (quick, _)) = (load(1), load(2));
        for _ in 0..30 {
            slow.observe(100 * MS, now);
            quick.observe(10 * MS, now);
        }
        let busy: Vec<_> = (0..8).map(|_| quick.begin()).collect();
        assert!(!of(&slow).is_quicker(of(&quick), now) && of(&quick).is_quicker(of(&slow), now));
        let _more = (quick.begin(), quick.begin());
        assert!(of(&slow).is_quicker(of(&quick), now) && !of(&quick).is_quicker(of(&slow), now));
        drop(busy);
    }

    #[test]
    fn who_had_no_turn_for_long_makes_up_for_two() {
        let ((old, _), (new, _)) = (load(1), load(2));
        for _ in 0..1000 {
            of(&old).take_turn(1.0);
        }
        let mut of_new = 0;
        for _ in 0..10 {
            let chosen = if of(&new).is_idler(of(&old)) { &new } else { &old };
            of_new += u32::from(Rc::ptr_eq(chosen, &new));
            of(chosen).take_turn(1.0);
        }
        assert_eq!(of_new, 6);
    }
}
