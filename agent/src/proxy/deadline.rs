//! When an exchange must be over.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::HeaderName};
use tokio::time::Instant;

use crate::{
    model::{RequestTimeout, RuleTimeouts, Timeouts},
    retry::Progress,
};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The bounds of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadlines {
    /// From the end of the request until the response headers, with all attempts.
    pub(super) headers: Option<Duration>,
    /// When everything must be over.
    pub(super) whole: Option<Instant>,
    /// Who says so.
    pub(super) whose: Whose,
    /// From one byte to the next, in either direction.
    pub(super) idle: Option<Duration>,
    /// Each attempt, from the end of the request until its response headers.
    pub(super) per_try: Option<Duration>,
}

/// Who has set the deadline of the whole exchange. What a caller asks for too soon is not held against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Policy,
    Caller,
}

impl Deadlines {
    /// What the route says goes before the policy; the caller's own `grpc-timeout` bounds both.
    pub(super) fn new(policy: &Timeouts, rule: RuleTimeouts, grpc: Option<Duration>, now: Instant) -> Self {
        let request = match rule.request {
            Some(Duration::ZERO) => RequestTimeout::None,
            Some(limit) => RequestTimeout::Whole(limit),
            None => policy.request,
        };
        let (headers, whole) = match request {
            RequestTimeout::Headers(limit) => (Some(limit), None),
            RequestTimeout::Whole(limit) => (None, Some(limit)),
            RequestTimeout::None => (None, None),
        };
        // A caller that names its own deadline has thought of it: the default for those that have not is off.
        let headers = headers.filter(|_| grpc.is_none());
        let (whole, whose) = match (grpc, whole) {
            (Some(grpc), Some(whole)) if whole <= grpc => (Some(whole), Whose::Policy),
            (Some(grpc), _) => (Some(grpc), Whose::Caller),
            (None, whole) => (whole, Whose::Policy),
        };
        let per_try = match rule.backend_request {
            Some(Duration::ZERO) => None,
            Some(limit) => Some(limit),
            None => policy.per_try,
        };
        Self {
            headers,
            whole: whole.map(|d| now + d),
            whose,
            idle: policy.idle,
            per_try,
        }
    }

    /// When an attempt that began at `attempt` is given up, as far as can be said now, and for which reason. Nothing but
    /// the whole exchange is bounded while its own caller is waited for, who may take its time as long as it moves.
    pub(super) fn of_attempt(&self, attempt: Instant, request: Progress) -> Option<(Instant, Limit)> {
        let whole = self.whole.map(|at| match self.whose {
            Whose::Policy => (at, Limit::Request),
            Whose::Caller => (at, Limit::Caller),
        });
        let moved = Instant::from_std(request.moved);
        let others = if request.waits {
            [self.idle.map(|limit| (moved + limit, Limit::Idle)), None]
        } else {
            let began = attempt.max(moved);
            [
                self.headers.map(|limit| (moved + limit, Limit::Request)),
                self.per_try.map(|limit| (began + limit, Limit::PerTry)),
            ]
        };
        let all = others.into_iter().chain([whole]).flatten();
        all.min_by_key(|(at, _)| *at)
    }

    /// When to look first at an attempt that begins or goes on at `now`: nothing is due before.
    pub(super) fn look(&self, now: Instant) -> Option<Instant> {
        let moving = [self.headers, self.per_try, self.idle]
            .into_iter()
            .flatten()
            .min();
        let moving = moving.map(|shortest| now + shortest);
        moving.into_iter().chain(self.whole).min()
    }

    /// Time that is left for response headers.
    pub(super) fn left(&self, now: Instant, request: Progress) -> Duration {
        let of_headers = self.headers.map(|limit| Instant::from_std(request.moved) + limit);
        let end = of_headers.into_iter().chain(self.whole).min();
        end.map_or(Duration::MAX, |at| at.saturating_duration_since(now))
    }
}

/// What an attempt has run into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    PerTry,
    Request,
    /// The deadline that the caller itself had set.
    Caller,
    /// Nothing more of the request came.
    Idle,
}

