//! Tables for people, JSON for programs.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::Failure;
use crate::config::duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Json,
}

/// Columns of a terminal that nobody has to widen. Longer cells are wrapped.
const WIDTH: u16 = 120;

/// Prints `value` as JSON, or the text that `table` makes of it.
pub(super) fn print<T: Serialize + ?Sized>(
    output: Output,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match output {
        Output::Table => table(value),
        Output::Json => serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?,
    };
    write(&text)
}

/// Prints a line. A reader that has gone (`| head`) has read what it wanted.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Error(error.into())),
        _ => Ok(()),
    }
}

pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH);
    table.set_header(header).add_rows(rows);
    flush_left(&table)
}

/// Names and values without a header.
pub(super) fn facts(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH);
    table.add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
    flush_left(&table)
}

/// The table without its left padding and without blanks at the ends of lines.
fn flush_left(table: &Table) -> String {
    let lines = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// A length of time with the precision that a person needs: `340ms`, `12s`, `3h5m`.
pub(super) fn age(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let shown = match seconds {
        0 => Duration::from_millis(milliseconds),
        1..3600 => Duration::from_secs(seconds),
        _ => Duration::from_secs(seconds / 60 * 60),
    };
    duration::Display(shown).to_string()
}

/// The present, in milliseconds since the Unix epoch.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// `-` for what is not there.
pub(super) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_as_exact_as_a_person_needs() {
        for (milliseconds, expect) in [
            (0, "0s"),
            (340, "340ms"),
            (1999, "1s"),
            (61_500, "1m1s"),
            (3_600_000, "1h"),
            (11_159_000, "3h5m"),
        ] {
            assert_eq!(age(milliseconds), expect);
        }
    }

    #[test]
    fn tables_fit_a_terminal() {
        let long = "10.0.0.2:8080 ".repeat(12);
        let text = table(["NAME", "ENDPOINTS"], [["echo".to_owned(), long]]);
        assert!(text.starts_with("NAME  ENDPOINTS\necho  10.0.0.2:8080"), "{text}");
        assert!(
            text.lines().all(|line| line.len() <= usize::from(WIDTH)),
            "{text}"
        );
    }
}
