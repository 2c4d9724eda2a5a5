//! Bytes that are nobody's business: opaque TCP, TLS, switched protocols. Both directions end by themselves, so
//! a half-closed connection goes on in the other.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    net::TcpStream,
    time::Instant,
};

use super::inlet::Inlet;
use crate::{
    accept::{self, Replay},
    balance::{InFlight, Permit},
    pool,
    record::{Flag, OpenConnection, Relayed, Scope},
    share::{Holding, Paced, Share},
    transport::{Peers, Socket},
};

/// Bytes in hand in each direction of a relayed connection.
const BUFFER: usize = 16 * 1024;
/// What a relayed connection costs: a buffer in each direction, and its other socket.
const COST: u64 = 2 * BUFFER as u64 + 8 * 1024;
/// Endpoints that are tried before a connection is given up.
const ATTEMPTS: usize = 3;

/// What is known of the bytes.
#[derive(Clone, Debug)]
pub(super) struct Opaque {
    protocol: &'static str,
    server_name: Option<String>,
}

impl Opaque {
    pub(super) const TCP: Self = Self {
        protocol: "tcp",
        server_name: None,
    };

    pub(super) fn tls(server_name: Option<String>) -> Self {
        Self {
            protocol: "tls",
            server_name,
        }
    }
}

/// A connection to an endpoint.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) stream: TcpStream,
    /// Its peer has gone when it acknowledges nothing for so long.
    dead_peer: Option<Duration>,
    endpoint: SocketAddr,
    /// Of the line, when nothing goes wrong.
    flag: Flag,
    _in_flight: InFlight,
    _open: OpenConnection,
    /// At the caller's bound, and at that of a called pod of this node.
    _places: (pool::Held, Option<Permit>),
    _paid: [Holding; 2],
}

/// Connects to an endpoint, to another one when that fails. When all fail the access log says so.
pub(super) async fn connect(inlet: &Inlet) -> Option<Connected> {
    let started = Instant::now();
    let mut tried = Vec::new();
    if let Some(upstream) = inlet.upstream() {
        let upstream = inlet.known(upstream).await;
        let Some(place) = upstream.bounds().connection() else {
            record(inlet, started, &Opaque::TCP, None, Flag::UpstreamOverflow, (0, 0));
            return None;
        };
        let share = &inlet.pod.share;
        let paid = (share.take(Share::Descriptors, 1), share.take(Share::Memory, COST));
        let (Some(descriptor), Some(memory)) = paid else {
            record(inlet, started, &Opaque::TCP, None, Flag::UpstreamOverflow, (0, 0));
            return None;
        };
        let settings = &upstream.port.policy.connection_pool;
        while tried.len() < ATTEMPTS
            && let Some(endpoint) = inlet.choose(&upstream, None, &tried)
        {
            let in_flight = endpoint.begin();
            let scope = &inlet.line.scope;
            let address = endpoint.address();
            let called = match inlet.bounded(address).map(|called| called.connection()) {
                Some(None) => {
                    record(
                        inlet,
                        started,
                        &Opaque::TCP,
                        Some(address),
                        Flag::UpstreamOverflow,
                        (0, 0),
                    );
                    return None;
                }
                Some(place) => place,
                None => None,
            };
            match pool::connect(&*inlet.pod.sockets, (address, inlet.dial_as), settings, scope).await {
                Ok(stream) => {
                    let open = scope.upstream_connection();
                    return Some(Connected {
                        stream,
                        dead_peer: pool::dead_peer(settings),
                        endpoint: address,
                        flag: match upstream.port.endpoints.is_known() {
                            true => Flag::None,
                            false => Flag::EndpointsUnknown,
                        },
                        _in_flight: in_flight,
                        _open: open,
                        _places: (place, called),
                        _paid: [descriptor, memory],
                    });
                }
                Err(error) => {
                    tracing::debug!(endpoint = %address, %error, "connect failed");
                    tried.push(address);
                }
            }
        }
    }
    let flag = if tried.is_empty() {
        Flag::NoHealthyUpstream
    } else {
        Flag::UpstreamConnectionFailure
    };
    record(inlet, started, &Opaque::TCP, tried.last().copied(), flag, (0, 0));
    None
}

