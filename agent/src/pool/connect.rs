//! A TCP connection to an endpoint, from inside a pod's network namespace.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use tokio::net::{TcpSocket, TcpStream};

use crate::{
    model::ConnectionPool,
    record::{Scope, TimeLimit},
    transport::keep_alive,
};

/// So many sources are tried before a connection is given up for want of one.
const SOURCES: usize = 16;

/// Makes sockets where a pod's traffic comes from.
pub trait Sockets: fmt::Debug {
    /// A non-blocking TCP socket of the family of `to`, not yet connected.
    fn tcp_socket(&self, to: SocketAddr, dial_as: DialAs) -> io::Result<socket2::Socket>;

    /// The same with a source port of its own, for when those that the kernel gives out are all connected to `to`.
    fn tcp_socket_beyond(&self, to: SocketAddr, dial_as: DialAs) -> io::Result<socket2::Socket> {
        let _ = (to, dial_as);
        Err(io::ErrorKind::AddrNotAvailable.into())
    }
}

/// Whom the other side sees as its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DialAs {
    /// The pod, at the address by which its routes lead there.
    #[default]
    Pod,
    /// The pod, at the address that its application had bound its socket to.
    Bound(IpAddr),
    /// The pod's own application sees who called it.
    Caller(SocketAddr),
}

impl DialAs {
    /// Who may use the same connections: the port is the first's.
    pub(super) fn shared(self) -> Self {
        match self {
            Self::Caller(caller) => Self::Caller(SocketAddr::new(caller.ip(), 0)),
            other => other,
        }
    }
}

/// Why there is no connection. Nothing was sent, so the request may go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Io(String),
    /// The fault of this side: no socket, no port of the pod's own left, or a filter in the pod.
    #[error("{0}")]
    OfThisSide(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("http/2 handshake: {0}")]
    Handshake(String),
    /// The policy's `circuitBreaking.maxPendingRequests`.
    #[error("as many requests as allowed wait for a connection")]
    TooManyPending,
    /// The calling pod has used up its share of something.
    #[error("the pod has used up its share of {0}")]
    Share(&'static str),
}

/// Connects within the pool's `connectTimeout`; a failure is counted in `scope`.
pub async fn connect(
    sockets: &dyn Sockets,
    (endpoint, dial_as): (SocketAddr, DialAs),
    settings: &ConnectionPool,
    scope: &Rc<Scope>,
) -> Result<TcpStream, ConnectError> {
    let connected = async {
        let mut socket = sockets.tcp_socket(endpoint, dial_as)?;
        for _ in 0..SOURCES {
            match TcpSocket::from_std_stream(socket.into()).connect(endpoint).await {
                // A pod may have few ephemeral ports. Its applications have as many for each endpoint; they share these.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    socket = sockets.tcp_socket_beyond(endpoint, dial_as)?;
                }
                connected => return connected,
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    };
    let result = match tokio::time::timeout(settings.connect_timeout, connected).await {
        Ok(Ok(stream)) => {
            if let Some(limit) = dead_peer(settings) {
                keep_alive(&stream, limit);
            }
            return Ok(stream);
        }
        Ok(Err(error)) if is_of_this_side(&error) => Err(ConnectError::OfThisSide(error.to_string())),
        Ok(Err(error)) => Err(ConnectError::Io(error.to_string())),
        Err(_) => {
            scope.timed_out(TimeLimit::Connect);
            Err(ConnectError::Timeout(settings.connect_timeout))
        }
    };
    scope.upstream_failed();
    result
}

/// Whether nothing was sent that an endpoint could have answered.
fn is_of_this_side(error: &io::Error) -> bool {
    use libc::{EACCES, EADDRINUSE, EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM};
    let own = [
        EACCES,
        EADDRINUSE,
        EADDRNOTAVAIL,
        EMFILE,
        ENFILE,
        ENOBUFS,
        ENOMEM,
        EPERM,
    ];
    error.raw_os_error().is_some_and(|code| own.contains(&code))
}

/// An endpoint whose host acknowledges nothing for so long has gone. The keepalive probes are laid out for it.
pub fn dead_peer(settings: &ConnectionPool) -> Option<Duration> {
    settings.tcp_keepalive.map(|silence| silence * 5 / 3)
}

/// Sockets of the network namespace that a test runs in.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Here;

#[cfg(test)]
impl Sockets for Here {
    fn tcp_socket(&self, to: SocketAddr, _: DialAs) -> io::Result<socket2::Socket> {
        let kind = socket2::Type::STREAM.nonblocking().cloexec();
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), kind, None)?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket)
    }
}
