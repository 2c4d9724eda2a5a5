//! A response on its way to the caller. When it ends, in whichever way, the exchange is recorded, the endpoint's
//! load falls and the connection is given back.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::forward::Lease;
use crate::{
    balance::InFlight,
    record::{Exchange, Flag},
    respond::{Body, BodyError},
    retry::RequestBody,
};

#[derive(Debug)]
pub(super) struct ResponseBody {
    body: Body,
    /// `None` once the response has ended.
    running: Option<Box<Running>>,
}

/// What a response holds until it ends. Dropped before that, the caller has gone: the exchange says so, and the
/// connection is closed or its stream reset.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) exchange: Box<Exchange>,
    pub(super) request: RequestBody,
    pub(super) lease: Option<Lease>,
    #[expect(dead_code, reason = "dropped, the endpoint has one request less")]
    pub(super) in_flight: Option<InFlight>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.exchange.received(self.request.received());
    }
}

impl ResponseBody {
    pub(super) fn new(body: Body, running: Box<Running>) -> Self {
        let mut this = Self {
            body,
            running: Some(running),
        };
        if this.body.is_end_stream() {
            this.complete();
        }
        this
    }

    fn complete(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.exchange.complete();
            if let Some(lease) = running.lease.take() {
                lease.give_back();
            }
        }
    }

    fn broke_off(&mut self, error: &BodyError) {
        if let Some(mut running) = self.running.take() {
            let reset = error.reset().is_some();
            let flag = if reset {
                Flag::UpstreamRemoteReset
            } else {
                Flag::UpstreamConnectionTermination
            };
            running.exchange.failed(flag);
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(running) = &mut this.running {
                    if let Some(data) = frame.data_ref() {
                        running.exchange.sent(data.len());
                    } else if let Some(trailers) = frame.trailers_ref() {
                        running.exchange.trailers(trailers);
                    }
                }
                if frame.is_trailers() || this.body.is_end_stream() {
                    this.complete();
                }
            }
            Some(Err(error)) => this.broke_off(error),
            None => this.complete(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
