//! A body on its way through, whichever protocol it came by.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

/// The bytes of a request or of a response; relayed frame by frame, never collected.
#[derive(Debug)]
pub enum Body {
    Empty,
    Full(Bytes),
    Http1(Incoming),
    Http2(h2::RecvStream),
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
            Self::Http2(stream) => poll_h2(stream, cx),
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

/// Gives the window back as bytes are taken: the next hop takes a frame only when it has room for it, so a slow
/// reader at one end stops the sender at the other.
fn poll_h2(
    stream: &mut h2::RecvStream,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    // The end may come as an empty DATA frame; it is not worth one of ours.
    loop {
        match ready!(stream.poll_data(cx)) {
            Some(Ok(data)) => {
                if data.is_empty() && !stream.is_end_stream() {
                    continue;
                }
                // Fails only when the stream is gone, which the next poll says.
                let _ = stream.flow_control().release_capacity(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => break,
        }
    }
    let trailers: Option<HeaderMap> = ready!(stream.poll_trailers(cx))?;
    Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))))
}
