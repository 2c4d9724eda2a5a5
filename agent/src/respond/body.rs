//! A body on its way through, whichever protocol it came by.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{BodyError, BrokenOff, http2_body::Http2Body};

/// The bytes of a request or of a response; relayed frame by frame, never collected.
///
/// ```text
/// Http1, Http2 ──error──▶ Broken (each further poll fails: an error is never followed by an end)
///       └────────end────▶ None from then on
/// ```
#[derive(Debug)]
pub enum Body {
    Empty,
    Full(Bytes),
    Http1(Incoming),
    Http2(Http2Body),
    /// It broke off before its end.
    Broken(BrokenOff),
}

impl Body {
    /// The stream of an HTTP/2 message, which may have none.
    pub fn of_stream(stream: h2::RecvStream) -> Self {
        if stream.is_end_stream() {
            Self::Empty
        } else {
            Self::Http2(Http2Body::new(stream))
        }
    }

    /// Called while the next hop has no room: see [`Http2Body::take_over`].
    pub fn take_over(&mut self, cx: &mut Context<'_>) {
        if let Self::Http2(body) = self {
            body.take_over(cx);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(if bytes.is_empty() {
                    None
                } else {
                    Some(Ok(Frame::data(bytes)))
                })
            }
            Self::Http1(incoming) => Pin::new(incoming).poll_frame(cx).map_err(BodyError::from),
            Self::Http2(body) => body.poll_frame(cx),
            Self::Broken(broken) => return Poll::Ready(Some(Err(BodyError::Before(*broken)))),
        };
        if let Poll::Ready(Some(Err(error))) = &frame {
            // hyper's body gives its error once and then ends.
            *this = Self::Broken(error.broken_off());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
            Self::Broken(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(_) | Self::Broken(_) => SizeHint::default(),
        }
    }
}
