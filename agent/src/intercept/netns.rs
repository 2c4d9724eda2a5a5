//! A network namespace: entered by one thread for a moment, and sockets made in it.

use std::{
    fs::{File, Metadata},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    process,
};

use derny_ebpf_common::MARK;
use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sched::{CloneFlags, setns},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::ports::Ephemeral;
use crate::model::{NetnsIdentity, PodNetns};

/// How often a source port is drawn that somebody listens at.
const PORT_DRAWS: usize = 16;

/// `asm-generic/socket.h`; since Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;
/// `linux/nsfs.h`: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// An open network namespace. It lives as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    identity: NetnsIdentity,
    cookie: u64,
}

/// A network namespace by its name, which does not keep it alive.
#[derive(Clone, Debug)]
pub struct NamedNetns {
    pub(super) path: PathBuf,
    pub(super) identity: NetnsIdentity,
}

impl NamedNetns {
    /// Does its name stand for nothing, or for another one?
    pub fn is_gone(&self) -> bool {
        identity_of(&self.path).ok() != Some(self.identity)
    }
}

/// Of the namespace that `path` names at this moment.
pub(super) fn identity_of(path: &Path) -> io::Result<NetnsIdentity> {
    Ok(identity(&std::fs::metadata(path)?))
}

pub(super) fn identity_of_this_thread() -> io::Result<NetnsIdentity> {
    identity_of(Path::new("/proc/thread-self/ns/net"))
}

fn identity(metadata: &Metadata) -> NetnsIdentity {
    NetnsIdentity {
        dev: metadata.dev(),
        ino: metadata.ino(),
    }
}

impl Netns {
    /// Opens a file that names a network namespace, such as `/run/netns/x` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// Those of the system calls, `ENOTTY` when the file names no namespace; `InvalidInput` when it names one of
    /// another kind.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::from_file(File::open(path)?)
    }

    /// That of a pod, by its name or from what holds it open.
    pub(super) fn of_pod(netns: &PodNetns) -> io::Result<Self> {
        match netns {
            PodNetns::Path(path) => Self::open(path),
            PodNetns::Open(open) => Self::from_file(open.file.try_clone()?),
        }
    }

    fn from_file(file: File) -> io::Result<Self> {
        // SAFETY: the descriptor is open, and the request takes no argument.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind < 0 {
            return Err(io::Error::last_os_error());
        }
        if kind != libc::CLONE_NEWNET {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a network namespace",
            ));
        }
        let identity = identity(&file.metadata()?);
        let mut netns = Self {
            file,
            identity,
            cookie: 0,
        };
        netns.cookie = netns.enter(read_cookie)??;
        Ok(netns)
    }

    /// The number by which the kernel programs know the namespace.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    pub(super) fn identity(&self) -> NetnsIdentity {
        self.identity
    }

    /// Runs `f` with this thread inside the namespace. Other threads stay where they are. `f` must not await,
    /// and threads that it starts stay inside.
    ///
    /// # Errors
    /// The namespace cannot be entered; `f` has not run then. If the thread cannot return, the process aborts:
    /// it must not go on with one of its threads in a pod's network.
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> io::Result<R> {
        /// Returns on the way out, also out of a panic.
        struct Return(File);
        impl Drop for Return {
            fn drop(&mut self) {
                if let Err(errno) = setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET) {
                    tracing::error!(%errno, "a thread cannot leave a pod's network namespace");
                    process::abort();
                }
            }
        }
        let home = Return(File::open("/proc/thread-self/ns/net")?);
        if let Err(errno) = setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET) {
            // Nothing to return from.
            std::mem::forget(home);
            return Err(errno.into());
        }
        let result = f();
        drop(home);
        Ok(result)
    }

    /// A socket inside the namespace, of the family of `to`: non-blocking, close-on-exec, TCP_NODELAY, with the
    /// mark by which the kernel programs know the agent. Bound nowhere, so its source is the pod's own address.
    ///
    /// # Errors
    /// Those of `setns`, `socket` and `setsockopt`.
    pub fn tcp_socket(&self, to: SocketAddr) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = self.enter(|| Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP)))??;
        socket.set_mark(MARK)?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket)
    }

    /// The same, bound to a port that the kernel does not give out: for when those that it gives out are all connected to
    /// `to`. At the address `from` where one is given.
    ///
    /// # Errors
    /// As for [`Self::tcp_socket`]; `AddrNotAvailable` when no port was found.
    pub fn tcp_socket_beyond(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<Socket> {
        self.enter(|| {
            let ports = Ephemeral::of_this_namespace().sources();
            let kind = Type::STREAM.nonblocking().cloexec();
            let any = match to {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            for _ in 0..PORT_DRAWS {
                let Some(port) = fastrand::choice(&ports) else {
                    break;
                };
                let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
                socket.set_mark(MARK)?;
                socket.set_tcp_nodelay(true)?;
                // So that the application may bind the port, too, while this is connected.
                socket.set_reuse_address(true)?;
                match socket.bind(&SocketAddr::new(from.unwrap_or(any), *port).into()) {
                    Ok(()) => return Ok(socket),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                    Err(error) => return Err(error),
                }
            }
            Err(io::ErrorKind::AddrNotAvailable.into())
        })?
    }
}

/// Gives a socket that is not connected yet a source address. Its port is chosen when it is connected, and may then be
/// that of connections to other places too (ip(7), `IP_BIND_ADDRESS_NO_PORT`).
///
/// # Errors
/// The address is none of the network namespace's any more.
pub fn bind_address(socket: &Socket, address: IpAddr) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    // SAFETY: an open descriptor, and a value of that size.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SocketAddr::new(address, 0).into())
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What the namespace of this thread looks like.
pub(super) struct Interfaces {
    pub(super) loopback_is_up: bool,
    /// Without the loopback's and without link-local IPv6 ones, in the kernel's order.
    pub(super) addresses: Vec<IpAddr>,
}

pub(super) fn interfaces() -> io::Result<Interfaces> {
    let mut found = Interfaces {
        loopback_is_up: false,
        addresses: Vec::new(),
    };
    for interface in getifaddrs()? {
        if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            found.loopback_is_up |= interface.flags.contains(InterfaceFlags::IFF_UP);
            continue;
        }
        let Some(address) = interface.address else {
            continue;
        };
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        let v6 = address
            .as_sockaddr_in6()
            .map(|it| it.ip())
            .filter(|ip| !ip.is_unicast_link_local());
        if let Some(ip) = v4.or(v6.map(IpAddr::V6))
            && !ip.is_loopback()
            && !found.addresses.contains(&ip)
        {
            found.addresses.push(ip);
        }
    }
    Ok(found)
}

/// Of the namespace of this thread.
fn read_cookie() -> io::Result<u64> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM.cloexec(), None)?;
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}
