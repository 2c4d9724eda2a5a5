//! What the agent holds of network namespaces: its sockets, and descriptors of the namespaces themselves.

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
};

use anyhow::{Context, Result};

use crate::{Agent, Pod};

/// `asm-generic/socket.h`; since Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A socket of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Of the network namespace in which it was made.
    pub netns_cookie: u64,
    /// `None` for sockets of other families than IPv4 and IPv6.
    pub local: Option<SocketAddr>,
    /// `None` for a socket that is not connected.
    pub peer: Option<SocketAddr>,
}

#[derive(Clone, Debug, Default)]
pub struct Holdings {
    pub sockets: Vec<Socket>,
    /// Inode numbers of the network namespaces of which it has a descriptor.
    pub namespaces: Vec<u64>,
}

impl Agent {
    /// As the kernel has them at this moment: each descriptor is taken over for a look.
    pub fn holdings(&self) -> Result<Holdings> {
        let id = self.id()?;
        let process = pidfd_open(id).context("pidfd_open")?;
        let directory = format!("/proc/{id}/fd");
        let mut found = Holdings::default();
        for entry in fs::read_dir(&directory).with_context(|| format!("reading {directory}"))? {
            let entry = entry?;
            // Descriptors go while they are listed.
            let Ok(link) = fs::read_link(entry.path()) else {
                continue;
            };
            let link = link.to_string_lossy();
            if let Some(inode) = link.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']')) {
                found.namespaces.push(inode.parse()?);
            } else if link.starts_with("socket:[") {
                let number: RawFd = entry.file_name().to_string_lossy().parse()?;
                if let Ok(socket) = pidfd_getfd(&process, number).and_then(|socket| Socket::of(&socket)) {
                    found.sockets.push(socket);
                }
            }
        }
        Ok(found)
    }
}

impl Holdings {
    /// The namespaces in which it has sockets.
    pub fn cookies(&self) -> BTreeSet<u64> {
        self.sockets.iter().map(|socket| socket.netns_cookie).collect()
    }

    /// The addresses at which it listens in this namespace.
    pub fn listeners(&self, netns: Namespace) -> Vec<SocketAddr> {
        let sockets = self.sockets.iter();
        let own = sockets.filter(|socket| socket.netns_cookie == netns.cookie && socket.peer.is_none());
        own.filter_map(|socket| socket.local).collect()
    }

    /// Sockets in the namespace of `pod`, and descriptors of it.
    pub fn of(&self, netns: Namespace) -> usize {
        let sockets = self.sockets.iter();
        let namespaces = self.namespaces.iter();
        sockets
            .filter(|socket| socket.netns_cookie == netns.cookie)
            .count()
            + namespaces.filter(|inode| **inode == netns.inode).count()
    }
}

/// A network namespace by the numbers that the kernel gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub cookie: u64,
    pub inode: u64,
}

impl Pod {
    pub fn namespace(&self) -> Result<Namespace> {
        let cookie = self.inside(|| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            netns_cookie(socket.as_raw_fd())
        })??;
        Ok(Namespace {
            cookie,
            inode: fs::metadata(self.netns_path())?.ino(),
        })
    }
}

impl Socket {
    fn of(socket: &OwnedFd) -> io::Result<Self> {
        let socket = socket2::SockRef::from(socket);
        let inet = |address: io::Result<socket2::SockAddr>| address.ok()?.as_socket();
        Ok(Self {
            netns_cookie: netns_cookie(socket.as_raw_fd())?,
            local: inet(socket.local_addr()),
            peer: inet(socket.peer_addr()),
        })
    }
}

fn netns_cookie(socket: RawFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

fn pidfd_open(process: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })
}

fn pidfd_getfd(process: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes three numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: a new descriptor that nobody else has.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
