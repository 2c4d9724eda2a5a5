//! `derny run`

use std::time::Duration;

use super::failure::Failure;
use crate::{options::RunArgs, telemetry};

/// How long the agent's last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) fn run(args: RunArgs) -> Result<(), Failure> {
    telemetry::init(&args.log, args.bounds.log_limit).map_err(|error| Failure::Usage(error.into()))?;
    let ended = crate::app::run(args);
    telemetry::flush(LAST_WORDS);
    Ok(ended?)
}
