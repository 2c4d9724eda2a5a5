//! A policy as parts of Envoy's configuration.

use serde_json::{Value, json};

use super::{Breaker, Check, How, On, Outlier, Policy, given};
use crate::upstream::HEALTH_PATH;

impl Policy {
    /// `RouteAction` without its cluster.
    pub(crate) fn envoy_route(&self) -> Value {
        let words: Vec<&str> = self.on.iter().map(|on| on.envoy()).collect();
        let codes: Vec<u16> = self
            .on
            .iter()
            .filter_map(|on| match on {
                On::Status(code) => Some(*code),
                _ => None,
            })
            .collect();
        let mut route = json!({
            "retry_policy": {
                "retry_on": words.join(","), "num_retries": self.retries,
                "retriable_status_codes": codes,
                "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
                "retry_host_predicate": [{
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type":
                        "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }],
                "host_selection_retry_max_attempts": 8,
            },
        });
        if self.grpc_timeout {
            route["max_stream_duration"] = json!({"grpc_timeout_header_max": "0s"});
        }
        if self.retry_after {
            route["retry_policy"]["rate_limited_retry_back_off"] =
                json!({"reset_headers": [{"name": "retry-after", "format": "SECONDS"}]});
        }
        if let Some(time) = self.request {
            route["timeout"] = json!(seconds(time));
        }
        if let Some(time) = self.per_try {
            route["retry_policy"]["per_try_timeout"] = json!(seconds(time));
        }
        route
    }

    /// `Cluster` without name and endpoints.
    pub(crate) fn envoy_cluster(&self) -> Value {
        let mut cluster = json!({
            "type": "STATIC", "lb_policy": "ROUND_ROBIN", "connect_timeout": seconds(self.connect),
            "common_lb_config": {"healthy_panic_threshold": {"value": self.panic}},
            "circuit_breakers": {"thresholds": [self.breaker.envoy()]},
        });
        if let Some(outlier) = self.outlier {
            cluster["outlier_detection"] = outlier.envoy();
        }
        if let Some(check) = self.check {
            cluster["health_checks"] = json!([check.envoy()]);
        }
        cluster
    }
}

impl On {
    fn envoy(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect-failure",
            Self::RefusedStream => "refused-stream",
            Self::ResetBeforeRequest => "reset-before-request",
            Self::Reset => "reset",
            Self::Any5xx => "5xx",
            Self::GatewayError => "gateway-error",
            Self::Retriable4xx => "retriable-4xx",
            Self::Status(_) => "retriable-status-codes",
            Self::Grpc("deadlineExceeded") => "deadline-exceeded",
            Self::Grpc("resourceExhausted") => "resource-exhausted",
            // `unavailable`, `cancelled`, `internal`.
            Self::Grpc(status) => status,
        }
    }
}

impl Outlier {
    fn envoy(self) -> Value {
        let enforced = |threshold: u32| if threshold > 0 { 100 } else { 0 };
        json!({
            "consecutive_5xx": self.consecutive_5xx.max(1),
            "enforcing_consecutive_5xx": enforced(self.consecutive_5xx),
            "consecutive_gateway_failure": self.gateway.max(1),
            "enforcing_consecutive_gateway_failure": enforced(self.gateway),
            "split_external_local_origin_errors": self.local > 0,
            "consecutive_local_origin_failure": self.local.max(1),
            "enforcing_consecutive_local_origin_failure": enforced(self.local),
            "enforcing_local_origin_success_rate": 0,
            "interval": seconds(self.interval), "base_ejection_time": seconds(self.base),
            "max_ejection_percent": self.max_percent, "always_eject_one_host": true,
            "enforcing_success_rate": enforced(self.success_rate),
            "success_rate_minimum_hosts": 3, "success_rate_request_volume": 10,
            "success_rate_stdev_factor": self.success_rate,
            "enforcing_failure_percentage": enforced(self.failure_percentage),
            "failure_percentage_minimum_hosts": 3, "failure_percentage_request_volume": 10,
            "failure_percentage_threshold": self.failure_percentage,
        })
    }
}

impl Breaker {
    fn envoy(self) -> Value {
        given(&[
            ("max_connections", self.connections),
            ("max_pending_requests", self.pending),
            ("max_requests", self.requests),
            ("max_retries", self.retries),
        ])
    }
}

impl Check {
    fn envoy(self) -> Value {
        let mut check = json!({
            "interval": seconds(self.interval), "no_traffic_interval": seconds(self.interval),
            "timeout": seconds(self.timeout),
            "unhealthy_threshold": self.unhealthy, "healthy_threshold": self.healthy,
        });
        match self.how {
            How::Http => {
                check["http_health_check"] = json!({
                    "path": HEALTH_PATH,
                    // Else one answer with another status suffices, whatever the threshold.
                    "retriable_statuses": [{"start": 100, "end": 600}],
                });
            }
            How::Grpc => check["grpc_health_check"] = json!({}),
            How::Tcp => check["tcp_health_check"] = json!({}),
        }
        check
    }
}

/// As protobuf's JSON writes a time.
fn seconds(millis: u64) -> String {
    format!("{}.{:03}s", millis / 1000, millis % 1000)
}
