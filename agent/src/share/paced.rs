//! A stream whose task stops when it has run for long enough: hyper, h2 and a relay read and write for as long as a
//! socket lets them, and meanwhile nobody else has a turn.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock;

/// How long one task may go on reading and writing, in nanoseconds.
const LONG_ENOUGH: u64 = 50_000;
/// So many reads and writes take less than that; the clock is not asked before.
const FREE: u32 = 3;

thread_local! {
    /// When the task that runs is to stop; 0 outside of turns.
    static UNTIL: Cell<u64> = const { Cell::new(0) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// A task begins to run at `now`.
pub(super) fn begin(now: u64) {
    UNTIL.set(now + LONG_ENOUGH);
    CALLS.set(0);
}

/// What runs next is nobody's turn, and may go on.
pub(super) fn end() {
    UNTIL.set(0);
}

/// `Pending`, and woken at once, when the task has run for long enough.
fn go_on(cx: &Context<'_>) -> Poll<()> {
    let calls = CALLS.get() + 1;
    CALLS.set(calls);
    if calls <= FREE || UNTIL.get() == 0 || clock::now() < UNTIL.get() {
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
