//! The agent's own log: to stderr, since stdout is the access log's. Whoever logs waits for nobody, and no peer makes it
//! long.

mod limit;
mod outlet;

use std::{
    io::{self, IsTerminal, stderr},
    sync::{OnceLock, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, filter, fmt,
    layer::SubscriberExt as _,
    util::{SubscriberInitExt as _, TryInitError},
};

use limit::{Limit, SUPPRESSED};
use outlet::Outlet;

/// The process's log, once there is one: where lines go, and the thread that writes them.
static LOG: OnceLock<(Outlet, JoinHandle<()>)> = OnceLock::new();

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--log {filter:?} is not a filter such as `info` or `info,derny::pool=debug`: {source}")]
    Filter {
        filter: String,
        source: filter::ParseError,
    },
    #[error("the log has been set up already: {0}")]
    Twice(#[from] TryInitError),
    #[error("no thread for the log: {0}")]
    Thread(#[from] io::Error),
}

/// Says each failed request as an error of its own, beside what is said of it here. A filter that names the target
/// wins.
const QUIET: &str = "kube_client=off";

/// Text for a person at a terminal, one JSON object per line for everybody else. `lines` of one message about one pod
/// are said a minute by each thread; 0 for all.
pub fn init(filter: &str, lines: u32) -> Result<(), Error> {
    let filter = quieted(filter).map_err(|source| Error::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let (outlet, queued) = Outlet::new();
    let log = fmt().with_env_filter(filter).with_writer(outlet.clone());
    let limit = Limit::new(lines);
    if stderr().is_terminal() {
        log.with_ansi(true)
            .with_target(false)
            .finish()
            .with(limit)
            .try_init()?;
    } else {
        log.with_ansi(false)
            .json()
            .flatten_event(true)
            .finish()
            .with(limit)
            .try_init()?;
    }
    let thread = thread::Builder::new()
        .name("derny-stderr".into())
        .spawn(move || queued.write_to(stderr()))?;
    // Set up twice would have failed above.
    let _ = LOG.set((outlet, thread));
    // The usual hook writes to stderr itself, and a thread that panics must not wait for a reader either.
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        tracing::error!(thread = name, backtrace = %std::backtrace::Backtrace::capture(), "{panic}");
    }));
    Ok(())
}

/// Waits until what was said so far has been written, at most `deadline`.
pub fn flush(deadline: Duration) {
    if let Some((outlet, _)) = LOG.get() {
        outlet.flush(deadline);
    }
}

/// Whether lines are still written.
pub fn runs() -> bool {
    LOG.get().is_none_or(|(_, thread)| !thread.is_finished())
}

/// What was said and not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// Because nobody took it in time.
    pub dropped: u64,
    /// Because the same had been said too often.
    pub suppressed: u64,
}

pub fn unwritten() -> Unwritten {
    Unwritten {
        dropped: LOG.get().map_or(0, |(outlet, _)| outlet.dropped()),
        suppressed: SUPPRESSED.load(Relaxed),
    }
}

fn quieted(filter: &str) -> Result<EnvFilter, filter::ParseError> {
    EnvFilter::try_new(format!("{QUIET},{filter}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_says_too_much_is_heard_when_it_is_asked_for() {
        let words = |filter: &str| {
            let filter = quieted(filter).unwrap().to_string();
            let mut words: Vec<String> = filter.split(',').map(str::to_owned).collect();
            words.sort();
            words
        };
        assert_eq!(words("info"), ["info", "kube_client=off"]);
        assert_eq!(words("info,kube_client=debug"), ["info", "kube_client=debug"]);
        quieted("info,=,").unwrap_err();
    }
}
