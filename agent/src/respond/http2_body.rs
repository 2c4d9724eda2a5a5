//! The body of an HTTP/2 message.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

use super::BodyError;

/// Frames below this are copied together while they wait: a stream of tiny messages costs its bytes and not its
/// frames.
const SMALL: usize = 4096;

/// Gives the window back as bytes are taken: the next hop takes a frame only when it has room for it, so a slow
/// reader at one end stops the sender at the other.
#[derive(Debug)]
pub struct Http2Body {
    stream: h2::RecvStream,
    /// Taken over from the stream while the next hop had no room. The window keeps them few.
    waiting: Waiting,
}

impl Http2Body {
    pub fn new(stream: h2::RecvStream) -> Self {
        Self {
            stream,
            waiting: Waiting::default(),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.waiting.is_empty() && self.stream.is_end_stream()
    }

    /// Takes what has come off the connection while the next hop has no room, and keeps the window closed by as much.
    /// h2 counts small frames that nobody takes against the connection, and ends it, with all its streams, when they
    /// are many.
    pub(super) fn take_over(&mut self, cx: &mut Context<'_>) {
        // An error comes again when the body is read.
        while let Poll::Ready(Some(Ok(data))) = self.stream.poll_data(cx) {
            self.waiting.push(data);
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.waiting.pop() {
            return Poll::Ready(Some(Ok(self.frame(data))));
        }
        // The end may come as an empty DATA frame; it is not worth one of ours.
        loop {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() && !self.stream.is_end_stream() => {}
                Some(Ok(data)) => return Poll::Ready(Some(Ok(self.frame(data)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => break,
            }
        }
        let trailers: Option<HeaderMap> = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))))
    }

    fn frame(&mut self, data: Bytes) -> Frame<Bytes> {
        // Fails only when the stream is gone, which the next poll says.
        let _ = self.stream.flow_control().release_capacity(data.len());
        Frame::data(data)
    }
}

/// Frames in their order.
#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    /// Small ones, after `frames`.
    tail: BytesMut,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.tail.is_empty()
    }

    fn push(&mut self, data: Bytes) {
        if data.len() < SMALL {
            self.tail.extend_from_slice(&data);
        } else {
            if !self.tail.is_empty() {
                self.frames.push_back(self.tail.split().freeze());
            }
            self.frames.push_back(data);
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        if let Some(first) = self.frames.pop_front() {
            return Some(first);
        }
        (!self.tail.is_empty()).then(|| self.tail.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_waits_keeps_its_order(sizes in prop::collection::vec(0usize..9000, 0..40)) {
            let mut waiting = Waiting::default();
            let mut all = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let data = vec![u8::try_from(number).unwrap(); *size];
                all.extend_from_slice(&data);
                waiting.push(data.into());
            }
            prop_assert_eq!(waiting.is_empty(), all.is_empty());
            let mut given = Vec::new();
            while let Some(data) = waiting.pop() {
                prop_assert!(!data.is_empty());
                given.extend_from_slice(&data);
            }
            prop_assert_eq!(given, all);
        }
    }
}
