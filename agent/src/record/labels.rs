//! Who called whom, how, and what came of it: the labels of metrics and the words of the access log.

use std::sync::Arc;

use crate::model::{ServiceName, ServicePortName};

/// Which side of the call this engine stood on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// A pod of this node calls.
    Outbound,
    /// A pod of this node is called, by somebody whose engine is not this one.
    Inbound,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    pub namespace: Arc<str>,
    pub workload: Arc<str>,
}

/// One caller and one service port: everything that is counted is counted per scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeKey {
    pub direction: Direction,
    pub source: Source,
    pub destination: ServicePortName,
}

impl ScopeKey {
    /// What is counted for all that have no series of their own.
    pub fn other(direction: Direction) -> Self {
        let other: Arc<str> = "other".into();
        Self {
            direction,
            source: Source {
                namespace: other.clone(),
                workload: other.clone(),
            },
            destination: ServicePortName {
                service: ServiceName {
                    namespace: other.clone(),
                    name: other,
                },
                port: 0,
            },
        }
    }

    /// Whether it stands for everything that a workload has too much of. No port is 0.
    pub fn is_overflow(&self) -> bool {
        self.destination.port == 0
    }
}

/// What was spoken, as it turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    Http1,
    Http2,
    Grpc,
}

impl Spoken {
    pub const ALL: [Spoken; 3] = [Self::Http1, Self::Http2, Self::Grpc];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// Why an exchange did not simply succeed, in Envoy's two letters
/// (Envoy, "Access logging", `%RESPONSE_FLAGS%`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Flag {
    #[default]
    None,
    /// No endpoint to send to.
    NoHealthyUpstream,
    /// No connection to an endpoint could be made.
    UpstreamConnectionFailure,
    /// The connection to the endpoint ended before the response did.
    UpstreamConnectionTermination,
    /// The endpoint reset the stream.
    UpstreamRemoteReset,
    /// The caller went away.
    DownstreamConnectionTermination,
    /// What the caller sent is not HTTP.
    DownstreamProtocolError,
    /// What the endpoint sent is not HTTP.
    UpstreamProtocolError,
    /// A bound of the policy was reached; nothing was sent.
    UpstreamOverflow,
    /// The request's deadline passed.
    UpstreamTimeout,
    /// No byte in either direction for as long as the policy allows.
    StreamIdleTimeout,
    /// No route of the service matches.
    NoRoute,
    /// The last attempt that the policy allows has failed.
    RetryLimitExceeded,
    /// The retry budget was used up.
    RetryOverflow,
    /// A route answers by itself, with a redirect.
    Direct,
    /// It was not known in time who answers for the service; what went to the service's own address succeeded.
    EndpointsUnknown,
    /// The engine cut a relayed connection off: its pod was withdrawn, or the agent ended.
    LocalReset,
}

impl Flag {
    /// `-` for none, as Envoy writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamConnectionFailure => "UF",
            Self::UpstreamConnectionTermination => "UC",
            Self::UpstreamRemoteReset => "UR",
            Self::DownstreamConnectionTermination => "DC",
            Self::DownstreamProtocolError => "DPE",
            Self::UpstreamProtocolError => "UPE",
            Self::UpstreamOverflow => "UO",
            Self::UpstreamTimeout => "UT",
            Self::StreamIdleTimeout => "SI",
            Self::NoRoute => "NR",
            Self::RetryLimitExceeded => "URX",
            // Envoy shows these two under URX and under no flag.
            Self::RetryOverflow => "URXO",
            Self::Direct => "DR",
            Self::EndpointsUnknown => "EU",
            Self::LocalReset => "LR",
        }
    }
}

/// A time limit of a policy, named as there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLimit {
    /// All attempts of a request, a caller's own `grpc-timeout` included.
    Request,
    PerTry,
    /// A stream without a byte.
    Idle,
    Connect,
    /// A request's head, from its first byte to its last.
    Head,
    /// A caller's connection without a request.
    Connection,
    /// A caller that takes nothing of what is written to it.
    Write,
}

impl TimeLimit {
    pub const ALL: [Self; 7] = [
        Self::Request,
        Self::PerTry,
        Self::Idle,
        Self::Connect,
        Self::Head,
        Self::Connection,
        Self::Write,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::PerTry => "perTry",
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Head => "head",
            Self::Connection => "connection",
            Self::Write => "write",
        }
    }
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// HTTP status; 0 when the caller went away before it got one.
    pub code: u16,
    pub grpc_status: Option<u16>,
    pub flag: Flag,
}

/// What is not told apart is counted under this name.
pub(super) const OTHER: &str = "other";

/// Stands for every HTTP status and gRPC status that no standard has.
pub(super) const NO_STANDARD: u16 = u16::MAX;

impl Outcome {
    /// As it is counted. Endpoints choose these numbers, and each one that is told apart is a series: what is outside
    /// RFC 9110's 100 to 599 and gRPC's 0 to 16 is one.
    pub(super) fn counted(self) -> Self {
        let code = match self.code {
            0 | 100..=599 => self.code,
            _ => NO_STANDARD,
        };
        let grpc_status = self.grpc_status.map(|status| match status {
            0..=16 => status,
            _ => NO_STANDARD,
        });
        Self {
            code,
            grpc_status,
            ..self
        }
    }
}

/// What a gRPC client makes of an answer of this HTTP status that came to its end without a gRPC status
/// (gRPC, "HTTP to gRPC Status Code Mapping"; "Status codes": a call that ends without one is UNKNOWN).
pub fn grpc_status_of(http: u16) -> u16 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// A status as its label says it.
pub(super) fn status_label(status: u16) -> String {
    match status {
        NO_STANDARD => OTHER.to_owned(),
        status => status.to_string(),
    }
}
