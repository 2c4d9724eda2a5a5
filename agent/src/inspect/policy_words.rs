//! A policy in words, section by section, named as in the configuration.

use std::{fmt::Display, time::Duration};

use crate::{
    admin::proto::Fact,
    config::duration,
    model::{
        Algorithm, HashKey, HealthCheck, LoadBalancer, OutlierDetection, Policy, Probe, RequestTimeout,
        Retry, RetryOn, RuleRetry, RuleTimeouts, Timeouts, ZoneAware,
    },
};

/// The sections that differ from the defaults.
pub(super) fn changed(policy: &Policy) -> Vec<String> {
    let default = Policy::default();
    let sections = [
        ("loadBalancer", policy.load_balancer != default.load_balancer),
        (
            "connectionPool",
            policy.connection_pool != default.connection_pool,
        ),
        ("timeouts", policy.timeouts != default.timeouts),
        ("retry", policy.retry != default.retry),
        (
            "outlierDetection",
            policy.outlier_detection != default.outlier_detection,
        ),
        (
            "circuitBreaking",
            policy.circuit_breaking != default.circuit_breaking,
        ),
        ("healthCheck", policy.health_check != default.health_check),
        ("detectTimeout", policy.detect_timeout != default.detect_timeout),
    ];
    let changed = sections.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(name, _)| name.to_owned()).collect()
}

/// Every section that bears on a request.
pub(super) fn facts(policy: &Policy) -> Vec<Fact> {
    let pool = &policy.connection_pool;
    let breaking = &policy.circuit_breaking;
    let retries = breaking
        .max_retries
        .map_or("retries by their budget".to_owned(), |max| {
            format!("{max} retries")
        });
    let per_endpoint = breaking
        .max_requests_per_endpoint
        .map(|max| format!(", {max} requests at one endpoint"));
    let mut facts = vec![
        fact("loadBalancer", load_balancer(&policy.load_balancer)),
        fact(
            "connectionPool",
            format!(
                "connect within {}, kept idle for {}",
                time(pool.connect_timeout),
                time(pool.idle_timeout)
            ),
        ),
        fact("timeouts", timeouts(&policy.timeouts)),
        fact("retry", retry(&policy.retry)),
        fact(
            "outlierDetection",
            policy
                .outlier_detection
                .as_ref()
                .map_or("off".to_owned(), outlier),
        ),
        fact(
            "circuitBreaking",
            format!(
                "at most {} connections, {} waiting requests, {} requests, {retries}{}",
                count(breaking.max_connections),
                count(breaking.max_pending_requests),
                count(breaking.max_requests),
                per_endpoint.unwrap_or_default()
            ),
        ),
    ];
    if let Some(check) = &policy.health_check {
        facts.push(fact("healthCheck", health_check(check)));
    }
    facts
}

/// What a rule says over its service's policy.
pub(super) fn rule_facts(timeouts: RuleTimeouts, retry: Option<&RuleRetry>) -> Vec<Fact> {
    let zero_is_none = |time: Duration| optional((!time.is_zero()).then_some(time));
    let mut facts = Vec::new();
    if let Some(request) = timeouts.request {
        facts.push(fact("rule timeouts.request", zero_is_none(request)));
    }
    if let Some(attempt) = timeouts.backend_request {
        facts.push(fact("rule timeouts.backendRequest", zero_is_none(attempt)));
    }
    if let Some(retry) = retry {
        let on = "every failure without an answer, and codes, for all methods";
        facts.push(fact("rule retry.on", on));
        if retry.idempotent {
            facts.push(fact("rule retry.idempotent", true));
        }
        let codes: Vec<String> = retry.codes.iter().map(|code| code.as_str().to_owned()).collect();
        if !codes.is_empty() {
            facts.push(fact("rule retry.codes", codes.join(" ")));
        }
        if let Some(attempts) = retry.attempts {
            facts.push(fact("rule retry.attempts", attempts));
        }
        if let Some(backoff) = retry.backoff {
            facts.push(fact("rule retry.backoff", time(backoff)));
        }
    }
    facts
}

/// That a caller's namespace has routes of its own.
pub(super) fn consumers_routes(own: &str, instead_of: &str) -> Fact {
    let words = format!("those of {own}, for its own callers, in the place of any of {instead_of}");
    fact("routes", words)
}

fn fact(name: &str, value: impl Display) -> Fact {
    Fact {
        name: name.to_owned(),
        value: value.to_string(),
    }
}

fn time(time: Duration) -> duration::Display {
    duration::Display(time)
}

fn count(bound: Option<u32>) -> String {
    bound.map_or("any number of".to_owned(), |bound| bound.to_string())
}

fn optional(limit: Option<Duration>) -> String {
    limit.map_or("none".to_owned(), |limit| time(limit).to_string())
}

