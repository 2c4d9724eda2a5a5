//! Whom an application sees as its caller.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use super::{syscalls, tables::address_key};

/// Tells the kernel for whom a socket dials.
#[derive(Clone, Debug)]
pub struct Callers(Arc<OwnedFd>);

impl Callers {
    /// `shown` is the map `DERNY_SHOWN`.
    pub(super) fn new(shown: OwnedFd) -> Self {
        Self(Arc::new(shown))
    }

    /// The application that `socket` is going to dial, within its pod, sees `caller` as its peer: in `accept` and
    /// `getpeername`.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn show(&self, socket: &impl AsFd, caller: SocketAddr) -> io::Result<()> {
        syscalls::store(self.0.as_fd(), socket.as_fd(), &address_key(caller))
    }
}
