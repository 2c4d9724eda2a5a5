//! HTTP/2: many requests share a connection, up to what the endpoint allows at a time
//! (RFC 9113 section 5.1.2, SETTINGS_MAX_CONCURRENT_STREAMS). When all are full another is opened.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::Instant,
};

use super::{ConnectError, Opening, Pool, RequestBody, connect, idle_too_long};
use crate::{model::ConnectionPool, record::Scope};

/// Response headers that one stream may bring, in bytes.
const MAX_HEADER_LIST: u32 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Connection {
    sender: RefCell<h2::client::SendRequest<Bytes>>,
    /// Requests that hold it.
    active: Cell<usize>,
    idle_since: Cell<Instant>,
    idle_timeout: Duration,
    state: Cell<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It ended, or the endpoint said GOAWAY: no new request.
    Gone,
}

impl Connection {
    /// Whether one more request may start on it.
    fn has_room(&self) -> bool {
        if self.state.get() == State::Gone {
            return false;
        }
        let mut sender = self.sender.borrow_mut();
        // An error is a GOAWAY or the end of the connection. Nothing waits here, so nobody needs waking.
        if let Poll::Ready(Err(_)) = sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            self.state.set(State::Gone);
            return false;
        }
        self.active.get() < sender.current_max_send_streams()
    }

    pub(super) fn worth_keeping(&self, now: Instant) -> bool {
        let idle = self.active.get() == 0 && idle_too_long(self.idle_since.get(), self.idle_timeout, now);
        self.state.get() == State::Open && !idle
    }
}

/// A place on a connection, for one request.
#[derive(Debug)]
pub struct Http2(Rc<Connection>);

impl Http2 {
    fn on(connection: &Rc<Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        Self(connection.clone())
    }

    /// A handle that can send one request.
    pub fn sender(&self) -> h2::client::SendRequest<Bytes> {
        self.0.sender.borrow().clone()
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        if self.0.active.get() == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// A connection being opened, and those who wait for it. They share its failure: an endpoint that does not answer
/// costs one connect timeout, however many requests wait.
#[derive(Debug, Default)]
pub(super) struct Connecting {
    result: OnceCell<Result<(), ConnectError>>,
    done: Notify,
}

impl<B: RequestBody> Pool<B> {
    /// A place for one request, on a new connection when all are full.
    pub async fn http2(self: &Rc<Self>, opening: Opening<'_>) -> Result<Http2, ConnectError> {
        loop {
            if let Some(place) = self.place() {
                return Ok(place);
            }
            let connecting = self.connecting.borrow().clone();
            let connecting = connecting.unwrap_or_else(|| self.open(opening));
            let done = connecting.done.notified();
            if connecting.result.get().is_none() {
                done.await;
            }
            if let Some(Err(error)) = connecting.result.get() {
                return Err(error.clone());
            }
        }
    }

    fn place(&self) -> Option<Http2> {
        let mut connections = self.http2.borrow_mut();
        let place = connections.iter().find(|c| c.has_room()).map(Http2::on);
        if place.is_none() {
            connections.retain(|c| c.state.get() == State::Open);
        }
        place
    }

    /// Begins to open a connection. In a task of its own: the request that asked first may go away, those that
    /// wait with it stay.
    fn open(self: &Rc<Self>, opening: Opening<'_>) -> Rc<Connecting> {
        let connecting = Rc::new(Connecting::default());
        *self.connecting.borrow_mut() = Some(connecting.clone());
        let (pool, settings, scope) = (self.clone(), opening.settings.clone(), opening.scope.clone());
        let this = connecting.clone();
        tokio::task::spawn_local(async move {
            let result = pool.connect_http2(&settings, &scope).await;
            *pool.connecting.borrow_mut() = None;
            let result = result.map(|connection| pool.http2.borrow_mut().push(connection));
            let _ = this.result.set(result);
            this.done.notify_waiters();
        });
        connecting
    }

    async fn connect_http2(
        &self,
        settings: &ConnectionPool,
        scope: &Rc<Scope>,
    ) -> Result<Rc<Connection>, ConnectError> {
        let stream = connect(&*self.sockets, self.endpoint, settings.connect_timeout, scope).await?;
        let open = scope.upstream_connection();
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(settings.window_size)
            .initial_connection_window_size(settings.window_size.saturating_mul(4))
            .max_header_list_size(MAX_HEADER_LIST)
            // None until the endpoint has said how many: see `settings_of_the_endpoint`.
            .initial_max_send_streams(0)
            .enable_push(false);
        let handshake = async {
            let (sender, mut driver) = builder.handshake::<_, Bytes>(stream).await?;
            settings_of_the_endpoint(&mut driver).await?;
            Ok((sender, driver))
        };
        let handshake = tokio::time::timeout(settings.connect_timeout, handshake).await;
        let (sender, driver) = handshake
            .unwrap_or(Err(HandshakeError::Timeout(settings.connect_timeout)))
            .map_err(|e| ConnectError::Handshake(e.to_string()))?;
        let connection = Rc::new(Connection {
            sender: RefCell::new(sender),
            active: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            idle_timeout: settings.idle_timeout,
            state: Cell::new(State::Open),
        });
        // The driver ends when the last handle is dropped, so it must not hold one.
        let (weak, endpoint) = (Rc::downgrade(&connection), self.endpoint);
        tokio::task::spawn_local(async move {
            let _open = open;
            if let Err(error) = driver.await {
                tracing::debug!(%endpoint, %error, "upstream connection ended");
            }
            if let Some(connection) = weak.upgrade() {
                connection.state.set(State::Gone);
            }
        });
        Ok(connection)
    }
}

#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("{0}")]
    Http2(#[from] h2::Error),
    #[error("the endpoint closed the connection")]
    Closed,
    #[error("no settings within {0:?}")]
    Timeout(Duration),
}

/// Waits until the endpoint's SETTINGS are here. More streams than it allows would be refused, and a burst of
/// requests on a new connection would use its attempts up.
async fn settings_of_the_endpoint<S>(
    driver: &mut h2::client::Connection<S, Bytes>,
) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| match Pin::new(&mut *driver).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(HandshakeError::Closed)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        Poll::Pending if driver.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await
}
