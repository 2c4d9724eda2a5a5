//! Bytes that are nobody's business: opaque TCP, TLS, switched protocols.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::{net::TcpStream, time::Instant};

use super::{
    inlet::Inlet,
    relay::{self, End, Ended, Side},
};
use crate::{
    balance::{InFlight, Permit},
    pool,
    record::{Flag, OpenConnection, Relayed},
    share::{Holding, Share},
    transport::{Peers, Socket},
};

/// What a relayed connection costs beside what is in hand of it: its other socket and its task. In bytes.
const COST: u64 = 8 * 1024;
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

/// Why a connection has no endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unreached {
    pub(super) flag: Flag,
    /// The last that was tried.
    pub(super) tried: Option<SocketAddr>,
}

impl Unreached {
    /// The caller had gone before there was one.
    pub(super) const BROKEN: Self = Self {
        flag: Flag::DownstreamConnectionTermination,
        tried: None,
    };

    fn overflow(tried: Option<SocketAddr>) -> Self {
        Self {
            flag: Flag::UpstreamOverflow,
            tried,
        }
    }
}

/// Connects to an endpoint, to another one when that fails.
pub(super) async fn connect(inlet: &Inlet) -> Result<Connected, Unreached> {
    let mut tried = Vec::new();
    if let Some(upstream) = inlet.upstream() {
        let upstream = inlet.known(upstream).await;
        let place = upstream.bounds().connection();
        let place = place.ok_or(Unreached::overflow(None))?;
        let share = &inlet.pod.share;
        let paid = (share.take(Share::Descriptors, 1), share.take(Share::Memory, COST));
        let (Some(descriptor), Some(memory)) = paid else {
            return Err(Unreached::overflow(None));
        };
        let settings = &upstream.port.policy.connection_pool;
        while tried.len() < ATTEMPTS
            && let Some(endpoint) = inlet.choose(&upstream, None, &tried)
        {
            let in_flight = endpoint.begin();
            let scope = &inlet.line.scope;
            let address = endpoint.address();
            let called = match inlet.bounded(address).map(|called| called.connection()) {
                Some(None) => return Err(Unreached::overflow(Some(address))),
                Some(place) => place,
                None => None,
            };
            match pool::connect(&*inlet.pod.sockets, (address, inlet.dial_as), settings, scope).await {
                Ok(stream) => {
                    let open = scope.upstream_connection();
                    return Ok(Connected {
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
    let tried = tried.last().copied();
    Err(Unreached {
        flag: match tried {
            None => Flag::NoHealthyUpstream,
            Some(_) => Flag::UpstreamConnectionFailure,
        },
        tried,
    })
}

/// Relays a caller's connection, of which `first` has been read, to `connected` or to an endpoint of its own.
pub(super) async fn relay(
    inlet: &Rc<Inlet>,
    first: Bytes,
    stream: TcpStream,
    opaque: Opaque,
    connected: Option<Connected>,
) {
    let socket = Socket::new(stream);
    // Until it has ended as it should, and when there is no endpoint.
    socket.pulse().end_by_reset(true);
    let mut line = Relaying::begin(inlet, opaque);
    let connected = match connected {
        Some(connected) => connected,
        None => match connect(inlet).await {
            Ok(connected) => connected,
            Err(unreached) => return line.unreached(unreached),
        },
    };
    line.endpoint = Some(connected.endpoint);
    let upstream = Socket::new(connected.stream);
    let mut peers = Peers::new([
        (socket.pulse().clone(), inlet.worker.limits.dead_peer),
        (upstream.pulse().clone(), connected.dead_peer),
    ])
    .beside();
    let endpoint = End {
        first: Bytes::new(),
        socket: upstream,
    };
    let caller = End { first, socket };
    let ended = tokio::select! {
        ended = relay::relay(caller, endpoint, &inlet.pod.share, |from, count| line.passed(from, count)) => ended,
        () = &mut peers => return,
    };
    line.ended(ended, connected.flag);
}

/// Relays between two connections that switched protocols. The exchange that agreed on it has its own line.
pub(super) async fn join(inlet: &Rc<Inlet>, caller: End, endpoint: End) {
    for end in [&caller, &endpoint] {
        end.socket.pulse().end_by_reset(true);
    }
    let opaque = Opaque {
        protocol: "upgraded",
        server_name: None,
    };
    // What they share is full when it is refused: the two were told that they may go on, and now break off.
    let Some(_memory) = inlet.pod.share.take(Share::Memory, COST) else {
        return;
    };
    let mut line = Relaying::begin(inlet, opaque);
    let peer = (caller.socket.pulse().clone(), inlet.worker.limits.dead_peer);
    let mut peers = Peers::new([peer]).beside();
    let ended = tokio::select! {
        ended = relay::relay(caller, endpoint, &inlet.pod.share, |from, count| line.passed(from, count)) => ended,
        () = &mut peers => return,
    };
    line.ended(ended, Flag::None);
}

/// What the line of a relayed connection will say. Written when it is dropped, so that no way out can forget to.
struct Relaying<'a> {
    inlet: &'a Inlet,
    started: Instant,
    opaque: Opaque,
    endpoint: Option<SocketAddr>,
    flag: Flag,
    received: u64,
    sent: u64,
}

impl<'a> Relaying<'a> {
    fn begin(inlet: &'a Inlet, opaque: Opaque) -> Self {
        Self {
            inlet,
            started: Instant::now(),
            opaque,
            endpoint: None,
            // What stands when nothing else is said before the end: the pod is withdrawn.
            flag: Flag::LocalReset,
            received: 0,
            sent: 0,
        }
    }

    /// Counted as they pass, so that a connection of hours shows before it ends.
    fn passed(&mut self, from: Side, count: usize) {
        let count = count as u64;
        let scope = &self.inlet.line.scope;
        match from {
            Side::Caller => {
                self.received += count;
                scope.relayed(count, 0);
            }
            Side::Endpoint => {
                self.sent += count;
                scope.relayed(0, count);
            }
        }
    }

    fn unreached(mut self, unreached: Unreached) {
        self.flag = unreached.flag;
        self.endpoint = unreached.tried;
    }

    /// `otherwise` when nothing went wrong.
    fn ended(mut self, ended: Ended, otherwise: Flag) {
        self.flag = match ended {
            Ended::Orderly => otherwise,
            Ended::By(Side::Caller) => Flag::DownstreamConnectionTermination,
            Ended::By(Side::Endpoint) => Flag::UpstreamConnectionTermination,
        };
    }
}

impl Drop for Relaying<'_> {
    fn drop(&mut self) {
        self.inlet.worker.recorder.relayed(&Relayed {
            line: &self.inlet.line,
            started: self.started,
            protocol: self.opaque.protocol,
            endpoint: self.endpoint,
            server_name: self.opaque.server_name.as_deref(),
            flag: self.flag,
            received: self.received,
            sent: self.sent,
        });
    }
}

/// Writes the line of a connection that came to an end before it was relayed.
pub(super) fn record(inlet: &Inlet, unreached: Unreached) {
    Relaying::begin(inlet, Opaque::TCP).unreached(unreached);
}
