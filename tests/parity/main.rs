//! Derny beside a real Envoy 1.40: the same calls through both, to endpoints that follow the same script, under the
//! same policy. `docs/envoy-parity.md` is the table that comes of it. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

/// A row: script, policy, calls, and what is expected.
mod row;
/// What endpoints do.
mod script;
/// A policy in Derny's words and in Envoy's.
mod policy;
/// The endpoints.
mod upstream;
mod http1;
mod http2;
/// The Envoy that runs beside Derny.
mod envoy;
/// Calls, and what was observed.
mod measure;
/// Both proxies, with all rows.
mod site;
/// The rows.
mod rows;
/// `docs/envoy-parity.md`.
mod page;

use std::{env, thread, time::Duration};

use derny_tests::observe::{now, pause_until};
use measure::Measured;
use row::{Bound, Of, Row};
use site::Both;

/// Puts what was measured into the page.
const WRITE: &str = "DERNY_WRITE_PARITY";
/// Measures only rows whose names contain this.
const ONLY: &str = "DERNY_PARITY_ONLY";

/// From the start of one row to that of the next. They run at the same time.
const APART: Duration = Duration::from_millis(15);

/// How often a row is measured until it is as it says. A machine that is busy with something else answers late, and
/// what is late looks like another behaviour; what really differs differs each time.
const TURNS: usize = 3;

#[test]
fn derny_does_as_envoy_or_better() {
    let only = env::var(ONLY).unwrap_or_default();
    let rows: Vec<Row> = rows::all()
        .into_iter()
        .flat_map(|(_, rows)| rows)
        .filter(|row| row.name.contains(&only))
        .collect();
    let mut measured: Vec<Option<[Measured; 2]>> = vec![None; rows.len()];
    let mut faults = Vec::new();
    for turn in 1..=TURNS {
        let left: Vec<usize> = (0..rows.len())
            .filter(|place| measured[*place].is_none())
            .collect();
        let of_turn: Vec<Row> = left.iter().map(|place| rows[*place].clone()).collect();
        faults.clear();
        for (place, sides) in left.into_iter().zip(all(&of_turn)) {
            let of_row = compare(&rows[place], &sides);
            if of_row.is_empty() {
                measured[place] = Some(sides.map(|side| side.unwrap()));
            }
            faults.extend(of_row);
        }
        if faults.is_empty() {
            break;
        }
        println!("turn {turn}: {} faults:\n  {}", faults.len(), faults.join("\n  "));
    }
    assert!(
        faults.is_empty(),
        "{} faults in each of {TURNS} turns",
        faults.len()
    );
    if env::var_os(WRITE).is_some() && only.is_empty() {
        let measured: Vec<[Measured; 2]> = measured.into_iter().flatten().collect();
        page::write(&measured).unwrap();
    }
}

/// Measures these rows behind both proxies, at the same time: Derny, then Envoy.
fn all(rows: &[Row]) -> Vec<[anyhow::Result<Measured>; 2]> {
    let both = Both::start(rows).unwrap();
    let begin = now();
    thread::scope(|scope| {
        let begun: Vec<_> = rows
            .iter()
            .enumerate()
            .map(|(place, row)| {
                // One after the other, or the machine would be late for all of them.
                pause_until(begin + APART * u32::try_from(place).unwrap());
                [0, 1].map(|side| {
                    let both = &both;
                    scope.spawn(move || both.measure(row, place, side))
                })
            })
            .collect();
        begun
            .into_iter()
            .map(|sides| sides.map(|side| side.join().unwrap()))
            .collect()
    })
}

#[test]
fn the_page_has_the_rows_as_they_are() {
    page::check().unwrap();
}

#[test]
fn rows_have_names_of_their_own() {
    let mut names: Vec<&str> = rows::all()
        .iter()
        .flat_map(|(_, rows)| rows)
        .map(|row| row.name)
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// What is not as the row says.
fn compare(row: &Row, sides: &[anyhow::Result<Measured>; 2]) -> Vec<String> {
    let mut faults = Vec::new();
    for ((proxy, wanted), got) in ["derny", "envoy"].into_iter().zip(row.words()).zip(sides) {
        match got {
            Ok(got) => faults.extend(compare_side(row, proxy, wanted, got)),
            Err(error) => faults.push(format!("{}: {proxy}: {error:#}", row.name)),
        }
    }
    faults
}

fn compare_side(row: &Row, proxy: &str, wanted: &str, got: &Measured) -> Vec<String> {
    let mut faults = Vec::new();
    if !row::matches(wanted, &got.words) {
        faults.push(format!(
            "{}: {proxy}: {:?} instead of {wanted:?} {:?}",
            row.name, got.words, got.times
        ));
    }
    for Bound {
        what,
        least,
        most,
        of,
    } in &row.within
    {
        if *of == Of::Derny && proxy != "derny" {
            continue;
        }
        let time = got
            .times
            .iter()
            .find(|(name, _)| name == what)
            .map(|(_, time)| time.as_millis());
        if !time.is_some_and(|time| (u128::from(*least)..=u128::from(*most)).contains(&time)) {
            faults.push(format!(
                "{}: {proxy}: {what} {time:?} ms, not within {least} to {most}",
                row.name
            ));
        }
    }
    faults
}
