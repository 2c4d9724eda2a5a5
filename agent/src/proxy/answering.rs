//! What a caller's HTTP/1.1 connection does, for who looks after it. hyper does not ask for the rest of an answer
//! while the caller reads nothing, so the answer's deadlines are looked at from outside.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{deadline::Deadlines, response_body::ResponseBody};
use crate::{
    record::Flag,
    respond::BodyError,
    transport::{Doing, Pulse, Situation},
};

#[derive(Debug)]
pub(super) struct Answering {
    pulse: Arc<Pulse>,
    begun: Cell<u64>,
    ended: Cell<u64>,
    /// Bytes that had come when the last answer ended. More are the beginning of a head.
    read: Cell<u64>,
    deadlines: Cell<Option<Deadlines>>,
    /// Why the answer under way does not go on.
    late: Cell<Option<Flag>>,
    upgraded: Cell<bool>,
}

impl Answering {
    pub(super) fn new(pulse: Arc<Pulse>) -> Self {
        Self {
            pulse,
            begun: Cell::new(0),
            ended: Cell::new(0),
            read: Cell::new(0),
            deadlines: Cell::new(None),
            late: Cell::new(None),
            upgraded: Cell::new(false),
        }
    }

    /// A request's head is here.
    pub(super) fn begin(self: &Rc<Self>) -> Underway {
        self.begun.set(self.begun.get() + 1);
        Underway(self.clone())
    }

    pub(super) fn situation(&self) -> Situation {
        // What it speaks was read off the first bytes.
        let doing = if self.begun != self.ended {
            Doing::Serving
        } else if self.begun.get() == 0 || self.read.get() != self.pulse.read() {
            Doing::Head
        } else {
            Doing::Idle
        };
        Situation {
            doing,
            generation: self.begun.get(),
        }
    }

    /// The caller has read nothing for `unread`: whether the answer is over for that.
    pub(super) fn is_late(&self, unread: Duration, now: Instant) -> bool {
        let Some(deadlines) = self.deadlines.get() else {
            return false;
        };
        if deadlines.whole.is_some_and(|whole| whole <= now) {
            self.late.set(Some(Flag::UpstreamTimeout));
        } else if deadlines.idle.is_some_and(|idle| idle <= unread) {
            self.late.set(Some(Flag::StreamIdleTimeout));
        }
        self.late.get().is_some()
    }

    /// The connection is somebody else's from here on.
    pub(super) fn upgrade(&self) {
        self.upgraded.set(true);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.get()
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Underway(Rc<Answering>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.ended.set(self.0.ended.get() + 1);
        self.0.read.set(self.0.pulse.read());
        self.0.deadlines.set(None);
    }
}

/// An answer and the connection that it goes out on.
#[derive(Debug)]
pub(super) struct Answer {
    body: ResponseBody,
    underway: Underway,
}

impl Answer {
    pub(super) fn new(body: ResponseBody, underway: Underway) -> Self {
        underway.0.deadlines.set(body.deadlines());
        Self { body, underway }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(flag) = self.underway.0.late.take() {
            self.body.expire(flag);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
