//! A name whose addresses are a port's endpoints.

use std::{sync::Arc, time::Duration};

/// What discovery is to resolve for a service port. Nothing behind discovery knows it: what comes out of it are
/// endpoints like any others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Absolute, in lower case, without a dot at its end; no search domain is tried.
    pub name: Arc<str>,
    /// The port of every endpoint.
    pub port: u16,
    pub mode: DnsMode,
    pub ttl: TtlBounds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DnsMode {
    /// Every address is an endpoint.
    #[default]
    All,
    /// The first address is the only endpoint, for a name that is a load balancer itself.
    Logical,
}

impl DnsMode {
    pub const ALL: [Self; 2] = [Self::All, Self::Logical];

    /// The word in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Logical => "logical",
        }
    }
}

/// How long an answer stands: as long as it says itself, within these bounds. `min` is at most `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TtlBounds {
    pub min: Duration,
    pub max: Duration,
}

impl Default for TtlBounds {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(1),
            max: Duration::from_secs(300),
        }
    }
}
