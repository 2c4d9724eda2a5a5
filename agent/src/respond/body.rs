//! A body on its way through, whichever protocol it came by.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::http2_body::Http2Body;

/// The bytes of a request or of a response; relayed frame by frame, never collected.
#[derive(Debug)]
pub enum Body {
    Empty,
    Full(Bytes),
    Http1(Incoming),
    Http2(Http2Body),
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("{0}")]
    Http1(#[from] hyper::Error),
    #[error("{0}")]
    Http2(#[from] h2::Error),
    #[error("it did not end in time")]
    Timeout,
}

impl BodyError {
    /// The reset code of the side that broke off, to be passed on; `None` when it was not a reset.
    pub fn reset(&self) -> Option<h2::Reason> {
        match self {
            Self::Http1(_) | Self::Timeout => None,
            Self::Http2(error) if error.is_reset() => error.reason(),
            Self::Http2(_) => None,
        }
    }
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
        match this {
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(_) => SizeHint::default(),
        }
    }
}
