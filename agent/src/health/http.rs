//! `http`: one GET in the version of HTTP that the port speaks; the status decides.

use std::{net::SocketAddr, pin::pin};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1::handshake, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Failure, http2};

/// So much of an answer's body is read, so that an endpoint that writes a few words does not see a reset.
const BODY: usize = 64 * 1024;

pub(super) const USER_AGENT: &str = concat!("derny-health/", env!("CARGO_PKG_VERSION"));

/// What is asked, and which statuses pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) path: &'a str,
    pub(super) host: Option<&'a str>,
    pub(super) expected: &'a [(u16, u16)],
}

impl Question<'_> {
    fn host(&self, address: SocketAddr) -> String {
        self.host.map_or_else(|| address.to_string(), ToOwned::to_owned)
    }

    fn judge(&self, status: StatusCode) -> Result<(), Failure> {
        let status = status.as_u16();
        let passes = |(from, to): &(u16, u16)| (*from..=*to).contains(&status);
        match self.expected.iter().any(passes) {
            true => Ok(()),
            false => Err(Failure::Status(status)),
        }
    }
}

pub(super) async fn over_http1(
    stream: TcpStream,
    address: SocketAddr,
    question: Question<'_>,
) -> Result<(), Failure> {
    let broken = |error: hyper::Error| Failure::Protocol(error.to_string());
    let request = Request::get(question.path)
        .header(header::HOST, question.host(address))
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::Protocol(error.to_string()))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut connection = pin!(connection);
    let mut exchange = pin!(async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        drain(response.into_body()).await;
        question.judge(status)
    });
    tokio::select! {
        biased;
        result = &mut exchange => return result,
        // It ended; what it has brought is still to be read.
        _ = &mut connection => {}
    }
    exchange.await
}

/// With prior knowledge (RFC 9113 section 3.3).
pub(super) async fn over_http2(
    stream: TcpStream,
    address: SocketAddr,
    question: Question<'_>,
) -> Result<(), Failure> {
    http2::ask(stream, async |sender| {
        let uri = format!("http://{}{}", question.host(address), question.path);
        let request = Request::get(uri)
            .header(header::USER_AGENT, USER_AGENT)
            .body(())
            .map_err(|error| Failure::Protocol(error.to_string()))?;
        let mut sender = sender.ready().await.map_err(http2::broken)?;
        let (response, _) = sender.send_request(request, true).map_err(http2::broken)?;
        let response = response.await.map_err(http2::broken)?;
        let status = response.status();
        let (mut body, mut read) = (response.into_body(), 0);
        while read < BODY
            && let Some(Ok(data)) = body.data().await
        {
            read += data.len();
            let _ = body.flow_control().release_capacity(data.len());
        }
        question.judge(status)
    })
    .await
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
