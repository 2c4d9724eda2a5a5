//! Circuit breakers: many calls at the same time.

use derny_tests::calls::Protocol::{Grpc, Http1, Http2};

use super::ms;
use crate::{
    policy::{Breaker, On, Policy},
    row::{Row, Traffic, Why, differs, row, same},
    script::{Script, Step},
};

pub(super) fn rows() -> Vec<Row> {
    let busy = |endpoints| Script::shared(endpoints, vec![Step::After(ms(500))]);
    let requests = Policy::bounded(Breaker {
        requests: Some(2),
        ..Breaker::default()
    });
    let pending = Policy::bounded(Breaker {
        connections: Some(1),
        pending: Some(1),
        ..Breaker::default()
    });
    let connections = Policy::bounded(Breaker {
        connections: Some(1),
        ..Breaker::default()
    });
    let retries = Policy {
        breaker: Breaker {
            retries: Some(1),
            ..Breaker::default()
        },
        ..Policy::on(1, &[On::Status(503)])
    };
    let failing = || {
        let mut steps = vec![Step::Status(503, None); 4];
        steps.push(Step::After(ms(500)));
        Script::shared(3, steps)
    };
    vec![
        row(
            "maxRequests 2, five at once",
            Http1,
            busy(3),
            requests.clone(),
            same("2 × 200, 3 × 503 overloaded, 2 attempts"),
        )
        .traffic(Traffic::AtOnce(5))
        .within("quickest", 0, 300),
        row(
            "maxRequests 2, five at once over HTTP/2",
            Http2,
            busy(3),
            requests.clone(),
            same("2 × 200, 3 × 503 overloaded, 2 attempts"),
        )
        .traffic(Traffic::AtOnce(5))
        .within("quickest", 0, 300),
        row(
            "maxRequests 2, five gRPC calls at once",
            Grpc,
            busy(3),
            requests,
            same("2 × grpc 0, 3 × grpc 14 overloaded, 2 attempts"),
        )
        .traffic(Traffic::AtOnce(5))
        .within("quickest", 0, 300),
        row(
            "maxConnections 1 and maxPendingRequests 1, four at once",
            Http1,
            busy(1),
            pending,
            same("2 × 200, 2 × 503 overloaded, 2 attempts"),
        )
        .traffic(Traffic::AtOnceWarm(4))
        .within("quickest", 0, 300),
        row(
            "maxConnections 1, three at once",
            Http1,
            busy(1),
            connections,
            same("3 × 200, 3 attempts"),
        )
        .traffic(Traffic::AtOnce(3))
        .within("slowest", 1490, 1900),
        row(
            "maxRetries 1, four fail at once",
            Http1,
            failing(),
            retries,
            same("1 × 200, 3 × 503, 5 attempts"),
        )
        .traffic(Traffic::AtOnce(4))
        .within("quickest", 0, 300),
        row(
            "one request at an endpoint, three at two endpoints",
            Http1,
            busy(2),
            Policy::bounded(Breaker {
                per_endpoint: Some(1),
                ..Breaker::default()
            }),
            differs(
                Why::PerEndpoint,
                "2 × 200, 1 × 503 overloaded, 2 attempts",
                "3 × 200, 3 attempts",
            ),
        )
        .traffic(Traffic::AtOnce(3)),
    ]
}
