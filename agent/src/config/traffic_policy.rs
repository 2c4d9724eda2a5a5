//! `TrafficPolicy.spec` as it is written, in the file and in the custom resource. What is left out is `None`: the
//! defaults are the model's.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::schema::{TargetRef, duration};

/// A policy and what it is attached to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TrafficPolicy {
    pub(super) target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub(super) load_balancer: LoadBalancer,
    #[serde(default)]
    pub(super) connection_pool: ConnectionPool,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
    #[serde(default)]
    pub(super) retry: Retry,
    #[serde(default)]
    pub(super) outlier_detection: OutlierDetection,
    #[serde(default)]
    pub(super) circuit_breaking: CircuitBreaking,
    pub(super) health_check: Option<HealthCheck>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) detect_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LoadBalancer {
    pub(super) algorithm: Option<String>,
    pub(super) hash_on: Option<HashOn>,
    pub(super) min_ring_size: Option<u64>,
    pub(super) table_size: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) slow_start: Option<String>,
    pub(super) zone_aware: Option<ZoneAware>,
    pub(super) panic_threshold: Option<u64>,
}

/// One of the three.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HashOn {
    pub(super) header: Option<String>,
    pub(super) cookie: Option<String>,
    pub(super) source_address: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ZoneAware {
    pub(super) min_endpoints: Option<u64>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConnectionPool {
    #[serde(default, deserialize_with = "duration")]
    pub(super) connect_timeout: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) idle_timeout: Option<String>,
    pub(super) max_requests_per_connection: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) max_connection_lifetime: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) tcp_keepalive: Option<String>,
    pub(super) window_size: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) http2_keepalive: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Timeouts {
    #[serde(default, deserialize_with = "duration")]
    pub(super) request: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) per_try: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) idle: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Retry {
    pub(super) attempts: Option<u64>,
    pub(super) on: Option<Vec<Word>>,
    #[serde(default)]
    pub(super) http_status: Vec<u64>,
    #[serde(default)]
    pub(super) grpc_status: Vec<Word>,
    #[serde(default)]
    pub(super) headers: Vec<String>,
    pub(super) idempotent: Option<bool>,
    #[serde(default)]
    pub(super) backoff: Backoff,
    pub(super) budget: Option<RetryBudget>,
    pub(super) body_buffer_bytes: Option<u64>,
    pub(super) avoid_previous_endpoint: Option<bool>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) hold_headers: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Backoff {
    #[serde(default, deserialize_with = "duration")]
    pub(super) base: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) max: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RetryBudget {
    pub(super) percent: Option<u64>,
    pub(super) min: Option<u64>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OutlierDetection {
    pub(super) enabled: Option<bool>,
    #[serde(rename = "consecutive5xx")]
    pub(super) consecutive_5xx: Option<u64>,
    pub(super) consecutive_gateway_errors: Option<u64>,
    pub(super) consecutive_local_errors: Option<u64>,
    pub(super) split_local_origin: Option<bool>,
    pub(super) grpc_status: Option<Vec<Word>>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) interval: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) base_ejection_time: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) max_ejection_time: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) ejection_jitter: Option<String>,
    pub(super) max_ejection_percent: Option<u64>,
    pub(super) health_check_unejects: Option<bool>,
    pub(super) success_rate: Option<SuccessRate>,
    pub(super) failure_percentage: Option<FailurePercentage>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SuccessRate {
    pub(super) minimum_hosts: Option<u64>,
    pub(super) request_volume: Option<u64>,
    pub(super) stdev_factor: Option<f64>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FailurePercentage {
    pub(super) threshold: Option<u64>,
    pub(super) minimum_hosts: Option<u64>,
    pub(super) request_volume: Option<u64>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CircuitBreaking {
    pub(super) max_connections: Option<u64>,
    pub(super) max_pending_requests: Option<u64>,
    pub(super) max_requests: Option<u64>,
    pub(super) max_retries: Option<u64>,
    #[serde(default)]
    pub(super) per_endpoint: PerEndpoint,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PerEndpoint {
    pub(super) max_requests: Option<u64>,
}

/// With one of `http`, `grpc` and `tcp`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HealthCheck {
    pub(super) http: Option<HttpProbe>,
    pub(super) grpc: Option<GrpcProbe>,
    pub(super) tcp: Option<TcpProbe>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) interval: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) timeout: Option<String>,
    pub(super) unhealthy_threshold: Option<u64>,
    pub(super) healthy_threshold: Option<u64>,
    pub(super) jitter: Option<u64>,
    pub(super) port: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HttpProbe {
    pub(super) path: String,
    pub(super) host: Option<String>,
    pub(super) expected_statuses: Option<Vec<Word>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GrpcProbe {
    #[serde(default)]
    pub(super) service: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TcpProbe {}

/// A word or a bare number, as its text: nobody has to know which of `unavailable`, `503` and `200-299` needs
/// quotes.
#[derive(Debug)]
pub(super) struct Word(pub(super) String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
        }

        from.deserialize_any(Visitor)
    }
}

impl JsonSchema for Word {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Word".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}
