//! A stream of which the first bytes have been read already.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
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
}

/// How a connection ends when it is closed, also when this process dies. Whoever holds a clone may choose, while somebody
/// else holds the stream.
#[derive(Clone, Debug)]
pub struct Ending(Arc<Pulse>);

impl Ending {
    /// With a TCP reset: what the peer has got so far is not all.
    pub fn reset(&self) {
        self.0.end_by_reset(true);
    }

    /// With a FIN, as it does unless somebody says otherwise.
    pub fn orderly(&self) {
        self.0.end_by_reset(false);
    }
}

impl Replay {
    pub fn new(first: Bytes, stream: TcpStream) -> Self {
        Self {
            first,
            stream: Paced(Socket::new(stream)),
        }
    }

    pub fn pulse(&self) -> &Arc<Pulse> {
        self.stream.0.pulse()
    }

    pub fn ending(&self) -> Ending {
        Ending(self.pulse().clone())
    }

    /// What has been read and not been given out, and the connection.
    pub fn into_parts(self) -> (Bytes, Socket) {
        (self.first, self.stream.0)
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
