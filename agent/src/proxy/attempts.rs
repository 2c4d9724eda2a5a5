//! A request is sent until it is answered or may not be sent again.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, request, response};
use http_body::Body as _;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    deadline::Limit,
    forward::{self, Blame, Failed},
    inlet::Inlet,
    judged::Judged,
    outcome::{Answer, Chance, Held, Next, Outcome, broken_off},
    plan::Plan,
    view::NoPlace,
};
use crate::{
    balance::{EndpointLoad, InFlight, Permit, Verdict},
    pool::Opening,
    record::{Exchange, Flag, Spoken, TimeLimit},
    respond::{Body, LocalError, Via},
    retry::{
        Failure, Pushback, RequestBody, delay, failure_may_be_retried, pushback, response_may_be_retried,
    },
    share,
};

const X_DERNY_ATTEMPT: HeaderName = HeaderName::from_static("x-derny-attempt");

/// Sends `head` and `body` as `plan` says.
pub(super) async fn run(
    inlet: &Rc<Inlet>,
    plan: &Plan<'_>,
    via: Via,
    x: &mut Exchange,
    mut head: request::Parts,
    body: &RequestBody,
) -> Result<Answer, LocalError> {
    let mut attempts = Attempts {
        inlet,
        plan,
        via,
        tried: SmallVec::new(),
        last: None,
        retrying: None,
    };
    loop {
        head.headers
            .insert(X_DERNY_ATTEMPT, HeaderValue::from(x.attempts() + 1));
        let outcome = attempts.attempt(x, &head, body).await?;
        let again = match attempts.judge(outcome, x, &head.method, body).await? {
            Next::Answer(answer) => return Ok(*answer),
            Next::Again(wait) => wait,
        };
        // Nothing more can come within the time: the caller need not wait for its end.
        if again >= plan.deadlines.left(Instant::now()) {
            x.scope().timed_out(TimeLimit::Request);
            return Err(LocalError::Timeout {
                service: inlet.service(),
                limit: "request's timeout, which has no room for another attempt",
            });
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
    /// Held while a retry runs; the first attempt needs none.
    retrying: Option<Permit>,
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
        let in_flight = self.choose()?;
        let endpoint = in_flight.endpoint().clone();
        let Some(attempt_body) = body.attempt() else {
            return Err(broken_off(body).unwrap_or_else(|| self.error()));
        };
        let called = self.inlet.bounded(endpoint.address());
        let place = match &called {
            Some(called) => Some(called.request().ok_or_else(|| LocalError::Overload {
                service: self.inlet.service(),
                bound: "inbound.maxRequests",
            })?),
            None => None,
        };
        let bounds = match called {
            Some(called) => &called.and(upstream.bounds()),
            None => upstream.bounds(),
        };
        x.attempt(endpoint.address());
        let mut judged = Judged::new(self.inlet, upstream, in_flight, place);
        let pod = &self.inlet.pod;
        let pool = pod.pools.pool(endpoint.address(), self.inlet.dial_as);
        let settings = &upstream.port.policy.connection_pool;
        let opening = Opening {
            settings,
            scope: x.scope(),
            bounds,
            caller: self.inlet.sharer,
            dial_as: self.inlet.dial_as,
        };
        let started = share::now();
        let again = || Some(Request::from_parts(head.clone(), body.attempt()?));
        let sending = forward::attempt(
            &pool,
            opening,
            self.via,
            Request::from_parts(head.clone(), attempt_body),
            &pod.share,
            again,
        );
        let sent = match self.plan.deadlines.of_attempt(started) {
            Some((at, limit)) => match timeout_at(at, sending).await {
                Ok(sent) => sent,
                Err(_) if limit == Limit::Request => {
                    x.scope().timed_out(TimeLimit::Request);
                    judged.verdict(Verdict::LocalError);
                    endpoint.observe_failure(Instant::now().into_std());
                    return Err(LocalError::Timeout {
                        service: self.inlet.service(),
                        limit: "request's timeout",
                    });
                }
                Err(_) => {
                    x.scope().timed_out(TimeLimit::PerTry);
                    Err(Failed::per_try(started.elapsed()))
                }
            },
            None => sending.await,
        };
        let now = share::now();
        let took = now - started;
        match sent {
            Ok((response, lease)) => {
                if response.status().is_server_error() {
                    endpoint.observe_failure(now.into_std());
                } else {
                    endpoint.observe(took, now.into_std());
                }
                Ok(Outcome::Response(Box::new((response, lease, judged))))
            }
            Err(failed) => {
                // The endpoint was not asked a whole question: it has done nothing wrong, and nothing is asked again.
                if let Some(error) = broken_off(body) {
                    return Err(error);
                }
                if failed.failure == Failure::Overflow {
                    return Err(LocalError::Overload {
                        service: self.inlet.service(),
                        bound: failed.bound,
                    });
                }
                if failed.blame == Blame::Endpoint {
                    endpoint.observe_failure(now.into_std());
                    judged.verdict(Verdict::LocalError);
                }
                tracing::debug!(endpoint = %endpoint.address(), reason = failed.reason, "attempt failed");
                self.tried.push(endpoint.address());
                let failure = failed.failure.after(body.sent());
                self.last = Some((endpoint, failed));
                Ok(Outcome::Failed(failure))
            }
        }
    }

    /// An endpoint with room for one more request.
    fn choose(&self) -> Result<InFlight, LocalError> {
        let upstream = &self.plan.upstream;
        let avoid = if self.plan.retry.avoid_previous_endpoint {
            self.tried.as_slice()
        } else {
            &[]
        };
        let choose = || {
            let chosen = self.inlet.choose(upstream, self.plan.key, avoid);
            // All have been tried: one of them once more.
            chosen.or_else(|| match avoid {
                [] => None,
                _ => self.inlet.choose(upstream, self.plan.key, &[]),
            })
        };
        upstream.begin(choose).map_err(|NoPlace| {
            let full = self.tried.is_empty() && upstream.is_full();
            if full { self.overload() } else { self.error() }
        })
    }

    fn overload(&self) -> LocalError {
        self.plan.upstream.guards().endpoints_are_full();
        LocalError::Overload {
            service: self.inlet.service(),
            bound: "perEndpoint.maxRequests",
        }
    }

    /// What follows from an attempt.
    async fn judge(
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
                    judged.by_status(Some(status));
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
            && let Some(wait) = self.wait(x, &head.headers)
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
        match timeout(retry.hold_headers, frame).await {
            Ok(Some(Ok(frame))) => {
                let status = frame.trailers_ref().and_then(grpc_status);
                if let Some(trailers) = frame.trailers_ref()
                    && response_may_be_retried(head.status, &head.headers, status, &retry.on, &Method::POST)
                    && let Some(wait) = self.wait(x, trailers)
                    && self.within_budget(x)
                {
                    judged.by_status(status);
                    self.tried.extend(x.endpoint());
                    return Ok(Held::Again(wait));
                }
                Ok(Held::Go(Some(frame)))
            }
            Ok(Some(Err(error))) => {
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
            Ok(None) | Err(_) => Ok(Held::Go(None)),
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
    fn wait(&self, x: &Exchange, said: &HeaderMap) -> Option<Duration> {
        let backoff = self.backoff(x);
        match pushback(said, SystemTime::now()) {
            Pushback::Unsaid => Some(backoff),
            Pushback::Wait(time) => {
                (time < self.plan.deadlines.left(Instant::now())).then_some(backoff.max(time))
            }
            Pushback::Never => None,
        }
    }

    fn error(&self) -> LocalError {
        let (service, known) = (self.inlet.service(), &self.plan.upstream.port.endpoints);
        match &self.last {
            Some((endpoint, failed)) => failed.told(service, endpoint.address(), known),
            None => LocalError::NoEndpoint { service },
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
