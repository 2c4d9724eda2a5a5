//! HTTP/1.1: one request at a time per connection.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{ConnectError, Opening, Pool, RequestBody, connect, idle_too_long};
use crate::record::OpenConnection;

/// A connection that waits for its next request.
#[derive(Debug)]
pub(super) struct Idle<B> {
    connection: Http1<B>,
    since: Instant,
}

impl<B> Idle<B> {
    pub(super) fn expired(&self, now: Instant) -> bool {
        self.connection.sender.is_closed() || idle_too_long(self.since, self.connection.idle_timeout, now)
    }
}

/// A connection taken for one request. Dropped, it closes; [`Pool::put_back`] keeps it.
#[derive(Debug)]
pub struct Http1<B> {
    pub sender: SendRequest<B>,
    endpoint: SocketAddr,
    idle_timeout: Duration,
}

impl<B: RequestBody> Pool<B> {
    /// An idle connection that still looks open. It may be closing at the other end all the same; a request that
    /// could not be written comes back from [`SendRequest::try_send_request`] and goes to the next.
    pub fn idle_http1(&self) -> Option<Http1<B>> {
        let mut idle = self.http1.borrow_mut();
        while let Some(Idle { connection, .. }) = idle.pop() {
            if !connection.sender.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    pub async fn new_http1(&self, opening: Opening<'_>) -> Result<Http1<B>, ConnectError> {
        let settings = opening.settings;
        let stream = connect(
            &*self.sockets,
            self.endpoint,
            settings.connect_timeout,
            opening.scope,
        )
        .await?;
        let open: OpenConnection = opening.scope.upstream_connection();
        let handshake = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|e| ConnectError::Handshake(e.to_string()))?;
        let endpoint = self.endpoint;
        tokio::task::spawn_local(async move {
            let _open = open;
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%endpoint, %error, "upstream connection ended");
            }
        });
        Ok(Http1 {
            sender,
            endpoint,
            idle_timeout: settings.idle_timeout,
        })
    }

    /// The response has been read to its end: the connection may serve again.
    pub fn put_back(self: &Rc<Self>, connection: Http1<B>) {
        debug_assert_eq!(connection.endpoint, self.endpoint);
        if !connection.sender.is_closed() {
            self.http1.borrow_mut().push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }
}
