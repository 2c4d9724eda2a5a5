mod faults;

use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::{
    config::from_yaml,
    model::{
        Algorithm, Backoff, CircuitBreaking, ConnectionPool, FailurePercentage, HashKey, HealthCheck,
        LoadBalancer, OutlierDetection, Policy, Probe, RequestTimeout, Retry, RetryBudget, RetryOn,
        SuccessRate, Timeouts, ZoneAware,
    },
};

fn yaml(policy: &str) -> String {
    format!(
        "services: [{{name: echo, ports: [{{port: 80}}]}}]\n\
         policies: [{{targetRefs: [{{kind: Service, name: echo}}], {policy}}}]"
    )
}

#[track_caller]
fn good(policy: &str) -> Policy {
    let checked = from_yaml(yaml(policy).as_bytes()).unwrap_or_else(|error| panic!("{error}\n{policy}"));
    Policy::clone(&checked.services[0].ports[0].policy)
}

/// `expect` are the faults, all of them, without `policies[0].` at their beginning.
#[track_caller]
fn bad(policy: &str, expect: &[&str]) {
    let error = from_yaml(yaml(policy).as_bytes()).expect_err(policy);
    let problems = error.problems();
    let told: Vec<&str> = problems
        .iter()
        .map(|line| line.strip_prefix("policies[0].").unwrap_or(line))
        .collect();
    assert_eq!(told, expect, "{policy}");
}

/// A policy that differs from the default as `change` says.
fn policy(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = Policy::default();
    change(&mut policy);
    policy
}

fn outlier(change: impl FnOnce(&mut OutlierDetection)) -> Policy {
    let mut outlier = OutlierDetection::default();
    change(&mut outlier);
    policy(|p| p.outlier_detection = Some(outlier))
}

fn health(probe: Probe) -> Policy {
    policy(|p| p.health_check = Some(HealthCheck::new(probe)))
}

fn http_probe(expected: &[(u16, u16)]) -> Probe {
    Probe::Http {
        path: "/".into(),
        host: None,
        expected: expected.to_vec(),
    }
}

