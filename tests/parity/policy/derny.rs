//! A policy as `TrafficPolicy.spec`.

use serde_json::{Map, Value, json};

use super::{Breaker, Check, How, On, Outlier, Policy, given};
use crate::upstream::HEALTH_PATH;

impl Policy {
    /// The fields of `TrafficPolicy.spec`.
    pub(crate) fn derny(&self) -> Map<String, Value> {
        let words: Vec<String> = self.on.iter().map(|on| on.derny()).collect();
        let mut policy = json!({
            "loadBalancer": {"algorithm": "roundRobin", "panicThreshold": self.panic},
            "connectionPool": {"connectTimeout": ms(self.connect)},
            "retry": {
                "attempts": self.retries, "on": words,
                "backoff": {"base": "10ms", "max": "100ms"},
                "bodyBufferBytes": self.body_buffer, "holdHeaders": ms(self.hold_headers),
            },
            "outlierDetection": self.outlier.map_or(json!({"enabled": false}), |outlier| outlier.derny()),
            "circuitBreaking": self.breaker.derny(),
        });
        for (name, time) in [("request", self.request), ("perTry", self.per_try)] {
            if let Some(time) = time {
                policy["timeouts"][name] = json!(ms(time));
            }
        }
        if let Some(check) = self.check {
            policy["healthCheck"] = check.derny();
        }
        match policy {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

impl On {
    fn derny(self) -> String {
        match self {
            Self::ConnectFailure => "connectFailure".to_owned(),
            Self::RefusedStream => "refusedStream".to_owned(),
            Self::ResetBeforeRequest => "resetBeforeRequest".to_owned(),
            Self::Reset => "reset".to_owned(),
            Self::Any5xx => "5xx".to_owned(),
            Self::GatewayError => "gatewayError".to_owned(),
            Self::Retriable4xx => "retriable4xx".to_owned(),
            Self::Status(code) => code.to_string(),
            Self::Grpc(status) => status.to_owned(),
        }
    }
}

impl Outlier {
    fn derny(self) -> Value {
        let mut outlier = json!({
            "consecutive5xx": self.consecutive_5xx, "consecutiveGatewayErrors": self.gateway,
            "interval": ms(self.interval), "baseEjectionTime": ms(self.base),
            "maxEjectionPercent": self.max_percent,
        });
        if self.local > 0 {
            outlier["splitLocalOrigin"] = json!(true);
            outlier["consecutiveLocalErrors"] = json!(self.local);
        }
        if self.success_rate > 0 {
            let factor = f64::from(self.success_rate) / 1000.0;
            outlier["successRate"] = json!({"minimumHosts": 3, "requestVolume": 10, "stdevFactor": factor});
        }
        if self.failure_percentage > 0 {
            outlier["failurePercentage"] =
                json!({"minimumHosts": 3, "requestVolume": 10, "threshold": self.failure_percentage});
        }
        if self.unimplemented {
            outlier["grpcStatus"] = json!(["unimplemented", "unavailable"]);
        }
        outlier
    }
}

impl Breaker {
    fn derny(self) -> Value {
        let bounds = [
            ("maxConnections", self.connections),
            ("maxPendingRequests", self.pending),
            ("maxRequests", self.requests),
            ("maxRetries", self.retries),
        ];
        let mut breaker = given(&bounds);
        if let Some(bound) = self.per_endpoint {
            breaker["perEndpoint"] = json!({"maxRequests": bound});
        }
        breaker
    }
}

impl Check {
    fn derny(self) -> Value {
        let mut check = json!({
            "interval": ms(self.interval), "timeout": ms(self.timeout), "jitter": 0,
            "unhealthyThreshold": self.unhealthy, "healthyThreshold": self.healthy,
        });
        match self.how {
            How::Http => check["http"] = json!({"path": HEALTH_PATH}),
            How::Grpc => check["grpc"] = json!({}),
            How::Tcp => check["tcp"] = json!({}),
        }
        check
    }
}

/// As Derny writes a time.
fn ms(millis: u64) -> String {
    format!("{millis}ms")
}
