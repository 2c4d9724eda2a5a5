//! One probe: a connection of its own, one question, one answer.
//!
//! A connection is opened for each probe, so that a probe also says whether the endpoint still accepts any.

use std::{io, net::SocketAddr};

use tokio::net::{TcpSocket, TcpStream};

use super::{Failure, grpc, http};
use crate::{
    model::{HealthCheck, Probe, Protocol},
    pool::{DialAs, Sockets},
};

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