fn retry_on(change: impl FnOnce(&mut RetryOn)) -> Policy {
    let mut on = RetryOn::nothing();
    change(&mut on);
    policy(|p| p.retry.on = on)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const EVERYTHING: &str = "
loadBalancer: {algorithm: ringHash, hashOn: {header: X-User}, minRingSize: 4096, slowStart: 30s, \
 zoneAware: {minEndpoints: 3}, panicThreshold: 0},
connectionPool: {connectTimeout: 2s, idleTimeout: 2m, maxRequestsPerConnection: 1000, \
 maxConnectionLifetime: 1h, tcpKeepalive: 45s, windowSize: 1048576, http2Keepalive: 20s},
timeouts: {request: 3s, perTry: 1s, idle: 1m},
retry: {attempts: 4, on: [connectFailure, refusedStream, resetBeforeRequest, reset, 5xx, gatewayError, \
 retriable4xx, unavailable, 503], httpStatus: [429], grpcStatus: [RESOURCE_EXHAUSTED, 10], \
 headers: [X-Retry-Me], backoff: {base: 10ms, max: 1s}, budget: {percent: 10, min: 1}, bodyBufferBytes: 0, \
 avoidPreviousEndpoint: false, holdHeaders: 5ms},
outlierDetection: {enabled: true, consecutive5xx: 3, consecutiveGatewayErrors: 2, consecutiveLocalErrors: 4, \
 splitLocalOrigin: true, grpcStatus: [internal], interval: 1s, baseEjectionTime: 5s, maxEjectionTime: 1m, \
 ejectionJitter: 1s, maxEjectionPercent: 100, healthCheckUnejects: true, successRate: {minimumHosts: 3, requestVolume: 10, \
 stdevFactor: 2.5}, failurePercentage: {threshold: 50, minimumHosts: 2, requestVolume: 20}},
circuitBreaking: {maxConnections: 1, maxPendingRequests: 2, maxRequests: 3, perEndpoint: {maxRequests: 4}},
healthCheck: {http: {path: /healthz, host: echo.example, expectedStatuses: [200-299, 404]}, interval: 2s, \
 timeout: 500ms, unhealthyThreshold: 2, healthyThreshold: 1, jitter: 0, port: 8081},
detectTimeout: 1s";

#[test]
fn every_field_arrives() {
    let expect = Policy {
        load_balancer: LoadBalancer {
            algorithm: Algorithm::RingHash {
                key: HashKey::Header(HeaderName::from_static("x-user")),
                min_ring_size: 4096,
            },
            slow_start: s(30),
            zone_aware: ZoneAware::On { min_endpoints: 3 },
            panic_threshold: 0,
        },
        connection_pool: ConnectionPool {
            connect_timeout: s(2),
            idle_timeout: s(120),
            max_requests_per_connection: Some(1000),
            max_connection_lifetime: Some(s(3600)),
            tcp_keepalive: Some(s(45)),
            window_size: 1_048_576,
            http2_keepalive: Some(s(20)),
        },
        timeouts: Timeouts {
            request: RequestTimeout::Whole(s(3)),
            per_try: Some(s(1)),
            idle: Some(s(60)),
        },
        retry: Retry {
            attempts: 4,
            on: RetryOn {
                connect_failure: true,
                refused_stream: true,
                reset_before_request: true,
                reset: true,
                any_5xx: true,
                gateway_error: true,
                retriable_4xx: true,
                http_status: vec![StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS],
                grpc_status: vec![14, 8, 10],
                headers: vec![HeaderName::from_static("x-retry-me")],
                idempotent_methods: false,
            },
            backoff: Backoff {
                least: Duration::ZERO,
                base: ms(10),
                max: s(1),
            },
            budget: RetryBudget { percent: 10, min: 1 },
            body_buffer_bytes: 0,
            avoid_previous_endpoint: false,
            hold_headers: ms(5),
        },
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: 3,
            consecutive_gateway_errors: 2,
            consecutive_local_errors: 4,
            split_local_origin: true,
            grpc_status: vec![13],
            interval: s(1),
            base_ejection_time: s(5),
            max_ejection_time: s(60),
            ejection_jitter: s(1),
            max_ejection_percent: 100,
            health_check_unejects: true,
            success_rate: Some(SuccessRate {
                minimum_hosts: 3,
                request_volume: 10,
                stdev_factor: 2.5,
            }),
            failure_percentage: Some(FailurePercentage {
                threshold: 50,
                minimum_hosts: 2,
                request_volume: 20,
            }),
        }),
        circuit_breaking: CircuitBreaking {
            max_connections: Some(1),
            max_pending_requests: Some(2),
            max_requests: Some(3),
            max_retries: None,
            max_requests_per_endpoint: Some(4),
        },
        health_check: Some(HealthCheck {
            probe: Probe::Http {
                path: "/healthz".into(),
                host: Some("echo.example".into()),
                expected: vec![(200, 299), (404, 404)],
            },
            interval: s(2),
            timeout: ms(500),
            unhealthy_threshold: 2,
            healthy_threshold: 1,
            jitter: 0,
            port: Some(8081),
        }),
        detect_timeout: s(1),
    };
    assert_eq!(good(EVERYTHING), expect);
}

