//! Statuses of HTTP and gRPC, and which of them are tried again.

use derny_tests::calls::Protocol::{Grpc, Http1, Http2};

use super::ms;
use crate::{
    policy::{On, Policy},
    row::{Row, Why, differs, row, same},
    script::{At, Script, Step},
};

const UNAVAILABLE: u16 = 14;

pub(super) fn rows() -> Vec<Row> {
    http().into_iter().chain(grpc()).collect()
}

fn http() -> Vec<Row> {
    let status = |code| Step::Status(code, None);
    let default = Policy::default;
    let fail = |n: usize, code| Script::then_good(vec![status(code); n]);
    let wait = Step::Status(429, Some(("retry-after", "1")));
    vec![
        row(
            "503 once",
            Http1,
            fail(1, 503),
            default(),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "503 twice",
            Http1,
            fail(2, 503),
            default(),
            same("200; 3 attempts at 3 endpoints"),
        ),
        row(
            "503 twice over HTTP/2",
            Http2,
            fail(2, 503),
            default(),
            same("200; 3 attempts at 3 endpoints"),
        ),
        row(
            "503 always",
            Http1,
            Script::always(status(503)),
            default(),
            same("503; 3 attempts at 3 endpoints"),
        ),
        row(
            "503 to a POST",
            Http1,
            fail(1, 503),
            default(),
            same("200; 2 attempts at 2 endpoints"),
        )
        .post(1000),
        row(
            "503 to a POST larger than the buffer",
            Http1,
            fail(1, 503),
            default(),
            same("503; 1 attempt"),
        )
        .post(200_000),
        row(
            "503 of the only endpoint",
            Http1,
            Script::shared(1, vec![status(503), Step::Good]),
            default(),
            same("200; 2 attempts at 1 endpoint"),
        ),
        row(
            "503, one retry",
            Http1,
            fail(2, 503),
            Policy::on(1, &[On::Any5xx]),
            same("503; 2 attempts at 2 endpoints"),
        ),
        row(
            "503 thrice, three retries",
            Http1,
            fail(3, 503),
            Policy::on(3, &[On::Any5xx]),
            same("200; 4 attempts at 3 endpoints"),
        ),
        row(
            "503, no retry",
            Http1,
            fail(1, 503),
            Policy::never(),
            same("503; 1 attempt"),
        ),
        row(
            "500 by default",
            Http1,
            fail(1, 500),
            default(),
            same("500; 1 attempt"),
        ),
        row(
            "500 on 5xx",
            Http1,
            fail(1, 500),
            Policy::on(2, &[On::Any5xx]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "500 on gatewayError",
            Http1,
            fail(1, 500),
            Policy::on(2, &[On::GatewayError]),
            same("500; 1 attempt"),
        ),
        row(
            "504 on gatewayError",
            Http1,
            fail(1, 504),
            Policy::on(2, &[On::GatewayError]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "404 on 5xx",
            Http1,
            fail(1, 404),
            Policy::on(2, &[On::Any5xx]),
            same("404; 1 attempt"),
        ),
        row(
            "404 on status 404",
            Http1,
            fail(1, 404),
            Policy::on(2, &[On::Status(404)]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "409 on retriable4xx",
            Http1,
            fail(1, 409),
            Policy::on(2, &[On::Retriable4xx]),
            same("200; 2 attempts at 2 endpoints"),
        ),
        row(
            "404 on retriable4xx",
            Http1,
            fail(1, 404),
            Policy::on(2, &[On::Retriable4xx]),
            same("404; 1 attempt"),
        ),
        row(
            "429 by default",
            Http1,
            fail(1, 429),
            default(),
            same("429; 1 attempt"),
        ),
        row(
            "429 with retry-after 1",
            Http1,
            Script::then_good([wait]),
            Policy {
                retry_after: true,
                ..Policy::on(2, &[On::Status(429)])
            },
            same("200; 2 attempts at 2 endpoints"),
        )
        .within("answer", 1000, 1800),
    ]
}

fn grpc() -> Vec<Row> {
    let fail = |n: usize, status, at| Script::then_good(vec![Step::Grpc(status, at, None); n]);
    let (unavailable, internal) = (On::Grpc("unavailable"), On::Grpc("internal"));
    let trailers = At::Trailers(ms(0));
    let pushback = |value| {
        Script::then_good([Step::Grpc(
            UNAVAILABLE,
            At::Headers,
            Some(("grpc-retry-pushback-ms", value)),
        )])
    };
    vec![
        row(
            "grpc 14 in headers",
            Grpc,
            fail(2, UNAVAILABLE, At::Headers),
            Policy::default(),
            same("grpc 0; 3 attempts at 3 endpoints"),
        ),
        row(
            "grpc 1 in headers",
            Grpc,
            fail(1, 1, At::Headers),
            Policy::default(),
            same("grpc 0; 2 attempts at 2 endpoints"),
        ),
        row(
            "grpc 13 in headers by default",
            Grpc,
            fail(1, 13, At::Headers),
            Policy::default(),
            same("grpc 13; 1 attempt"),
        ),
        row(
            "grpc 13 in headers on internal",
            Grpc,
            fail(1, 13, At::Headers),
            Policy::on(2, &[internal]),
            same("grpc 0; 2 attempts at 2 endpoints"),
        ),
        row(
            "grpc 4 in headers on deadlineExceeded",
            Grpc,
            fail(1, 4, At::Headers),
            Policy::on(2, &[On::Grpc("deadlineExceeded")]),
            same("grpc 0; 2 attempts at 2 endpoints"),
        ),
        row(
            "grpc 8 in headers on resourceExhausted",
            Grpc,
            fail(1, 8, At::Headers),
            Policy::on(2, &[On::Grpc("resourceExhausted")]),
            same("grpc 0; 2 attempts at 2 endpoints"),
        ),
        row(
            "grpc 14 in headers on 5xx",
            Grpc,
            fail(1, UNAVAILABLE, At::Headers),
            Policy::on(2, &[On::Any5xx]),
            same("grpc 14; 1 attempt"),
        ),
        row(
            "grpc 14 in headers, no retry",
            Grpc,
            fail(1, UNAVAILABLE, At::Headers),
            Policy::never(),
            same("grpc 14; 1 attempt"),
        ),
        row(
            "HTTP 503 to a gRPC call",
            Grpc,
            Script::then_good([Step::Status(503, None)]),
            Policy::default(),
            same("grpc 0; 2 attempts at 2 endpoints"),
        ),
        row(
            "grpc 14 in trailers behind the headers",
            Grpc,
            fail(2, UNAVAILABLE, trailers),
            Policy::default(),
            differs(
                Why::StatusInTrailers,
                "grpc 0; 3 attempts at 3 endpoints",
                "grpc 14; 1 attempt",
            ),
        ),
        row(
            "grpc 14 in trailers always",
            Grpc,
            Script::always(Step::Grpc(UNAVAILABLE, trailers, None)),
            Policy::on(1, &[unavailable]),
            differs(
                Why::StatusInTrailers,
                "grpc 14; 2 attempts at 2 endpoints",
                "grpc 14; 1 attempt",
            ),
        ),
        row(
            "grpc 14 in trailers 50 ms after the headers, holdHeaders 500ms",
            Grpc,
            fail(1, UNAVAILABLE, At::Trailers(ms(50))),
            Policy {
                hold_headers: 500,
                ..Policy::default()
            },
            differs(
                Why::HeldHeaders,
                "grpc 0; 2 attempts at 2 endpoints",
                "grpc 14; 1 attempt",
            ),
        ),
        row(
            "grpc 14 in trailers 200 ms after the headers",
            Grpc,
            fail(1, UNAVAILABLE, At::Trailers(ms(200))),
            Policy::default(),
            same("grpc 14; 1 attempt"),
        ),
        row(
            "grpc 14 in trailers after a message",
            Grpc,
            fail(1, UNAVAILABLE, At::Message),
            Policy::default(),
            same("grpc 14; 1 attempt"),
        ),
        row(
            "grpc 14 with grpc-retry-pushback-ms 300",
            Grpc,
            pushback("300"),
            Policy::default(),
            differs(
                Why::Pushback,
                "grpc 0; 2 attempts at 2 endpoints",
                "grpc 0; 2 attempts at 2 endpoints",
            ),
        )
        .derny_within("answer", 300, 700),
        row(
            "grpc 14 with grpc-retry-pushback-ms -1",
            Grpc,
            pushback("-1"),
            Policy::default(),
            differs(
                Why::Pushback,
                "grpc 14; 1 attempt",
                "grpc 0; 2 attempts at 2 endpoints",
            ),
        ),
    ]
}
