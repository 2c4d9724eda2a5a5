//! The wiring.

use crate::cli::RunArgs;

pub fn run(_: RunArgs) -> anyhow::Result<()> {
    anyhow::bail!("this build has no engine")
}
