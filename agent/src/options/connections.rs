//! How long accepted connections may take for what.

use std::time::Duration;

use clap::Args;

use super::within;
use crate::{config::duration, transport::Limits};

#[derive(Clone, Debug, Args)]
pub struct ConnectionArgs {
    /// How long a request's head may take from its first byte to its last, 1s to 10m
    #[arg(long, value_name = "DURATION", env = "DERNY_HEAD_TIMEOUT", default_value = "30s", value_parser = head)]
    pub head_timeout: Duration,

    /// How long a caller's connection without a request is kept, 1s to 24h; 0s for ever
    #[arg(long, value_name = "DURATION", env = "DERNY_CONNECTION_IDLE_TIMEOUT", default_value = "1h", value_parser = idle)]
    pub connection_idle_timeout: Duration,

    /// How long a caller may take nothing of what is written to it, 1s to 24h; 0s for ever
    #[arg(long, value_name = "DURATION", env = "DERNY_WRITE_TIMEOUT", default_value = "5m", value_parser = idle)]
    pub write_timeout: Duration,

    /// How long a caller's host may acknowledge nothing before it counts as gone, 5s to 2h; 0s leaves it to the kernel
    #[arg(long, value_name = "DURATION", env = "DERNY_DEAD_PEER_TIMEOUT", default_value = "15s", value_parser = dead_peer)]
    pub dead_peer_timeout: Duration,
}

impl ConnectionArgs {
    pub fn limits(&self) -> Limits {
        let bound = |limit: Duration| (!limit.is_zero()).then_some(limit);
        Limits {
            head: self.head_timeout,
            idle: bound(self.connection_idle_timeout),
            write: bound(self.write_timeout),
            dead_peer: bound(self.dead_peer_timeout),
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn head(text: &str) -> Result<Duration, String> {
    within(text, SECOND..=600 * SECOND, "1s to 10m")
}

fn idle(text: &str) -> Result<Duration, String> {
    or_zero(text, SECOND..=24 * 3600 * SECOND, "1s to 24h, or 0s for ever")
}

fn dead_peer(text: &str) -> Result<Duration, String> {
    or_zero(text, 5 * SECOND..=7200 * SECOND, "5s to 2h, or 0s for none")
}

fn or_zero(text: &str, range: std::ops::RangeInclusive<Duration>, words: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Ok(Duration::ZERO),
        _ => within(text, range, words),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Only {
        #[command(flatten)]
        connections: ConnectionArgs,
    }

    fn parse(args: &str) -> Result<Limits, clap::Error> {
        let args = ["derny"].into_iter().chain(args.split_whitespace());
        Only::try_parse_from(args).map(|only| only.connections.limits())
    }

    #[test]
    fn limits_are_checked_and_may_be_off() {
        assert_eq!(parse("").unwrap(), Limits::default());
        let off = "--connection-idle-timeout 0s --write-timeout 0s --dead-peer-timeout 0s";
        let off = parse(off).unwrap();
        assert_eq!((off.idle, off.write, off.dead_peer), (None, None, None));
        for bad in [
            "--head-timeout 0s",
            "--head-timeout 11m",
            "--dead-peer-timeout 4s",
            "--write-timeout 1",
        ] {
            parse(bad).expect_err(bad);
        }
    }
}
