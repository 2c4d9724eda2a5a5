//! A request body that can be sent again as long as it is short.
//!
//! Chunks are kept by reference count as they pass. A body that outgrows the bound, or whose answer has begun,
//! is no longer kept.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use smallvec::SmallVec;

use super::Sent;
use crate::{
    respond::{Body, BodyError, BrokenOff},
    share::{self, Holding, Local, Share},
};

/// The body of one request, over all its attempts.
///
/// ```text
/// Open ──last frame──▶ Ended       (an attempt may still be given what is kept)
///   └─────error──────▶ Broken      (each attempt that runs fails, and none begins)
/// ```
#[derive(Debug)]
pub struct RequestBody(Rc<RefCell<Shared>>);

#[derive(Debug)]
struct Shared {
    source: Body,
    share: Rc<Local>,
    kept: Kept,
    trailers: Option<HeaderMap>,
    end: End,
    received: u64,
    progress: Progress,
    /// The attempt that may read has been given everything.
    given: Sent,
    /// Which attempt may read. An earlier one that still runs somewhere finds that it may not.
    attempt: u32,
}

/// How a request comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// When the last of it came; its end, once that is here.
    pub moved: Instant,
    /// Its caller is waited for. Otherwise the endpoint is, which may be to take what has come, or to answer.
    pub waits: bool,
}

/// What is known of the body's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// More may come.
    Open,
    /// The source has given its last frame.
    Ended,
    /// The source failed: what came is a part, and stays one.
    Broken(BrokenOff),
}

#[derive(Debug)]
enum Kept {
    Chunks {
        chunks: SmallVec<[Bytes; 2]>,
        bytes: usize,
        bound: usize,
        /// What the copy takes up of the pod's share.
        paid: Option<Holding>,
    },
    TooLong,
}

impl RequestBody {
    /// Keeps up to `bound` bytes, for which `share` pays.
    pub fn new(source: Body, bound: usize, share: &Rc<Local>) -> Self {
        let ended = source.is_end_stream();
        let kept = Kept::Chunks {
            chunks: SmallVec::new(),
            bytes: 0,
            bound,
            paid: None,
        };
        Self(Rc::new(RefCell::new(Shared {
            source,
            share: share.clone(),
            kept,
            trailers: None,
            end: if ended { End::Ended } else { End::Open },
            received: 0,
            progress: Progress {
                moved: share::now().into_std(),
                waits: false,
            },
            given: if ended { Sent::Whole } else { Sent::Part },
            attempt: 0,
        })))
    }

    /// The body from its start, for one attempt. Earlier attempts' bodies end with an error from now on.
    /// `None` when the start is no longer kept, or the body has broken off.
    pub fn attempt(&self) -> Option<AttemptBody> {
        let mut shared = self.0.borrow_mut();
        let gone = shared.attempt > 0 && matches!(shared.kept, Kept::TooLong);
        if gone || matches!(shared.end, End::Broken(_)) {
            return None;
        }
        shared.attempt += 1;
        let nothing = shared.end == End::Ended && shared.received == 0 && shared.trailers.is_none();
        shared.given = if nothing { Sent::Whole } else { Sent::Part };
        Some(AttemptBody {
            attempt: shared.attempt,
            next: 0,
            trailers_given: false,
            shared: self.0.clone(),
        })
    }

    /// What has not been read yet, without what is kept; `None` when nothing more comes. Ends earlier attempts.
    pub fn rest(&self) -> Option<AttemptBody> {
        let mut shared = self.0.borrow_mut();
        if shared.end != End::Open {
            return None;
        }
        shared.kept = Kept::TooLong;
        shared.attempt += 1;
        Some(AttemptBody {
            attempt: shared.attempt,
            next: 0,
            trailers_given: false,
            shared: self.0.clone(),
        })
    }

    /// Whether all of it has come, as far as anybody has asked.
    pub fn has_ended(&self) -> bool {
        self.0.borrow().end == End::Ended
    }

    /// Whether another attempt could be given the body from its start.
    pub fn can_be_sent_again(&self) -> bool {
        let shared = self.0.borrow();
        matches!(shared.kept, Kept::Chunks { .. }) && !matches!(shared.end, End::Broken(_))
    }

    /// How the caller broke the body off, if it has. The exchange is over then, and no endpoint is to blame.
    pub fn broken_off(&self) -> Option<BrokenOff> {
        match self.0.borrow().end {
            End::Broken(broken) => Some(broken),
            End::Open | End::Ended => None,
        }
    }

    /// The body, when all of it has come and is kept.
    pub fn whole(&self) -> Option<Bytes> {
        let shared = self.0.borrow();
        match &shared.kept {
            Kept::Chunks { chunks, .. } if shared.end == End::Ended => Some(match chunks.as_slice() {
                [] => Bytes::new(),
                [one] => one.clone(),
                several => Bytes::from(several.concat()),
            }),
            Kept::Chunks { .. } | Kept::TooLong => None,
        }
    }

    /// No attempt will follow: what was kept is let go.
    pub fn keep_no_longer(&self) {
        self.0.borrow_mut().kept = Kept::TooLong;
    }

    /// How much of the body the newest attempt has taken.
    pub fn sent(&self) -> Sent {
        self.0.borrow().given
    }

    /// How the request comes in.
    pub fn progress(&self) -> Progress {
        self.0.borrow().progress
    }

    /// Bytes that came from the caller.
    pub fn received(&self) -> u64 {
        self.0.borrow().received
    }
}

