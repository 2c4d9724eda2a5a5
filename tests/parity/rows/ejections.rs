//! Outlier detection: who is left out, after what, and for how long.

use derny_tests::calls::Protocol::{Grpc, Http1, Http2};
use h2::Reason;

use super::ms;
use crate::{
    policy::{Outlier, Policy},
    row::{Look, Row, Traffic, Why, differs, row, same},
    script::{At, Endpoint, Script, Step},
};

pub(super) fn rows() -> Vec<Row> {
    counted().into_iter().chain(over_time()).collect()
}

/// One of three endpoints always fails; 60 calls without retries. Who is out stays out.
fn counted() -> Vec<Row> {
    let long = Outlier {
        base: 60_000,
        ..Outlier::default()
    };
    let failing = |step| Script::one_of(3, Endpoint::Answers(vec![step]));
    let grpc = |status, at| failing(Step::Grpc(status, at, None));
    let counted = |name, protocol, script, outlier, expect| {
        row(name, protocol, script, Policy::ejecting(outlier), expect).traffic(Traffic::InTurn(60))
    };
    let gateway = Outlier {
        consecutive_5xx: 0,
        gateway: 3,
        ..long
    };
    let split = Outlier { local: 4, ..long };
    let quick = |mut row: Row| {
        row.policy.per_try = Some(150);
        row
    };
    let five = || same("5 of 60 fail");
    let apart = || differs(Why::LocalErrors, "4 of 60 fail", "20 of 60 fail");
    let all = || same("20 of 60 fail");
    let status = |code| failing(Step::Status(code, None));
    vec![
        counted("500, consecutive5xx 5", Http1, status(500), long, five()),
        counted("404, consecutive5xx 5", Http1, status(404), long, all()),
        counted(
            "500, consecutiveGatewayErrors 3",
            Http1,
            status(500),
            gateway,
            all(),
        ),
        counted(
            "503, consecutiveGatewayErrors 3",
            Http1,
            status(503),
            gateway,
            same("3 of 60 fail"),
        ),
        counted(
            "refused connections, consecutive5xx 5",
            Http1,
            Script::one_of(3, Endpoint::Refuses),
            long,
            five(),
        ),
        counted(
            "refused connections, consecutiveGatewayErrors 3",
            Http1,
            Script::one_of(3, Endpoint::Refuses),
            gateway,
            same("3 of 60 fail"),
        ),
        counted(
            "refused connections, splitLocalOrigin 4",
            Http1,
            Script::one_of(3, Endpoint::Refuses),
            split,
            same("4 of 60 fail"),
        ),
        counted("500, splitLocalOrigin 4", Http1, status(500), split, five()),
        counted(
            "closed before headers, consecutive5xx 5",
            Http1,
            failing(Step::Close),
            long,
            five(),
        ),
        counted(
            "closed before headers, splitLocalOrigin 4",
            Http1,
            failing(Step::Close),
            split,
            apart(),
        ),
        counted(
            "INTERNAL_ERROR before headers, consecutive5xx 5",
            Http2,
            failing(Step::Reset(Reason::INTERNAL_ERROR)),
            long,
            five(),
        ),
        counted(
            "INTERNAL_ERROR before headers, splitLocalOrigin 4",
            Http2,
            failing(Step::Reset(Reason::INTERNAL_ERROR)),
            split,
            apart(),
        ),
        counted(
            "REFUSED_STREAM, consecutive5xx 5",
            Http2,
            failing(Step::Reset(Reason::REFUSED_STREAM)),
            long,
            five(),
        ),
        counted(
            "broken off after headers, consecutive5xx 5",
            Http1,
            failing(Step::BreakOff),
            long,
            all(),
        ),
        counted(
            "a gRPC call broken off after headers, consecutive5xx 5",
            Grpc,
            failing(Step::BreakOff),
            long,
            differs(Why::StatusInTrailers, "5 of 60 fail", "20 of 60 fail"),
        ),
        quick(counted(
            "perTry, consecutive5xx 5",
            Http1,
            failing(Step::After(ms(3000))),
            long,
            five(),
        )),
        quick(counted(
            "perTry, consecutiveGatewayErrors 3",
            Http1,
            failing(Step::After(ms(3000))),
            gateway,
            same("3 of 60 fail"),
        )),
        quick(counted(
            "perTry, splitLocalOrigin 4",
            Http1,
            failing(Step::After(ms(3000))),
            split,
            apart(),
        )),
        counted(
            "grpc 14 in headers, consecutive5xx 5",
            Grpc,
            grpc(14, At::Headers),
            long,
            five(),
        ),
        counted(
            "grpc 14 in headers, consecutiveGatewayErrors 3",
            Grpc,
            grpc(14, At::Headers),
            gateway,
            same("3 of 60 fail"),
        ),
        counted(
            "grpc 13 in headers, consecutive5xx 5",
            Grpc,
            grpc(13, At::Headers),
            long,
            five(),
        ),
        counted(
            "grpc 13 in headers, consecutiveGatewayErrors 3",
            Grpc,
            grpc(13, At::Headers),
            gateway,
            all(),
        ),
        counted(
            "grpc 4 in headers, consecutiveGatewayErrors 3",
            Grpc,
            grpc(4, At::Headers),
            gateway,
            same("3 of 60 fail"),
        ),
        counted(
            "grpc 5 in headers, consecutive5xx 5",
            Grpc,
            grpc(5, At::Headers),
            long,
            all(),
        ),
        counted(
            "grpc 8 in headers, consecutive5xx 5",
            Grpc,
            grpc(8, At::Headers),
            long,
            all(),
        ),
        counted(
            "grpc 12 in headers with unimplemented in grpcStatus",
            Grpc,
            grpc(12, At::Headers),
            Outlier {
                unimplemented: true,
                ..long
            },
            five(),
        ),
        counted(
            "grpc 14 in trailers behind the headers, consecutive5xx 5",
            Grpc,
            grpc(14, At::Trailers(ms(0))),
            long,
            differs(Why::StatusInTrailers, "5 of 60 fail", "20 of 60 fail"),
        ),
        counted(
            "grpc 14 in trailers after a message, consecutive5xx 5",
            Grpc,
            grpc(14, At::Message),
            long,
            differs(Why::StatusInTrailers, "5 of 60 fail", "20 of 60 fail"),
        ),
    ]
}

