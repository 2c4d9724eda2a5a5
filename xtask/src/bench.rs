//! CPU per request of Derny beside a bare relay and Envoy, and what a pod's flood does to another's calls.

use anyhow::Result;
use clap::ValueEnum;
use derny_tests::clients;

use crate::{build, shell};

/// What there is to measure beside CPU per request.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum What {
    Fairness,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Rounds {
    /// The median of three counts; of fairness, one round with a rest after each flood.
    Three,
    One,
}

pub(crate) fn run(what: Option<What>, rounds: Rounds) -> Result<()> {
    build::run()?;
    let mut cargo = shell::cargo();
    // The release profile, in which everything is built already.
    cargo.args([
        "bench",
        "--profile",
        "release",
        "--package",
        "derny-tests",
        "--bench",
        "relay",
        "--",
    ]);
    match what {
        Some(What::Fairness) => drop(cargo.arg("fairness")),
        None => drop(cargo.env("ENVOY_BIN", clients::envoy()?)),
    }
    if let Rounds::One = rounds {
        cargo.arg("--quick");
    }
    shell::run(&mut cargo)
}
