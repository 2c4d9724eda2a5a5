//! How a service is called. Checked values with the defaults that the documentation states.
//!
//! One [`Policy`] holds all that a `TrafficPolicy` says about a service port. Every field has a value: what the user
//! left out has its default here, so that no other room knows what a default is.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::HealthCheck;

mod retry;

pub use retry::{Backoff, Retry, RetryBudget, RetryOn};

/// Everything that a `TrafficPolicy` says about one service port.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub load_balancer: LoadBalancer,
    pub connection_pool: ConnectionPool,
    pub timeouts: Timeouts,
    pub retry: Retry,
    /// `None`: no endpoint is ever ejected.
    pub outlier_detection: Option<OutlierDetection>,
    pub circuit_breaking: CircuitBreaking,
    /// `None`: endpoints are not probed.
    pub health_check: Option<HealthCheck>,
    /// How long an undeclared port may stay silent in both directions before it is relayed as opaque TCP.
    pub detect_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            load_balancer: LoadBalancer::default(),
            connection_pool: ConnectionPool::default(),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            outlier_detection: Some(OutlierDetection::default()),
            circuit_breaking: CircuitBreaking::default(),
            health_check: None,
            detect_timeout: Duration::from_secs(5),
        }
    }
}

impl Policy {
    /// Of a pod's own port, whoever calls. The caller's side has retries and timeouts of its own: this side adds none
    /// but those of `limits`. Only what the application has not seen is sent again: a stream that it refused, or that
    /// crossed its GOAWAY.
    pub fn inbound(limits: &InboundLimits) -> Self {
        let request = limits.request_timeout.map(RequestTimeout::Whole);
        Self {
            timeouts: Timeouts {
                request: request.unwrap_or(RequestTimeout::None),
                per_try: None,
                idle: limits.idle_timeout,
            },
            retry: Retry {
                on: RetryOn {
                    refused_stream: true,
                    ..RetryOn::nothing()
                },
                ..Retry::default()
            },
            outlier_detection: None,
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct LoadBalancer {
    pub algorithm: Algorithm,
    /// An endpoint that is new, or back from an ejection, gets its full share only after this. Zero: at once.
    pub slow_start: Duration,
    /// Prefer endpoints of the caller's zone.
    pub zone_aware: ZoneAware,
    /// Percent of the endpoints. When fewer than that are usable, all are used.
    pub panic_threshold: u8,
}

impl Default for LoadBalancer {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            slow_start: Duration::ZERO,
            zone_aware: ZoneAware::Off,
            panic_threshold: 50,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ZoneAware {
    #[default]
    Off,
    /// In proportion to what the zone can take, and from as many endpoints on as are given here.
    On { min_endpoints: u32 },
}

/// How one of several endpoints is chosen for a request.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Algorithm {
    /// Two at random; the one with less (latency × load) wins.
    #[default]
    PeakEwma,
    /// Two at random; the one with fewer requests in flight wins.
    LeastRequest,
    /// In turn, in proportion to the weights.
    RoundRobin,
    /// At random, in proportion to the weights.
    Random,
    /// The same key always the same endpoint; when one leaves only its keys move. Ketama ring.
    RingHash { key: HashKey, min_ring_size: u32 },
    /// As ringHash, with more even shares and a little more movement. Table size is a prime.
    Maglev { key: HashKey, table_size: u32 },
}

impl Algorithm {
    /// The word in configuration and in the command line's tables.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::PeakEwma => "peakEwma",
            Self::LeastRequest => "leastRequest",
            Self::RoundRobin => "roundRobin",
            Self::Random => "random",
            Self::RingHash { .. } => "ringHash",
            Self::Maglev { .. } => "maglev",
        }
    }
}

/// What of a request decides where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    Header(HeaderName),
    /// The cookie's value; a request without it goes anywhere.
    Cookie(Arc<str>),
    /// The calling pod's address.
    SourceAddress,
}

