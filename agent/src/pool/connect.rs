//! A TCP connection to an endpoint, from inside a pod's network namespace.

use std::{fmt, io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::net::{TcpSocket, TcpStream};

use crate::record::Scope;

/// Makes sockets where a pod's traffic comes from.
pub trait Sockets: fmt::Debug {
    /// A non-blocking TCP socket of the family of `to`, not yet connected.
    fn tcp_socket(&self, to: SocketAddr) -> io::Result<socket2::Socket>;
}

/// Why there is no connection. Nothing was sent, so the request may go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Io(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("http/2 handshake: {0}")]
    Handshake(String),
}

/// Connects within `timeout`; a failure is counted in `scope`.
pub async fn connect(
    sockets: &dyn Sockets,
    endpoint: SocketAddr,
    timeout: Duration,
    scope: &Rc<Scope>,
) -> Result<TcpStream, ConnectError> {
    let connected = async {
        let socket = sockets.tcp_socket(endpoint)?;
        TcpSocket::from_std_stream(socket.into()).connect(endpoint).await
    };
    let result = match tokio::time::timeout(timeout, connected).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => Err(ConnectError::Io(error.to_string())),
        Err(_) => Err(ConnectError::Timeout(timeout)),
    };
    scope.upstream_failed();
    result
}
