//! The agent's own log: to stderr, since stdout is the access log's.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, filter, fmt, util::TryInitError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--log {filter:?} is not a filter such as `info` or `info,derny::pool=debug`: {source}")]
    Filter {
        filter: String,
        source: filter::ParseError,
    },
    #[error("the log has been set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Says each failed request as an error of its own, beside what is said of it here. A filter that names the target
/// wins.
const QUIET: &str = "kube_client=off";

/// Text for a person at a terminal, one JSON object per line for everybody else.
pub fn init(filter: &str) -> Result<(), Error> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    let filter = quieted(filter).map_err(|source| Error::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let log = fmt().with_env_filter(filter).with_writer(stderr);
    if stderr().is_terminal() {
        log.with_target(false).finish().try_init()?;
    } else {
        log.with_ansi(false)
            .json()
            .flatten_event(true)
            .finish()
            .try_init()?;
    }
    Ok(())
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
