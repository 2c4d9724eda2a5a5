//! Active health checks: when an endpoint leaves, and when it is back.

use derny_tests::calls::Protocol::{Grpc, Http1};

use super::ms;
use crate::{
    policy::{Check, How, Policy},
    row::{Look, Row, Traffic, Why, differs, row, same},
    script::{ProbeFault, Script},
};

pub(super) fn rows() -> Vec<Row> {
    let watched = |name, protocol, script, policy, expect| {
        row(name, protocol, script, policy, expect).traffic(Traffic::Paced(ms(4500), Look::Checks))
    };
    let one_failure = |policy: Policy| Policy {
        check: policy.check.map(|check| Check {
            unhealthy: 1,
            ..check
        }),
        ..policy
    };
    let sick = |fault| Script::checked(3, 1, 4, 5, fault);
    let decides = || same("out after 3 failed, back after 2 good");
    vec![
        watched(
            "HTTP check answers 503",
            Http1,
            sick(ProbeFault::Status),
            Policy::checked(How::Http),
            decides(),
        ),
        watched(
            "HTTP check does not answer",
            Http1,
            sick(ProbeFault::Hangs),
            Policy::checked(How::Http),
            decides(),
        ),
        watched(
            "gRPC check does not answer",
            Grpc,
            sick(ProbeFault::Hangs),
            Policy::checked(How::Grpc),
            decides(),
        ),
        watched(
            "gRPC check says NOT_SERVING, unhealthyThreshold 1",
            Grpc,
            sick(ProbeFault::NotServing),
            one_failure(Policy::checked(How::Grpc)),
            same("out after 1 failed, back after 2 good"),
        ),
        watched(
            "gRPC check says NOT_SERVING, unhealthyThreshold 3",
            Grpc,
            sick(ProbeFault::NotServing),
            Policy::checked(How::Grpc),
            differs(
                Why::CheckAnswers,
                "out after 3 failed, back after 2 good",
                "out after 1 failed, back after 2 good",
            ),
        ),
        row(
            "TCP check is refused",
            Http1,
            Script::checked(3, 0, 0, 0, ProbeFault::Status),
            Policy::checked(How::Tcp),
            same("out, and back"),
        )
        .traffic(Traffic::Paced(
            ms(5000),
            Look::Closed {
                from: ms(1000),
                until: ms(3000),
            },
        ))
        .within("out after", 550, 1150)
        .within("back after", 250, 950),
        row(
            "sick from the start",
            Http1,
            Script::checked(3, 1, 0, usize::MAX, ProbeFault::Status),
            Policy::checked(How::Http),
            same("2 of 3 used at the end"),
        )
        .traffic(Traffic::Paced(ms(1500), Look::Used)),
        row(
            "two of three sick, panicThreshold 50",
            Http1,
            Script::checked(3, 2, 0, usize::MAX, ProbeFault::Status),
            Policy::checked(How::Http),
            same("3 of 3 used at the end"),
        )
        .traffic(Traffic::Paced(ms(1500), Look::Used)),
        row(
            "two of three sick, panicThreshold 20",
            Http1,
            Script::checked(3, 2, 0, usize::MAX, ProbeFault::Status),
            Policy {
                panic: 20,
                ..Policy::checked(How::Http)
            },
            same("1 of 3 used at the end"),
        )
        .traffic(Traffic::Paced(ms(1500), Look::Used)),
    ]
}
