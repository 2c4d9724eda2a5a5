//! When a request is sent again.

use std::time::Duration;

use http::{HeaderName, StatusCode};

#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Tries after the first. Zero: never.
    pub attempts: u32,
    pub on: RetryOn,
    pub backoff: Backoff,
    pub budget: RetryBudget,
    /// A request body up to this many bytes can be sent again.
    pub body_buffer_bytes: usize,
    /// Prefer an endpoint that has not failed this request.
    pub avoid_previous_endpoint: bool,
    /// How long gRPC response headers wait for the first message or the trailers while a retry is possible.
    pub hold_headers: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: RetryOn::default(),
            backoff: Backoff::default(),
            budget: RetryBudget::default(),
            body_buffer_bytes: 64 * 1024,
            avoid_previous_endpoint: true,
            hold_headers: Duration::from_millis(20),
        }
    }
}

/// Conditions on which a request is sent again; any of them suffices.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryOn {
    pub connect_failure: bool,
    /// REFUSED_STREAM, or a stream above the last one of a GOAWAY.
    pub refused_stream: bool,
    /// The connection or stream ended before the request was sent whole.
    pub reset_before_request: bool,
    /// No response headers came, for whatever reason.
    pub reset: bool,
    /// Any 5xx, and what `reset` covers.
    pub any_5xx: bool,
    /// 502, 503, 504, and what `reset` covers.
    pub gateway_error: bool,
    /// 409.
    pub retriable_4xx: bool,
    pub http_status: Vec<StatusCode>,
    /// gRPC status codes, 0 to 16, wherever they arrive: headers or trailers.
    pub grpc_status: Vec<u16>,
    /// A response with any of these headers.
    pub headers: Vec<HeaderName>,
    /// `reset` and 503 for requests that may be done twice by their method (RFC 9110 section 9.2.2).
    pub idempotent_methods: bool,
}

impl RetryOn {
    /// No condition: nothing is sent again.
    pub fn nothing() -> Self {
        Self {
            connect_failure: false,
            refused_stream: false,
            reset_before_request: false,
            reset: false,
            any_5xx: false,
            gateway_error: false,
            retriable_4xx: false,
            http_status: Vec::new(),
            grpc_status: Vec::new(),
            headers: Vec::new(),
            idempotent_methods: false,
        }
    }

    /// A rule's own `retry` (GEP-1731): these statuses, and every failure without an answer.
    pub fn of_rule(codes: &[StatusCode]) -> Self {
        Self {
            connect_failure: true,
            refused_stream: true,
            reset_before_request: true,
            reset: true,
            http_status: codes.to_vec(),
            ..Self::nothing()
        }
    }

    /// Also on what `other` names.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.connect_failure |= other.connect_failure;
        self.refused_stream |= other.refused_stream;
        self.reset_before_request |= other.reset_before_request;
        self.reset |= other.reset;
        self.any_5xx |= other.any_5xx;
        self.gateway_error |= other.gateway_error;
        self.retriable_4xx |= other.retriable_4xx;
        self.idempotent_methods |= other.idempotent_methods;
        self.http_status.extend_from_slice(&other.http_status);
        self.grpc_status.extend_from_slice(&other.grpc_status);
        self.headers.extend_from_slice(&other.headers);
        self
    }

    /// For calls that may all be done twice: what Istio retries unless it is told otherwise.
    pub fn idempotent() -> Self {
        Self {
            connect_failure: true,
            refused_stream: true,
            reset_before_request: true,
            reset: true,
            http_status: vec![StatusCode::SERVICE_UNAVAILABLE],
            // CANCELLED and UNAVAILABLE.
            grpc_status: vec![1, 14],
            ..Self::nothing()
        }
    }
}

impl Default for RetryOn {
    /// Nothing that an endpoint may have acted on, unless it may be done twice by its method.
    fn default() -> Self {
        Self {
            connect_failure: true,
            refused_stream: true,
            reset_before_request: true,
            idempotent_methods: true,
            ..Self::nothing()
        }
    }
}

/// The pause before the n-th retry: `least`, and full jitter over `(2^n − 1) · base`, at most `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Zero without a rule's `retry.backoff`.
    pub least: Duration,
    pub base: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            least: Duration::ZERO,
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
        }
    }
}

/// Retries in flight at a time, per (source workload, service): so many percent of the active requests, and at
/// least so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    pub percent: u8,
    pub min: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20, min: 3 }
    }
}