/// The body as one attempt reads it.
#[derive(Debug)]
pub struct AttemptBody {
    shared: Rc<RefCell<Shared>>,
    attempt: u32,
    /// The next kept chunk to give.
    next: usize,
    trailers_given: bool,
}

impl AttemptBody {
    /// Called while the endpoint has no room for what has been read.
    pub fn take_over(&self, cx: &mut Context<'_>) {
        let mut shared = self.shared.borrow_mut();
        if shared.attempt == self.attempt {
            shared.source.take_over(cx);
        }
    }
}

impl http_body::Body for AttemptBody {
    type Data = Bytes;
    type Error = AttemptError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AttemptError>>> {
        let this = self.get_mut();
        let mut shared = this.shared.borrow_mut();
        if shared.attempt != this.attempt {
            return Poll::Ready(Some(Err(AttemptError::Superseded)));
        }
        if let End::Broken(broken) = shared.end {
            return Poll::Ready(Some(Err(BodyError::Before(broken).into())));
        }
        if let Kept::Chunks { chunks, .. } = &shared.kept
            && let Some(chunk) = chunks.get(this.next)
        {
            let chunk = chunk.clone();
            let last = this.next + 1 == chunks.len();
            this.next += 1;
            if last && shared.end == End::Ended && shared.trailers.is_none() {
                shared.given = Sent::Whole;
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if shared.end == End::Open {
            match shared.poll_source(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        shared.received += data.len() as u64;
                        shared.keep(&data);
                        if shared.source.is_end_stream() {
                            shared.end = End::Ended;
                            shared.given = Sent::Whole;
                        }
                        this.next += 1;
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(frame) => {
                        shared.trailers = frame.into_trailers().ok();
                        shared.end = End::Ended;
                    }
                },
                Poll::Ready(Some(Err(error))) => {
                    shared.end = End::Broken(error.broken_off());
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => shared.end = End::Ended,
            }
        }
        shared.given = Sent::Whole;
        if this.trailers_given {
            return Poll::Ready(None);
        }
        this.trailers_given = true;
        Poll::Ready(shared.trailers.clone().map(|t| Ok(Frame::trailers(t))))
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        let replayed = match &shared.kept {
            Kept::Chunks { chunks, .. } => self.next >= chunks.len(),
            Kept::TooLong => true,
        };
        replayed && shared.end == End::Ended && (shared.trailers.is_none() || self.trailers_given)
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        let kept = match &shared.kept {
            Kept::Chunks { chunks, .. } => chunks.iter().skip(self.next).map(|c| c.len() as u64).sum(),
            Kept::TooLong => 0u64,
        };
        let rest = shared.source.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl Shared {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.source).poll_frame(cx);
        self.progress.waits = frame.is_pending();
        if frame.is_ready() {
            self.progress.moved = share::now().into_std();
        }
        frame
    }

    fn keep(&mut self, data: &Bytes) {
        if let Kept::Chunks {
            chunks,
            bytes,
            bound,
            paid,
        } = &mut self.kept
        {
            if *bytes + data.len() <= *bound && pay(&self.share, paid, data.len() as u64) {
                *bytes += data.len();
                chunks.push(data.clone());
            } else {
                self.kept = Kept::TooLong;
            }
        }
    }
}

/// Pays for `more` bytes of a copy; false when the pod may not keep them.
fn pay(share: &Rc<Local>, paid: &mut Option<Holding>, more: u64) -> bool {
    match paid {
        Some(paid) => paid.grow(more),
        None => {
            *paid = share.take(Share::Memory, more);
            paid.is_some()
        }
    }
}

/// Why an attempt's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The caller's side failed.
    #[error("the caller's body broke off: {0}")]
    Source(#[from] BodyError),
    #[error("a later attempt has taken over")]
    Superseded,
}

impl AttemptError {
    /// What a reset of the endpoint's stream should say.
    pub fn reset(&self) -> h2::Reason {
        match self {
            Self::Source(error) => error.reset().unwrap_or(h2::Reason::CANCEL),
            Self::Superseded => h2::Reason::CANCEL,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::share::unbounded;

    async fn read(body: AttemptBody) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_short_body_can_be_sent_again() {
        let body = RequestBody::new(Body::Full("hello".into()), 64, &unbounded());
        for _ in 0..3 {
            assert_eq!(read(body.attempt().unwrap()).await, "hello");
        }
        assert_eq!(body.received(), 5, "it came once");
    }

    #[tokio::test]
    async fn a_body_over_the_bound_is_sent_once() {
        let body = RequestBody::new(Body::Full("hello".into()), 4, &unbounded());
        assert_eq!(read(body.attempt().unwrap()).await, "hello");
        assert!(body.attempt().is_none());
    }

    #[tokio::test]
    async fn an_earlier_attempt_gets_nothing_more() {
        let body = RequestBody::new(Body::Full("hello".into()), 64, &unbounded());
        let mut first = body.attempt().unwrap();
        assert_eq!(read(body.attempt().unwrap()).await, "hello");
        assert!(matches!(first.frame().await, Some(Err(AttemptError::Superseded))));
    }

    #[tokio::test]
    async fn nothing_is_kept_once_the_answer_has_begun() {
        let body = RequestBody::new(Body::Full("hello".into()), 64, &unbounded());
        let attempt = body.attempt().unwrap();
        body.keep_no_longer();
        assert_eq!(read(attempt).await, "hello");
        assert!(body.attempt().is_none());
    }
}
