//! Single probes against servers that a script tells what to do.

use std::time::Duration;

use ::http::{HeaderMap, Response};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{health::Kind, pool::Here};

async fn ask(probe_by: Probe, endpoint: SocketAddr) -> Result<(), Failure> {
    ask_port(probe_by, Protocol::Http, endpoint).await
}

async fn ask_port(probe_by: Probe, protocol: Protocol, endpoint: SocketAddr) -> Result<(), Failure> {
    let check = HealthCheck {
        timeout: Duration::from_millis(500),
        ..HealthCheck::new(probe_by)
    };
    probe(&check, protocol, endpoint, &Here).await
}

/// Answers one connection with these bytes, after it has read something, and reads to its end.
async fn saying(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        stream.write_all(answer).await.unwrap();
        while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
    });
    address
}

fn http_get(path: &str) -> Probe {
    Probe::Http {
        path: path.into(),
        host: None,
        expected: vec![(200, 299), (418, 418)],
    }
}

fn grpc_check() -> Probe {
    Probe::Grpc {
        service: "echo.Echo".into(),
    }
}

/// One HTTP/2 server for one call.
async fn grpc_saying(
    headers: &'static [(&str, &str)],
    body: &'static [u8],
    trailers: &'static [(&str, &str)],
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let call = async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["te"], "trailers");
            let mut question = BytesMut::new();
            let mut sent = request.into_body();
            while let Some(data) = sent.data().await {
                question.extend_from_slice(&data.unwrap());
            }
            // Not compressed, 11 bytes: field 1, 9 bytes of text.
            assert_eq!(&question[..], b"\0\0\0\0\x0b\x0a\x09echo.Echo");
            let mut response = Response::builder().header("content-type", "application/grpc");
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            let only = body.is_empty() && trailers.is_empty();
            let mut stream = respond.send_response(response.body(()).unwrap(), only).unwrap();
            if !only {
                stream.send_data(Bytes::from_static(body), false).unwrap();
                let mut last = HeaderMap::new();
                for (name, value) in trailers {
                    last.insert(*name, value.parse().unwrap());
                }
                stream.send_trailers(last).unwrap();
            }
        };
        tokio::join!(call, async { while connection.accept().await.is_some() {} });
    });
    address
}

#[tokio::test]
async fn http_is_decided_by_the_status() {
    for (answer, expect) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Ok(())),
        (b"HTTP/1.1 418 Teapot\r\ncontent-length: 3\r\n\r\nabc", Ok(())),
        (
            b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            Err(Failure::Status(302)),
        ),
        // An interim answer is none.
        (
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
            Err(Failure::Status(500)),
        ),
    ] {
        assert_eq!(
            ask(http_get("/"), saying(answer).await).await,
            expect,
            "{}",
            String::from_utf8_lossy(answer)
        );
    }
    for garbage in [&b"SSH-2.0-OpenSSH\r\n"[..], b"\0\0\0\0"] {
        let failure = ask(http_get("/"), saying(garbage).await).await.unwrap_err();
        assert_eq!(failure.kind(), Kind::Protocol, "{failure}");
    }
}

#[tokio::test]
async fn http_is_asked_for_as_the_port_speaks_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Speaks HTTP/2 only, and answers 200 at one path.
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let status = if request.uri().path() == "/well" { 200 } else { 503 };
                    let head = Response::builder().status(status).body(()).unwrap();
                    let mut body = respond.send_response(head, false).unwrap();
                    body.send_data(Bytes::from_static(b"so it is"), true).unwrap();
                }
            });
        }
    });
    for protocol in [Protocol::Http2, Protocol::Grpc] {
        assert_eq!(ask_port(http_get("/well"), protocol, address).await, Ok(()));
        let sick = ask_port(http_get("/sick"), protocol, address).await;
        assert_eq!(sick, Err(Failure::Status(503)));
    }
    let other = ask_port(http_get("/well"), Protocol::Http, address).await;
    assert_eq!(other.unwrap_err().kind(), Kind::Protocol);
}

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

#[tokio::test]
async fn grpc_passes_when_the_service_says_serving() {
    let ok: &[(&str, &str)] = &[("grpc-status", "0")];
    for (headers, body, trailers, expect) in [
        (&[][..], SERVING, ok, Ok(())),
        (
            &[],
            b"\0\0\0\0\x02\x08\x02",
            ok,
            Err(Failure::NotServing("NOT_SERVING")),
        ),
        (&[], b"\0\0\0\0\x00", ok, Err(Failure::NotServing("UNKNOWN"))),
        (&[("grpc-status", "12")], b"", &[], Err(Failure::Unimplemented)),
        (&[("grpc-status", "5")], b"", &[], Err(Failure::GrpcStatus(5))),
        (&[], b"", &[("grpc-status", "14")], Err(Failure::GrpcStatus(14))),
        (
            &[],
            SERVING,
            &[("grpc-status", "13")],
            Err(Failure::GrpcStatus(13)),
        ),
        (
            &[("grpc-status", "0")],
            b"",
            &[],
            Err(Failure::Protocol("the answer has no message".into())),
        ),
        (
            &[],
            b"\x01\0\0\0\x02\x08\x01",
            ok,
            Err(Failure::Protocol("the answer is compressed".into())),
        ),
        (
            &[],
            b"\0\0\0\0\xff\x08\x01",
            ok,
            Err(Failure::Protocol("the answer has no message".into())),
        ),
    ] {
        let address = grpc_saying(headers, body, trailers).await;
        assert_eq!(
            ask(grpc_check(), address).await,
            expect,
            "{headers:?} {body:?} {trailers:?}"
        );
    }
    // An endpoint that speaks HTTP/1.1 only.
    let address = saying(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_eq!(
        ask(grpc_check(), address).await.unwrap_err().kind(),
        Kind::Protocol
    );
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(ask(Probe::Tcp, address).await, Ok(()));
    // Accepting is not answering.
    for probe_by in [http_get("/"), grpc_check()] {
        assert_eq!(
            ask(probe_by, address).await,
            Err(Failure::Timeout(Duration::from_millis(500)))
        );
    }
    drop(listener);
    assert_eq!(ask(Probe::Tcp, address).await.unwrap_err().kind(), Kind::Connect);
}
