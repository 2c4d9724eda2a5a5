//! `derny.test.v1.Echo` by hand on hyper, so that tests choose where the status goes. The wire format is gRPC's
//! "gRPC over HTTP2": each message is a flag byte, four bytes of length (big-endian) and the message.

use std::{rc::Rc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use derny_tests::proto::{EchoReply, EchoRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, channel::Channel};
use hyper::body::Incoming;
use prost::Message as _;

use crate::{
    body::{AnyBody, Error, Message, Never, any, full},
    http::Connection,
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Bytes before each message.
const PREFIX_LEN: usize = 5;

const OK: &str = "0";
const UNIMPLEMENTED: &str = "12";
const INTERNAL: &str = "13";

pub(crate) fn is_grpc(request: &Request<Incoming>) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()))
}

pub(crate) async fn answer(connection: Rc<Connection>, request: Request<Incoming>) -> Response<AnyBody> {
    if let Some(delay) = metadata(&request, "x-test-delay").and_then(|text| text.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    if let Some(status) = metadata(&request, "x-test-status") {
        let place = metadata(&request, "x-test-status-in").unwrap_or_default();
        let told = metadata(&request, "grpc-timeout").map(|left| format!(" within {left}"));
        return failure(status, &format!("as asked{}", told.unwrap_or_default()), place);
    }
    let call = Call {
        connection,
        request_id: metadata(&request, "x-request-id").unwrap_or_default().to_owned(),
    };
    let answered = match request.uri().path().rsplit('/').next() {
        Some("Unary") => unary(&call, request).await,
        Some("ServerStream") => server_stream(call, request).await,
        Some("ClientStream") => client_stream(&call, request).await,
        Some("Bidi") => Ok(bidi(call, request)),
        _ => Ok(failure(UNIMPLEMENTED, "no such method", "headers")),
    };
    answered.unwrap_or_else(|error| failure(INTERNAL, &error.to_string(), "headers"))
}

async fn unary(call: &Call, request: Request<Incoming>) -> Result<Response<AnyBody>, Error> {
    let mut messages = Messages::new(request);
    let message = messages.next().await?.ok_or("a unary call without a message")?;
    Ok(single(&call.reply(
        message.payload.len() as u64,
        0,
        message.payload,
    )))
}

async fn server_stream(call: Call, request: Request<Incoming>) -> Result<Response<AnyBody>, Error> {
    let message = Messages::new(request)
        .next()
        .await?
        .ok_or("a call without a message")?;
    let (mut sender, body) = Channel::<Bytes, Error>::new(1);
    tokio::task::spawn_local(async move {
        for index in 0..message.count {
            let reply = call.reply(message.payload.len() as u64, index, message.payload.clone());
            if sender.send_data(frame(&reply)).await.is_err() {
                return;
            }
        }
        let _ = sender.send_trailers(trailers(OK)).await;
    });
    Ok(response(any(body)))
}

async fn client_stream(call: &Call, request: Request<Incoming>) -> Result<Response<AnyBody>, Error> {
    let mut messages = Messages::new(request);
    let (mut count, mut received) = (0, 0);
    while let Some(message) = messages.next().await? {
        count += 1;
        received += message.payload.len() as u64;
    }
    Ok(single(&call.reply(received, count, Bytes::new())))
}

fn bidi(call: Call, request: Request<Incoming>) -> Response<AnyBody> {
    let mut messages = Messages::new(request);
    let (mut sender, body) = Channel::<Bytes, Error>::new(1);
    tokio::task::spawn_local(async move {
        let mut index = 0;
        loop {
            match messages.next().await {
                Ok(Some(message)) => {
                    let reply = call.reply(message.payload.len() as u64, index, message.payload);
                    index += 1;
                    if sender.send_data(frame(&reply)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {
                    let _ = sender.send_trailers(trailers(OK)).await;
                    return;
                }
                Err(error) => return sender.abort(error),
            }
        }
    });
    response(any(body))
}

/// What is the same in all replies of a call.
struct Call {
    connection: Rc<Connection>,
    request_id: String,
}

impl Call {
    fn reply(&self, received: u64, index: u32, payload: Bytes) -> EchoReply {
        EchoReply {
            payload,
            endpoint: self.connection.name.to_string(),
            index,
            received,
            peer: self.connection.peer.to_string(),
            request_id: self.request_id.clone(),
        }
    }
}

/// The messages of a request's body.
struct Messages {
    body: Incoming,
    /// Received, not yet taken.
    bytes: BytesMut,
}

impl Messages {
    fn new(request: Request<Incoming>) -> Self {
        Self {
            body: request.into_body(),
            bytes: BytesMut::new(),
        }
    }

    async fn next(&mut self) -> Result<Option<EchoRequest>, Error> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(EchoRequest::decode(message)?));
            }
            match self.body.frame().await.transpose()? {
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.bytes.extend_from_slice(&data);
                    }
                }
                None if self.bytes.is_empty() => return Ok(None),
                None => return Err("the body ends inside a message".into()),
            }
        }
    }

    /// The next message, when all of it is here.
    fn take(&mut self) -> Result<Option<Bytes>, Error> {
        let Some((&[compressed, a, b, c, d], _)) = self.bytes.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(None);
        };
        if compressed != 0 {
            return Err("compressed messages are not understood".into());
        }
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
        if self.bytes.len() - PREFIX_LEN < len {
            return Ok(None);
        }
        self.bytes.advance(PREFIX_LEN);
        Ok(Some(self.bytes.split_to(len).freeze()))
    }
}

/// A message with its prefix.
fn frame(reply: &EchoReply) -> Bytes {
    let len = reply.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_LEN + len);
    bytes.put_u8(0);
    // A reply is little longer than a request, whose length came in four bytes.
    bytes.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    // The buffer grows as needed.
    let _ = reply.encode(&mut bytes);
    bytes.freeze()
}

fn single(reply: &EchoReply) -> Response<AnyBody> {
    response(any(Message {
        data: Some(frame(reply)),
        trailers: Some(trailers(OK)),
    }))
}

fn response(body: AnyBody) -> Response<AnyBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

/// A call that ends without a message, with its status in the trailers or, trailers-only, in the headers. `held`: in the
/// headers, and the stream stays open. `nowhere`: the stream ends without one.
fn failure(status: &str, message: &str, place: &str) -> Response<AnyBody> {
    let mut fields = trailers(status);
    if let Ok(message) = HeaderValue::from_str(message) {
        fields.insert(GRPC_MESSAGE, message);
    }
    let in_headers = |body, fields: HeaderMap| {
        let mut reply = response(body);
        reply.headers_mut().extend(fields);
        reply
    };
    match place {
        "headers" => in_headers(full(""), fields),
        "held" => in_headers(any(Never), fields),
        "nowhere" => response(any(Message {
            data: None,
            trailers: None,
        })),
        _ => response(any(Message {
            data: None,
            trailers: Some(fields),
        })),
    }
}

fn trailers(status: &str) -> HeaderMap {
    let status = HeaderValue::from_str(status).unwrap_or(HeaderValue::from_static(INTERNAL));
    HeaderMap::from_iter([(GRPC_STATUS, status)])
}

fn metadata<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}
