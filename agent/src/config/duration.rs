//! Durations as Go writes them: `250ms`, `1m30s`, `1.5h`.

use std::{fmt, time::Duration};

/// Nanoseconds of each unit, longest first. `µs` (two spellings of µ) is read and never written.
const UNITS: [(&str, u64); 8] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
];

/// How many of [`UNITS`] are written.
const WRITTEN: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: write it like 250ms, 15s or 1m30s")]
pub struct InvalidDuration;

/// Reads a sequence of decimal numbers, each with its unit; their sum. A lone `0` needs no unit.
///
/// What is finer than a nanosecond is cut off, and what does not fit 64 bits of nanoseconds (584 years) is an
/// error.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(InvalidDuration);
    }
    let mut nanos: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after, |c| !c.is_ascii_digit() && c != '.');
        let scale = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(InvalidDuration)?
            .1;
        nanos = term(number, scale)
            .and_then(|term| nanos.checked_add(term))
            .ok_or(InvalidDuration)?;
        rest = after;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Splits before the first character that `belongs` refuses.
fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// `number` (such as `12`, `1.5` or `.5`) × `scale` nanoseconds.
fn term(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?.checked_mul(scale)?
    };
    // Eighteen digits are more than an hour's nanoseconds have, and their product with one still fits 128 bits.
    let digits = &fraction[..fraction.len().min(18)];
    let numerator: u128 = if digits.is_empty() {
        0
    } else {
        digits.parse().ok()?
    };
    let denominator = digits.chars().fold(1, |power: u128, _| power * 10);
    let part = u64::try_from(numerator * u128::from(scale) / denominator).ok()?;
    whole.checked_add(part)
}

/// Writes a duration as [`parse`] reads it, with whole numbers only: `1m30s`, `1s500ms`, `0s`.
#[derive(Clone, Copy, Debug)]
pub struct Display(pub Duration);

impl fmt::Display for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in &UNITS[..WRITTEN] {
            let scale = u128::from(*scale);
            if rest >= scale {
                write!(f, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_writes() {
        fn check(input: &str, expect: Duration) {
            assert_eq!(parse(input), Ok(expect), "{input}");
        }
        check("0", Duration::ZERO);
        check("0s", Duration::ZERO);
        check("250ms", Duration::from_millis(250));
        check("1m30s", Duration::from_secs(90));
        check("1h0m0.5s", Duration::from_millis(3_600_500));
        check("1.5h", Duration::from_secs(5400));
        check(".5s", Duration::from_millis(500));
        check("2.s", Duration::from_secs(2));
        check("7us", Duration::from_micros(7));
        check("7\u{b5}s", Duration::from_micros(7));
        check("7\u{3bc}s", Duration::from_micros(7));
        check(
            "0.333333333333333333333h",
            Duration::from_nanos(1_199_999_999_999),
        );
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for input in [
            "",
            "1",
            "s",
            ".s",
            "1.2.3s",
            "-1s",
            "+1s",
            "1 s",
            "1S",
            "1d",
            "1s2",
            "99999999999h",
            "1s ",
            "é",
        ] {
            assert_eq!(parse(input), Err(InvalidDuration), "{input}");
        }
    }

    #[test]
    fn writes_whole_numbers() {
        fn check(input: Duration, expect: &str) {
            assert_eq!(Display(input).to_string(), expect);
        }
        check(Duration::ZERO, "0s");
        check(Duration::from_millis(1500), "1s500ms");
        check(Duration::from_secs(90), "1m30s");
        check(Duration::from_secs(3600), "1h");
        check(Duration::from_nanos(1_002_003), "1ms2us3ns");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos: u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&Display(duration).to_string()), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in r"[0-9.]{0,25}(h|m|s|ms|us|µs|ns|x)?\PC{0,4}") {
            let _ = parse(&text);
        }
    }
}
