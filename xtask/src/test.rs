//! Unit and end-to-end tests, counted.

use std::{
    io::{BufRead, BufReader},
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result};
use derny_tests::clients;

use crate::{build, image, setup, shell};

/// The test that runs the image, in `tests/deploy`.
const OF_THE_IMAGE: &str = "image::the_image_enrols_and_serves_a_pod";

/// Runs what the README's test command promises, and ends with a line `N passed, N failed`.
pub(crate) fn run(filter: Option<&str>) -> Result<ExitCode> {
    setup::run()?;
    clients::envoy().context("installing Envoy, beside which Derny is measured")?;
    build::binaries()?;
    // The static build is a second one of everything: only where the test that runs it is among those asked for.
    if filter.is_none_or(|word| OF_THE_IMAGE.contains(word)) {
        image::run(&image::Options::for_tests())?;
    }
    let mut cargo = shell::cargo();
    cargo
        .args([
            "test",
            "--release",
            "--workspace",
            "--exclude",
            "derny-ebpf",
            "--no-fail-fast",
        ])
        .args(filter);
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo test")?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut total = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("reading what cargo test says")?;
        println!("{line}");
        total.add(&line);
    }
    let status = child.wait().context("waiting for cargo test")?;
    println!("{} passed, {} failed", total.passed, total.failed);
    // A test program that did not compile or crashed has no count of its own.
    Ok(if status.success() && total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; …`; other lines count nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let words: Vec<&str> = result.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            match (pair[0].parse::<u64>(), pair[1]) {
                (Ok(number), "passed") => self.passed += number,
                (Ok(number), "failed") => self.failed += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut counts = Counts::default();
        counts.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
        );
        counts.add("test result: FAILED. 6 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        counts.add("test proxy::tests::9 passed ... ok");
        assert_eq!(counts, Counts { passed: 9, failed: 2 });
    }
}
