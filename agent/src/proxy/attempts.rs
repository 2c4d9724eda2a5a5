//! A request is sent until it is answered or may not be sent again.

use std::{future::poll_fn, net::SocketAddr, pin::Pin, rc::Rc, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, request};
use http_body::{Body as _, Frame};
use smallvec::SmallVec;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    deadline::Limit,
    forward::{self, Failed, Lease},
    inlet::Inlet,
    plan::Plan,
};
use crate::{
    balance::{EndpointLoad, InFlight, Verdict},
    pool::Opening,
    record::{Exchange, Flag, Spoken},
    respond::{Body, LocalError, Via},
    retry::{
        Failure, Pushback, RequestBody, delay, failure_may_be_retried, pushback, response_may_be_retried,
    },
};

const X_DERNY_ATTEMPT: HeaderName = HeaderName::from_static("x-derny-attempt");

/// A response that goes to the caller.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: http::response::Parts,
    /// A frame that was read while the headers were held.
    pub(super) first: Option<Frame<Bytes>>,
    pub(super) body: Body,
    pub(super) lease: Lease,
    pub(super) judged: Judged,
}

/// An endpoint that has a request, and is to be judged by how it ends.
#[derive(Debug)]
pub(super) struct Judged {
    inlet: Rc<Inlet>,
    upstream: Rc<super::view::Upstream>,
    in_flight: InFlight,
    open: Open,
}

/// Whether the verdict is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Yes,
    No,
}

impl Judged {
    /// The verdict; only the first counts.
    pub(super) fn verdict(&mut self, verdict: Verdict) {
        if std::mem::replace(&mut self.open, Open::No) == Open::No {
            return;
        }
        let mut rng = self.inlet.worker.rng.borrow_mut();
        let guards = self.upstream.guards();
        let now = Instant::now().into_std();
        if let Some(event) = self.in_flight.record(&guards.outliers, verdict, now, &mut rng) {
            guards.report(self.inlet.line.scope.key(), &event);
        }
    }

    /// The verdict by the status with which a gRPC call ended; none means that it ended without one.
    pub(super) fn by_status(mut self, status: Option<u16>) {
        let policy = &self.upstream.port.policy;
        let failure = policy.outlier_detection.as_ref().is_some_and(|outlier| {
            status.is_some_and(|status| outlier.grpc_status.contains(&status))
        });
        self.verdict(if failure { Verdict::Failure5xx { gateway: false } } else { Verdict::Success });
    }

    fn by_http(&mut self, status: StatusCode) {
        self.verdict(if status.is_server_error() {
            Verdict::Failure5xx { gateway: matches!(status.as_u16(), 502..=504) }
        } else {
            Verdict::Success
        });
    }
}

/// Sends `head` and `body` as `plan` says.
pub(super) async fn run(
    inlet: &Rc<Inlet>,
    plan: &Plan<'_>,
    via: Via,
    x: &mut Exchange,
    mut head: request::Parts,
    body: &RequestBody,
) -> Result<Answer, LocalError> {
    let mut attempts = Attempts { inlet, plan, via, tried: SmallVec::new(), last: None };
    loop {
        // Held while a retry runs; the first attempt needs none.
        let permit = match x.attempts() {
            0 => None,
            _ => match plan.upstream.guards().breaker.retry() {
                Some(permit) => Some(permit),
                None => {
                    x.failed(Flag::RetryOverflow);
                    return Err(attempts.error());
                }
            },
        };
        head.headers.insert(X_DERNY_ATTEMPT, HeaderValue::from(x.attempts() + 1));
        let outcome = attempts.attempt(x, &head, body).await?;
        drop(permit);
        let again = match attempts.judge(outcome, x, &head, body).await? {
            Next::Answer(answer) => {
                body.keep_no_longer();
                return Ok(*answer);
            }
            Next::Again(wait) => wait,
        };
        if again > plan.deadlines.left(Instant::now()) {
            x.failed(Flag::UpstreamTimeout);
            return Err(attempts.error());
        }
        tokio::time::sleep(again).await;
    }
}

struct Attempts<'a> {
    inlet: &'a Rc<Inlet>,
    plan: &'a Plan<'a>,
    via: Via,
    tried: SmallVec<[SocketAddr; 4]>,
    /// The last failure without a response.
    last: Option<(Rc<EndpointLoad>, Failed)>,
}

