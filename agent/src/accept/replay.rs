//! A stream of which the first bytes have been read already.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    share::Paced,
    transport::{Pulse, Socket},
};

/// Gives `first` before what follows on the stream.
#[derive(Debug)]
pub struct Replay {
    first: Bytes,
    stream: Paced<Socket>,
    ending: Ending,
}

/// How a connection ends when it is dropped. Whoever holds a clone may choose, while somebody else holds the stream.
/// (hyper's upgrades want a stream that may change its thread; it does not.)
#[derive(Clone, Debug, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// With a TCP reset: what the peer has got so far is not all.
    pub fn reset(&self) {
        self.0.store(true, Relaxed);
    }

    /// With a FIN, as it does unless somebody says otherwise.
    pub fn orderly(&self) {
        self.0.store(false, Relaxed);
    }
}

impl Replay {
    pub fn new(first: Bytes, stream: TcpStream) -> Self {
        Self {
            first,
            stream: Paced(Socket::new(stream)),
            ending: Ending::default(),
        }
    }

    pub fn socket(&self) -> &TcpStream {
        self.stream.0.stream()
    }

    pub fn pulse(&self) -> &Arc<Pulse> {
        self.stream.0.pulse()
    }

    pub fn ending(&self) -> Ending {
        self.ending.clone()
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if self.ending.0.load(Relaxed) {
            // A connection that is closed otherwise is closed all the same.
            let _ = SockRef::from(self.stream.0.stream()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..n]);
        self.first.advance(n);
        if self.first.is_empty() {
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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
