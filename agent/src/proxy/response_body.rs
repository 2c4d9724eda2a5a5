//! A response on its way to the caller, within its deadlines. When it ends, in whichever way, the exchange is
//! recorded, the endpoint is judged, its load falls and the connection is given back.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{deadline::Deadlines, forward::Lease, judged::Judged, outcome::Upgraded, pump::Source};
use crate::{
    balance::{Permit, Verdict},
    record::{Exchange, Flag, Spoken, TimeLimit},
    respond::{Body, BodyError, LocalError},
    retry::RequestBody,
    share,
};

#[derive(Debug)]
pub(super) struct ResponseBody {
    /// A frame that was read while the headers were held.
    first: Option<Frame<Bytes>>,
    body: Body,
    /// `None` once the response has ended.
    running: Option<Box<Running>>,
    /// What stays of a response that switched protocols.
    upgraded: Option<Box<Upgraded>>,
}

/// What a response holds until it ends. Dropped before that, the caller has gone: the exchange says so, and the
/// connection is closed or its stream reset.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) exchange: Box<Exchange>,
    pub(super) request: RequestBody,
    pub(super) lease: Option<Lease>,
    /// The endpoint whose verdict waits for the trailers.
    pub(super) judged: Option<Judged>,
    pub(super) clock: Option<Clock>,
    /// Dropped, the service has one request less.
    pub(super) permit: Option<Permit>,
    /// What follows the headers is another protocol.
    pub(super) switches: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.exchange.received(self.request.received());
    }
}

/// Watches a response that does not come at once. The timer is set when there is first something to wait for, and
/// moved only when it fires: a response that is there already costs none.
#[derive(Debug)]
pub(super) struct Clock {
    deadlines: Deadlines,
    last: Instant,
    /// Bytes of the request when it was last looked at: they are movement too.
    received: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    /// `None` when nothing bounds the response.
    pub(super) fn new(deadlines: Deadlines) -> Option<Self> {
        let bounded = deadlines.whole.is_some() || deadlines.idle.is_some();
        bounded.then(|| Self {
            deadlines,
            last: share::now(),
            received: 0,
            timer: None,
        })
    }

    fn moved(&mut self) {
        self.last = share::now();
    }

    /// `Ready` with the flag when time has run out.
    fn poll(&mut self, received: u64, cx: &mut Context<'_>) -> Poll<Flag> {
        loop {
            if received != self.received {
                self.received = received;
                self.last = share::now();
            }
            let idle = self
                .deadlines
                .idle
                .map(|idle| (self.last + idle, Flag::StreamIdleTimeout));
            let whole = self.deadlines.whole.map(|at| (at, Flag::UpstreamTimeout));
            let (at, flag) = match (idle, whole) {
                (Some(idle), Some(whole)) => {
                    if idle.0 < whole.0 {
                        idle
                    } else {
                        whole
                    }
                }
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => return Poll::Pending,
            };
            if at <= Instant::now() {
                return Poll::Ready(flag);
            }
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().reset(at);
        }
    }
}

impl ResponseBody {
    pub(super) fn new(first: Option<Frame<Bytes>>, body: Body, running: Box<Running>) -> Self {
        let mut this = Self {
            first,
            body,
            running: Some(running),
            upgraded: None,
        };
        if this.first.is_none() && this.body.is_end_stream() {
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
            let Some(mut judged) = running.judged.take() else {
                return;
            };
            if let Some(status) = running.exchange.grpc_status() {
                judged.by_status(status);
            }
            if running.switches
                && let Some(permit) = running.permit.take()
            {
                self.upgraded = Some(Box::new(Upgraded::new(permit, judged)));
            }
        }
    }

    /// What the request goes on to take up, where the protocol was switched.
    pub(super) fn take_upgraded(&mut self) -> Option<Box<Upgraded>> {
        self.upgraded.take()
    }

    fn broke_off(&mut self, error: &BodyError) {
        if let Some(mut running) = self.running.take() {
            // The request's end is the caller's doing, and the endpoint's answer to half a request is not to blame.
            if let Some(broken) = running.request.broken_off() {
                let cause = broken.cause;
                running
                    .exchange
                    .failed(LocalError::RequestBrokeOff { cause }.flag());
                return;
            }
            let reset = error.reset().is_some();
            let flag = if reset {
                Flag::UpstreamRemoteReset
            } else {
                Flag::UpstreamConnectionTermination
            };
            running.exchange.failed(flag);
            if let Some(mut judged) = running.judged.take() {
                judged.verdict(Verdict::LocalError);
            }
        }
    }

    fn pass(&mut self, frame: &Frame<Bytes>) {
        if let Some(running) = &mut self.running {
            if let Some(clock) = &mut running.clock {
                clock.moved();
            }
            if let Some(data) = frame.data_ref() {
                running.exchange.sent(data.len());
            } else if let Some(trailers) = frame.trailers_ref() {
                running.exchange.trailers(trailers);
            }
        }
        if frame.is_trailers() || self.body.is_end_stream() {
            self.complete();
        }
    }

