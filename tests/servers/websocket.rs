//! A WebSocket that sends back what it gets.

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::body::{AnyBody, Error, full};

/// Takes a CONNECT, wherever to, and sends back what comes through it.
pub(crate) fn connect(mut request: Request<Incoming>) -> Response<AnyBody> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::task::spawn_local(async move {
        if let Ok(upgraded) = upgrade.await {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        }
    });
    Response::new(full(""))
}

/// Answers the handshake; 400 to a request that is none.
pub(crate) fn upgrade(mut request: Request<Incoming>) -> Result<Response<AnyBody>, Error> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return Ok(Response::builder()
            .status(StatusCode::BAD_REQUEST)
            .body(full("no sec-websocket-key\n"))?);
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::task::spawn_local(async move {
        if let Ok(upgraded) = upgrade.await {
            let stream = TokioIo::new(upgraded);
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                let echoed =
                    !(message.is_text() || message.is_binary()) || socket.send(message).await.is_ok();
                if !echoed {
                    return;
                }
            }
        }
    });
    Ok(Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, HeaderValue::from_static("upgrade"))
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .body(full(""))?)
}
