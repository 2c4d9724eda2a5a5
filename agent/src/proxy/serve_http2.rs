//! A caller's HTTP/2 connection. h2 is used directly: streams are relayed frame by frame with their resets and
//! windows, which a client-and-server API over them would hide.

use std::{future::poll_fn, pin::pin, rc::Rc, task::Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Request, Response};
use http_body::Body as _;

use super::{exchange::exchange_of_stream, inlet::Inlet, pump::Pump};
use crate::{accept::Replay, respond::Body};

/// Streams that one caller's connection may have open.
const MAX_STREAMS: u32 = 1024;
/// Request headers that one stream may bring, in bytes.
const MAX_HEADER_LIST: u32 = 64 * 1024;

pub(super) async fn serve(inlet: Rc<Inlet>, stream: Replay) {
    let window = inlet
        .upstream()
        .map_or(65_535, |u| u.port.policy.connection_pool.window_size);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_window_size(window)
        .initial_connection_window_size(window.saturating_mul(4));
    let drain = inlet.worker.drain.clone();
    let mut connection = match builder.handshake::<_, Bytes>(stream).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(caller = inlet.line.caller, %error, "http/2 handshake failed");
            return;
        }
    };
    let mut draining = pin!(drain.signaled());
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            // Finishes what is open and takes nothing new (RFC 9113 section 6.8).
            () = &mut draining, if !told => {
                connection.graceful_shutdown();
                told = true;
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                tokio::task::spawn_local(stream_of(inlet.clone(), request, respond));
            }
            Some(Err(error)) => {
                tracing::debug!(caller = inlet.line.caller, %error, "http/2 connection ended");
                return;
            }
            None => return,
        }
    }
}

async fn stream_of(inlet: Rc<Inlet>, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let request = request.map(|body| {
        if body.is_end_stream() {
            Body::Empty
        } else {
            Body::Http2(body)
        }
    });
    let answered = {
        let mut exchange = pin!(exchange_of_stream(&inlet, request));
        poll_fn(|cx| match exchange.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            // A caller that resets the stream wants no answer: the exchange is dropped, and cancelled with it.
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        })
        .await
    };
    let (head, body) = match answered {
        Some(Ok(response)) => response.into_parts(),
        Some(Err(reason)) => return respond.send_reset(reason),
        None => return,
    };
    let end = body.is_end_stream();
    match respond.send_response(Response::from_parts(head, ()), end) {
        Ok(stream) if !end => {
            // Broken either way says that the caller has gone, which the body's drop records.
            let _ = Pump::new(body, stream).await;
        }
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(caller = inlet.line.caller, %error, "response not sent");
        }
    }
}