    /// `Ready` with the flag when time has run out.
    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<Flag> {
        let Some(running) = &mut self.running else {
            return Poll::Pending;
        };
        let received = running.request.received();
        match &mut running.clock {
            Some(clock) => clock.poll(received, cx),
            None => Poll::Pending,
        }
    }

    /// Polled while the caller reads nothing, when nobody asks for the next frame.
    pub(super) fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.body.take_over(cx);
        let flag = ready!(self.poll_clock(cx));
        self.expired(flag);
        Poll::Ready(BodyError::Timeout)
    }

    /// What bounds the response, while it runs.
    pub(super) fn deadlines(&self) -> Option<Deadlines> {
        let clock = self.running.as_ref()?.clock.as_ref()?;
        Some(clock.deadlines)
    }

    /// Time has run out, and the caller cannot be told.
    pub(super) fn expire(&mut self, flag: Flag) {
        self.expired(flag);
    }

    fn expired(&mut self, flag: Flag) -> Option<Box<Running>> {
        let mut running = self.running.take()?;
        self.body = Body::Empty;
        running.exchange.failed(flag);
        running.exchange.scope().timed_out(match flag {
            Flag::StreamIdleTimeout => TimeLimit::Idle,
            _ => TimeLimit::Request,
        });
        Some(running)
    }

    /// Time has run out after the headers went to the caller. gRPC can still be told in trailers.
    fn timed_out(&mut self, flag: Flag) -> Option<Result<Frame<Bytes>, BodyError>> {
        let mut running = self.expired(flag)?;
        if running.exchange.spoken() != Spoken::Grpc {
            return Some(Err(BodyError::Timeout));
        }
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert("grpc-status", HeaderValue::from_static("4"));
        trailers.insert(
            "grpc-message",
            HeaderValue::from_static("derny: the response did not end in time"),
        );
        running.exchange.trailers(&trailers);
        Some(Ok(Frame::trailers(trailers)))
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
        if let Some(first) = this.first.take() {
            this.pass(&first);
            return Poll::Ready(Some(Ok(first)));
        }
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => return this.poll_clock(cx).map(|flag| this.timed_out(flag)),
        };
        match &frame {
            Some(Ok(frame)) => this.pass(frame),
            Some(Err(error)) => this.broke_off(error),
            None => this.complete(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.first.as_ref().and_then(Frame::data_ref) {
            // The length that the endpoint announced stands in the headers.
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}

impl Source for ResponseBody {
    fn poll_held_up(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.poll_unread(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;
    use crate::model::{RequestTimeout, RuleTimeouts, Timeouts};

    const MINUTE: Duration = Duration::from_secs(60);

    fn clock(request: RequestTimeout, idle: Option<Duration>) -> Option<Clock> {
        let policy = Timeouts {
            request,
            per_try: None,
            idle,
        };
        Clock::new(Deadlines::new(
            &policy,
            RuleTimeouts::default(),
            None,
            Instant::now(),
        ))
    }

    /// Waits until time has run out: the flag, and how long that took.
    async fn runs_out(clock: &mut Clock, received: u64) -> (Flag, Duration) {
        let start = Instant::now();
        let flag = poll_fn(|cx| clock.poll(received, cx)).await;
        (flag, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_ends_after_the_idle_timeout() {
        let mut clock = clock(RequestTimeout::default(), Some(5 * MINUTE)).unwrap();
        assert_eq!(
            runs_out(&mut clock, 0).await,
            (Flag::StreamIdleTimeout, 5 * MINUTE)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_moves_in_either_direction_goes_on_for_as_long_as_it_likes() {
        let mut clock = clock(RequestTimeout::default(), Some(5 * MINUTE)).unwrap();
        for step in 1..=10u64 {
            let silent = tokio::time::timeout(4 * MINUTE, runs_out(&mut clock, step / 2)).await;
            assert!(silent.is_err(), "it ended in step {step}");
            // A message of the endpoint, or else one of the caller: `received` grows in every second step.
            if step % 2 == 0 {
                clock.moved();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_minutes_without_a_byte_are_nothing_to_a_stream_without_an_idle_timeout() {
        assert!(
            clock(RequestTimeout::default(), None).is_none(),
            "nothing to watch"
        );
        let mut whole = clock(RequestTimeout::Whole(11 * MINUTE), None).unwrap();
        assert_eq!(
            runs_out(&mut whole, 0).await,
            (Flag::UpstreamTimeout, 11 * MINUTE)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_exchange_ends_though_it_moves() {
        let mut clock = clock(RequestTimeout::Whole(MINUTE), Some(5 * MINUTE)).unwrap();
        clock.moved();
        assert_eq!(runs_out(&mut clock, 7).await, (Flag::UpstreamTimeout, MINUTE));
    }
}
