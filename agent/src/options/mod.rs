//! What an agent is told at its start, by flags and environment variables.

mod run;
mod shares;
mod connections;
mod bounds;

pub use bounds::BoundArgs;
pub use run::{AccessLog, KernelLog, KubernetesArgs, RunArgs};
pub use shares::ShareArgs;

use std::{ops::RangeInclusive, time::Duration};

use crate::config::duration;

/// A duration of this range, which `words` name.
fn within(text: &str, range: RangeInclusive<Duration>, words: &str) -> Result<Duration, String> {
    let value = duration::parse(text).map_err(|error| error.to_string())?;
    match range.contains(&value) {
        true => Ok(value),
        false => Err(format!("out of range: use {words}")),
    }
}
