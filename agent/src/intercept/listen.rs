//! The agent's listening sockets inside a pod.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// SYNs that wait for `accept`, per worker. The kernel cuts it to the pod's `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// One worker's listeners inside a pod: non-blocking. IPv4, and IPv6 where the pod has it.
#[derive(Debug)]
pub struct Listeners {
    /// Connections that the pod opened; [`super::Origins`] tells to what.
    pub outbound: Vec<TcpListener>,
    /// Connections to the pod. The accepted socket's local address is what the caller dialled.
    pub inbound: Vec<TcpListener>,
}

/// The listeners of all workers.
pub(super) struct Opened {
    pub(super) workers: Vec<Listeners>,
    /// Port of the outbound listeners on `[::1]`, when the pod has IPv6.
    pub(super) v6_port: Option<u16>,
}

impl Opened {
    /// Of the listeners that `v6_port` does not name, 0 for those that are not there: outbound and inbound on 127.0.0.1,
    /// inbound on `[::1]`.
    pub(super) fn ports(&self) -> [u16; 3] {
        let first = self.workers.first();
        let port = |listener: Option<&TcpListener>| {
            let address = listener.and_then(|listener| listener.local_addr().ok());
            address.map_or(0, |address| address.port())
        };
        [
            port(first.and_then(|worker| worker.outbound.first())),
            port(first.and_then(|worker| worker.inbound.first())),
            port(first.and_then(|worker| worker.inbound.get(1))),
        ]
    }
}

/// Opens the listeners in the network namespace of this thread, on ports that the kernel chooses, so that none
/// of the pod's is taken. The listeners of one kind share a port and form a reuseport group, over which the
/// kernel spreads the connections.
pub(super) fn open(workers: usize) -> io::Result<Opened> {
    if workers == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no worker to accept"));
    }
    let outbound4 = group(Ipv4Addr::LOCALHOST.into(), workers)?;
    let inbound4 = group(Ipv4Addr::LOCALHOST.into(), workers)?;
    let (outbound6, inbound6) = if has_ipv6() {
        (
            group(Ipv6Addr::LOCALHOST.into(), workers)?,
            group(Ipv6Addr::LOCALHOST.into(), workers)?,
        )
    } else {
        (Vec::new(), Vec::new())
    };
    let v6_port = outbound6
        .first()
        .map(TcpListener::local_addr)
        .transpose()?
        .map(|address| address.port());

    let mut workers: Vec<Listeners> = outbound4
        .into_iter()
        .zip(inbound4)
        .map(|(outbound, inbound)| Listeners {
            outbound: vec![outbound],
            inbound: vec![inbound],
        })
        .collect();
    for (worker, (outbound, inbound)) in workers.iter_mut().zip(outbound6.into_iter().zip(inbound6)) {
        worker.outbound.push(outbound);
        worker.inbound.push(inbound);
    }
    Ok(Opened { workers, v6_port })
}

/// Can `[::1]` be bound? Not when the kernel has no IPv6, nor when it is disabled in this namespace.
fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn group(ip: std::net::IpAddr, size: usize) -> io::Result<Vec<TcpListener>> {
    let mut address = SocketAddr::new(ip, 0);
    let mut listeners = Vec::with_capacity(size);
    for _ in 0..size {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        socket.set_reuse_port(true)?;
        // Accepted sockets inherit it. One that was steered here stands on the application's own port, and must not
        // keep the application from binding that again when it restarts.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}
