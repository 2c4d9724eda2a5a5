//! Bodies that the server sends.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Error>;

pub(crate) fn any<B>(body: B) -> AnyBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    body.map_err(Into::into).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// Nothing ever comes, and no end.
pub(crate) struct Never;

impl Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// Byte `i` of [`Pattern`] is byte `i mod 65536` of this block, whose byte `j` is `(31·j + 7·(j >> 8)) mod 256`.
static BLOCK: LazyLock<Bytes> = LazyLock::new(|| {
    (0..65536_u32)
        .map(|j| (31 * j + 7 * (j >> 8)).to_le_bytes()[0])
        .collect::<Vec<u8>>()
        .into()
});

/// So many bytes that everybody can compute.
pub(crate) struct Pattern {
    left: u64,
    announced: Announced,
}

#[derive(PartialEq, Eq)]
pub(crate) enum Announced {
    /// The length is known beforehand: `content-length`.
    Length,
    /// It is not: chunked in HTTP/1.1.
    Nothing,
}

impl Pattern {
    pub(crate) fn new(len: u64, announced: Announced) -> Self {
        Self { left: len, announced }
    }

    /// The next bytes; all blocks but the last are whole.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let block = &*BLOCK;
        let len = usize::try_from(self.left).map_or(block.len(), |left| left.min(block.len()));
        self.left -= len as u64;
        (len > 0).then(|| block.slice(..len))
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(self.next().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        match self.announced {
            Announced::Length => SizeHint::with_exact(self.left),
            Announced::Nothing => SizeHint::default(),
        }
    }
}

/// One message and its trailers, without a task or a channel behind it.
pub(crate) struct Message {
    pub(crate) data: Option<Bytes>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Body for Message {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }
}