/// The caller's deadline (gRPC over HTTP/2, "Timeout": at most eight digits and a unit).
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// Tells the endpoint how much time is left, where that is less than the caller said.
pub(super) fn tell_endpoint(headers: &mut HeaderMap, left: Duration) {
    let millis = left.as_millis().clamp(1, 99_999_999);
    if let Ok(value) = HeaderValue::try_from(format!("{millis}m")) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_have_a_unit_and_at_most_eight_digits() {
        let check = |text: &str, expect: Option<Duration>| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, text.parse().unwrap());
            assert_eq!(grpc_timeout(&headers), expect, "{text}");
        };
        check("10S", Some(Duration::from_secs(10)));
        check("100m", Some(Duration::from_millis(100)));
        check("99999999n", Some(Duration::from_nanos(99_999_999)));
        check("2H", Some(Duration::from_secs(7200)));
        check("100000000m", None);
        check("S", None);
        check("1.5S", None);
        check("10s", None);
        check("+5S", None);
    }

    #[test]
    fn the_shortest_of_policy_route_and_caller_counts() {
        use RequestTimeout::{Headers, None as Never, Whole};
        use Whose::{Caller, Policy};
        let now = Instant::now();
        let s = Duration::from_secs;
        let check = |policy: RequestTimeout, rule: Option<u64>, grpc: Option<u64>, expect| {
            let policy = Timeouts {
                request: policy,
                ..Timeouts::default()
            };
            let rule = RuleTimeouts {
                request: rule.map(s),
                backend_request: None,
            };
            let found = Deadlines::new(&policy, rule, grpc.map(s), now);
            let (headers, whole, whose): (Option<u64>, Option<u64>, Whose) = expect;
            assert_eq!(
                (found.headers, found.whole, found.whose),
                (headers.map(s), whole.map(|n| now + s(n)), whose),
                "{policy:?} {rule:?} {grpc:?}"
            );
        };
        check(Headers(s(15)), None, None, (Some(15), None, Policy));
        check(Whole(s(3)), None, None, (None, Some(3), Policy));
        check(Headers(s(15)), Some(2), None, (None, Some(2), Policy));
        check(Headers(s(15)), Some(0), None, (None, None, Policy));
        check(Never, None, Some(7), (None, Some(7), Caller));
        check(Headers(s(15)), None, Some(60), (None, Some(60), Caller));
        check(Whole(s(3)), None, Some(60), (None, Some(3), Policy));
        check(Whole(s(30)), None, Some(6), (None, Some(6), Caller));
    }

    #[test]
    fn an_attempt_ends_with_its_own_time_or_with_the_requests() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let policy = Timeouts {
            per_try: Some(Duration::from_secs(10)),
            ..Timeouts::default()
        };
        let deadlines = Deadlines::new(&policy, RuleTimeouts::default(), None, begun);
        let check = |attempt: u64, moved: u64, waits: bool, expect: (u64, Limit)| {
            let request = Progress {
                moved: at(moved).into_std(),
                waits,
            };
            let found = deadlines.of_attempt(at(attempt), request);
            assert_eq!(found, Some((at(expect.0), expect.1)), "{attempt} {moved} {waits}");
        };
        check(0, 0, false, (10, Limit::PerTry));
        check(6, 0, false, (15, Limit::Request));
        // An upload that ends after 20 s, and one whose caller is waited for.
        check(0, 20, false, (30, Limit::PerTry));
        check(0, 20, true, (320, Limit::Idle));
        assert_eq!(deadlines.look(at(7)), Some(at(17)));
    }

    #[test]
    fn the_whole_exchange_is_bounded_while_the_caller_is_waited_for() {
        let now = Instant::now();
        let policy = Timeouts {
            request: RequestTimeout::Whole(Duration::from_secs(3)),
            ..Timeouts::default()
        };
        let deadlines = Deadlines::new(&policy, RuleTimeouts::default(), None, now);
        let request = Progress {
            moved: now.into_std(),
            waits: true,
        };
        let end = now + Duration::from_secs(3);
        assert_eq!(deadlines.of_attempt(now, request), Some((end, Limit::Request)));
        assert_eq!(deadlines.left(now, request), Duration::from_secs(3));
    }
}