fn load_balancer(balancer: &LoadBalancer) -> String {
    let mut words = balancer.algorithm.as_str().to_owned();
    if let Algorithm::RingHash { key, .. } | Algorithm::Maglev { key, .. } = &balancer.algorithm {
        words += &match key {
            HashKey::Header(name) => format!(" by the header {name}"),
            HashKey::Cookie(name) => format!(" by the cookie {name}"),
            HashKey::SourceAddress => " by the source address".to_owned(),
        };
    }
    if let ZoneAware::On { min_endpoints } = balancer.zone_aware {
        words += &format!(", own zone first from {min_endpoints} endpoints on");
    }
    if !balancer.slow_start.is_zero() {
        words += &format!(", slow start {}", time(balancer.slow_start));
    }
    words
}

fn timeouts(timeouts: &Timeouts) -> String {
    let request = match timeouts.request {
        RequestTimeout::Headers(limit) => format!("{} from its end until the response headers", time(limit)),
        RequestTimeout::Whole(limit) => format!("{} for the whole exchange", time(limit)),
        RequestTimeout::None => "none".to_owned(),
    };
    format!(
        "request {request}; each attempt {}; idle {}",
        optional(timeouts.per_try),
        optional(timeouts.idle)
    )
}

fn retry(retry: &Retry) -> String {
    if retry.attempts == 0 {
        return "never".to_owned();
    }
    format!(
        "{} times on {}; back-off {} to {}; budget {} % of the active requests, at least {}",
        retry.attempts,
        conditions(&retry.on),
        time(retry.backoff.base),
        time(retry.backoff.max),
        retry.budget.percent,
        retry.budget.min
    )
}

fn conditions(on: &RetryOn) -> String {
    let named = [
        ("connectFailure", on.connect_failure),
        ("refusedStream", on.refused_stream),
        ("resetBeforeRequest", on.reset_before_request),
        ("reset", on.reset),
        ("5xx", on.any_5xx),
        ("gatewayError", on.gateway_error),
        ("retriable4xx", on.retriable_4xx),
    ];
    let named = named
        .iter()
        .filter(|(_, on)| *on)
        .map(|(name, _)| (*name).to_owned());
    let http = on.http_status.iter().map(|status| status.as_str().to_owned());
    let grpc = on.grpc_status.iter().map(|code| format!("grpc-status {code}"));
    let headers = on.headers.iter().map(|name| format!("header {name}"));
    let by_method = on
        .idempotent_methods
        .then(|| "of idempotent methods 503 and reset".to_owned());
    let all: Vec<String> = (named.chain(http).chain(grpc).chain(headers))
        .chain(by_method)
        .collect();
    match all.as_slice() {
        [] => "nothing".to_owned(),
        all => all.join(", "),
    }
}

fn outlier(outlier: &OutlierDetection) -> String {
    let in_a_row = [
        ("5xx", outlier.consecutive_5xx),
        ("gateway errors", outlier.consecutive_gateway_errors),
        (
            "local errors",
            if outlier.split_local_origin {
                outlier.consecutive_local_errors
            } else {
                0
            },
        ),
    ];
    let mut detectors: Vec<String> = in_a_row
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(what, n)| format!("{n} {what} in a row"))
        .collect();
    if let Some(rate) = &outlier.success_rate {
        detectors.push(format!("a success rate {} σ below the mean", rate.stdev_factor));
    }
    if let Some(failures) = &outlier.failure_percentage {
        detectors.push(format!("{} % failures", failures.threshold));
    }
    match detectors.as_slice() {
        [] => "no detector".to_owned(),
        detectors => format!(
            "ejects for {} after {}; at most {} % of the endpoints",
            time(outlier.base_ejection_time),
            detectors.join(", or "),
            outlier.max_ejection_percent
        ),
    }
}

fn health_check(check: &HealthCheck) -> String {
    let probe = match &check.probe {
        Probe::Http { path, .. } => format!("HTTP {path}"),
        Probe::Grpc { service } if service.is_empty() => "gRPC".to_owned(),
        Probe::Grpc { service } => format!("gRPC {service}"),
        Probe::Tcp => "TCP".to_owned(),
    };
    format!(
        "{probe} every {}, within {}",
        time(check.interval),
        time(check.timeout)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_in_words() {
        let facts: Vec<String> = facts(&Policy::default())
            .into_iter()
            .map(|fact| format!("{}: {}", fact.name, fact.value))
            .collect();
        assert_eq!(
            facts,
            [
                "loadBalancer: peakEwma",
                "connectionPool: connect within 1s, kept idle for 1m",
                "timeouts: request 15s from its end until the response headers; each attempt none; idle 5m",
                "retry: 2 times on connectFailure, refusedStream, resetBeforeRequest, of idempotent methods 503 and \
                 reset; back-off 25ms to 250ms; budget 20 % of the active requests, at least 3",
                "outlierDetection: ejects for 30s after 5 5xx in a row; at most 50 % of the endpoints",
                "circuitBreaking: at most any number of connections, any number of waiting requests, any number of \
                 requests, retries by their budget",
            ]
        );
        assert!(changed(&Policy::default()).is_empty());
        let mut policy = Policy::default();
        policy.retry.attempts = 0;
        policy.outlier_detection = None;
        assert_eq!(changed(&policy), ["retry", "outlierDetection"]);
    }
}
