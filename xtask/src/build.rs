//! The agent and the test server, both in the release profile.

use anyhow::Result;

use crate::{setup, shell};

pub(crate) fn run() -> Result<()> {
    setup::run()?;
    binaries()
}

/// What the demo and the end-to-end tests start. The packages are chosen as for `cargo test`, so that both share
/// their builds of the dependencies.
pub(crate) fn binaries() -> Result<()> {
    shell::run(shell::cargo().args([
        "build",
        "--release",
        "--bins",
        "--package",
        "derny",
        "--package",
        "derny-tests",
    ]))
}
