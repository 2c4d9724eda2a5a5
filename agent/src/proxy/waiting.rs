//! An attempt that waits for its answer: for how long, and what is learned when nobody waits for it any more.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
};

use tokio::time::{Instant, sleep_until};

use super::{
    deadline::{Deadlines, Limit},
    judged::Judged,
};
use crate::retry::{Progress, RequestBody, Sent};

/// What `sending` comes to, or the limit that it has run into. `request` tells how the request comes in.
///
/// The timer is set once for the shortest of the limits; what really is due, which moves with the request, is looked at
/// when it fires.
///
/// `sending` stays with its owner: taken by value it would have its place in this future twice.
pub(super) async fn within<F: Future>(
    deadlines: &Deadlines,
    started: Instant,
    request: impl Fn() -> Progress,
    mut sending: Pin<&mut F>,
) -> Result<F::Output, Limit> {
    let Some(first) = deadlines.look(started) else {
        return Ok(sending.await);
    };
    let mut timer = pin!(sleep_until(first));
    poll_fn(|cx| {
        if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
            return Poll::Ready(Ok(sent));
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = deadlines.of_attempt(started, request());
            if let Some((at, limit)) = due
                && at <= now
            {
                return Poll::Ready(Err(limit));
            }
            let next = due.map(|(at, _)| at).into_iter().chain(deadlines.look(now)).min();
            // There was a limit when the timer was set, and limits stay.
            timer.as_mut().reset(next.unwrap_or(first));
        }
        Poll::Pending
    })
    .await
}

/// An attempt that has no answer yet. Dropped as such, its caller has given it up, which may say something of the
/// endpoint all the same.
#[derive(Debug)]
pub(super) struct Unanswered<'a> {
    judged: Option<Judged>,
    request: &'a RequestBody,
    /// Set when it had to wait for a connection.
    queued: &'a Cell<bool>,
    started: Instant,
}

impl<'a> Unanswered<'a> {
    pub(super) fn new(
        judged: Judged,
        request: &'a RequestBody,
        queued: &'a Cell<bool>,
        started: Instant,
    ) -> Self {
        Self {
            judged: Some(judged),
            request,
            queued,
            started,
        }
    }

    /// The policy's time is up.
    pub(super) fn late(self) {
        let waits = self.request.progress().waits || self.queued.get();
        if let Some(mut judged) = self.over()
            // It may be late for want of the rest of the request, or of a connection.
            && !waits
        {
            judged.late();
        }
    }

    /// Something came of it.
    pub(super) fn over(mut self) -> Option<Judged> {
        self.judged.take()
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(mut judged) = self.judged.take()
            // An endpoint that has a part of a question need not answer.
            && self.request.sent() == Sent::Whole
            && !self.queued.get()
            && self.request.broken_off().is_none()
        {
            judged.given_up(self.started);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::*;
    use crate::model::{RuleTimeouts, Timeouts};

    const SECOND: Duration = Duration::from_secs(1);

    fn deadlines(per_try: Option<Duration>, grpc: Option<Duration>) -> Deadlines {
        let policy = Timeouts {
            per_try,
            ..Timeouts::default()
        };
        Deadlines::new(&policy, RuleTimeouts::default(), grpc, Instant::now())
    }

    /// The limit that an endpoint runs into that never answers, and when.
    async fn late(deadlines: Deadlines, request: impl Fn(Duration) -> (Duration, bool)) -> (Limit, Duration) {
        let begun = Instant::now();
        let request = || {
            let (moved, waits) = request(begun.elapsed());
            Progress {
                moved: (begun + moved).into_std(),
                waits,
            }
        };
        let limit = within(&deadlines, begun, request, pin!(pending::<()>())).await;
        (limit.unwrap_err(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_runs_from_the_end_of_the_request() {
        let whole = |_: Duration| (Duration::ZERO, false);
        let found = late(deadlines(None, None), whole).await;
        assert_eq!(found, (Limit::Request, 15 * SECOND));
        // A byte each second, the last after 40 s.
        let upload = |at: Duration| (Duration::from_secs(at.as_secs().min(40)), at < 40 * SECOND);
        let found = late(deadlines(None, None), upload).await;
        assert_eq!(found, (Limit::Request, 55 * SECOND));
        let found = late(deadlines(Some(2 * SECOND), None), upload).await;
        assert_eq!(found, (Limit::PerTry, 42 * SECOND));
        let found = late(deadlines(None, Some(7 * SECOND)), upload).await;
        assert_eq!(found, (Limit::Caller, 7 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_stops_within_its_request_is_waited_for_as_long_as_a_stream_may_be_silent() {
        let stopped = |_: Duration| (3 * SECOND, true);
        let found = late(deadlines(Some(SECOND), None), stopped).await;
        assert_eq!(found, (Limit::Idle, 303 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_the_wait() {
        let looks = Cell::new(0);
        let request = || {
            looks.set(looks.get() + 1);
            Progress {
                moved: Instant::now().into_std(),
                waits: false,
            }
        };
        let answer = pin!(tokio::time::sleep(9 * SECOND));
        let found = within(&deadlines(None, None), Instant::now(), request, answer).await;
        assert_eq!((found, looks.get()), (Ok(()), 0));
    }
}
