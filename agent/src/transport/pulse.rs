//! What moves on a connection, as those see it who watch it without holding it.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
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
}

const CLOSED: RawFd = -1;

impl Pulse {
    fn new(descriptor: RawFd) -> Self {
        Self {
            descriptor: AtomicI32::new(descriptor),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
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
