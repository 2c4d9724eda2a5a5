//! HTTP/2: many requests share a connection, up to what the endpoint allows at a time
//! (RFC 9113 section 5.1.2, SETTINGS_MAX_CONCURRENT_STREAMS). When all are full another is opened.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    Caller, ConnectError, DialAs, Held, Open, Opening, Paid, Pool, RequestBody, Room,
    cancels::{Cancels, MAX_REMEMBERED_STREAMS},
    company::Company,
    connect, dead_peer,
    drive::{drive, handshake},
    idle_too_long,
    keepalive::Keepalive,
    life::Life,
    uploads::{Upload, Uploading, Uploads},
    window::{self, Window},
};
use crate::{
    model::ConnectionPool,
    record::Scope,
    share::{self, Part},
    transport::{Peers, Pulse, Socket, look_at},
};

/// Requests may be given up by the thousand.
const DOUBTED_EVERY: Duration = Duration::from_millis(250);
/// A connection's window cannot be smaller (RFC 9113 section 6.9.2).
const MIN_WINDOW: u64 = 65_535;
const MAX_WINDOW: u32 = (1 << 31) - 1;

fn connection_window(settings: &ConnectionPool) -> u64 {
    u64::from(window::least(settings.window_size))
}

#[derive(Debug)]
pub(super) struct Connection {
    sender: RefCell<h2::client::SendRequest<Bytes>>,
    /// Requests that hold it, by caller.
    company: RefCell<Company>,
    cancels: RefCell<Cancels>,
    uploads: Rc<Uploads>,
    window: Rc<Window>,
    pulse: Arc<Pulse>,
    /// When a cancelled request was last a reason to look whether the endpoint is still there.
    looked: Cell<Instant>,
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
    /// Whether one more request may start on it. Its window has grown for it then.
    fn has_room(&self, wanted: Wanted, now: Instant) -> bool {
        // Nothing goes out on a connection whose endpoint acknowledges nothing: others would share its fate.
        if self.state.get() == State::Gone || self.pulse.unanswered() {
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
        let company = self.company.borrow();
        let open = company.active();
        let fits = open < sender.current_max_send_streams()
            && open + self.cancels.borrow().remembered() < MAX_REMEMBERED_STREAMS;
        let apart = match wanted.company {
            Sharing::Fair => {
                company.admits(wanted.caller, self.window.shared_streams())
                    && self.uploads.admits(wanted.caller, wanted.uploads, now)
                    && fits
                    && self.window.cover(company.sharing_with(wanted.caller))
            }
            Sharing::Forced => true,
        };
        fits && apart
    }

    /// Whether the endpoint has just said that it takes no more requests here.
    fn has_been_left(&self) -> bool {
        if self.state.get() == State::Gone {
            return false;
        }
        let ready = (self.sender.borrow_mut()).poll_ready(&mut Context::from_waker(Waker::noop()));
        let left = matches!(ready, Poll::Ready(Err(_)));
        if left {
            self.state.set(State::Gone);
        }
        left
    }

    pub(super) fn worth_keeping(&self, now: Instant) -> bool {
        let idle = self.company.borrow().active() == 0
            && idle_too_long(self.idle_since.get(), self.idle_timeout, now);
        self.state.get() == State::Open && self.life.goes_on(now) && !idle
    }

    /// A request was given up on it: perhaps because nothing arrives any more.
    fn doubt(&self) {
        let now = share::now();
        if now.saturating_duration_since(self.looked.get()) >= DOUBTED_EVERY {
            self.looked.set(now);
            look_at(&self.pulse);
        }
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.cancels.borrow_mut().sweep(now);
    }
}

/// Who asks for a place, and for what.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    caller: Caller,
    uploads: Uploading,
    company: Sharing,
}

/// Whether callers are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Fair,
    /// No other connection may be opened: sharing all there is goes before not being served.
    Forced,
}

/// A place on a connection, for one request.
#[derive(Debug)]
pub struct Http2 {
    connection: Rc<Connection>,
    caller: Caller,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// What stands until the answer is whole: dropped before that, the stream is cancelled.
    Cancelled,
    Whole,
}

impl Http2 {
    fn on(connection: &Rc<Connection>, caller: Caller) -> Self {
        let mut company = connection.company.borrow_mut();
        company.enter(caller);
        connection.life.serve();
        Self {
            connection: connection.clone(),
            caller,
            end: End::Cancelled,
        }
    }

    /// A handle that can send one request.
    pub fn sender(&self) -> h2::client::SendRequest<Bytes> {
        self.connection.sender.borrow().clone()
    }

    /// The request's body, which tells whether it moves.
    pub fn upload(&self, uploading: Uploading) -> Upload {
        Upload::new(&self.connection.uploads, self.caller, uploading)
    }

