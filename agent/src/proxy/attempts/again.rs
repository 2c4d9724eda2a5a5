//! What follows from an attempt: its answer goes to the caller, or another attempt is made.

use std::{
    future::poll_fn,
    pin::Pin,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method, StatusCode, response};
use http_body::Body as _;
use tokio::time::{Instant, timeout};

use super::{
    super::{
        forward::Failed,
        judged::Judged,
        outcome::{Chance, Held, Next, Outcome, broken_off},
    },
    Attempts,
};
use crate::{
    balance::Verdict,
    record::{Exchange, Flag, Spoken, grpc_status_of},
    respond::{Body, LocalError},
    retry::{
        Failure, Pushback, RequestBody, delay, failure_may_be_retried, pushback, response_may_be_retried,
    },
};

impl Attempts<'_> {
    /// What follows from an attempt.
    pub(super) async fn judge(
        &mut self,
        outcome: Outcome,
        x: &mut Exchange,
        method: &Method,
        request: &RequestBody,
    ) -> Result<Next, LocalError> {
        let chance = if x.attempts() <= self.plan.retry.attempts && request.can_be_sent_again() {
            Chance::Left
        } else {
            Chance::Gone
        };
        let (response, lease, mut judged) = match outcome {
            Outcome::Failed(failure) => return self.after_failure(failure, x, method, chance),
            Outcome::Response(response) => *response,
        };
        let (head, mut body) = response.into_parts();
        let status = match x.spoken() {
            Spoken::Grpc if head.status == StatusCode::OK => match grpc_status(&head.headers) {
                Some(status) => {
                    judged.by_status(status);
                    Some(status)
                }
                None if chance == Chance::Left => {
                    match self.hold(&head, &mut body, &mut judged, x, request).await? {
                        Held::Again(wait) => return Ok(Next::Again(wait)),
                        Held::Go(first) => return Ok(Next::answer(head, first, body, lease, judged)),
                    }
                }
                None => None,
            },
            _ => {
                judged.by_http(head.status);
                None
            }
        };
        if chance == Chance::Left
            && response_may_be_retried(head.status, &head.headers, status, &self.plan.retry.on, method)
            && let Some(wait) = self.wait(x, &head.headers, request)
            && self.within_budget(x)
        {
            self.tried.extend(x.endpoint());
            return Ok(Next::Again(wait));
        }
        Ok(Next::answer(head, None, body, lease, judged))
    }

    fn after_failure(
        &mut self,
        failure: Failure,
        x: &mut Exchange,
        method: &Method,
        chance: Chance,
    ) -> Result<Next, LocalError> {
        let wanted = failure_may_be_retried(failure, &self.plan.retry.on, x.spoken(), method);
        match (wanted, chance) {
            // The budget keeps retries from adding to the load of endpoints that answer badly or late. A connection
            // that is gone is no load: its requests go elsewhere all at once, and only once.
            (true, Chance::Left) if self.costs_nothing(failure) || self.within_budget(x) => {
                Ok(Next::Again(self.backoff_after(failure, x)))
            }
            // That nobody can be reached says more than how often it was tried.
            (true, Chance::Gone) if x.attempts() > 1 && failure != Failure::Connect => {
                x.failed(Flag::RetryLimitExceeded);
                Err(self.error())
            }
            _ => Err(self.error()),
        }
    }

    /// Whether the endpoint has nothing of the request, and another one is left to ask.
    fn costs_nothing(&self, failure: Failure) -> bool {
        failure.is_of_the_connection() && self.inlet.has_beside(&self.plan.upstream, &self.tried)
    }

    /// A gRPC status may come in trailers right behind the headers. While another attempt is possible the headers
    /// wait for the first message or the trailers, but not for long: a server may flush its headers early.
    async fn hold(
        &mut self,
        head: &response::Parts,
        body: &mut Body,
        judged: &mut Judged,
        x: &mut Exchange,
        request: &RequestBody,
    ) -> Result<Held, LocalError> {
        let retry = &self.plan.retry;
        if retry.on.grpc_status.is_empty() || retry.hold_headers.is_zero() {
            return Ok(Held::Go(None));
        }
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        let frame = match timeout(retry.hold_headers, frame).await {
            Ok(Some(Err(error))) => Err(error),
            Ok(Some(Ok(frame))) => Ok(Some(frame)),
            Ok(None) => Ok(None),
            Err(_) => return Ok(Held::Go(None)),
        };
        match frame {
            Ok(frame) => {
                let nothing = HeaderMap::new();
                let trailers = match &frame {
                    Some(frame) => frame.trailers_ref(),
                    None => Some(&nothing),
                };
                let status = trailers.map(|trailers| grpc_status(trailers).unwrap_or(grpc_status_of(200)));
                if let Some((trailers, status)) = trailers.zip(status)
                    && response_may_be_retried(
                        head.status,
                        &head.headers,
                        Some(status),
                        &retry.on,
                        &Method::POST,
                    )
                    && let Some(wait) = self.wait(x, trailers, request)
                    && self.within_budget(x)
                {
                    judged.by_status(status);
                    self.tried.extend(x.endpoint());
                    return Ok(Held::Again(wait));
                }
                Ok(Held::Go(frame))
            }
            Err(error) => {
                if let Some(error) = broken_off(request) {
                    return Err(error);
                }
                // Nothing has gone to the caller: as if the headers had not come.
                let failed = Failed::broke_off(&error);
                judged.verdict(Verdict::LocalError);
                let failure = failed.failure;
                let endpoint = judged.endpoint().clone();
                self.tried.push(endpoint.address());
                self.last = Some((endpoint, failed));
                match self.after_failure(failure, x, &Method::POST, Chance::Left)? {
                    Next::Again(wait) => Ok(Held::Again(wait)),
                    Next::Answer(_) => Ok(Held::Go(None)),
                }
            }
        }
    }

    /// Takes the right to one more retry. Beyond the budget the failure goes to the caller.
    fn within_budget(&mut self, x: &mut Exchange) -> bool {
        // The retry that has failed is over.
        self.retrying = None;
        self.retrying = self.plan.upstream.guards().breaker.retry();
        if self.retrying.is_none() {
            x.failed(Flag::RetryOverflow);
        }
        self.retrying.is_some()
    }

    /// Before a retry of `failure`.
    fn backoff_after(&self, failure: Failure, x: &Exchange) -> Duration {
        // Another endpoint need not be given time to recover: what was not processed goes on at once, but for a pause
        // that a rule asks for.
        let unprocessed = matches!(failure, Failure::Connect | Failure::Unprocessed);
        if unprocessed
            && self.plan.retry.avoid_previous_endpoint
            && self.inlet.has_beside(&self.plan.upstream, &self.tried)
        {
            return self.plan.retry.backoff.least;
        }
        self.backoff(x)
    }

    fn backoff(&self, x: &Exchange) -> Duration {
        delay(
            self.plan.retry.backoff,
            x.attempts(),
            &mut self.inlet.worker.rng.borrow_mut(),
        )
    }

    /// How long to wait before the next attempt; `None` when the endpoint forbids one, or asks for more time than
    /// there is: then its answer tells the caller more than a timeout.
    fn wait(&self, x: &Exchange, said: &HeaderMap, request: &RequestBody) -> Option<Duration> {
        let backoff = self.backoff(x);
        match pushback(said, SystemTime::now()) {
            Pushback::Unsaid => Some(backoff),
            Pushback::Wait(time) => {
                let left = self.plan.deadlines.left(Instant::now(), request.progress());
                (time < left).then_some(backoff.max(time))
            }
            Pushback::Never => None,
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
