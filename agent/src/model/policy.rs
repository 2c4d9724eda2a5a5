//! How a service is called. Checked values with the defaults that the documentation states.

use std::time::Duration;

/// Everything that a `TrafficPolicy` says about one service port.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub algorithm: Algorithm,
    pub connection_pool: ConnectionPool,
    /// How long an undeclared port may stay silent in both directions before it is relayed as opaque TCP.
    pub detect_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            connection_pool: ConnectionPool::default(),
            detect_timeout: Duration::from_secs(5),
        }
    }
}

/// How one of several endpoints is chosen for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// Two at random; the one with less (latency × load) wins.
    #[default]
    PeakEwma,
    /// Two at random; the one with fewer requests in flight wins.
    LeastRequest,
    /// In turn, in proportion to the weights.
    RoundRobin,
}

impl Algorithm {
    pub const ALL: [Algorithm; 3] = [Self::PeakEwma, Self::LeastRequest, Self::RoundRobin];

    /// The word in configuration and in the command line's tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PeakEwma => "peakEwma",
            Self::LeastRequest => "leastRequest",
            Self::RoundRobin => "roundRobin",
        }
    }
}

/// Connections to the endpoints, per (source pod, endpoint).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionPool {
    pub connect_timeout: Duration,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// HTTP/2 flow-control window of a stream, in bytes. A connection's window is four times that.
    pub window_size: u32,
}

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(60),
            window_size: 256 * 1024,
        }
    }
}
