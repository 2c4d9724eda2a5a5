//! The table of `docs/envoy-parity.md`, written from what was measured and compared with the rows as they stand.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use derny_tests::clients;

use crate::{
    measure::Measured,
    row::{Expect, Row, Why, matches},
    rows,
};

const BEGIN: &str = "<!-- rows: measured and written by the test `parity` -->";
const END: &str = "<!-- end of rows -->";

fn path() -> PathBuf {
    clients::workspace().join("docs/envoy-parity.md")
}

fn read() -> Result<String> {
    fs::read_to_string(path()).with_context(|| format!("reading {}", path().display()))
}

/// Puts what was measured of all rows, in their order, into the page.
pub(crate) fn write(measured: &[[Measured; 2]]) -> Result<()> {
    let text = read()?;
    let (before, rest) = text.split_once(BEGIN).context("no begin of the rows")?;
    let (_, after) = rest.split_once(END).context("no end of the rows")?;
    let mut tables = String::new();
    let mut measured = measured.iter();
    for (heading, rows) in rows::all() {
        writeln!(
            tables,
            "\n## {heading}\n\n| row | Derny | Envoy | |\n|---|---|---|---|"
        )?;
        for row in &rows {
            let [derny, envoy] = measured.next().context("a row that was not measured")?;
            let (derny, envoy) = (cell(row, derny), cell(row, envoy));
            writeln!(tables, "| {} | {derny} | {envoy} | {} |", row.name, row.verdict())?;
        }
    }
    tables.push_str(&differences());
    fs::write(path(), format!("{before}{BEGIN}\n{tables}\n{END}{after}")).context("writing the page")
}

/// What was observed, with those times that the row has bounds for.
fn cell(row: &Row, measured: &Measured) -> String {
    let mut text = measured.words.clone();
    let bounded = |name: &str| row.within.iter().any(|bound| bound.what == name);
    let times: Vec<String> = measured
        .times
        .iter()
        .filter(|(name, _)| bounded(name))
        .map(|(name, time)| format!("{name} {:.2} s", time.as_secs_f64()))
        .collect();
    if !times.is_empty() {
        text += &format!(" ({})", times.join(", "));
    }
    text
}

/// Each difference with its reason and its rows.
fn differences() -> String {
    let mut by_reason: BTreeMap<Why, Vec<&str>> = BTreeMap::new();
    for (_, rows) in rows::all() {
        for row in rows {
            if let Expect::Differs { why, .. } = row.expect {
                by_reason.entry(why).or_default().push(row.name);
            }
        }
    }
    let mut text = "\n## The differences\n".to_owned();
    for verdict in ["better", "by decision"] {
        // Writing to a String does not fail.
        let _ = writeln!(text, "\n### {}\n", capital(verdict));
        for (why, rows) in by_reason.iter().filter(|(why, _)| why.verdict() == verdict) {
            let _ = writeln!(
                text,
                "- **{}.** {} *Rows:* {}.",
                why.title(),
                why.reason(),
                rows.join("; ")
            );
        }
    }
    text
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// Whether the page has exactly the rows that there are, with what is expected of them.
pub(crate) fn check() -> Result<()> {
    let text = read()?;
    let (_, rest) = text.split_once(BEGIN).context("no begin of the rows")?;
    let (tables, _) = rest.split_once(END).context("no end of the rows")?;
    let without_times = |cell: &str| cell.split(" (").next().unwrap_or(cell).to_owned();
    let there: Vec<[String; 4]> = tables
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line
                .strip_prefix("| ")?
                .strip_suffix(" |")?
                .split(" | ")
                .collect();
            let [name, derny, envoy, verdict] = cells[..] else {
                return None;
            };
            Some([
                name.to_owned(),
                without_times(derny),
                without_times(envoy),
                verdict.to_owned(),
            ])
        })
        .filter(|cells| cells[0] != "row")
        .collect();
    let rows: Vec<Row> = rows::all().into_iter().flat_map(|(_, rows)| rows).collect();
    for (row, cells) in rows.iter().zip(&there) {
        let [derny, envoy] = row.words();
        let wanted = [row.name, derny, envoy, row.verdict()];
        let as_wanted = cells
            .iter()
            .zip(wanted)
            .all(|(cell, wanted)| matches(wanted, cell));
        ensure!(
            as_wanted,
            "the page says {cells:?} where the row is {wanted:?}: {REMEDY}"
        );
    }
    ensure!(
        there.len() == rows.len(),
        "the page has {} rows instead of {}: {REMEDY}",
        there.len(),
        rows.len()
    );
    ensure!(
        tables.ends_with(&format!("{}\n", differences())),
        "the page has other reasons: {REMEDY}"
    );
    Ok(())
}

const REMEDY: &str = "write it anew with DERNY_WRITE_PARITY=1";
