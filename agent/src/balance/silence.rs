//! What a request says of its endpoint that was given up before it was answered. Callers give up for many reasons; an
//! endpoint is to blame when it kept silent for much longer than others take.

use std::time::Duration;

/// So many times what the other endpoints take is silence …
const TIMES: f64 = 5.0;
/// … but nothing shorter than this, in seconds.
const LEAST: f64 = 0.010;
/// Where no other endpoint has answered yet.
const UNKNOWN: f64 = 1.0;

/// Whether `waited` is silence, beside endpoints that take `others` seconds on average.
pub(super) fn is_silence(waited: Duration, others: Option<f64>) -> bool {
    let bound = others.map_or(UNKNOWN, |others| (others * TIMES).max(LEAST));
    waited.as_secs_f64() >= bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_measured_by_what_others_take() {
        let check = |millis: u64, others: Option<f64>, expect: bool| {
            let waited = Duration::from_millis(millis);
            assert_eq!(
                is_silence(waited, others),
                expect,
                "{millis} ms beside {others:?}"
            );
        };
        check(300, Some(0.005), true);
        check(20, Some(0.005), false);
        // Nobody answers within a millisecond always.
        check(5, Some(0.0002), false);
        check(10, Some(0.0002), true);
        // A service whose answers take their time.
        check(10_000, Some(20.0), false);
        check(999, None, false);
        check(1000, None, true);
    }
}
