//! When an exchange must be over.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::HeaderName};
use tokio::time::Instant;

use crate::model::{RequestTimeout, RuleTimeouts, Timeouts};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The bounds of one exchange, as points in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadlines {
    /// Response headers must be here.
    pub(super) headers: Option<Instant>,
    /// Everything must be over.
    pub(super) whole: Option<Instant>,
    /// From one byte to the next, in either direction.
    pub(super) idle: Option<Duration>,
    /// Each attempt, until its response headers.
    pub(super) per_try: Option<Duration>,
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
            RequestTimeout::Whole(limit) => (Some(limit), Some(limit)),
            RequestTimeout::None => (None, None),
        };
        // A caller that names its own deadline has thought of it: the default for those that have not is off.
        let (headers, whole) = match grpc {
            Some(grpc) => {
                let whole = whole.map_or(grpc, |whole| whole.min(grpc));
                (Some(whole), Some(whole))
            }
            None => (headers, whole),
        };
        let per_try = match rule.backend_request {
            Some(Duration::ZERO) => None,
            Some(limit) => Some(limit),
            None => policy.per_try,
        };
        Self {
            headers: headers.map(|d| now + d),
            whole: whole.map(|d| now + d),
            idle: policy.idle,
            per_try,
        }
    }

    /// When an attempt that begins now is given up, and for which reason.
    pub(super) fn of_attempt(&self, now: Instant) -> Option<(Instant, Limit)> {
        let attempt = self.per_try.map(|limit| (now + limit, Limit::PerTry));
        let request = self.headers.map(|at| (at, Limit::Request));
        match (attempt, request) {
            (Some(attempt), Some(request)) => Some(if attempt.0 < request.0 { attempt } else { request }),
            (one, other) => one.or(other),
        }
    }

    /// Time that is left for response headers.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.headers
            .map_or(Duration::MAX, |at| at.saturating_duration_since(now))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    PerTry,
    Request,
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
    let millis = left.as_millis().min(99_999_999);
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
        let now = Instant::now();
        let s = Duration::from_secs;
        let check = |policy: RequestTimeout,
                     rule: Option<u64>,
                     grpc: Option<u64>,
                     headers: Option<u64>,
                     whole: Option<u64>| {
            let policy = Timeouts {
                request: policy,
                ..Timeouts::default()
            };
            let rule = RuleTimeouts {
                request: rule.map(s),
                backend_request: None,
            };
            let found = Deadlines::new(&policy, rule, grpc.map(s), now);
            let at = |n: Option<u64>| n.map(|n| now + s(n));
            assert_eq!(
                (found.headers, found.whole),
                (at(headers), at(whole)),
                "{policy:?} {rule:?} {grpc:?}"
            );
        };
        use RequestTimeout::{Headers, None as Never, Whole};
        check(Headers(s(15)), None, None, Some(15), None);
        check(Whole(s(3)), None, None, Some(3), Some(3));
        check(Headers(s(15)), Some(2), None, Some(2), Some(2));
        check(Headers(s(15)), Some(0), None, None, None);
        check(Never, None, Some(7), Some(7), Some(7));
        check(Headers(s(15)), None, Some(60), Some(60), Some(60));
        check(Whole(s(3)), None, Some(60), Some(3), Some(3));
        check(Whole(s(30)), None, Some(6), Some(6), Some(6));
    }

    #[test]
    fn an_attempt_ends_with_its_own_time_or_with_the_requests() {
        let now = Instant::now();
        let policy = Timeouts {
            per_try: Some(Duration::from_secs(10)),
            ..Timeouts::default()
        };
        let deadlines = Deadlines::new(&policy, RuleTimeouts::default(), None, now);
        assert_eq!(
            deadlines.of_attempt(now),
            Some((now + Duration::from_secs(10), Limit::PerTry))
        );
        let later = now + Duration::from_secs(6);
        assert_eq!(
            deadlines.of_attempt(later),
            Some((now + Duration::from_secs(15), Limit::Request))
        );
    }
}
