//! How long to wait before a retry.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

use crate::model::Backoff;

/// The pause before retry `n`, which counts from 1: `least`, and full jitter over `(2^n − 1) · base`, at most `max`
/// (Envoy, `x-envoy-max-retries`: exponential back-off with jitter).
pub fn delay(backoff: Backoff, retry: u32, rng: &mut fastrand::Rng) -> Duration {
    let factor = 2u32.saturating_pow(retry) - 1;
    let most = backoff.base.saturating_mul(factor.max(1)).min(backoff.max);
    backoff.least.saturating_add(most.mul_f64(rng.f64()))
}

/// What an endpoint says of being asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Nothing.
    Unsaid,
    /// Not before this time has passed.
    Wait(Duration),
    /// Not at all.
    Never,
}

/// Reads `grpc-retry-pushback-ms` (gRFC A6: a negative or unreadable value forbids) and `retry-after` (RFC 9110
/// section 10.2.3: seconds, or a date to be compared with `now`).
pub fn pushback(headers: &HeaderMap, now: SystemTime) -> Pushback {
    if let Some(value) = headers.get("grpc-retry-pushback-ms") {
        let millis = value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok());
        return millis.map_or(Pushback::Never, |ms| Pushback::Wait(Duration::from_millis(ms)));
    }
    let Some(text) = headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()) else {
        return Pushback::Unsaid;
    };
    if let Ok(seconds) = text.trim().parse() {
        return Pushback::Wait(Duration::from_secs(seconds));
    }
    match httpdate::parse_http_date(text.trim()) {
        Ok(date) => Pushback::Wait(date.duration_since(now).unwrap_or_default()),
        Err(_) => Pushback::Unsaid,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_is_within_its_bounds(
            retry in 1u32..100, seed: u64, least in 0u64..1000, base in 1u64..1000, max in 1u64..10_000,
        ) {
            let [least, base, max] = [least, base, max].map(Duration::from_millis);
            let delay = delay(Backoff { least, base, max }, retry, &mut fastrand::Rng::with_seed(seed));
            prop_assert!((least..=least + max).contains(&delay));
            prop_assert!(retry > 1 || delay <= least + base);
        }
    }

    #[test]
    fn an_endpoint_may_ask_for_time_or_forbid() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_767);
        let check = |name: &'static str, value: &str, expect| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(pushback(&headers, now), expect, "{name}: {value}");
        };
        check(
            "grpc-retry-pushback-ms",
            "250",
            Pushback::Wait(Duration::from_millis(250)),
        );
        check("grpc-retry-pushback-ms", "-1", Pushback::Never);
        check("grpc-retry-pushback-ms", "soon", Pushback::Never);
        check("retry-after", "2", Pushback::Wait(Duration::from_secs(2)));
        check(
            "retry-after",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            Pushback::Wait(Duration::from_secs(10)),
        );
        check(
            "retry-after",
            "Sun, 06 Nov 1994 08:49:17 GMT",
            Pushback::Wait(Duration::ZERO),
        );
        check("retry-after", "later", Pushback::Unsaid);
        check("x-other", "1", Pushback::Unsaid);
    }
}
