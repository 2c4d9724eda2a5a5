//! Instants as whole numbers, so that an atomic can hold one.

use std::{sync::OnceLock, time::Duration, time::Instant};

/// What all ticks are counted from. Only a base of measurement: no decision depends on which instant it is.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// The ticks of [`ORIGIN`]. Instants before it have fewer; 18 years on either side keep a tick below 2^60.
const MIDDLE: u64 = 1 << 59;

/// Nanoseconds since a time before every process; never zero, below 2^60.
pub(super) fn ticks(at: Instant) -> u64 {
    let origin = *ORIGIN.get_or_init(|| at);
    match at.checked_duration_since(origin) {
        Some(after) => MIDDLE + nanos(after),
        None => MIDDLE - nanos(origin.saturating_duration_since(at)),
    }
}

/// The instant of [`ticks`]; `None` for zero, which is no instant's.
pub(super) fn instant(ticks: u64) -> Option<Instant> {
    let origin = *ORIGIN.get()?;
    if ticks == 0 {
        return None;
    }
    match ticks.checked_sub(MIDDLE) {
        Some(after) => origin.checked_add(Duration::from_nanos(after)),
        None => origin.checked_sub(Duration::from_nanos(MIDDLE - ticks)),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).map_or(MIDDLE - 1, |n| n.min(MIDDLE - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_comes_back_whole_on_either_side_of_the_first() {
        let now = tokio::time::Instant::now().into_std();
        for at in [
            now,
            now + Duration::from_secs(3600),
            now - Duration::from_nanos(7),
        ] {
            assert_eq!(instant(ticks(at)), Some(at));
        }
        assert!(ticks(now) < ticks(now + Duration::from_nanos(1)));
        assert_eq!(instant(0), None);
    }
}
