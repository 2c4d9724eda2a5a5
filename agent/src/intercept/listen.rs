//! The agent's listening sockets inside a pod.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use derny_ebpf_common::V6_PORTS;
use socket2::{Domain, Protocol, Socket, Type};

use super::ports::Ephemeral;

/// SYNs that wait for `accept`, per worker. The kernel cuts it to the pod's `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Where the IPv4 listeners stand: connections are steered to them whatever their address is, and applications that dial
/// or bind their own localhost do not meet them.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 191, 0, 1);
/// So many ports are looked at, before the kernel is left to choose.
const TRIED: usize = 1024;

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
    /// Of the listeners that `v6_port` does not name, 0 for those that are not there: outbound and inbound of IPv4,
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

/// Opens the listeners in the network namespace of this thread, on ports that the kernel gives to nobody and that are
/// not `declared`, so that none of the pod's is taken. The listeners of one kind share a port and form a reuseport group,
/// over which the kernel spreads the connections.
pub(super) fn open(workers: usize, declared: &BTreeSet<u16>) -> io::Result<Opened> {
    if workers == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no worker to accept"));
    }
    let ephemeral = Ephemeral::of_this_namespace();
    let beside: Vec<u16> = (ephemeral.beside())
        .filter(|port| !declared.contains(port))
        .take(TRIED)
        .collect();
    let each = || beside.iter().copied();
    let outbound4 = group(ADDRESS.into(), each(), workers)?;
    let inbound4 = group(ADDRESS.into(), each(), workers)?;
    let (outbound6, inbound6) = if has_ipv6() {
        (
            group(Ipv6Addr::LOCALHOST.into(), blocks(&beside), workers)?,
            group(Ipv6Addr::LOCALHOST.into(), each(), workers)?,
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

/// First ports of [`V6_PORTS`] that are all among `ports`, which descend, and at which nobody listens.
fn blocks(ports: &[u16]) -> impl Iterator<Item = u16> {
    let size = usize::from(V6_PORTS);
    let whole = ports
        .chunks_exact(size)
        .filter(move |block| block[0] - block[size - 1] == V6_PORTS - 1);
    let is_free = |port: &u16| is_free(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), *port));
    let free = whole.filter(move |block| block.iter().all(is_free));
    free.map(move |block| block[size - 1])
}

/// At the first of `ports` that is free, or where the kernel chooses when there is none.
fn group(ip: IpAddr, ports: impl Iterator<Item = u16>, size: usize) -> io::Result<Vec<TcpListener>> {
    let mut addresses = ports.map(|port| SocketAddr::new(ip, port));
    let free = addresses.find(|address| is_free(*address));
    group_at(free.unwrap_or(SocketAddr::new(ip, 0)), size)
}

/// Whether nobody has it, another group of the agent's included: sockets that share their ports would join that.
fn is_free(address: SocketAddr) -> bool {
    let kind = Type::STREAM.cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP));
    socket.is_ok_and(|socket| socket.bind(&address.into()).is_ok())
}

fn group_at(mut address: SocketAddr, size: usize) -> io::Result<Vec<TcpListener>> {
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
