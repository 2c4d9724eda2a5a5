//! How a body ends before its end.

/// How a body broke off, for as long as somebody may ask for more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenOff {
    /// The code of the stream's reset, where it was one.
    pub reset: Option<h2::Reason>,
    pub cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The sender went away, reset the stream, or did not end in time.
    Gone,
    /// What the sender wrote is not a body of HTTP.
    Malformed,
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
    #[error("it had broken off before")]
    Before(BrokenOff),
}

impl BodyError {
    /// The reset code of the side that broke off, to be passed on; `None` when it was not a reset.
    pub fn reset(&self) -> Option<h2::Reason> {
        match self {
            Self::Http1(_) | Self::Timeout => None,
            Self::Http2(error) if error.is_reset() => error.reason(),
            Self::Http2(_) => None,
            Self::Before(broken) => broken.reset,
        }
    }

    /// What is left of the error once it has been given.
    pub fn broken_off(&self) -> BrokenOff {
        let cause = match self {
            Self::Before(broken) => return *broken,
            Self::Http1(error) if is_malformed(error) => Cause::Malformed,
            Self::Http1(_) | Self::Http2(_) | Self::Timeout => Cause::Gone,
        };
        BrokenOff {
            reset: self.reset(),
            cause,
        }
    }
}

/// hyper gives errors of the framing as IO errors: a chunk size that is none is `InvalidInput`, a connection that ends
/// within a body `UnexpectedEof`.
fn is_malformed(error: &hyper::Error) -> bool {
    use std::{error::Error as _, io};
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    io.is_some_and(|io| {
        matches!(
            io.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        )
    })
}