/// Connections to the endpoints, per (source pod, endpoint).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionPool {
    pub connect_timeout: Duration,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// A connection serves so many requests and is then closed. `None`: no bound.
    pub max_requests_per_connection: Option<u32>,
    /// A connection of this age takes no new request. Shortened at random by up to a tenth. `None`: no bound.
    pub max_connection_lifetime: Option<Duration>,
    /// First probe after this time of silence; a peer that has gone is given up after two thirds more. `None`: off.
    pub tcp_keepalive: Option<Duration>,
    /// HTTP/2 flow-control window of a stream, in bytes. A connection's window is four times that.
    pub window_size: u32,
    /// HTTP/2 PING on a connection that has been silent for so long, and no more of them than gRPC's servers permit
    /// unless told otherwise. `None`: off.
    pub http2_keepalive: Option<Duration>,
}

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(60),
            max_requests_per_connection: None,
            max_connection_lifetime: None,
            tcp_keepalive: Some(Duration::from_secs(9)),
            window_size: 256 * 1024,
            http2_keepalive: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub request: RequestTimeout,
    /// Each attempt, from the end of the request until its response headers. `None`: no bound of its own.
    pub per_try: Option<Duration>,
    /// A stream without a byte in either direction. `None`: no bound.
    pub idle: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request: RequestTimeout::default(),
            per_try: None,
            idle: Some(Duration::from_secs(300)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestTimeout {
    /// From the end of the request until the response headers, with all attempts. What applies when nothing is set:
    /// bodies may stream for as long as they move, in both directions.
    Headers(Duration),
    /// The whole exchange, as the Gateway API defines `timeouts.request`.
    Whole(Duration),
    /// Set to zero: none.
    None,
}

impl Default for RequestTimeout {
    fn default() -> Self {
        Self::Headers(Duration::from_secs(15))
    }
}

/// When an endpoint is left out for a while, per (source workload, service).
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// 5xx answers in a row; local-origin errors count too unless `split_local_origin`. Zero: off.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 in a row. Zero: off.
    pub consecutive_gateway_errors: u32,
    /// Connect failures, timeouts and resets in a row, with `split_local_origin`. Zero: off.
    pub consecutive_local_errors: u32,
    pub split_local_origin: bool,
    /// gRPC statuses that count as failures like a 5xx.
    pub grpc_status: Vec<u16>,
    /// How often success rates and failure percentages are looked at, and how long an endpoint must stay in for an
    /// ejection of it to be forgotten. An ejection itself ends at its own time.
    pub interval: Duration,
    /// Times the number of ejections in a row.
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    /// Added at random, up to this.
    pub ejection_jitter: Duration,
    /// At least one endpoint may always be ejected when there are two or more.
    pub max_ejection_percent: u8,
    /// Whether a passed active check brings back also what is out for its answers, and not only what could not be
    /// reached: a health endpoint may be well where the service is not.
    pub health_check_unejects: bool,
    pub success_rate: Option<SuccessRate>,
    pub failure_percentage: Option<FailurePercentage>,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_errors: 0,
            consecutive_local_errors: 5,
            split_local_origin: false,
            // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS: what Envoy maps to a 5xx, but for
            // UNIMPLEMENTED, which no other endpoint of the service would answer otherwise.
            grpc_status: vec![2, 4, 13, 14, 15],
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            ejection_jitter: Duration::ZERO,
            max_ejection_percent: 50,
            health_check_unejects: false,
            success_rate: None,
            failure_percentage: None,
        }
    }
}

/// Ejects endpoints whose success rate lies so far below the mean of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRate {
    pub minimum_hosts: u32,
    /// Requests of an endpoint within one interval.
    pub request_volume: u32,
    /// In standard deviations.
    pub stdev_factor: f64,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor: 1.9,
        }
    }
}

/// Ejects endpoints that fail so many percent of their requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    pub threshold: u8,
    pub minimum_hosts: u32,
    /// Requests of an endpoint within one interval.
    pub request_volume: u32,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self {
            threshold: 85,
            minimum_hosts: 5,
            request_volume: 50,
        }
    }
}

/// Bounds per (source workload, service). Overflow is refused at once. What protects the node is each pod's own share
/// of the engine; these protect a service, and only who knows it can say from how much. `None`: no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CircuitBreaking {
    /// Connections to endpoints.
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    pub max_requests: Option<u32>,
    /// Retries in flight; `None`: the retry budget decides.
    pub max_retries: Option<u32>,
    /// Requests at one endpoint; another endpoint is tried first.
    pub max_requests_per_endpoint: Option<u32>,
}

/// Bounds of what a pod's port takes, whoever calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct InboundLimits {
    pub max_requests: Option<u32>,
    pub max_connections: Option<u32>,
    /// The whole exchange. `None`: as long as caller and application like.
    pub request_timeout: Option<Duration>,
    /// A stream without a byte in either direction. `None`: no bound.
    pub idle_timeout: Option<Duration>,
}
