//! One agent to a node: a second one waits for the first to end, and does not start beside it.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};
use tokio::time::Instant;

use crate::intercept::{self, Kernel};

/// How often it is looked whether the other has gone.
const LOOK: Duration = Duration::from_millis(50);

/// Returns when no other agent redirects connections of the same pods: an agent that has begun to end redirects none, and one
/// that was killed is gone within moments.
pub(super) async fn wait_for_other(group: &Path, at_most: Duration) -> Result<()> {
    let begun = Instant::now();
    let mut said = false;
    while let Some(rival) = intercept::find_rival(group)? {
        let waited = begun.elapsed();
        if waited >= at_most {
            bail!(
                "another agent is on the same control groups ({rival}), and has not ended within {} s: two would mix their connections; end it first, or wait longer (--wait-for-other)",
                at_most.as_secs()
            );
        }
        if !said {
            tracing::warn!(%rival, seconds = at_most.as_secs(), "waiting for another agent to end");
            said = true;
        }
        tokio::time::sleep(LOOK).await;
    }
    if said {
        tracing::info!(waited = ?begun.elapsed(), "the other agent has ended");
    }
    Ok(())
}

/// Of two that have started at once, the one whose programs were loaded first goes on.
pub(super) fn alone(kernel: &Kernel) -> Result<()> {
    match kernel.earlier_rival()? {
        Some(rival) => bail!("another agent has started at the same moment ({rival})"),
        None => Ok(()),
    }
}
