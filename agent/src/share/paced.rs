//! A stream whose task stops when it has run for long enough: hyper, h2 and a relay read and write for as long as a
//! socket lets them, and meanwhile nobody else has a turn.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock;

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
    static ALLOWED: Cell<Pace> = const { Cell::new(Pace { long_enough: Duration::ZERO, free: 0 }) };
}

/// How long a task may go on reading and writing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) long_enough: Duration,
    /// The clock is not asked before so many reads and writes: they take less.
    pub(super) free: u32,
}

/// A task is taken up.
pub(super) fn begin(pace: Pace) {
    CALLS.set(0);
    ALLOWED.set(pace);
}

/// `Pending`, and woken at once, when the task has run for long enough.
pub fn go_on(cx: &Context<'_>) -> Poll<()> {
    let calls = CALLS.get() + 1;
    CALLS.set(calls);
    let pace = ALLOWED.get();
    if calls <= pace.free || clock::turn().is_none_or(|begun| begun.elapsed() < pace.long_enough) {
        return Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Lets others have their turn when the task has run for long enough; for loops that read and write nothing.
pub async fn breathe() {
    poll_fn(|cx| go_on(cx)).await;
}

#[derive(Debug)]
pub struct Paced<S>(pub S);

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(go_on(cx));
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(go_on(cx));
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(go_on(cx));
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
