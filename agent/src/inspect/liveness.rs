//! Whether the agent makes progress.

use std::time::Duration;

use tokio::time::Instant;

use crate::{live::Live, proxy::Progress, telemetry};

/// How long a thread may show no progress before `/livez` fails: ten times what makes the kernel stand aside, since
/// restarting is worse than that.
pub fn standstill(stale_after: Duration) -> Duration {
    stale_after * 10
}

/// Since the worker that has shown none for longest made progress.
pub(super) fn slowest(workers: &[Progress], now: Instant) -> Duration {
    let ages = workers.iter().map(|worker| worker.age(now));
    ages.max().unwrap_or_default()
}

/// What does not run as it must, as a sentence.
pub(super) fn check(live: &Live, workers: &[Progress], stale_after: Duration) -> Result<(), String> {
    let (now, most) = (Instant::now(), standstill(stale_after));
    let mut faults = live.faults(now);
    let stuck = slowest(workers, now);
    if stuck >= most {
        let seconds = stuck.as_secs();
        faults.push(format!("a worker has made no progress for {seconds} s"));
    }
    let unable = workers.iter().filter_map(|worker| worker.cannot_accept_for(now));
    if let Some(longest) = unable.max().filter(|lost| *lost >= most) {
        let seconds = longest.as_secs();
        faults.push(format!("a worker cannot accept connections for {seconds} s"));
    }
    if !telemetry::runs() {
        faults.push("the agent's own log has ended".to_owned());
    }
    match faults.as_slice() {
        [] => Ok(()),
        faults => Err(faults.join("; ")),
    }
}
