//! One description of a policy, in Derny's words and in Envoy's.

use serde_json::{Value, json};

mod derny;
mod envoy;

/// A condition for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    ConnectFailure,
    RefusedStream,
    ResetBeforeRequest,
    Reset,
    Any5xx,
    GatewayError,
    Retriable4xx,
    Status(u16),
    /// By its name in camel case.
    Grpc(&'static str),
}

/// What Derny retries with `idempotent: true`, without `reset`.
pub(crate) const DEFAULT_ON: [On; 6] = [
    On::ConnectFailure,
    On::RefusedStream,
    On::ResetBeforeRequest,
    On::Status(503),
    On::Grpc("unavailable"),
    On::Grpc("cancelled"),
];

/// All times are milliseconds. What is `None` is left out of both configurations, and the default counts.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Tries after the first.
    pub(crate) retries: u32,
    pub(crate) on: Vec<On>,
    pub(crate) request: Option<u64>,
    pub(crate) per_try: Option<u64>,
    pub(crate) connect: u64,
    pub(crate) body_buffer: u32,
    /// Derny only.
    pub(crate) hold_headers: u64,
    pub(crate) outlier: Option<Outlier>,
    pub(crate) breaker: Breaker,
    pub(crate) check: Option<Check>,
    /// Percent.
    pub(crate) panic: u32,
    /// Whether Envoy is told to wait as long as `retry-after` says; Derny always does.
    pub(crate) retry_after: bool,
    /// Whether Envoy is told to heed `grpc-timeout`, which turns off its own timeout of a request; Derny always does.
    pub(crate) grpc_timeout: bool,
}

/// Detectors that are 0 are off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlier {
    pub(crate) consecutive_5xx: u32,
    pub(crate) gateway: u32,
    /// Counted apart when not 0.
    pub(crate) local: u32,
    pub(crate) interval: u64,
    pub(crate) base: u64,
    pub(crate) max_percent: u32,
    /// Factor in thousandths. Three endpoints with 10 requests each suffice.
    pub(crate) success_rate: u32,
    /// Percent, of three endpoints with 10 requests each.
    pub(crate) failure_percentage: u32,
    pub(crate) unimplemented: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breaker {
    pub(crate) connections: Option<u32>,
    pub(crate) pending: Option<u32>,
    pub(crate) requests: Option<u32>,
    pub(crate) retries: Option<u32>,
    /// Derny only.
    pub(crate) per_endpoint: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) how: How,
    pub(crate) interval: u64,
    pub(crate) timeout: u64,
    pub(crate) unhealthy: u32,
    pub(crate) healthy: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Http,
    Grpc,
    Tcp,
}

impl Default for Policy {
    /// No outlier detection; short back-off.
    fn default() -> Self {
        Self {
            retries: 2,
            on: DEFAULT_ON.to_vec(),
            request: None,
            per_try: None,
            connect: 1000,
            body_buffer: 64 * 1024,
            hold_headers: 20,
            outlier: None,
            breaker: Breaker::default(),
            check: None,
            panic: 50,
            retry_after: false,
            grpc_timeout: false,
        }
    }
}

impl Default for Outlier {
    /// Ejects after five failures in a row, for a second.
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            gateway: 0,
            local: 0,
            interval: 100,
            base: 1000,
            max_percent: 50,
            success_rate: 0,
            failure_percentage: 0,
            unimplemented: false,
        }
    }
}

impl Policy {
    pub(crate) fn on(retries: u32, on: &[On]) -> Self {
        Self {
            retries,
            on: on.to_vec(),
            ..Self::default()
        }
    }

    pub(crate) fn never() -> Self {
        Self::on(0, &DEFAULT_ON)
    }

    /// Without retries.
    pub(crate) fn ejecting(outlier: Outlier) -> Self {
        Self {
            outlier: Some(outlier),
            ..Self::never()
        }
    }

    /// Without retries.
    pub(crate) fn bounded(breaker: Breaker) -> Self {
        Self {
            breaker,
            ..Self::never()
        }
    }

    /// Without retries, probed every 300 ms; three failures or two successes in a row decide.
    pub(crate) fn checked(how: How) -> Self {
        Self {
            check: Some(Check {
                how,
                interval: 300,
                timeout: 150,
                unhealthy: 3,
                healthy: 2,
            }),
            ..Self::never()
        }
    }
}

/// Those fields that are given.
fn given(fields: &[(&str, Option<u32>)]) -> Value {
    let given = fields
        .iter()
        .filter_map(|(name, value)| Some(((*name).to_owned(), json!((*value)?))));
    Value::Object(given.collect())
}