fn over_time() -> Vec<Row> {
    let bad = |n: usize| vec![Step::Status(500, None); n];
    let healing = |steps: Vec<Step>| Script::one_of(3, Endpoint::Answers(steps));
    let then = |mut steps: Vec<Step>, more: Vec<Step>| {
        steps.extend(more);
        steps
    };
    let timed = |name, lasting, script, outlier, expect| {
        row(name, Http1, script, Policy::ejecting(outlier), expect)
            .traffic(Traffic::Paced(ms(lasting), Look::Ejections))
    };
    // In which an ejection is forgotten.
    let slow_interval = Outlier {
        interval: 500,
        ..Outlier::default()
    };
    let rates = Outlier {
        consecutive_5xx: 0,
        interval: 1000,
        base: 60_000,
        ..Outlier::default()
    };
    let used = |name, script, outlier, panic, expect| {
        let policy = Policy {
            panic,
            ..Policy::ejecting(outlier)
        };
        row(name, Http1, script, policy, expect).traffic(Traffic::Paced(ms(2500), Look::Used))
    };
    let long = |max_percent| Outlier {
        base: 60_000,
        max_percent,
        ..Outlier::default()
    };
    let all_bad = |count: usize| Script::of(vec![Endpoint::Answers(bad(1)); count]);
    let half_bad = || {
        let half = [Step::Status(500, None), Step::Good];
        Script::one_of(3, Endpoint::Answers(half.repeat(500)))
    };
    vec![
        timed(
            "well again when it returns",
            2500,
            healing(then(bad(5), vec![Step::Good])),
            Outlier::default(),
            same("out after 5"),
        )
        .within("out for", 950, 1400),
        timed(
            "still failing when it returns",
            4500,
            healing(bad(1)),
            slow_interval,
            differs(
                Why::HalfOpen,
                "out after 5, then after 1",
                "out after 5, then after …",
            ),
        )
        .within("out for", 950, 1900)
        .derny_within("then for", 1950, 2400),
        timed(
            "failing again after a good time",
            6500,
            healing(then(
                then(bad(5), vec![Step::Good; 30]),
                then(bad(5), vec![Step::Good]),
            )),
            slow_interval,
            same("out after 5, then after 35"),
        )
        .within("out for", 950, 1900)
        .within("then for", 950, 1900),
        used(
            "four of four fail, maxEjectionPercent 50",
            all_bad(4),
            long(50),
            0,
            same("2 of 4 used at the end"),
        ),
        used(
            "two of two fail, maxEjectionPercent 50",
            all_bad(2),
            long(50),
            0,
            same("1 of 2 used at the end"),
        ),
        used(
            "three of three fail, maxEjectionPercent 50",
            all_bad(3),
            long(50),
            0,
            same("2 of 3 used at the end"),
        ),
        used(
            "three of three fail, maxEjectionPercent 10",
            all_bad(3),
            long(10),
            0,
            same("2 of 3 used at the end"),
        ),
        used(
            "three of three fail, maxEjectionPercent 100",
            all_bad(3),
            long(100),
            0,
            same("0 of 3 used at the end"),
        ),
        used(
            "three of three fail, maxEjectionPercent 100, panic",
            all_bad(3),
            long(100),
            50,
            same("3 of 3 used at the end"),
        ),
        used(
            "one of three fails, successRate",
            healing(bad(1)),
            Outlier {
                success_rate: 1000,
                ..rates
            },
            50,
            same("2 of 3 used at the end"),
        ),
        used(
            "one of three fails half, failurePercentage 85",
            half_bad(),
            Outlier {
                failure_percentage: 85,
                ..rates
            },
            50,
            same("3 of 3 used at the end"),
        ),
        used(
            "one of three fails half, failurePercentage 40",
            half_bad(),
            Outlier {
                failure_percentage: 40,
                ..rates
            },
            50,
            same("2 of 3 used at the end"),
        ),
    ]
}
