//! `http`: one GET over HTTP/1.1; the status decides.

use std::{net::SocketAddr, pin::pin};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Incoming, client::conn::http1::handshake, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Failure;

/// So much of an answer's body is read, so that an endpoint that writes a few words does not see a reset.
const BODY: usize = 64 * 1024;

pub(super) const USER_AGENT: &str = concat!("derny-health/", env!("CARGO_PKG_VERSION"));

pub(super) async fn ask(
    stream: TcpStream,
    address: SocketAddr,
    path: &str,
    host: Option<&str>,
    expected: &[(u16, u16)],
) -> Result<(), Failure> {
    let broken = |error: hyper::Error| Failure::Protocol(error.to_string());
    let request = Request::get(path)
        .header(
            header::HOST,
            host.map_or_else(|| address.to_string(), ToOwned::to_owned),
        )
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::Protocol(error.to_string()))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut connection = pin!(connection);
    let mut exchange = pin!(async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        drain(response.into_body()).await;
        if expected.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
            Ok(())
        } else {
            Err(Failure::Status(status))
        }
    });
    tokio::select! {
        biased;
        result = &mut exchange => return result,
        // It ended; what it has brought is still to be read.
        _ = &mut connection => {}
    }
    exchange.await
}

/// Reads a body to its end, or so far that more of it says nothing about health.
async fn drain(mut body: Incoming) {
    let mut read = 0;
    while !body.is_end_stream() && read < BODY {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}