enum Outcome {
    Response(Box<(Response<Body>, Lease, Judged)>),
    Failed(Failure),
}

enum Next {
    Answer(Box<Answer>),
    Again(std::time::Duration),
}

impl Attempts<'_> {
    /// One attempt at one endpoint.
    async fn attempt(
        &mut self,
        x: &mut Exchange,
        head: &request::Parts,
        body: &RequestBody,
    ) -> Result<Outcome, LocalError> {
        let upstream = &self.plan.upstream;
        let in_flight = self.choose(x)?;
        let endpoint = in_flight.endpoint().clone();
        let Some(attempt_body) = body.attempt() else { return Err(self.error()) };
        x.attempt(endpoint.address());
        let mut judged = Judged {
            inlet: self.inlet.clone(),
            upstream: upstream.clone(),
            in_flight,
            open: Open::Yes,
        };
        let pool = self.inlet.worker.pools.pool(self.inlet.pod.slot, endpoint.address(), &self.inlet.pod.sockets);
        let settings = &upstream.port.policy.connection_pool;
        let opening = Opening { settings, scope: x.scope(), bounds: upstream.bounds() };
        let started = Instant::now();
        let sending = forward::attempt(&pool, opening, self.via, head.clone(), attempt_body);
        let sent = match self.plan.deadlines.of_attempt(started) {
            Some((at, limit)) => match timeout_at(at, sending).await {
                Ok(sent) => sent,
                Err(_) if limit == Limit::Request => {
                    judged.verdict(Verdict::LocalError);
                    endpoint.observe_failure(started.elapsed(), Instant::now().into_std());
                    return Err(LocalError::Timeout {
                        service: self.inlet.service(),
                        limit: "request's timeout",
                    });
                }
                Err(_) => Err(Failed::per_try(started.elapsed())),
            },
            None => sending.await,
        };
        let now = Instant::now();
        let took = now - started;
        match sent {
            Ok((response, lease)) => {
                if response.status().is_server_error() {
                    endpoint.observe_failure(took, now.into_std());
                } else {
                    endpoint.observe(took, now.into_std());
                }
                Ok(Outcome::Response(Box::new((response, lease, judged))))
            }
            Err(failed) => {
                if failed.failure == Failure::Overflow {
                    return Err(LocalError::Overload {
                        service: self.inlet.service(),
                        bound: "maxPendingRequests",
                    });
                }
                // A quick refusal must not make it look fast.
                endpoint.observe_failure(took.max(settings.connect_timeout), now.into_std());
                judged.verdict(Verdict::LocalError);
                tracing::debug!(endpoint = %endpoint.address(), reason = failed.reason, "attempt failed");
                self.tried.push(endpoint.address());
                let failure = failed.failure;
                self.last = Some((endpoint, failed));
                Ok(Outcome::Failed(failure))
            }
        }
    }

    /// An endpoint with room for one more request.
    fn choose(&self, x: &Exchange) -> Result<InFlight, LocalError> {
        let upstream = &self.plan.upstream;
        let avoid = if self.plan.retry.avoid_previous_endpoint { self.tried.as_slice() } else { &[] };
        let chosen = self.inlet.choose(upstream, self.plan.key, avoid);
        // All have been tried. One that took a connection may be asked once more.
        let chosen = chosen.or_else(|| match &self.last {
            Some((endpoint, failed)) if failed.failure != Failure::Connect => Some(endpoint.clone()),
            Some(_) => None,
            None if x.attempts() > 0 => self.inlet.choose(upstream, self.plan.key, &[]),
            None => None,
        });
        let Some(endpoint) = chosen else {
            let full = self.tried.is_empty() && upstream.is_full();
            return Err(if full { self.overload() } else { self.error() });
        };
        endpoint.try_begin().ok_or_else(|| self.overload())
    }

    fn overload(&self) -> LocalError {
        LocalError::Overload { service: self.inlet.service(), bound: "perEndpoint.maxRequests" }
    }

    /// What follows from an attempt.
    async fn judge(
        &mut self,
        outcome: Outcome,
        x: &mut Exchange,
        head: &request::Parts,
        body: &RequestBody,
    ) -> Result<Next, LocalError> {
        let retry = &self.plan.retry;
        let may = x.attempts() <= retry.attempts && body.can_be_sent_again();
        let (response, lease, mut judged) = match outcome {
            Outcome::Failed(failure) => {
                let wanted = failure_may_be_retried(failure, &retry.on, x.spoken(), &head.method);
                if wanted && !may && x.attempts() > 1 {
                    x.failed(Flag::RetryLimitExceeded);
                }
                return if wanted && may { Ok(Next::Again(self.backoff(x))) } else { Err(self.error()) };
            }
            Outcome::Response(response) => *response,
        };
        let (head, mut body) = response.into_parts();
        let grpc = x.spoken() == Spoken::Grpc && head.status == StatusCode::OK;
        let status = if grpc { grpc_status(&head.headers) } else { None };
        if status.is_some() || !grpc {
            match status {
                Some(_) => {}
                None => judged.by_http(head.status),
            }
            if may && response_may_be_retried(head.status, &head.headers, status, &retry.on) {
                if status.is_some() {
                    judged.by_status(status);
                }
                if let Some(wait) = self.wait(x, &head.headers) {
                    self.tried.extend(x.endpoint());
                    return Ok(Next::Again(wait));
                }
            } else if status.is_some() {
                // The verdict comes with the end of the response, like that of trailers.
            }
            return Ok(Next::Answer(Box::new(Answer { head, first: None, body, lease, judged })));
        }
        // The status may come right behind the headers. While another attempt is possible they wait for it.
        let mut first = None;
        if may && !retry.on.grpc_status.is_empty() && !retry.hold_headers.is_zero() {
            let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
            match timeout(retry.hold_headers, frame).await {
                Ok(Some(Ok(frame))) => {
                    let status = frame.trailers_ref().and_then(grpc_status);
                    if let Some(trailers) = frame.trailers_ref()
                        && response_may_be_retried(head.status, &head.headers, status, &retry.on)
                        && let Some(wait) = self.wait(x, trailers)
                    {
                        judged.by_status(status);
                        self.tried.extend(x.endpoint());
                        return Ok(Next::Again(wait));
                    }
                    first = Some(frame);
                }
                Ok(Some(Err(error))) => {
                    // Nothing has gone to the caller: as if the headers had not come.
                    let failed = Failed::broke_off(&error);
                    judged.verdict(Verdict::LocalError);
                    let wanted = failure_may_be_retried(failed.failure, &retry.on, x.spoken(), &http::Method::POST);
                    let endpoint = judged.in_flight.endpoint().clone();
                    self.tried.push(endpoint.address());
                    self.last = Some((endpoint, failed));
                    return if wanted { Ok(Next::Again(self.backoff(x))) } else { Err(self.error()) };
                }
                Ok(None) | Err(_) => {}
            }
        }
        Ok(Next::Answer(Box::new(Answer { head, first, body, lease, judged })))
    }

    fn backoff(&self, x: &Exchange) -> std::time::Duration {
        // Another endpoint need not be given time to recover: the first failure goes on at once.
        if self.last.as_ref().is_some_and(|(_, failed)| failed.failure == Failure::Connect || failed.failure == Failure::Unprocessed) {
            return std::time::Duration::ZERO;
        }
        delay(self.plan.retry.backoff, x.attempts(), &mut self.inlet.worker.rng.borrow_mut())
    }

    /// How long to wait before the next attempt; `None` when the endpoint forbids one, or asks for more time than
    /// there is.
    fn wait(&self, x: &Exchange, said: &HeaderMap) -> Option<std::time::Duration> {
        let backoff = self.backoff(x);
        let wait = match pushback(said, SystemTime::now()) {
            Pushback::Unsaid => backoff,
            Pushback::Wait(time) => backoff.max(time),
            Pushback::Never => return None,
        };
        (wait < self.plan.deadlines.left(Instant::now())).then_some(wait)
    }

    fn error(&self) -> LocalError {
        let service = self.inlet.service();
        let Some((endpoint, Failed { failure, reason })) = &self.last else {
            return LocalError::NoEndpoint { service };
        };
        let (endpoint, reason) = (endpoint.address(), reason.clone());
        match failure {
            Failure::Connect | Failure::Overflow => LocalError::ConnectFailed { service, endpoint, reason },
            Failure::Unprocessed | Failure::Lost { .. } => LocalError::ConnectionLost { service, endpoint, reason },
            Failure::Reset { .. } => LocalError::StreamReset { service, endpoint, reason },
            Failure::PerTryTimeout => LocalError::Timeout { service, limit: "time of one try" },
            Failure::Protocol => LocalError::UpstreamProtocol { service, endpoint, reason },
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
