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
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    ConnectError, Held, Open, Opening, Paid, Pool, RequestBody, Room, connect, idle_too_long, life::Life,
};
use crate::{
    model::ConnectionPool,
    record::Scope,
    share::{Paced, Part},
};

/// Response headers that one stream may bring, in bytes.
const MAX_HEADER_LIST: u32 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Connection {
    sender: RefCell<h2::client::SendRequest<Bytes>>,
    /// Requests that hold it.
    active: Cell<usize>,
    idle_since: Cell<Instant>,
    idle_timeout: Duration,
    life: Life,
    state: Cell<State>,
    room: Rc<Room>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It ended or has served its time, or the endpoint said GOAWAY: no new request.
    Gone,
}

impl Connection {
    /// Whether one more request may start on it.
    fn has_room(&self, now: Instant) -> bool {
        if self.state.get() == State::Gone {
            return false;
        }
        let mut sender = self.sender.borrow_mut();
        // An error is a GOAWAY or the end of the connection. Nothing waits here, so nobody needs waking.
        let ended = matches!(
            sender.poll_ready(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(Err(_))
        );
        if ended || !self.life.goes_on(now) {
            self.state.set(State::Gone);
            return false;
        }
        self.active.get() < sender.current_max_send_streams()
    }

    pub(super) fn worth_keeping(&self, now: Instant) -> bool {
        let idle = self.active.get() == 0 && idle_too_long(self.idle_since.get(), self.idle_timeout, now);
        self.state.get() == State::Open && self.life.goes_on(now) && !idle
    }
}

/// A place on a connection, for one request.
#[derive(Debug)]
pub struct Http2(Rc<Connection>);

impl Http2 {
    fn on(connection: &Rc<Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        connection.life.serve();
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
        self.0.room.freed.notify_one();
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
    /// A place for one request: on a new connection when all are full, or, where no more are allowed, the next
    /// that becomes free.
    pub async fn http2(self: &Rc<Self>, opening: Opening<'_>) -> Result<Http2, ConnectError> {
        if let Some(place) = self.place() {
            return Ok(place);
        }
        let _pending = opening.bounds.pending().ok_or(ConnectError::TooManyPending)?;
        loop {
            let freed = self.room.freed.notified();
            let connecting = self.connecting.borrow().clone();
            let connecting = match connecting {
                Some(connecting) => Some(connecting),
                None => self
                    .admit(&**opening.bounds)
                    .map(|held| self.open_http2(opening, held)),
            };
            match connecting {
                Some(connecting) => {
                    let done = connecting.done.notified();
                    if connecting.result.get().is_none() {
                        done.await;
                    }
                    if let Some(Err(error)) = connecting.result.get() {
                        return Err(error.clone());
                    }
                }
                None => freed.await,
            }
            if let Some(place) = self.place() {
                return Ok(place);
            }
        }
    }

    fn place(&self) -> Option<Http2> {
        let now = Instant::now();
        let mut connections = self.http2.borrow_mut();
        let place = connections.iter().find(|c| c.has_room(now)).map(Http2::on);
        if place.is_none() {
            connections.retain(|c| c.state.get() == State::Open);
        }
        place
    }

    /// Begins to open a connection. In a task of its own: the request that asked first may go away, those that
    /// wait with it stay.
    fn open_http2(self: &Rc<Self>, opening: Opening<'_>, held: Option<Held>) -> Rc<Connecting> {
        let connecting = Rc::new(Connecting::default());
        *self.connecting.borrow_mut() = Some(connecting.clone());
        let (pool, settings, scope) = (self.clone(), opening.settings.clone(), opening.scope.clone());
        let this = connecting.clone();
        self.share.spawn(async move {
            let result = pool.connect_http2(&settings, &scope, held).await;
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
        held: Option<Held>,
    ) -> Result<Rc<Connection>, ConnectError> {
        let paid = Paid::new(
            &self.share,
            connection_window(settings),
            MIN_WINDOW,
            Part::OfHttp2,
        )?;
        let window = u32::try_from(paid.bytes()).unwrap_or(MAX_WINDOW);
        let open = Open::new(&self.room, scope, held, paid);
        let stream = connect(&*self.sockets, self.endpoint, settings, scope).await?;
        let handshake = timeout(settings.connect_timeout, handshake(stream, settings, window)).await;
        let (sender, driver) = handshake
            .map_err(|_| ConnectError::Timeout(settings.connect_timeout))?
            .map_err(ConnectError::Handshake)?;
        let now = Instant::now();
        let connection = Rc::new(Connection {
            sender: RefCell::new(sender),
            active: Cell::new(0),
            idle_since: Cell::new(now),
            idle_timeout: settings.idle_timeout,
            life: Life::new(settings, now, fastrand::f64()),
            state: Cell::new(State::Open),
            room: self.room.clone(),
        });
        // The driver ends when the last handle is dropped, so it must not hold one.
        let (weak, endpoint, keepalive) = (
            Rc::downgrade(&connection),
            self.endpoint,
            settings.http2_keepalive,
        );
        self.share.spawn(async move {
            let _open = open;
            if let Err(error) = drive(driver, keepalive).await {
                tracing::debug!(%endpoint, error, "upstream connection ended");
            }
            if let Some(connection) = weak.upgrade() {
                connection.state.set(State::Gone);
            }
        });
        Ok(connection)
    }
}

type Driver = h2::client::Connection<Paced<TcpStream>, Bytes>;

/// A connection's window cannot be smaller (RFC 9113 section 6.9.2).
const MIN_WINDOW: u64 = 65_535;
const MAX_WINDOW: u32 = (1 << 31) - 1;

fn connection_window(settings: &ConnectionPool) -> u64 {
    u64::from(settings.window_size) * 4
}

/// Ends when the endpoint's SETTINGS are here. More streams than it allows would be refused, and a burst of
/// requests on a new connection would use its attempts up.
async fn handshake(
    stream: TcpStream,
    settings: &ConnectionPool,
    window: u32,
) -> Result<(h2::client::SendRequest<Bytes>, Driver), String> {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(settings.window_size.min(window))
        .initial_connection_window_size(window)
        .max_header_list_size(MAX_HEADER_LIST)
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

/// Runs a connection to its end. With `keepalive` it is asked for a sign of life so often, and given up when none
/// comes by the next time (RFC 9113 section 6.7).
async fn drive(mut driver: Driver, keepalive: Option<Duration>) -> Result<(), String> {
    let pings = driver.ping_pong();
    let (Some(every), Some(mut pings)) = (keepalive, pings) else {
        return driver.await.map_err(|error| error.to_string());
    };
    let silent = async {
        loop {
            tokio::time::sleep(every).await;
            match timeout(every, pings.ping(h2::Ping::opaque())).await {
                Ok(Ok(_)) => {}
                // The driver says why it ended.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => return,
            }
        }
    };
    tokio::select! {
        ended = &mut driver => ended.map_err(|error| error.to_string()),
        () = silent => Err(format!("no answer to a ping within {every:?}")),
    }
}
