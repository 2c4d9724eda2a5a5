//! Why an endpoint did not pass a probe.

use std::time::Duration;

/// Why an endpoint did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("connect: {0}")]
    Connect(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("status {0} is not an expected one")]
    Status(u16),
    #[error("gRPC status {0}")]
    GrpcStatus(u16),
    #[error("the service says that it is {0}")]
    NotServing(&'static str),
    /// The endpoint cannot be checked in this way at all; it will not get better by itself.
    #[error("the endpoint has no grpc.health.v1 service: probe it by http or tcp, or add the service to it")]
    Unimplemented,
    #[error("no valid answer: {0}")]
    Protocol(String),
}

impl Failure {
    /// The metric's label.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connect(_) => Kind::Connect,
            Self::Timeout(_) => Kind::Timeout,
            Self::Status(_) | Self::GrpcStatus(_) | Self::NotServing(_) => Kind::Status,
            Self::Unimplemented => Kind::Misconfigured,
            Self::Protocol(_) => Kind::Protocol,
        }
    }
}

/// What a probe came to, in one of a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Passed,
    Connect,
    Timeout,
    /// It answered, and said no.
    Status,
    Protocol,
    Misconfigured,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Passed,
        Self::Connect,
        Self::Timeout,
        Self::Status,
        Self::Protocol,
        Self::Misconfigured,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Protocol => "protocol",
            Self::Misconfigured => "misconfigured",
        }
    }
}
