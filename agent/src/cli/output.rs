//! Tables for people, JSON for programs.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::Serialize;

use super::failure::Failure;
use crate::config::duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Json,
}

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
    table.set_header(header).add_rows(rows);
    rendered(table, terminal_width())
}

/// Names and values without a header.
pub(super) fn facts(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = Table::new();
    table.add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
    rendered(table, terminal_width())
}

/// Columns of the terminal that standard output is. `None` when it is none: programs that read it want whole rows.
fn terminal_width() -> Option<u16> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the call writes to what it is given, and fails where standard output is no terminal.
    let is_terminal = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) } == 0;
    (is_terminal && size.ws_col > 0).then_some(size.ws_col)
}

/// The table, without its left padding and without blanks at the ends of lines. Cells are wrapped to fit into `width`, but
/// never inside a word, which may be a name or an address that somebody wants to copy: such a table is wider.
fn rendered(mut table: Table, width: Option<u16>) -> String {
    table.load_style(presets::NOTHING);
    match width {
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        Some(width) => {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width);
            let longest = longest_words(&mut table);
            for (column, longest) in table.column_iter_mut().zip(longest) {
                let (left, right) = PADDING;
                column.set_padding(PADDING);
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(
                    longest + left + right,
                )));
            }
        }
    }
    let lines = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// Blanks beside each cell.
const PADDING: (u16, u16) = (1, 1);

/// Of each column, in characters.
fn longest_words(table: &mut Table) -> Vec<u16> {
    let mut longest = vec![0; table.column_count()];
    for row in table.header().into_iter().chain(table.row_iter()) {
        for (longest, cell) in longest.iter_mut().zip(row.cell_iter()) {
            let words = cell.content();
            let words = words.split_whitespace().map(|word| word.chars().count());
            let most = words.max().unwrap_or_default();
            *longest = u16::try_from(most).unwrap_or(u16::MAX).max(*longest);
        }
    }
    longest
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

    fn sample() -> Table {
        let mut table = Table::new();
        let endpoints = "10.0.0.2:8080 ".repeat(12);
        let name = "a-service-with-a-rather-long-name.in-a-namespace.svc.cluster.local:8080";
        table.set_header(["NAME", "ENDPOINTS", "WHY"]).add_row([
            name,
            endpoints.trim(),
            "they are ready and nobody has ejected any of them",
        ]);
        table
    }

    #[test]
    fn what_is_piped_has_a_line_for_each_row() {
        let text = rendered(sample(), None);
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn tables_fit_a_terminal_and_no_word_is_broken() {
        for width in [160, 120, 100, 40] {
            let text = rendered(sample(), Some(width));
            let words: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(
                words.iter().filter(|word| **word == "10.0.0.2:8080").count(),
                12,
                "{text}"
            );
            assert!(words[3].ends_with(":8080"), "{text}");
            // 73 of a name, 13 of an address, 7 of the longest other word, and what is between them.
            let least = 73 + 13 + 7 + 6;
            let longest = text.lines().map(str::len).max().unwrap();
            assert!(
                longest <= usize::from(width.max(least)),
                "{longest} of {width}\n{text}"
            );
        }
    }
}
