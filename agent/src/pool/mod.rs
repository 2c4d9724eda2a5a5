//! An endpoint → a usable connection, for one pod. One worker's connections; nothing is shared between threads.

mod bounds;
mod connect;
mod life;
mod watched;
mod http1;
mod company;
mod cancels;
mod uploads;
mod window;
mod keepalive;
mod drive;
mod http2;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

pub use bounds::{Bounds, Held, Unbounded};
use bytes::Bytes;
pub use company::Caller;
#[cfg(test)]
pub(crate) use connect::Here;
pub use connect::{ConnectError, DialAs, Sockets, connect, dead_peer};
use http_body::Body;
pub use http1::{Http1, upgraded};
pub use http2::Http2;
use tokio::{sync::Notify, time::Instant};
pub use uploads::{SMALL_UPLOAD, Upload, Uploading};

use crate::{
    model::ConnectionPool,
    record::{OpenConnection, Scope},
    share::{Holding, Local, Part, Share},
};

/// What a request body must be to go to an endpoint.
pub trait RequestBody:
    Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static
{
}
impl<B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static> RequestBody
    for B
{
}

type By<K, B> = RefCell<HashMap<K, Rc<Pool<B>>>>;

/// The pools of one enrolment of a pod. They are the pod's own value and go with it, so that no request of another pod
/// can meet its connections.
#[derive(Debug)]
pub struct Pools<B> {
    sockets: Rc<dyn Sockets>,
    share: Rc<Local>,
    /// Those as the pod itself.
    pools: By<SocketAddr, B>,
    others: By<(SocketAddr, DialAs), B>,
}

impl<B: RequestBody> Pools<B> {
    /// `sockets` makes sockets in the pod's network namespace, so that the endpoint sees the pod's own address; `share` is
    /// what the pod pays with, and the connections end with it.
    pub fn new(sockets: Rc<dyn Sockets>, share: Rc<Local>) -> Self {
        Self {
            sockets,
            share,
            pools: RefCell::default(),
            others: RefCell::default(),
        }
    }

    /// The pool of the pod's connections to `endpoint` that it sees as those of the same peer.
    pub fn pool(&self, endpoint: SocketAddr, dial_as: DialAs) -> Rc<Pool<B>> {
        let new = || Rc::new(Pool::new(endpoint, self.sockets.clone(), self.share.clone()));
        match dial_as {
            DialAs::Pod => self
                .pools
                .borrow_mut()
                .entry(endpoint)
                .or_insert_with(new)
                .clone(),
            other => {
                let mut others = self.others.borrow_mut();
                others
                    .entry((endpoint, other.shared()))
                    .or_insert_with(new)
                    .clone()
            }
        }
    }

    /// Closes connections that have been idle for longer than their service allows, and forgets empty pools.
    pub fn sweep(&self, now: Instant) {
        let is_used = |pool: &Rc<Pool<B>>| {
            pool.sweep(now);
            Rc::strong_count(pool) > 1 || !pool.is_empty()
        };
        self.pools.borrow_mut().retain(|_, pool| is_used(pool));
        self.others.borrow_mut().retain(|_, pool| is_used(pool));
    }
}

/// One pod's connections to one endpoint.
#[derive(Debug)]
pub struct Pool<B> {
    endpoint: SocketAddr,
    sockets: Rc<dyn Sockets>,
    share: Rc<Local>,
    /// Last in, first out: the most recently used is the least likely to have been closed by the other end.
    http1: RefCell<Vec<http1::Idle<B>>>,
    http2: RefCell<Vec<Rc<http2::Connection>>>,
    connecting: RefCell<Option<Rc<http2::Connecting>>>,
    room: Rc<Room>,
    /// The endpoint has ended a connection of HTTP/2, or said GOAWAY on it.
    left: Rc<Notify>,
}

/// How many connections there are, and who waits for one to become free.
#[derive(Debug, Default)]
struct Room {
    open: Cell<u32>,
    /// Told when a connection may take a request again, or has gone.
    freed: Notify,
}

