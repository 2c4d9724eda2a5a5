//! What is refused, and in which words.

use super::*;

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
           `headers`, `idempotent`, `backoff`, `budget`, `bodyBufferBytes`, `avoidPreviousEndpoint`, `holdHeaders`",
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
