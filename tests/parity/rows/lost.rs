//! No connection, or one that ends before the answer does.

use derny_tests::calls::Protocol::{Grpc, Http1, Http2};
use h2::Reason;

use super::ms;
use crate::{
    policy::{On, Policy},
    row::{Row, Traffic, Why, differs, row, same},
    script::{Endpoint, Script, Step},
};

/// The default without what is about answers.
const UNSENT: [On; 3] = [On::ConnectFailure, On::RefusedStream, On::ResetBeforeRequest];

pub(super) fn rows() -> Vec<Row> {
    let once = |step: Step| Script::then_good([step]);
    let refused = |count| Script::of(vec![Endpoint::Refuses; count]);
    let blackhole = |count| Script::of(vec![Endpoint::Blackhole; count]);
    let quick = |policy: Policy| Policy {
        connect: 200,
        ..policy
    };
    let unsent = || Policy::on(2, &UNSENT);
    vec![
        row(
            "two of three refuse connections",
            Http1,
            Script::of(vec![
                Endpoint::Refuses,
                Endpoint::Refuses,
                Endpoint::Answers(vec![Step::Good]),
            ]),
            Policy::default(),
            same("200; 1 attempt"),
        ),
        row(
            "two of three refuse connections on reset",
            Http1,
            Script::of(vec![
                Endpoint::Refuses,
                Endpoint::Refuses,
                Endpoint::Answers(vec![Step::Good]),
            ]),
            Policy::on(2, &[On::Reset]),
            same("200; 1 attempt"),
        ),
        row(
            "all refuse connections",
            Http1,
            refused(3),
            Policy::default(),
            same("503; none seen"),
        )
        .within("answer", 0, 500),
        row(
            "all refuse connections of a gRPC call",
            Grpc,
            refused(3),
            Policy::default(),
            same("grpc 14; none seen"),
        )
        .within("answer", 0, 500),
        row(
            "one refuses connections, no retry, gRPC",
            Grpc,
            refused(1),
            Policy::never(),
            same("grpc 14; none seen"),
        )
        .within("answer", 0, 500),
        row(
            "the only endpoint listens 50 ms later",
            Http1,
            refused(1),
            // 20 retries with 100 ms at most between them: one of them comes late enough.
            Policy::on(20, &[On::ConnectFailure]),
            same("200; 1 attempt"),
        )
        .traffic(Traffic::OneBefore(ms(50))),
        row(
            "no answer to SYNs, no retry",
            Http1,
            blackhole(1),
            quick(Policy::never()),
            same("503; none seen"),
        )
        .within("answer", 190, 450),
        row(
            "no answer to SYNs, two endpoints, one retry",
            Http1,
            blackhole(2),
            quick(Policy::on(1, &[On::ConnectFailure])),
            same("503; none seen"),
        )
        .within("answer", 390, 800),
        row(
            "no answer to SYNs of a gRPC call",
            Grpc,
            blackhole(1),
            quick(Policy::never()),
            same("grpc 14; none seen"),
        )
        .within("answer", 190, 450),
        row(
            "closed before headers, GET",
            Http1,
            once(Step::Close),
            Policy::default(),
            differs(
                Why::LostConnection,
                "200; 2 attempts at 2 endpoints",
                "503; 1 attempt",
            ),
        ),
        row(
            "closed before headers, GET, without 503 in on",
            Http1,
            once(Step::Close),
            unsent(),
            same("503; 1 attempt"),
        ),
        row(
            "closed before headers, POST",
            Http1,
            once(Step::Close),
            Policy::default(),
            same("503; 1 attempt"),
        )
        .post(10),
        row(
            "closed before headers on reset",
            Http1,
            once(Step::Close),
            Policy::on(2, &[On::Reset]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "closed before headers on 5xx",
            Http1,
            once(Step::Close),
            Policy::on(2, &[On::Any5xx]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "closed before headers on gatewayError",
            Http1,
            once(Step::Close),
            Policy::on(2, &[On::GatewayError]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "TCP reset before headers, without 503 in on",
            Http1,
            once(Step::Rst),
            unsent(),
            same("503; 1 attempt"),
        ),
        row(
            "TCP reset before headers on reset",
            Http1,
            once(Step::Rst),
            Policy::on(2, &[On::Reset]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "connection lost before headers, gRPC",
            Grpc,
            once(Step::Rst),
            Policy::default(),
            differs(
                Why::LostConnection,
                "grpc 0; 2 attempts at 2 endpoints",
                "grpc 14; 1 attempt",
            ),
        ),
        row(
            "connection lost before headers, gRPC, without unavailable in on",
            Grpc,
            once(Step::Rst),
            unsent(),
            same("grpc 14; 1 attempt"),
        ),
        row(
            "INTERNAL_ERROR before headers by default",
            Http2,
            once(Step::Reset(Reason::INTERNAL_ERROR)),
            Policy::default(),
            same("503; 1 attempt"),
        ),
        row(
            "INTERNAL_ERROR before headers on reset",
            Http2,
            once(Step::Reset(Reason::INTERNAL_ERROR)),
            Policy::on(2, &[On::Reset]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "INTERNAL_ERROR before headers on gatewayError",
            Http2,
            once(Step::Reset(Reason::INTERNAL_ERROR)),
            Policy::on(2, &[On::GatewayError]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "REFUSED_STREAM by default",
            Http2,
            once(Step::Reset(Reason::REFUSED_STREAM)),
            Policy::default(),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "REFUSED_STREAM, gRPC",
            Grpc,
            once(Step::Reset(Reason::REFUSED_STREAM)),
            Policy::default(),
            same("grpc 0; 2 attempts at 2 endpoints"),
        ),
        row(
            "REFUSED_STREAM on connectFailure",
            Http2,
            once(Step::Reset(Reason::REFUSED_STREAM)),
            Policy::on(2, &[On::ConnectFailure]),
            same("503; 1 attempt"),
        ),
        row(
            "REFUSED_STREAM on gatewayError",
            Http2,
            once(Step::Reset(Reason::REFUSED_STREAM)),
            Policy::on(2, &[On::GatewayError]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "no HTTP comes, by default",
            Http1,
            once(Step::Garbage),
            Policy::default(),
            same("502; 1 attempt"),
        ),
        row(
            "no HTTP comes, on reset",
            Http1,
            once(Step::Garbage),
            Policy::on(2, &[On::Reset]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "no HTTP comes, on gatewayError",
            Http1,
            once(Step::Garbage),
            Policy::on(2, &[On::GatewayError]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "broken off after headers",
            Http1,
            once(Step::BreakOff),
            Policy::on(2, &[On::Any5xx, On::Reset]),
            same("200, broken off; 1 attempt"),
        ),
        row(
            "broken off after headers over HTTP/2",
            Http2,
            once(Step::BreakOff),
            Policy::on(2, &[On::Any5xx, On::Reset]),
            same("200, broken off; 1 attempt"),
        ),
    ]
}
