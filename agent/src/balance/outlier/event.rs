//! What happened to an endpoint, for the log and the counters.

use std::{net::SocketAddr, time::Instant};

/// How a request to an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Success,
    /// An answer with status 5xx, or with a gRPC status of the policy's list (no gateway error).
    Failure5xx {
        /// 502, 503 or 504.
        gateway: bool,
    },
    /// Not the endpoint's answer: connect failure, connect timeout, reset, per-try timeout.
    LocalError,
}

/// An endpoint was ejected or came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub address: SocketAddr,
    pub kind: EventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Ejected {
        reason: EjectReason,
        until: Instant,
        /// In a row.
        times: u32,
    },
    Returned {
        how: ReturnedBy,
    },
}

/// The detector that ejected an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EjectReason {
    Consecutive5xx = 1,
    ConsecutiveGatewayErrors = 2,
    ConsecutiveLocalErrors = 3,
    SuccessRate = 4,
    FailurePercentage = 5,
    /// The one request of its half-open state failed.
    Trial = 6,
}

impl EjectReason {
    pub const ALL: [Self; 6] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGatewayErrors,
        Self::ConsecutiveLocalErrors,
        Self::SuccessRate,
        Self::FailurePercentage,
        Self::Trial,
    ];

    pub(super) fn from_index(index: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == index)
    }

    /// The word in log lines, metric labels and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive5xx",
            Self::ConsecutiveGatewayErrors => "consecutiveGatewayErrors",
            Self::ConsecutiveLocalErrors => "consecutiveLocalErrors",
            Self::SuccessRate => "successRate",
            Self::FailurePercentage => "failurePercentage",
            Self::Trial => "trialFailed",
        }
    }
}

/// What brought an endpoint back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnedBy {
    Trial,
    /// An active health check passed.
    Probe,
}

impl ReturnedBy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Probe => "probe",
        }
    }
}
