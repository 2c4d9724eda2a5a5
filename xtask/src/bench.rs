//! CPU per request of Derny beside a bare relay and Envoy.

use anyhow::Result;
use derny_tests::clients;

use crate::{build, shell};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Rounds {
    /// The median of three counts.
    Three,
    One,
}

pub(crate) fn run(rounds: Rounds) -> Result<()> {
    build::run()?;
    let envoy = clients::envoy()?;
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
    if let Rounds::One = rounds {
        cargo.arg("--quick");
    }
    shell::run(cargo.env("ENVOY_BIN", envoy))
}
