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
    checked.services[0].ports[0].policy.clone()
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
    let mut on = RetryOn {
        connect_failure: false,
        refused_stream: false,
        reset_before_request: false,
        reset: false,
        any_5xx: false,
        gateway_error: false,
        retriable_4xx: false,
        http_status: vec![],
        grpc_status: vec![],
        headers: vec![],
    };
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
 ejectionJitter: 1s, maxEjectionPercent: 100, successRate: {minimumHosts: 3, requestVolume: 10, \
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
            },
            backoff: Backoff {
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
            max_connections: 1,
            max_pending_requests: 2,
            max_requests: 3,
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
                p.retry.on.http_status.push(StatusCode::INTERNAL_SERVER_ERROR);
                p.retry.on.grpc_status.push(13);
            }),
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

#[test]
fn faults_of_load_balancers() {
    let at = |text: &str| format!("loadBalancer: {{{text}}}");
    let cases: [(&str, &[&str]); 9] = [
        (
            "algorithm: maglev",
            &[
                "loadBalancer.algorithm: `maglev` hashes and has no key: add `hashOn` with a header, a cookie or \
               sourceAddress",
            ],
        ),
        (
            "hashOn: {cookie: a}, minRingSize: 2048, tableSize: 1009",
            &[
                "loadBalancer.hashOn: `peakEwma` does not hash: use ringHash or maglev, or remove `hashOn`",
                "loadBalancer.minRingSize: `2048` is for ringHash: remove it, or use ringHash",
                "loadBalancer.tableSize: `1009` is for maglev: remove it, or use maglev",
            ],
        ),
        (
            "algorithm: ringHash, hashOn: {}",
            &["loadBalancer.hashOn: `{}` has no key: name a header, a cookie or sourceAddress"],
        ),
        (
            "algorithm: ringHash, hashOn: {header: a, cookie: b}",
            &[
                "loadBalancer.hashOn: `header, cookie` are several keys: keep one of header, cookie and sourceAddress",
            ],
        ),
        (
            "algorithm: ringHash, hashOn: {sourceAddress: false}, minRingSize: 1023",
            &[
                "loadBalancer.minRingSize: `1023` is out of range: use 1024 to 8388608",
                "loadBalancer.hashOn.sourceAddress: `false` is no key: use true, a header or a cookie",
            ],
        ),
        (
            "algorithm: ringHash, hashOn: {header: 'a b'}",
            &[
                "loadBalancer.hashOn.header: `a b` is not a header's name: use letters, digits and -, such as \
               x-user-id",
            ],
        ),
        (
            "algorithm: maglev, hashOn: {cookie: 'a;b'}",
            &[
                "loadBalancer.hashOn.cookie: `a;b` is not a cookie's name: use letters, digits, - and _, such as \
               session_id",
            ],
        ),
        (
            "algorithm: maglev, hashOn: {cookie: a}, tableSize: 65536",
            &["loadBalancer.tableSize: `65536` is not a prime: use 65537, the next one"],
        ),
        (
            "slowStart: 2h, zoneAware: {minEndpoints: 0}, panicThreshold: 101",
            &[
                "loadBalancer.slowStart: `2h` is out of range: use 1ms to 1h, or 0s for none",
                "loadBalancer.zoneAware.minEndpoints: `0` is out of range: use 1 to 65536",
                "loadBalancer.panicThreshold: `101` is out of range: use 0 to 100",
            ],
        ),
    ];
    for (text, expect) in cases {
        bad(&at(text), expect);
    }
}

