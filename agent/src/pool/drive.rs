//! An HTTP/2 connection to an endpoint, from its preface to its end.

use std::{future::poll_fn, pin::Pin, task::Poll};

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::{
    cancels::{MAX_REMEMBERED_STREAMS, REMEMBERED_FOR},
    keepalive::Keepalive,
    window::{self, Window},
};
use crate::{
    model::ConnectionPool,
    share::Paced,
    transport::{Peers, Pulse, Socket},
};

/// Response headers that one stream may bring, in bytes.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// Bytes of one request's body that wait for the connection to be written.
const MAX_SEND_BUFFER: usize = 64 * 1024;

pub(super) type Driver = h2::client::Connection<Paced<Socket>, Bytes>;

/// Ends when the endpoint's SETTINGS are here. More streams than it allows would be refused, and a burst of
/// requests on a new connection would use its attempts up.
pub(super) async fn handshake(
    stream: Socket,
    settings: &ConnectionPool,
    window: u32,
) -> Result<(h2::client::SendRequest<Bytes>, Driver), String> {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(settings.window_size.min(window))
        .initial_connection_window_size(window)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .max_concurrent_reset_streams(MAX_REMEMBERED_STREAMS)
        .reset_stream_duration(REMEMBERED_FOR)
        // By default a few thousand small frames that one caller has not read would end the connection.
        .data_frame_budget(window::SHARED_BYTES as usize)
        // None until the endpoint has said how many.
        .initial_max_send_streams(0)
        .enable_push(false);
    let handshake = builder.handshake::<_, Bytes>(Paced(stream)).await;
    let (sender, mut driver) = handshake.map_err(|error| error.to_string())?;
    poll_fn(|cx| match Pin::new(&mut driver).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err("the endpoint closed the connection".to_owned())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error.to_string())),
        Poll::Pending if driver.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    Ok((sender, driver))
}

/// Runs a connection to its end. With `keepalive`, and the pulse and calls by which that goes, it is asked for a sign of
/// life when it is silent, and given up when none comes (RFC 9113 section 6.7). `look` is called
/// whenever something may have come.
pub(super) async fn drive(
    mut driver: Driver,
    mut peers: Peers<1>,
    window: &Window,
    keepalive: Option<(Keepalive, &Pulse, impl Fn() -> bool)>,
    look: impl Fn(),
) -> Result<(), String> {
    let pings = driver.ping_pong();
    let mut target = 0;
    let mut driven = poll_fn(|cx| {
        let wanted = window.target(cx.waker());
        if target != wanted {
            target = wanted;
            driver.set_target_window_size(wanted);
        }
        let driven = Pin::new(&mut driver).poll(cx).map_err(|error| error.to_string());
        peers.poll(cx);
        look();
        driven
    });
    let (Some((mut keepalive, pulse, is_called)), Some(mut pings)) = (keepalive, pings) else {
        return driven.await;
    };
    let (every, wait) = (keepalive.every(), keepalive.wait());
    let silent = async {
        loop {
            tokio::time::sleep(every).await;
            if !keepalive.asks(pulse.read(), is_called(), Instant::now()) {
                continue;
            }
            match timeout(wait, pings.ping(h2::Ping::opaque())).await {
                Ok(Ok(_)) => {}
                // The driver says why it ended.
                Ok(Err(_)) => std::future::pending().await,
                // Whatever came is a sign of life.
                Err(_) if keepalive.moved(pulse.read()) => {}
                Err(_) => return,
            }
        }
    };
    tokio::select! {
        ended = &mut driven => ended,
        () = silent => Err(format!("no answer to a ping within {wait:?}")),
    }
}