/// What one request needs to know to open a connection.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    pub settings: &'a ConnectionPool,
    /// Where the connection is counted.
    pub scope: &'a Rc<Scope>,
    /// How many there may be.
    pub bounds: &'a Rc<dyn Bounds>,
    /// Who sends the request.
    pub caller: Caller,
    /// Whom the endpoint sees.
    pub dial_as: DialAs,
    /// Set when the request had to wait for a connection to become free: for others of its own side, and not for the
    /// endpoint.
    pub queued: &'a Cell<bool>,
}

/// Held by an open connection.
#[derive(Debug)]
struct Open {
    room: Rc<Room>,
    _counted: OpenConnection,
    _held: Option<Held>,
    paid: Paid,
}

/// What a dialled connection takes up of its pod's share.
#[derive(Debug)]
struct Paid {
    _descriptor: Holding,
    memory: Holding,
}

/// What a dialled connection costs beside its buffers, in bytes.
const COST: u64 = 8 * 1024;

impl Paid {
    /// With buffers of `wanted` bytes, or of fewer, `floor` at least, when the pod has not much left.
    fn new(share: &Rc<Local>, wanted: u64, floor: u64, part: Part) -> Result<Self, ConnectError> {
        let over = |share: Share| ConnectError::Share(share.as_str());
        Ok(Self {
            _descriptor: share
                .take(Share::Descriptors, 1)
                .ok_or(over(Share::Descriptors))?,
            memory: (share.take_part(COST + wanted, COST + floor, part)).ok_or(over(Share::Memory))?,
        })
    }

    /// Of the buffers.
    fn bytes(&self) -> u64 {
        self.memory.amount() - COST
    }
}

impl Open {
    /// What is relayed over it goes on without buffers of its own.
    fn give_back_buffers(&mut self) {
        self.paid.memory.shrink_to(COST);
    }

    fn new(room: &Rc<Room>, scope: &Rc<Scope>, held: Option<Held>, paid: Paid) -> Self {
        room.open.set(room.open.get() + 1);
        Self {
            room: room.clone(),
            _counted: scope.upstream_connection(),
            _held: held,
            paid,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.room.open.set(self.room.open.get().saturating_sub(1));
        self.room.freed.notify_one();
    }
}

impl<B: RequestBody> Pool<B> {
    fn new(endpoint: SocketAddr, sockets: Rc<dyn Sockets>, share: Rc<Local>) -> Self {
        Self {
            endpoint,
            sockets,
            share,
            http1: RefCell::default(),
            http2: RefCell::default(),
            connecting: RefCell::default(),
            room: Rc::default(),
            left: Rc::default(),
        }
    }

    /// Returns when the endpoint takes no more requests on one of the connections over which those of [`Caller::Host`] go.
    pub async fn left(&self) {
        self.left.notified().await;
    }

    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// The right to open a connection. An endpoint may always have one, or a service with many endpoints could
    /// not reach some of them.
    fn admit(&self, bounds: &dyn Bounds) -> Option<Option<Held>> {
        match bounds.connection() {
            Some(held) => Some(Some(held)),
            None => (self.room.open.get() == 0).then_some(None),
        }
    }

    fn is_empty(&self) -> bool {
        self.http1.borrow().is_empty() && self.http2.borrow().is_empty() && self.connecting.borrow().is_none()
    }

    fn sweep(&self, now: Instant) {
        http1::sweep(&mut self.http1.borrow_mut(), now);
        self.http2.borrow_mut().retain(|connection| {
            connection.sweep(now);
            connection.worth_keeping(now)
        });
        // Room may have come with the time.
        self.room.freed.notify_one();
    }
}

/// How long something has been idle, against what is allowed.
fn idle_too_long(since: Instant, allowed: Duration, now: Instant) -> bool {
    now.saturating_duration_since(since) >= allowed
}