#[test]
fn faults_of_the_other_sections() {
    let cases: [(&str, &[&str]); 10] = [
        (
            "connectionPool: {maxRequestsPerConnection: 0, maxConnectionLifetime: 1ms, tcpKeepalive: 3h, \
             http2Keepalive: 10ms}",
            &[
                "connectionPool.maxRequestsPerConnection: `0` is out of range: use 1 to 4294967295",
                "connectionPool.maxConnectionLifetime: `1ms` is out of range: use 1s to 24h, or 0s for none",
                "connectionPool.tcpKeepalive: `3h` is out of range: use 1s to 2h, or 0s for none",
                "connectionPool.http2Keepalive: `10ms` is out of range: use 1s to 1h, or 0s for none",
            ],
        ),
        (
            "timeouts: {request: 25h, perTry: soon}",
            &[
                "timeouts.request: `25h` is out of range: use 1ms to 24h, or 0s for none",
                "timeouts.perTry: `soon` is not a duration: write it like 250ms, 15s or 1m30s, from 1ms to 1h, or \
                 0s for none",
            ],
        ),
        (
            "timeouts: {request: 1s, perTry: 2s}",
            &["timeouts.perTry: `2s` is longer than `request`: use at most as long a time, or leave it out"],
        ),
        (
            "retry: {attempts: 101, httpStatus: [200], grpcStatus: [0, sometimes], headers: ['a:'], backoff: \
             {base: 1s, max: 500ms}, budget: {percent: 101}, bodyBufferBytes: 16777217, holdHeaders: 2s}",
            &[
                "retry.bodyBufferBytes: `16777217` is out of range: use 0 to 16777216",
                "retry.attempts: `101` is out of range: use 0 to 100",
                "retry.httpStatus[0]: `200` is not the HTTP status of a failure: use 400 to 599",
                "retry.grpcStatus[0]: `0` is not the gRPC status of a failure: use 1 to 16 or one of cancelled, \
                 unknown, invalidArgument, deadlineExceeded, notFound, alreadyExists, permissionDenied, \
                 resourceExhausted, failedPrecondition, aborted, outOfRange, unimplemented, internal, unavailable, \
                 dataLoss, unauthenticated",
                "retry.grpcStatus[1]: `sometimes` is not the gRPC status of a failure: use 1 to 16 or one of \
                 cancelled, unknown, invalidArgument, deadlineExceeded, notFound, alreadyExists, permissionDenied, \
                 resourceExhausted, failedPrecondition, aborted, outOfRange, unimplemented, internal, unavailable, \
                 dataLoss, unauthenticated",
                "retry.headers[0]: `a:` is not a header's name: use letters, digits and -, such as x-user-id",
                "retry.backoff.max: `500ms` is shorter than `base`: use at least as long a time",
                "retry.budget.percent: `101` is out of range: use 0 to 100",
                "retry.holdHeaders: `2s` is out of range: use 1ms to 1s, or 0s for none",
            ],
        ),
        (
            "retry: {on: [reset, always, 200]}",
            &[
                "retry.on[1]: `always` is not known: use connectFailure, refusedStream, resetBeforeRequest, reset, \
                 5xx, gatewayError, retriable4xx, an HTTP status from 400 to 599, or the name of a gRPC status such \
                 as unavailable",
                "retry.on[2]: `200` is not known: use connectFailure, refusedStream, resetBeforeRequest, reset, \
                 5xx, gatewayError, retriable4xx, an HTTP status from 400 to 599, or the name of a gRPC status such \
                 as unavailable",
            ],
        ),
        (
            "outlierDetection: {enabled: false, consecutive5xx: 1000001, consecutiveLocalErrors: 2, interval: 1ms, \
             baseEjectionTime: 1m, maxEjectionTime: 30s, maxEjectionPercent: 101, successRate: {stdevFactor: 0}, \
             failurePercentage: {threshold: 0}}",
            &[
                "outlierDetection.consecutiveLocalErrors: `2` counts nothing while local errors count as 5xx: add \
                 `splitLocalOrigin: true`, or remove it",
                "outlierDetection.maxEjectionTime: `30s` is shorter than `baseEjectionTime`: use at least as long a \
                 time",
                "outlierDetection.consecutive5xx: `1000001` is out of range: use 0 to 1000000",
                "outlierDetection.interval: `1ms` is out of range: use 100ms to 1h",
                "outlierDetection.maxEjectionPercent: `101` is out of range: use 0 to 100",
                "outlierDetection.successRate.stdevFactor: `0` is out of range: use 0.1 to 10",
                "outlierDetection.failurePercentage.threshold: `0` is out of range: use 1 to 100",
            ],
        ),
        (
            "circuitBreaking: {maxConnections: 0, maxRetries: 3, perEndpoint: {maxRequests: 0}}, retry: {budget: {}}",
            &[
                "circuitBreaking.maxConnections: `0` is out of range: use 1 to 4294967295",
                "circuitBreaking.perEndpoint.maxRequests: `0` is out of range: use 1 to 4294967295",
                "circuitBreaking.maxRetries: `3` bounds retries beside `retry.budget`: keep one of the two",
            ],
        ),
        (
            "healthCheck: {interval: 1ms, timeout: 2m, unhealthyThreshold: 0, jitter: 101, port: 0}",
            &[
                "healthCheck.port: `0` is not a port: use 1 to 65535",
                "healthCheck: `{}` has no probe: add `http: {path: /}`, `grpc: {}` or `tcp: {}`",
                "healthCheck.interval: `1ms` is out of range: use 100ms to 1h",
                "healthCheck.timeout: `2m` is out of range: use 10ms to 1m",
                "healthCheck.unhealthyThreshold: `0` is out of range: use 1 to 1000",
                "healthCheck.jitter: `101` is out of range: use 0 to 100",
            ],
        ),
        (
            "healthCheck: {http: {path: healthz, host: 'a b', expectedStatuses: [299-200, 600, ok]}}",
            &[
                "healthCheck.http.path: `healthz` is not a path: write it like /healthz, percent-encoded",
                "healthCheck.http.host: `a b` is not a host: write it like echo.example or echo.example:8080",
                "healthCheck.http.expectedStatuses[0]: `299-200` is not a status or a range of them: write 204 or \
                 200-299, within 100 to 599",
                "healthCheck.http.expectedStatuses[1]: `600` is not a status or a range of them: write 204 or \
                 200-299, within 100 to 599",
                "healthCheck.http.expectedStatuses[2]: `ok` is not a status or a range of them: write 204 or \
                 200-299, within 100 to 599",
            ],
        ),
        (
            "healthCheck: {tcp: {}, grpc: {service: 'a b'}}",
            &["healthCheck: `grpc, tcp` are several probes: keep one of them"],
        ),
    ];
    for (text, expect) in cases {
        bad(text, expect);
    }
}

#[test]
fn a_field_that_is_not_known_is_told_with_those_that_are() {
    bad(
        "retry: {attemps: 1}",
        &[
            "retry.attemps: unknown field `attemps`, expected one of `attempts`, `on`, `httpStatus`, `grpcStatus`, \
           `headers`, `backoff`, `budget`, `bodyBufferBytes`, `avoidPreviousEndpoint`, `holdHeaders`",
        ],
    );
    bad(
        "retry: {on: [true]}",
        &["retry.on[0]: invalid type: boolean `true`, expected a word or a number"],
    );
    bad(
        "timeouts: {request: 3}",
        &[
            "timeouts.request: invalid type: integer `3`, expected a duration with its unit, such as 250ms, 15s or \
           1m30s",
        ],
    );
}
