//! What moves on a connection, as those see it who watch it without holding it.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// Written by the connection, read by who watches it; both are of one thread, though hyper asks for more.
#[derive(Debug)]
pub struct Pulse {
    descriptor: AtomicI32,
    read: AtomicU64,
    written: AtomicU64,
    /// The kernel takes no more bytes.
    blocked: AtomicBool,
    /// The peer owes an acknowledgement, and did not answer when it was reminded.
    unanswered: AtomicBool,
}

const CLOSED: RawFd = -1;
/// `linux/sockios.h`.
const SIOCOUTQNSD: libc::c_ulong = 0x894B;

impl Pulse {
    fn new(descriptor: RawFd) -> Self {
        Self {
            descriptor: AtomicI32::new(descriptor),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            unanswered: AtomicBool::new(false),
        }
    }

    /// Of a connection that a test makes up.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        Self::new(CLOSED)
    }

    /// A write of so many bytes that found room, or none at all.
    #[cfg(test)]
    pub(super) fn wrote(&self, count: u64) {
        self.written.store(self.written() + count, Relaxed);
        self.blocked.store(count == 0, Relaxed);
    }

    /// Bytes that came.
    pub fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Bytes given to the kernel.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Whether the last write found no room.
    pub fn blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// Whether the connection ends with a TCP reset when it is closed, by whoever closes it: also the kernel, when this
    /// process dies.
    pub fn end_by_reset(&self, reset: bool) {
        if let Some(descriptor) = self.descriptor() {
            // SAFETY: the descriptor is open: whoever closes it says so here first, on this thread.
            let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
            // A connection that is closed otherwise is closed all the same.
            let _ = SockRef::from(&descriptor).set_linger(reset.then_some(Duration::ZERO));
        }
    }

    /// Whether the peer acknowledged nothing when it was looked at last, though it was reminded.
    pub fn unanswered(&self) -> bool {
        self.unanswered.load(Relaxed)
    }

    pub(super) fn set_unanswered(&self, unanswered: bool) {
        self.unanswered.store(unanswered, Relaxed);
    }

    /// `None` once the connection is closed at this end.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        let descriptor = self.descriptor.load(Relaxed);
        (descriptor != CLOSED).then_some(descriptor)
    }
}

/// A connection with a pulse.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Self {
        let pulse = Arc::new(Pulse::new(stream.as_raw_fd()));
        Self { stream, pulse }
    }

    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads through a shared reference, so that the same socket can be written to and waited for meanwhile.
    pub fn poll_take(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => {
                    let count = *taken.as_ref().unwrap_or(&0) as u64;
                    self.pulse.read.store(self.pulse.read() + count, Relaxed);
                    return Poll::Ready(taken);
                }
            }
        }
    }

    /// [`Self::poll_take`] of bytes that stay where they are.
    pub fn poll_look(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_peek(cx, &mut ReadBuf::new(buffer))
    }

    /// Takes `count` bytes out that [`Self::poll_look`] has shown.
    ///
    /// # Errors
    /// Of the socket.
    pub fn take_out(&self, count: usize) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            // SAFETY: with MSG_TRUNC TCP copies nothing and needs no buffer (tcp(7)).
            let taken = unsafe {
                libc::recv(
                    self.stream.as_raw_fd(),
                    std::ptr::null_mut(),
                    left,
                    libc::MSG_TRUNC | libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(taken) {
                Ok(taken) if taken > 0 => left = left.saturating_sub(taken),
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
        self.pulse.read.store(self.pulse.read() + count as u64, Relaxed);
        Ok(())
    }

    /// Writes through a shared reference.
    pub fn poll_give(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return self.wrote(Poll::Pending),
            }
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return self.wrote(Poll::Ready(written)),
            }
        }
    }

    /// Ends the sending direction with a FIN.
    ///
    /// # Errors
    /// The connection has gone.
    pub fn end_sending(&self) -> io::Result<()> {
        SockRef::from(&self.stream).shutdown(Shutdown::Write)
    }

    /// Returns when the connection has broken: reset, or given up by the kernel. Unlike reading this also sees it after
    /// the peer's FIN.
    pub async fn broken(&self) {
        // An error says that there is no reactor any more.
        let _ = self.stream.ready(Interest::ERROR).await;
    }

    /// Bytes that the kernel has taken and not sent once (tcp(7), SIOCOUTQNSD): a reset takes them back.
    pub fn unsent(&self) -> usize {
        let mut count: libc::c_int = 0;
        // SAFETY: SIOCOUTQNSD writes one int to the address it is given.
        let result = unsafe { libc::ioctl(self.stream.as_raw_fd(), SIOCOUTQNSD, &raw mut count) };
        match result {
            0 => usize::try_from(count).unwrap_or(0),
            // It is not connected any more.
            _ => 0,
        }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(count)) => {
                self.pulse
                    .written
                    .store(self.pulse.written() + *count as u64, Relaxed);
                self.pulse.blocked.store(false, Relaxed);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.pulse.blocked.store(true, Relaxed),
        }
        written
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The number may be another's next.
        self.pulse.descriptor.store(CLOSED, Relaxed);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let count = (buffer.filled().len() - before) as u64;
        self.pulse.read.store(self.pulse.read() + count, Relaxed);
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
