//! A body into an HTTP/2 stream, at the pace that the stream's window allows.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::{
    pool::Upload,
    respond::BodyError,
    retry::{AttemptBody, AttemptError},
};

/// A body that knows that it waits.
pub(super) trait Source: Body<Data = Bytes, Error: BrokeOff> + Unpin {
    /// Polled while the receiving side has no room for what has been read. `Ready` when it has waited for too long.
    fn poll_held_up(&mut self, cx: &mut Context<'_>) -> Poll<Self::Error>;
}

impl Source for AttemptBody {
    fn poll_held_up(&mut self, cx: &mut Context<'_>) -> Poll<AttemptError> {
        self.take_over(cx);
        Poll::Pending
    }
}

/// What to tell the receiving side when a body breaks off.
pub(super) trait BrokeOff {
    fn reason(&self) -> Reason;
}

impl BrokeOff for AttemptError {
    fn reason(&self) -> Reason {
        self.reset()
    }
}

impl BrokeOff for BodyError {
    /// The endpoint's own reset is passed on; a lost connection is nobody's protocol error.
    fn reason(&self) -> Reason {
        self.reset().unwrap_or(Reason::INTERNAL_ERROR)
    }
}

/// Moves frames from `body` to `stream`, one in hand at a time: no window, no reading, so the pressure goes on to
/// the sender. Resolves when the stream has been ended, by either side.
#[derive(Debug)]
pub(super) struct Pump<B> {
    body: B,
    stream: SendStream<Bytes>,
    in_hand: Bytes,
    /// Tells the connection to the endpoint whether the body moves.
    upload: Option<Upload>,
    /// Nothing follows what is in hand.
    last: Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    No,
    Yes,
}

/// The stream or the body ended before its time. There is nobody left to tell.
#[derive(Debug)]
pub(super) struct Broken;

impl Pump<AttemptBody> {
    /// To an endpoint.
    pub(super) fn up(body: AttemptBody, stream: SendStream<Bytes>, upload: Upload) -> Self {
        Self {
            upload: Some(upload),
            ..Self::new(body, stream)
        }
    }
}

impl<B: Source> Pump<B> {
    pub(super) fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self {
            body,
            stream,
            in_hand: Bytes::new(),
            upload: None,
            last: Last::No,
        }
    }

    /// Sends as much of what is in hand as the window takes; `Ready` when all of it is sent.
    fn poll_in_hand(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while !self.in_hand.is_empty() {
            self.stream.reserve_capacity(self.in_hand.len());
            let room = self.stream.capacity();
            if room == 0 {
                match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Broken)),
                    Poll::Pending => {
                        if let Some(upload) = &mut self.upload {
                            upload.waits();
                        }
                        let late = ready!(self.body.poll_held_up(cx));
                        self.stream.send_reset(late.reason());
                        return Poll::Ready(Err(Broken));
                    }
                }
            }
            let part = self.in_hand.split_to(room.min(self.in_hand.len()));
            if let Some(upload) = &mut self.upload {
                upload.moves(part.len());
            }
            let end = self.last == Last::Yes && self.in_hand.is_empty();
            self.stream.send_data(part, end).map_err(|_| Broken)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<B: Source> Future for Pump<B> {
    type Output = Result<(), Broken>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if !this.in_hand.is_empty() {
                ready!(this.poll_in_hand(cx))?;
                if this.last == Last::Yes {
                    return Poll::Ready(Ok(()));
                }
            }
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                // Whoever waits for a body must still hear that nobody wants it any more.
                Poll::Pending => return this.stream.poll_reset(cx).map(|_| Err(Broken)),
            };
            let sent = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() && !this.body.is_end_stream() => continue,
                    Ok(data) => {
                        this.last = if this.body.is_end_stream() {
                            Last::Yes
                        } else {
                            Last::No
                        };
                        if data.is_empty() {
                            this.stream.send_data(data, true)
                        } else {
                            this.in_hand = data;
                            continue;
                        }
                    }
                    Err(frame) => this
                        .stream
                        .send_trailers(frame.into_trailers().unwrap_or_default()),
                },
                None => this.stream.send_data(Bytes::new(), true),
                Some(Err(error)) => {
                    this.stream.send_reset(error.reason());
                    return Poll::Ready(Err(Broken));
                }
            };
            return Poll::Ready(sent.map_err(|_| Broken));
        }
    }
}