#[test]
fn values_that_say_more_than_a_number() {
    let maglev =
        |key, table_size| policy(|p| p.load_balancer.algorithm = Algorithm::Maglev { key, table_size });
    let cookie = HashKey::Cookie("session_id".into());
    let cases = [
        ("", Policy::default()),
        (
            "loadBalancer: {}, retry: {}, outlierDetection: {}, healthCheck: null",
            Policy::default(),
        ),
        (
            "loadBalancer: {algorithm: random}",
            policy(|p| p.load_balancer.algorithm = Algorithm::Random),
        ),
        (
            "loadBalancer: {algorithm: ringHash, hashOn: {sourceAddress: true}}",
            policy(|p| {
                p.load_balancer.algorithm = Algorithm::RingHash {
                    key: HashKey::SourceAddress,
                    min_ring_size: 1024,
                }
            }),
        ),
        (
            "loadBalancer: {algorithm: maglev, hashOn: {cookie: session_id}}",
            maglev(cookie.clone(), 65_537),
        ),
        (
            "loadBalancer: {algorithm: maglev, hashOn: {cookie: session_id}, tableSize: 5000011}",
            maglev(cookie, 5_000_011),
        ),
        (
            "loadBalancer: {zoneAware: {}, slowStart: 0s}",
            policy(|p| p.load_balancer.zone_aware = ZoneAware::On { min_endpoints: 6 }),
        ),
        (
            "timeouts: {request: 0s}",
            policy(|p| p.timeouts.request = RequestTimeout::None),
        ),
        (
            "timeouts: {idle: 0s, perTry: 0s}",
            policy(|p| p.timeouts.idle = None),
        ),
        // Against the default, which ends at the headers, an attempt may be as long as it likes.
        (
            "timeouts: {perTry: 20s}",
            policy(|p| p.timeouts.per_try = Some(s(20))),
        ),
        (
            "retry: {backoff: {base: 1s}}",
            policy(|p| {
                p.retry.backoff = Backoff {
                    least: Duration::ZERO,
                    base: s(1),
                    max: s(10),
                }
            }),
        ),
        ("retry: {on: []}", retry_on(|_| ())),
        (
            "retry: {on: [504, '502', 504, deadlineExceeded, DEADLINE_EXCEEDED]}",
            retry_on(|on| {
                on.http_status = vec![StatusCode::GATEWAY_TIMEOUT, StatusCode::BAD_GATEWAY];
                on.grpc_status = vec![4];
            }),
        ),
        // Without `on`, the lists add to the default.
        (
            "retry: {httpStatus: [503, 500], grpcStatus: ['13']}",
            policy(|p| {
                let statuses = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::INTERNAL_SERVER_ERROR];
                p.retry.on.http_status.extend(statuses);
                p.retry.on.grpc_status.push(13);
            }),
        ),
        (
            "retry: {idempotent: true}",
            policy(|p| p.retry.on = RetryOn::idempotent()),
        ),
        ("retry: {idempotent: false}", policy(|_| {})),
        (
            "retry: {idempotent: true, on: [reset]}",
            retry_on(|on| on.reset = true),
        ),
        (
            "retry: {holdHeaders: 0s}",
            policy(|p| p.retry.hold_headers = Duration::ZERO),
        ),
        (
            "retry: {budget: {percent: 50}}",
            policy(|p| p.retry.budget = RetryBudget { percent: 50, min: 3 }),
        ),
        (
            "outlierDetection: {enabled: false}",
            policy(|p| p.outlier_detection = None),
        ),
        (
            "outlierDetection: {consecutiveLocalErrors: 0}",
            outlier(|o| o.consecutive_local_errors = 0),
        ),
        (
            "outlierDetection: {grpcStatus: []}",
            outlier(|o| o.grpc_status.clear()),
        ),
        (
            "outlierDetection: {successRate: {}}",
            outlier(|o| o.success_rate = Some(SuccessRate::default())),
        ),
        (
            "outlierDetection: {failurePercentage: {}}",
            outlier(|o| o.failure_percentage = Some(FailurePercentage::default())),
        ),
        (
            "outlierDetection: {baseEjectionTime: 10m}",
            outlier(|o| (o.base_ejection_time, o.max_ejection_time) = (s(600), s(600))),
        ),
        (
            "circuitBreaking: {maxRetries: 0}",
            policy(|p| p.circuit_breaking.max_retries = Some(0)),
        ),
        ("healthCheck: {tcp: {}}", health(Probe::Tcp)),
        (
            "healthCheck: {grpc: {}}",
            health(Probe::Grpc { service: "".into() }),
        ),
        (
            "healthCheck: {http: {path: /}}",
            health(http_probe(&[(200, 299)])),
        ),
        (
            "healthCheck: {http: {path: /, expectedStatuses: [204, '100-199']}}",
            health(http_probe(&[(204, 204), (100, 199)])),
        ),
    ];
    for (text, expect) in cases {
        assert_eq!(good(text), expect, "{text}");
    }
}
