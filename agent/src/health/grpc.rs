//! `grpc`: one call of `grpc.health.v1.Health/Check`
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use prost::Message;
use tokio::net::TcpStream;

use super::{
    Failure,
    http::USER_AGENT,
    http2::{self, broken},
};

/// An answer is a handful of bytes; more than this is something else.
const MESSAGE: usize = 4096;
/// gRPC's frame: one byte of flags, four of length.
const PREFIX: usize = 5;
const UNIMPLEMENTED: u16 = 12;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

pub(super) async fn ask(stream: TcpStream, address: SocketAddr, service: &str) -> Result<(), Failure> {
    http2::ask(stream, async |sender| call(sender, address, service).await).await
}

async fn call(
    sender: h2::client::SendRequest<Bytes>,
    address: SocketAddr,
    service: &str,
) -> Result<(), Failure> {
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(())
        .map_err(|error| Failure::Protocol(error.to_string()))?;
    let mut sender = sender.ready().await.map_err(broken)?;
    let (response, mut body) = sender.send_request(request, false).map_err(broken)?;
    body.send_data(message(service), true).map_err(broken)?;
    let response = response.await.map_err(broken)?;
    let status = response.status();
    if !status.is_success() {
        return Err(Failure::Status(status.as_u16()));
    }
    // Trailers-only: the status is in the headers, and nothing follows.
    if let Some(code) = grpc_status(response.headers())? {
        passed(code)?;
    }
    let mut body = response.into_body();
    let mut answer = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(broken)?;
        let _ = body.flow_control().release_capacity(data.len());
        if answer.len() + data.len() > MESSAGE {
            return Err(Failure::Protocol("the answer is too long".to_owned()));
        }
        answer.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.map_err(broken)?.unwrap_or_default();
    if let Some(code) = grpc_status(&trailers)? {
        passed(code)?;
    }
    serving(answer.freeze())
}

fn message(service: &str) -> Bytes {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let encoded = request.encode_to_vec();
    let mut framed = BytesMut::with_capacity(PREFIX + encoded.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
    framed.put_slice(&encoded);
    framed.freeze()
}

fn grpc_status(headers: &HeaderMap) -> Result<Option<u16>, Failure> {
    let Some(value) = headers.get("grpc-status") else {
        return Ok(None);
    };
    let code = value.to_str().ok().and_then(|text| text.parse().ok());
    code.map(Some)
        .ok_or_else(|| Failure::Protocol(format!("grpc-status {value:?}")))
}

fn passed(code: u16) -> Result<(), Failure> {
    match code {
        0 => Ok(()),
        UNIMPLEMENTED => Err(Failure::Unimplemented),
        other => Err(Failure::GrpcStatus(other)),
    }
}

fn serving(mut answer: Bytes) -> Result<(), Failure> {
    let short = || Failure::Protocol("the answer has no message".to_owned());
    if answer.len() < PREFIX {
        return Err(short());
    }
    if answer.get_u8() != 0 {
        return Err(Failure::Protocol("the answer is compressed".to_owned()));
    }
    let length = usize::try_from(answer.get_u32()).map_err(|_| short())?;
    if answer.len() < length {
        return Err(short());
    }
    let response = HealthCheckResponse::decode(answer.split_to(length))
        .map_err(|error| Failure::Protocol(error.to_string()))?;
    match response.status() {
        ServingStatus::Serving => Ok(()),
        ServingStatus::NotServing => Err(Failure::NotServing("NOT_SERVING")),
        ServingStatus::ServiceUnknown => Err(Failure::NotServing("SERVICE_UNKNOWN")),
        ServingStatus::Unknown => Err(Failure::NotServing("UNKNOWN")),
    }
}
