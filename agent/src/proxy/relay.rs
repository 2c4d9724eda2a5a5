//! Two connections that are relayed: each ends as the other one did, a FIN as a FIN and a reset as a reset.
//!
//! ```text
//!              ┌ FIN ──▶ FIN to the other; its own direction goes on, as TCP lets it
//! one of them ─┤
//!              └ reset, or given up by the kernel ──▶ what came before it, then a reset to the other
//! ```
//!
//! Both sockets are set to end by a reset from the beginning, and to end by a FIN only once both directions have had
//! theirs. So whatever cuts a relay off, the death of this process too, tells nobody that the other side was done.
//!
//! A relay holds memory only of what one side has sent and the other has no room for. Where its pod may have no more, such
//! bytes stay in the kernel: they are looked at, written, and taken out as far as they have been.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use crate::{
    share::{Holding, Local, Share, go_on},
    transport::Socket,
};

/// Bytes in hand in each direction.
const BUFFER: usize = 16 * 1024;
/// How long the side that is to be reset may take to read what came before.
const LAST_WORDS: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

thread_local! {
    /// Read into, and written from at once: only what finds no room is kept.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// One of the two connections, with what has been read of it already.
#[derive(Debug)]
pub(super) struct End {
    pub(super) first: Bytes,
    pub(super) socket: Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Caller,
    Endpoint,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Caller => Self::Endpoint,
            Self::Endpoint => Self::Caller,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Both sides have said that they were done.
    Orderly,
    /// This side broke off.
    By(Side),
}

/// Relays until both directions have ended or one side has broken off. What is in hand is held of `share`. `passed` is
/// told of bytes by the side that sent them.
pub(super) async fn relay(
    caller: End,
    endpoint: End,
    share: &Rc<Local>,
    mut passed: impl FnMut(Side, usize),
) -> Ended {
    let (near, far) = (&caller.socket, &endpoint.socket);
    near.pulse().end_by_reset(true);
    far.pulse().end_by_reset(true);
    let mut up = OneWay::new(Side::Caller, caller.first, share);
    let mut down = OneWay::new(Side::Endpoint, endpoint.first, share);
    let broke = {
        let (mut near_broke, mut far_broke) = (pin!(near.broken()), pin!(far.broken()));
        let mut broken = [false; 2];
        poll_fn(|cx| {
            broken[0] = broken[0] || near_broke.as_mut().poll(cx).is_ready();
            broken[1] = broken[1] || far_broke.as_mut().poll(cx).is_ready();
            let ways = [(&mut up, near, far), (&mut down, far, near)];
            for ((way, from, to), broken) in ways.into_iter().zip(broken) {
                if let Poll::Ready(Err(side)) = way.poll(from, to, broken, &mut passed, cx) {
                    return Poll::Ready(Some(side));
                }
                // Nobody reads it any more, or for now, and so nobody else finds out.
                if broken && way.rests() {
                    return Poll::Ready(Some(way.from));
                }
            }
            match up.is_done && down.is_done {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    };
    match broke {
        None => {
            near.pulse().end_by_reset(false);
            far.pulse().end_by_reset(false);
            Ended::Orderly
        }
        Some(Side::Caller) => {
            last_words(&mut up, near, far, &mut passed).await;
            Ended::By(Side::Caller)
        }
        Some(Side::Endpoint) => {
            last_words(&mut down, far, near, &mut passed).await;
            Ended::By(Side::Endpoint)
        }
    }
}

/// Brings what the side that broke off had sent to the other, which is reset after that: a reset takes back what has not
/// been sent.
async fn last_words(way: &mut OneWay<'_>, from: &Socket, to: &Socket, passed: &mut impl FnMut(Side, usize)) {
    let end = Instant::now() + LAST_WORDS;
    loop {
        let moved = poll_fn(|cx| Poll::Ready(way.pump(from, to, passed, cx))).await;
        let other_broke = matches!(moved, Poll::Ready(Err(side)) if side == way.from.other());
        let is_told = !way.has_no_room() && !way.waits_for_its_turn && to.unsent() == 0;
        if other_broke || is_told || Instant::now() >= end {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// One direction.
#[derive(Debug)]
struct OneWay<'a> {
    from: Side,
    share: &'a Rc<Local>,
    /// Read, and not written yet.
    pending: Bytes,
    /// What pays for `pending`. The first bytes are paid for by who has read them.
    paid: Option<Holding>,
    /// Something is left in the kernel, since the other side has no room for it.
    is_left: bool,
    /// All that there was has been read.
    has_ended: bool,
    /// And the other side has been told.
    is_done: bool,
    /// There may be more to read: others are to run first.
    waits_for_its_turn: bool,
}

impl<'a> OneWay<'a> {
    fn new(from: Side, first: Bytes, share: &'a Rc<Local>) -> Self {
        Self {
            from,
            share,
            pending: first,
            paid: None,
            is_left: false,
            has_ended: false,
            is_done: false,
            waits_for_its_turn: false,
        }
    }

    /// Nothing is read, since all has been or since there is no room for more.
    fn rests(&self) -> bool {
        self.has_ended || self.has_no_room()
    }

    fn has_no_room(&self) -> bool {
        self.is_left || !self.pending.is_empty()
    }

    /// Ready when the direction is done, or with the side that broke.
    fn poll(
        &mut self,
        from: &Socket,
        to: &Socket,
        broken: bool,
        passed: &mut impl FnMut(Side, usize),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Side>> {
        if self.is_done {
            return Poll::Ready(Ok(()));
        }
        ready!(self.pump(from, to, passed, cx))?;
        // An error is told once, and after that the connection seems to have ended.
        if broken {
            return Poll::Ready(Err(self.from));
        }
        to.end_sending().map_err(|_| self.from.other())?;
        self.is_done = true;
        Poll::Ready(Ok(()))
    }

    /// Moves bytes. Ready when the end has been read and everything before it written.
    fn pump(
        &mut self,
        from: &Socket,
        to: &Socket,
        passed: &mut impl FnMut(Side, usize),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Side>> {
        loop {
            while !self.pending.is_empty() {
                let count =
                    ready!(written(to.poll_give(cx, &self.pending))).map_err(|_| self.from.other())?;
                self.pending.advance(count);
                passed(self.from, count);
            }
            if self.has_ended {
                return Poll::Ready(Ok(()));
            }
            self.waits_for_its_turn = go_on(cx).is_pending();
            if self.waits_for_its_turn {
                return Poll::Pending;
            }
            // One that is empty may still hold the memory of what it was.
            self.pending = Bytes::new();
            self.paid = None;
            ready!(SCRATCH.with_borrow_mut(|scratch| self.read_and_write(from, to, passed, scratch, cx)))?;
        }
    }

    /// Ready when there may be more to read, or nothing more will come.
    fn read_and_write(
        &mut self,
        from: &Socket,
        to: &Socket,
        passed: &mut impl FnMut(Side, usize),
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Side>> {
        self.is_left = false;
        let paid = self.share.take_spare(Share::Memory, BUFFER as u64);
        let read = match paid {
            Some(_) => from.poll_take(cx, scratch),
            None => from.poll_look(cx, scratch),
        };
        let count = ready!(read).map_err(|_| self.from)?;
        self.has_ended = count == 0;
        let mut rest = &scratch[..count];
        while !rest.is_empty() {
            let Poll::Ready(written) = written(to.poll_give(cx, rest)) else {
                break;
            };
            let written = written.map_err(|_| self.from.other())?;
            rest = &rest[written..];
            passed(self.from, written);
        }
        match paid {
            Some(paid) if !rest.is_empty() => {
                self.pending = Bytes::copy_from_slice(rest);
                self.paid = Some(paid);
            }
            Some(_) => {}
            None => {
                from.take_out(count - rest.len()).map_err(|_| self.from)?;
                self.is_left = !rest.is_empty();
                if self.is_left {
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A write of nothing is no progress, and would be none for ever.
fn written(result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    match result {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        other => other,
    }
}
