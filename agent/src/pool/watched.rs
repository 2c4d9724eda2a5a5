//! Whether an endpoint that closed a connection had taken the request that was just sent on it.
//!
//! A server closes a connection that has been idle for long, and just then a request sets out from this end. TCP
//! tells such a request from one that was taken and not answered: a FIN acknowledges everything that had arrived
//! before the close, so bytes that are still unacknowledged when the FIN is here arrived later or never. Nobody reads
//! them any more, and the request may be sent again whatever its method. A reset without a FIN says nothing.

use std::{
    ffi::c_int,
    io::{self, IoSlice},
    os::fd::AsRawFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::transport::{Pulse, Socket};

/// A connection that notes how it ends.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Socket,
    end: Arc<End>,
}

/// What is known of a connection's sending direction. Written by the connection, read by who sends on it; both are
/// of one thread, though hyper asks for more.
#[derive(Debug)]
pub(super) struct End {
    /// Bytes given to the kernel.
    written: AtomicU64,
    /// Of these, how many were not acknowledged when the endpoint closed; [`OPEN`] until then.
    left: AtomicU64,
}

const OPEN: u64 = u64::MAX;

impl End {
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Whether the endpoint closed the connection before it took anything of what was written after `start`.
    pub(super) fn took_nothing_since(&self, start: u64) -> bool {
        self.left.load(Relaxed) == self.written().saturating_sub(start)
    }
}

impl Watched {
    pub(super) fn new(stream: TcpStream) -> (Self, Arc<End>) {
        let end = Arc::new(End {
            written: AtomicU64::new(0),
            left: AtomicU64::new(OPEN),
        });
        let watched = Self {
            stream: Socket::new(stream),
            end: end.clone(),
        };
        (watched, end)
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        self.stream.pulse()
    }

    /// It is not looked at any more: the protocol was switched.
    pub(super) fn into_socket(self) -> Socket {
        self.stream
    }

    fn wrote(&self, result: io::Result<usize>) -> io::Result<usize> {
        match &result {
            Ok(count) => self
                .end
                .written
                .store(self.end.written() + *count as u64, Relaxed),
            // What Linux says when a reset follows a FIN, the answer to bytes for a socket that is gone.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.closed(),
            Err(_) => {}
        }
        result
    }

    /// The endpoint's FIN has been seen.
    fn closed(&self) {
        if self.end.left.load(Relaxed) == OPEN
            && let Ok(left) = unacknowledged(self.stream.stream())
        {
            self.end.left.store(left, Relaxed);
        }
    }
}

/// Bytes in the send queue, sent or not, that the other end has not acknowledged (tcp(7), SIOCOUTQ).
fn unacknowledged(stream: &TcpStream) -> io::Result<u64> {
    let mut count: c_int = 0;
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ, writes one int to the address it is given.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(count).unwrap_or(0))
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if read.is_ok() && room > 0 && buffer.filled().len() == before {
            self.closed();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.wrote(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bytes));
        Poll::Ready(self.wrote(written))
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn connection() -> (Watched, Arc<End>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (watched, end) = Watched::new(near.unwrap());
        (watched, end, far.unwrap().0)
    }

    /// The first exchange, after which the connection is idle; what had been written by then.
    async fn first(near: &mut Watched, end: &End, far: &mut TcpStream) -> u64 {
        near.write_all(b"one").await.unwrap();
        far.read_exact(&mut [0; 3]).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        near.read_exact(&mut [0; 6]).await.unwrap();
        assert!(!end.took_nothing_since(0));
        end.written()
    }

    #[tokio::test]
    async fn what_is_sent_to_a_closed_socket_was_not_taken() {
        let (mut near, end, mut far) = connection().await;
        let start = first(&mut near, &end, &mut far).await;
        drop(far);
        near.write_all(b"two").await.unwrap();
        assert!(!end.took_nothing_since(start), "not known yet");
        assert_eq!(near.read(&mut [0; 9]).await.unwrap(), 0);
        assert!(end.took_nothing_since(start));
    }

    #[tokio::test]
    async fn what_meets_the_reset_as_well_was_not_taken() {
        let (mut near, end, mut far) = connection().await;
        let start = first(&mut near, &end, &mut far).await;
        drop(far);
        near.write_all(b"head").await.unwrap();
        // The loopback brings the reset before this write.
        let error = near.write_all(b"body").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(end.took_nothing_since(start));
    }

    #[tokio::test]
    async fn what_was_read_before_the_close_was_taken() {
        let (mut near, end, mut far) = connection().await;
        let start = first(&mut near, &end, &mut far).await;
        near.write_all(b"two").await.unwrap();
        far.read_exact(&mut [0; 3]).await.unwrap();
        drop(far);
        assert_eq!(near.read(&mut [0; 9]).await.unwrap(), 0);
        assert!(!end.took_nothing_since(start));
    }

    #[tokio::test]
    async fn a_reset_alone_says_nothing() {
        let (mut near, end, mut far) = connection().await;
        let start = first(&mut near, &end, &mut far).await;
        near.write_all(b"two").await.unwrap();
        far.peek(&mut [0; 3]).await.unwrap();
        // Closed with bytes that were not read.
        drop(far);
        assert!(near.read(&mut [0; 9]).await.is_err());
        assert!(!end.took_nothing_since(start));
    }
}
