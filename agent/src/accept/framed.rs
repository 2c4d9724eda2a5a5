//! A caller's HTTP/2 connection whose frames are followed.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Replay, frames::Frames};
use crate::transport::Pulse;

#[derive(Debug)]
pub struct Framed {
    stream: Replay,
    frames: Rc<RefCell<Frames>>,
}

/// Where the caller is in its frames.
#[derive(Clone, Debug)]
pub struct Reading(Rc<RefCell<Frames>>);

impl Reading {
    /// A head, or another frame that is no body's, has begun and is not whole.
    pub fn is_midway(&self) -> bool {
        self.0.borrow().is_midway()
    }

    /// Frames that came whole.
    pub fn frames(&self) -> u64 {
        self.0.borrow().whole()
    }
}

impl Framed {
    pub fn new(stream: Replay) -> Self {
        Self {
            stream,
            frames: Rc::new(RefCell::new(Frames::new())),
        }
    }

    pub fn reading(&self) -> Reading {
        Reading(self.frames.clone())
    }

    pub fn pulse(&self) -> &Arc<Pulse> {
        self.stream.pulse()
    }
}

impl AsyncRead for Framed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.frames.borrow_mut().pass(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for Framed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
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
