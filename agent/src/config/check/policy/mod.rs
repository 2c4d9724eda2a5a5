//! One policy: what is written → what applies. Ranges are here and in the files below; defaults are the model's.
//!
//! What is not said, or wrongly said, is as by default; a fault keeps the whole file from being used.

mod section;
mod load_balancer;
mod retry;
mod outlier;
mod health;
mod grpc_status;

#[cfg(test)]
mod tests;

use std::{ops::RangeInclusive, time::Duration};

use section::Section;

use crate::{
    config::{
        error::{At, Faults},
        traffic_policy as written,
    },
    model::{CircuitBreaking, ConnectionPool, Policy, RequestTimeout, Timeouts},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

const DETECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=MINUTE;
/// From HTTP/2's own default (RFC 9113, 6.9.2) to what one stalled stream may hold of the node's memory.
const WINDOW_SIZE: RangeInclusive<u32> = 65_536..=16_777_216;
/// Of things that are counted and must be at least one.
const COUNT: RangeInclusive<u32> = 1..=u32::MAX;

pub(in crate::config) fn check(spec: &written::TrafficPolicy, at: At<'_>, faults: &mut Faults) -> Policy {
    let default = Policy::default();
    let load_balancer = load_balancer::check(&spec.load_balancer, at.field("loadBalancer"), faults);
    let connection_pool = connection_pool(
        &spec.connection_pool,
        Section::new(at.field("connectionPool"), faults),
    );
    let timeouts = timeouts(&spec.timeouts, Section::new(at.field("timeouts"), faults));
    let retry = retry::check(&spec.retry, at.field("retry"), faults);
    let outlier_detection = outlier::check(&spec.outlier_detection, at.field("outlierDetection"), faults);
    let breaking_at = at.field("circuitBreaking");
    let circuit_breaking = circuit_breaking(&spec.circuit_breaking, Section::new(breaking_at, faults));
    if let (Some(retries), Some(_)) = (spec.circuit_breaking.max_retries, &spec.retry.budget) {
        let fault = "bounds retries beside `retry.budget`";
        faults.add(
            breaking_at.field("maxRetries"),
            retries,
            fault,
            "keep one of the two",
        );
    }
    let health_check = spec.health_check.as_ref();
    let health_check = health_check.and_then(|spec| health::check(spec, at.field("healthCheck"), faults));
    let detect_timeout =
        Section::new(at, faults).duration("detectTimeout", &spec.detect_timeout, DETECT_TIMEOUT);
    Policy {
        load_balancer,
        connection_pool,
        timeouts,
        retry,
        outlier_detection,
        circuit_breaking,
        health_check,
        detect_timeout: detect_timeout.unwrap_or(default.detect_timeout),
    }
}

fn connection_pool(spec: &written::ConnectionPool, mut section: Section<'_, '_>) -> ConnectionPool {
    let default = ConnectionPool::default();
    ConnectionPool {
        connect_timeout: section
            .duration("connectTimeout", &spec.connect_timeout, MS..=MINUTE)
            .unwrap_or(default.connect_timeout),
        idle_timeout: section
            .duration("idleTimeout", &spec.idle_timeout, SECOND..=HOUR)
            .unwrap_or(default.idle_timeout),
        max_requests_per_connection: section
            .number(
                "maxRequestsPerConnection",
                spec.max_requests_per_connection,
                COUNT,
            )
            .or(default.max_requests_per_connection),
        max_connection_lifetime: section
            .optional(
                "maxConnectionLifetime",
                &spec.max_connection_lifetime,
                SECOND..=DAY,
            )
            .unwrap_or(default.max_connection_lifetime),
        tcp_keepalive: section
            .optional("tcpKeepalive", &spec.tcp_keepalive, SECOND..=2 * HOUR)
            .unwrap_or(default.tcp_keepalive),
        window_size: section
            .number("windowSize", spec.window_size, WINDOW_SIZE)
            .unwrap_or(default.window_size),
        http2_keepalive: section
            .optional("http2Keepalive", &spec.http2_keepalive, SECOND..=HOUR)
            .unwrap_or(default.http2_keepalive),
    }
}

fn timeouts(spec: &written::Timeouts, mut section: Section<'_, '_>) -> Timeouts {
    let default = Timeouts::default();
    let request = match section.optional("request", &spec.request, MS..=DAY) {
        None => default.request,
        Some(None) => RequestTimeout::None,
        Some(Some(whole)) => RequestTimeout::Whole(whole),
    };
    let per_try = section.optional("perTry", &spec.per_try, MS..=HOUR);
    if let (RequestTimeout::Whole(whole), Some(Some(per_try))) = (request, per_try)
        && per_try > whole
    {
        let text = spec.per_try.as_deref().unwrap_or_default();
        section.fault(
            "perTry",
            text,
            "is longer than `request`",
            "use at most as long a time, or leave it out",
        );
    }
    Timeouts {
        request,
        per_try: per_try.unwrap_or(default.per_try),
        idle: section
            .optional("idle", &spec.idle, MS..=DAY)
            .unwrap_or(default.idle),
    }
}

fn circuit_breaking(spec: &written::CircuitBreaking, mut section: Section<'_, '_>) -> CircuitBreaking {
    let default = CircuitBreaking::default();
    CircuitBreaking {
        max_connections: section
            .number("maxConnections", spec.max_connections, COUNT)
            .or(default.max_connections),
        max_pending_requests: section
            .number("maxPendingRequests", spec.max_pending_requests, COUNT)
            .or(default.max_pending_requests),
        max_requests: section
            .number("maxRequests", spec.max_requests, COUNT)
            .or(default.max_requests),
        max_retries: section
            .number("maxRetries", spec.max_retries, 0..=u32::MAX)
            .or(default.max_retries),
        max_requests_per_endpoint: section
            .inner("perEndpoint", |section| {
                section.number("maxRequests", spec.per_endpoint.max_requests, COUNT)
            })
            .or(default.max_requests_per_endpoint),
    }
}
