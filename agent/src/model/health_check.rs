//! How endpoints are asked whether they are well.

use std::{sync::Arc, time::Duration};

#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub probe: Probe,
    pub interval: Duration,
    pub timeout: Duration,
    /// Failures in a row until an endpoint leaves.
    pub unhealthy_threshold: u32,
    /// Successes in a row until it is back; the first is enough at the start.
    pub healthy_threshold: u32,
    /// Percent of the interval, at random.
    pub jitter: u8,
    /// Another port than the endpoint's own.
    pub port: Option<u16>,
}

impl HealthCheck {
    /// A check with the defaults of everything but the probe.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            jitter: 10,
            port: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    Http {
        path: Arc<str>,
        /// The `host` header; `None`: the endpoint's address.
        host: Option<Arc<str>>,
        /// Ranges of statuses that pass, both ends included.
        expected: Vec<(u16, u16)>,
    },
    /// grpc.health.v1; the empty service is the server as a whole.
    Grpc { service: Arc<str> },
    /// A connection is enough.
    Tcp,
}