/// Relays a caller's connection, of which `first` has been read, to `connected` or to an endpoint of its own.
pub(super) async fn relay(
    inlet: &Rc<Inlet>,
    first: Bytes,
    stream: TcpStream,
    opaque: Opaque,
    connected: Option<Connected>,
) {
    let started = Instant::now();
    let connected = match connected {
        Some(connected) => connected,
        None => match connect(inlet).await {
            Some(connected) => connected,
            None => return accept::refuse(&stream),
        },
    };
    let stream = Replay::new(first, stream);
    let pulse = stream.pulse().clone();
    let caller = Counted::new(stream, inlet.line.scope.clone());
    let (endpoint, flag) = (connected.endpoint, connected.flag);
    let upstream = Socket::new(connected.stream);
    let mut peers = Peers::new([
        (pulse, inlet.worker.limits.dead_peer),
        (upstream.pulse().clone(), connected.dead_peer),
    ])
    .beside();
    let mut pair = Pair {
        caller,
        upstream: Paced(upstream),
        is_over: false,
    };
    let ended = tokio::select! {
        ended = copy_bidirectional_with_sizes(&mut pair.caller, &mut pair.upstream, BUFFER, BUFFER) => ended,
        () = &mut peers => Ok((0, 0)),
    };
    pair.is_over = true;
    let caller = &pair.caller;
    let flag = caller.flag(&ended, flag);
    record(
        inlet,
        started,
        &opaque,
        Some(endpoint),
        flag,
        (caller.received, caller.sent),
    );
}

/// Relays between two connections that switched protocols. The exchange that agreed on it has its own line.
pub(super) async fn join(
    inlet: &Rc<Inlet>,
    caller: impl AsyncRead + AsyncWrite + Unpin,
    mut endpoint: impl AsyncRead + AsyncWrite + Unpin,
) {
    let started = Instant::now();
    // What they share is full when it is refused: the two were told that they may go on, and now break off.
    let Some(_memory) = inlet.pod.share.take(Share::Memory, COST) else {
        return;
    };
    let mut caller = Counted::new(caller, inlet.line.scope.clone());
    let ended = copy_bidirectional_with_sizes(&mut caller, &mut endpoint, BUFFER, BUFFER).await;
    let flag = caller.flag(&ended, Flag::None);
    let opaque = Opaque {
        protocol: "upgraded",
        server_name: None,
    };
    record(
        inlet,
        started,
        &opaque,
        None,
        flag,
        (caller.received, caller.sent),
    );
}

/// Two connections that are relayed. Dropped before its time, as when its pod is withdrawn, both are reset: a FIN would
/// tell each side that the other had said all that it wanted to say.
struct Pair {
    caller: Counted<Replay>,
    upstream: Paced<Socket>,
    is_over: bool,
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !self.is_over {
            accept::refuse(self.caller.stream.socket());
            accept::refuse(self.upstream.0.stream());
        }
    }
}

fn record(
    inlet: &Inlet,
    started: Instant,
    opaque: &Opaque,
    endpoint: Option<SocketAddr>,
    flag: Flag,
    (received, sent): (u64, u64),
) {
    inlet.worker.recorder.relayed(&Relayed {
        line: &inlet.line,
        started,
        protocol: opaque.protocol,
        endpoint,
        server_name: opaque.server_name.as_deref(),
        flag,
        received,
        sent,
    });
}

/// Counts the bytes of a stream as they pass, so that a connection of hours shows before it ends.
#[derive(Debug)]
struct Counted<S> {
    stream: S,
    scope: Rc<Scope>,
    received: u64,
    sent: u64,
    /// Something went wrong on it, and not on the other side.
    failed: bool,
}

impl<S> Counted<S> {
    fn new(stream: S, scope: Rc<Scope>) -> Self {
        Self {
            stream,
            scope,
            received: 0,
            sent: 0,
            failed: false,
        }
    }

    /// Of the line: `otherwise` when nothing went wrong.
    fn flag<T>(&self, ended: &io::Result<T>, otherwise: Flag) -> Flag {
        match ended {
            Ok(_) => otherwise,
            Err(_) if self.failed => Flag::DownstreamConnectionTermination,
            Err(_) => Flag::UpstreamConnectionTermination,
        }
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.failed |= result.is_err();
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.note(read)?;
        let n = (buf.filled().len() - before) as u64;
        self.received += n;
        self.scope.relayed(n, 0);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        let n = self.note(written)?;
        self.sent += n as u64;
        self.scope.relayed(0, n as u64);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
