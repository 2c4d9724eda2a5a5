//! One probe: a connection of its own, one question, one answer.
//!
//! A connection is opened for each probe, so that a probe also says whether the endpoint still accepts any.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::{TcpSocket, TcpStream};

use super::{grpc, http};
use crate::{
    model::{HealthCheck, Probe, Protocol},
    pool::{DialAs, Sockets},
};

/// Why an endpoint did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("connect: {0}")]
    Connect(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("status {0} is not an expected one")]
    Status(u16),
    #[error("gRPC status {0}")]
    GrpcStatus(u16),
    #[error("the service says that it is {0}")]
    NotServing(&'static str),
    /// The endpoint cannot be checked in this way at all; it will not get better by itself.
    #[error("the endpoint has no grpc.health.v1 service: probe it by http or tcp, or add the service to it")]
    Unimplemented,
    #[error("no valid answer: {0}")]
    Protocol(String),
}

impl Failure {
    /// The metric's label.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connect(_) => Kind::Connect,
            Self::Timeout(_) => Kind::Timeout,
            Self::Status(_) | Self::GrpcStatus(_) | Self::NotServing(_) => Kind::Status,
            Self::Unimplemented => Kind::Misconfigured,
            Self::Protocol(_) => Kind::Protocol,
        }
    }
}

/// What a probe came to, in one of a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Passed,
    Connect,
    Timeout,
    /// It answered, and said no.
    Status,
    Protocol,
    Misconfigured,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Passed,
        Self::Connect,
        Self::Timeout,
        Self::Status,
        Self::Protocol,
        Self::Misconfigured,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Protocol => "protocol",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// Asks once, within the check's timeout. `protocol` is that of the endpoint's own port; another port speaks HTTP/1.1.
pub(super) async fn probe(
    check: &HealthCheck,
    protocol: Protocol,
    endpoint: SocketAddr,
    sockets: &(impl Sockets + ?Sized),
) -> Result<(), Failure> {
    let address = SocketAddr::new(endpoint.ip(), check.port.unwrap_or(endpoint.port()));
    let asked = async {
        let stream = connect(address, sockets)
            .await
            .map_err(|error| Failure::Connect(error.to_string()))?;
        match &check.probe {
            Probe::Http { path, host, expected } => {
                let question = http::Question {
                    path,
                    host: host.as_deref(),
                    expected,
                };
                match protocol {
                    Protocol::Http2 | Protocol::Grpc if address == endpoint => {
                        http::over_http2(stream, address, question).await
                    }
                    _ => http::over_http1(stream, address, question).await,
                }
            }
            Probe::Grpc { service } => grpc::ask(stream, address, service).await,
            Probe::Tcp => Ok(()),
        }
    };
    match tokio::time::timeout(check.timeout, asked).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Timeout(check.timeout)),
    }
}

async fn connect(address: SocketAddr, sockets: &(impl Sockets + ?Sized)) -> io::Result<TcpStream> {
    let socket = sockets.tcp_socket(address, DialAs::Pod)?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

#[cfg(test)]
mod tests;
