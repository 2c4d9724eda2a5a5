//! Endpoints that take their time.

use derny_tests::calls::Protocol::{Grpc, Http1};

use super::ms;
use crate::{
    policy::{On, Policy},
    row::{Row, Why, differs, row, same},
    script::{Script, Step},
};

pub(super) fn rows() -> Vec<Row> {
    let slow = || Script::always(Step::After(ms(3000)));
    let slow_once = || Script::then_good([Step::After(ms(3000))]);
    let request = |policy: Policy| Policy {
        request: Some(400),
        ..policy
    };
    let per_try = |policy: Policy| Policy {
        per_try: Some(200),
        ..policy
    };
    let trickle = |pieces| Script::always(Step::Trickle(pieces, ms(500)));
    vec![
        row(
            "request timeout",
            Http1,
            slow(),
            request(Policy::default()),
            same("504; 1 attempt"),
        )
        .within("answer", 390, 650),
        row(
            "request timeout of a gRPC call",
            Grpc,
            slow(),
            request(Policy::default()),
            differs(Why::TimeoutStatus, "grpc 4; 1 attempt", "grpc 14; 1 attempt"),
        )
        .within("answer", 390, 650),
        row(
            "request timeout in the middle of a body",
            Http1,
            trickle(3),
            request(Policy::default()),
            same("200, broken off; 1 attempt"),
        )
        .within("answer", 390, 650),
        row(
            "grpc-timeout of the caller",
            Grpc,
            slow(),
            Policy {
                grpc_timeout: true,
                ..Policy::default()
            },
            same("grpc 4; 1 attempt"),
        )
        .header("grpc-timeout", "300m")
        .within("answer", 280, 550),
        row(
            "perTry, no retry",
            Http1,
            slow(),
            per_try(Policy::never()),
            same("504; 1 attempt"),
        )
        .within("answer", 190, 450),
        row(
            "perTry once on reset",
            Http1,
            slow_once(),
            per_try(Policy::on(2, &[On::Reset])),
            same("200; 2 attempts at 2 endpoints"),
        )
        .within("answer", 190, 500),
        row(
            "perTry always on reset",
            Http1,
            slow(),
            per_try(Policy::on(2, &[On::Reset])),
            same("504; 3 attempts at 3 endpoints"),
        )
        .within("answer", 590, 1000),
        row(
            "perTry once on 5xx",
            Http1,
            slow_once(),
            per_try(Policy::on(2, &[On::Any5xx])),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "perTry once on gatewayError",
            Http1,
            slow_once(),
            per_try(Policy::on(2, &[On::GatewayError])),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "perTry once on connectFailure",
            Http1,
            slow_once(),
            per_try(Policy::on(2, &[On::ConnectFailure])),
            same("504; 1 attempt"),
        ),
        row(
            "perTry once on 503 and unavailable, HTTP",
            Http1,
            slow_once(),
            per_try(Policy::on(2, &[On::Status(503), On::Grpc("unavailable")])),
            same("504; 1 attempt"),
        ),
        row(
            "perTry once on unavailable, gRPC",
            Grpc,
            slow_once(),
            per_try(Policy::on(2, &[On::Grpc("unavailable")])),
            differs(Why::TimeoutStatus, "grpc 4; 1 attempt", "grpc 14; 1 attempt"),
        ),
        row(
            "perTry within a request timeout",
            Http1,
            slow(),
            per_try(request(Policy::on(5, &[On::Reset]))),
            same("504; 2 attempts at 2 endpoints"),
        )
        .within("answer", 390, 650),
        row(
            "a body of 16 s under the default timeout",
            Http1,
            trickle(32),
            Policy::default(),
            differs(
                Why::DefaultTimeout,
                "200; 1 attempt",
                "200, broken off; 1 attempt",
            ),
        ),
    ]
}