    /// The answer has been read to its end.
    pub fn give_back(mut self) {
        self.end = End::Whole;
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        let connection = &self.connection;
        let mut company = connection.company.borrow_mut();
        company.leave(self.caller);
        if self.end == End::Cancelled {
            connection.cancels.borrow_mut().add();
            connection.doubt();
        }
        if company.active() == 0 {
            connection.idle_since.set(share::now());
            connection.window.lower();
        }
        connection.room.freed.notify_one();
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
    pub async fn http2(
        self: &Rc<Self>,
        opening: Opening<'_>,
        uploads: Uploading,
    ) -> Result<Http2, ConnectError> {
        let mut wanted = Wanted {
            caller: opening.caller,
            uploads,
            company: Sharing::Fair,
        };
        if let Some(place) = self.place(wanted) {
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
                None if wanted.company == Sharing::Fair => wanted.company = Sharing::Forced,
                None => {
                    opening.queued.set(true);
                    freed.await;
                }
            }
            if let Some(place) = self.place(wanted) {
                return Ok(place);
            }
        }
    }

    fn place(&self, wanted: Wanted) -> Option<Http2> {
        let now = share::now();
        let mut connections = self.http2.borrow_mut();
        let with_room = connections.iter().find(|c| c.has_room(wanted, now));
        let place = with_room.map(|connection| Http2::on(connection, wanted.caller));
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
        let dial_as = opening.dial_as;
        // Whoever calls a pod by its own address is told what becomes of this connection.
        let left = matches!(opening.caller, Caller::Host(_)).then(|| self.left.clone());
        let this = connecting.clone();
        self.share.spawn(async move {
            let result = pool.connect_http2(dial_as, &settings, &scope, held, left).await;
            *pool.connecting.borrow_mut() = None;
            let result = result.map(|connection| pool.http2.borrow_mut().push(connection));
            let _ = this.result.set(result);
            this.done.notify_waiters();
        });
        connecting
    }

    async fn connect_http2(
        &self,
        dial_as: DialAs,
        settings: &ConnectionPool,
        scope: &Rc<Scope>,
        held: Option<Held>,
        left: Option<Rc<Notify>>,
    ) -> Result<Rc<Connection>, ConnectError> {
        let paid = Paid::new(
            &self.share,
            connection_window(settings),
            MIN_WINDOW,
            Part::OfHttp2,
        )?;
        let window = u32::try_from(paid.bytes()).unwrap_or(MAX_WINDOW);
        let open = Open::new(&self.room, scope, held, paid);
        let stream = connect(&*self.sockets, (self.endpoint, dial_as), settings, scope).await?;
        let stream = Socket::new(stream);
        let pulse = stream.pulse().clone();
        let peers = Peers::new([(pulse.clone(), dead_peer(settings))]);
        let handshake = timeout(settings.connect_timeout, handshake(stream, settings, window)).await;
        let (sender, driver) = handshake
            .map_err(|_| ConnectError::Timeout(settings.connect_timeout))?
            .map_err(ConnectError::Handshake)?;
        let now = Instant::now();
        let stream_window = settings.window_size.min(window);
        let window = Rc::new(Window::new(stream_window, window, &self.share));
        let connection = Rc::new(Connection {
            sender: RefCell::new(sender),
            company: RefCell::default(),
            cancels: RefCell::new(Cancels::new(now)),
            uploads: Rc::default(),
            window: window.clone(),
            pulse: pulse.clone(),
            looked: Cell::new(now),
            idle_since: Cell::new(now),
            idle_timeout: settings.idle_timeout,
            life: Life::new(settings, now, fastrand::f64()),
            state: Cell::new(State::Open),
            room: self.room.clone(),
        });
        // The driver ends when the last handle is dropped, so it must not hold one.
        let (weak, endpoint) = (Rc::downgrade(&connection), self.endpoint);
        let keepalive = settings
            .http2_keepalive
            .map(|every| Keepalive::new(every, &pulse));
        self.share.spawn(async move {
            let _open = open;
            let look = || {
                if let Some(left) = &left
                    && let Some(connection) = weak.upgrade()
                    && connection.has_been_left()
                {
                    left.notify_waiters();
                }
            };
            let is_called = || {
                let connection = weak.upgrade();
                connection.is_some_and(|connection| connection.company.borrow().active() > 0)
            };
            let keepalive = keepalive.map(|keepalive| (keepalive, &*pulse, is_called));
            if let Err(error) = drive(driver, peers, &window, keepalive, look).await {
                tracing::debug!(%endpoint, error, "upstream connection ended");
            }
            if let Some(connection) = weak.upgrade() {
                connection.state.set(State::Gone);
                left.iter().for_each(|left| left.notify_waiters());
            }
        });
        Ok(connection)
    }
}
