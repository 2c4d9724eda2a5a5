//! When something happened, for people: from the monotonic clock that the engine measures by.

use std::{
    cell::Cell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// Wall time from the monotonic clock, so that a request reads one clock. Corrected at every tick.
#[derive(Debug)]
pub(super) struct WallClock {
    anchor: Cell<(Instant, Duration)>,
}

impl WallClock {
    pub(super) fn new() -> Self {
        let this = Self {
            anchor: Cell::new((Instant::now(), Duration::ZERO)),
        };
        this.adjust();
        this
    }

    pub(super) fn adjust(&self) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.anchor.set((Instant::now(), since_epoch));
    }

    pub(super) fn at(&self, instant: Instant) -> Rfc3339 {
        let (anchor, wall) = self.anchor.get();
        let since = match instant.checked_duration_since(anchor) {
            Some(after) => wall + after,
            None => wall.saturating_sub(anchor.duration_since(instant)),
        };
        Rfc3339(since)
    }
}

/// A time since the epoch as RFC 3339 in UTC with microseconds.
pub(super) struct Rfc3339(pub(super) Duration);

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text()))
    }
}

impl Rfc3339 {
    /// By hand: the formatting of the standard library costs a tenth of what the engine spends on a request. Years have
    /// four digits.
    pub(super) fn text(&self) -> [u8; 27] {
        let seconds = self.0.as_secs();
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (h, m, s, us) = (rest / 3600, rest / 60 % 60, rest % 60, self.0.subsec_micros());
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let parts = [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, h),
            (14, 2, m),
            (17, 2, s),
            (20, 6, us.into()),
        ];
        for (at, digits, mut value) in parts {
            for place in text[at..at + digits].iter_mut().rev() {
                *place = b'0' + (value % 10) as u8;
                value /= 10;
            }
        }
        text
    }
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`, for days after the epoch).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (
        yoe + era * 400 + u64::from(month <= 2),
        month,
        doy - (153 * mp + 2) / 5 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let check = |seconds: u64, micros: u32, expect: &str| {
            assert_eq!(Rfc3339(Duration::new(seconds, micros * 1000)).to_string(), expect);
        };
        check(0, 0, "1970-01-01T00:00:00.000000Z");
        check(951_782_400, 1, "2000-02-29T00:00:00.000001Z");
        check(1_709_210_096, 999_999, "2024-02-29T12:34:56.999999Z");
        check(4_102_444_799, 0, "2099-12-31T23:59:59.000000Z");
    }
}
