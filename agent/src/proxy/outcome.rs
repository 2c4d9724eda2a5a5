//! What attempts come to.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, response};
use http_body::Frame;

use super::{forward::Lease, judged::Judged};
use crate::{
    balance::Permit,
    respond::{Body, LocalError},
    retry::{Failure, RequestBody},
};

/// A response that goes to the caller.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: response::Parts,
    /// A frame that was read while the headers were held.
    pub(super) first: Option<Frame<Bytes>>,
    pub(super) body: Body,
    pub(super) lease: Lease,
    pub(super) judged: Judged,
}

/// What came of one attempt.
pub(super) enum Outcome {
    Response(Box<(Response<Body>, Lease, Judged)>),
    Failed(Failure),
}

/// What follows from it.
pub(super) enum Next {
    Answer(Box<Answer>),
    /// After so long.
    Again(Duration),
}

impl Next {
    pub(super) fn answer(
        head: response::Parts,
        first: Option<Frame<Bytes>>,
        body: Body,
        lease: Lease,
        judged: Judged,
    ) -> Self {
        Self::Answer(Box::new(Answer {
            head,
            first,
            body,
            lease,
            judged,
        }))
    }
}

/// Whether the policy and the body allow another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chance {
    Left,
    Gone,
}

/// What a request takes up that has become a connection of another protocol: its place in the bounds and at its
/// endpoint, until that connection ends.
#[derive(Debug)]
pub(super) struct Upgraded {
    _permit: Permit,
    _judged: Judged,
}

impl Upgraded {
    pub(super) fn new(permit: Permit, judged: Judged) -> Self {
        Self {
            _permit: permit,
            _judged: judged,
        }
    }
}

/// What came of holding the headers.
pub(super) enum Held {
    /// To the caller, with the frame that was read.
    Go(Option<Frame<Bytes>>),
    Again(Duration),
}

/// The end of an exchange whose caller has not sent its request to the end.
pub(super) fn broken_off(body: &RequestBody) -> Option<LocalError> {
    let cause = body.broken_off()?.cause;
    Some(LocalError::RequestBrokeOff { cause })
}
