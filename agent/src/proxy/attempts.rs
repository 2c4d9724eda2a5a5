//! A request is sent until it is answered or may not be sent again.

mod again;

use std::{cell::Cell, net::SocketAddr, pin::pin, rc::Rc};

use http::{HeaderName, HeaderValue, request};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    deadline::{self, Limit},
    forward::{self, Blame, Failed},
    inlet::Inlet,
    judged::Judged,
    outcome::{Answer, Next, Outcome, broken_off},
    plan::Plan,
    view::NoPlace,
    waiting::{Unanswered, within},
};
use crate::{
    balance::{EndpointLoad, InFlight, Permit, Verdict},
    pool::Opening,
    record::{Exchange, Spoken, TimeLimit},
    respond::{LocalError, Via},
    retry::{Failure, RequestBody, Sent},
    share,
};

const X_DERNY_ATTEMPT: HeaderName = HeaderName::from_static("x-derny-attempt");

/// Sends `head` and `body` as `plan` says.
pub(super) async fn run(
    inlet: &Rc<Inlet>,
    plan: &Plan<'_>,
    via: Via,
    x: &mut Exchange,
    head: &mut request::Parts,
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
        if x.attempts() > 0
            && x.spoken() == Spoken::Grpc
            && let Some(whole) = plan.deadlines.whole
        {
            deadline::tell_endpoint(&mut head.headers, whole - Instant::now());
        }
        let outcome = attempts.attempt(x, head, body).await?;
        let again = match attempts.judge(outcome, x, &head.method, body).await? {
            Next::Answer(answer) => return Ok(*answer),
            Next::Again(wait) => wait,
        };
        // Nothing more can come within the time: the caller need not wait for its end.
        if again >= plan.deadlines.left(Instant::now(), body.progress()) {
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
        let judged = Judged::new(self.inlet, upstream, in_flight, place);
        let pod = &self.inlet.pod;
        let pool = self.inlet.pool(endpoint.address());
        let settings = &upstream.port.policy.connection_pool;
        let queued = Cell::new(false);
        let opening = Opening {
            settings,
            scope: x.scope(),
            bounds,
            caller: self.inlet.sharer,
            dial_as: self.inlet.dial_as,
            queued: &queued,
        };
        let started = share::now();
        let again = |least: Sent| {
            let enough = least == Sent::Part || body.sent() == Sent::Whole;
            enough.then(|| body.attempt())?
        };
        let unanswered = Unanswered::new(judged, body, &queued, started);
        let sent = {
            let sending = pin!(forward::attempt(
                &pool,
                opening,
                self.via,
                (head, attempt_body),
                &pod.share,
                again,
            ));
            within(&self.plan.deadlines, started, || body.progress(), sending).await
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(Limit::PerTry) => {
                x.scope().timed_out(TimeLimit::PerTry);
                Err(Failed::per_try(started.elapsed(), queued.get()))
            }
            Err(limit) => return Err(self.late(limit, unanswered, x)),
        };
        let Some(mut judged) = unanswered.over() else {
            return Err(self.error());
        };
        // The endpoint was not asked a whole question: it has done nothing wrong, and nothing is asked again.
        if let Some(error) = broken_off(body) {
            return Err(error);
        }
        let now = share::now();
        let took = now - started;
        match sent {
            Ok((response, lease)) => {
                endpoint.answered(now.into_std());
                if response.status().is_server_error() {
                    endpoint.observe_failure(now.into_std());
                } else {
                    endpoint.observe(took, now.into_std());
                }
                Ok(Outcome::Response(Box::new((response, lease, judged))))
            }
            Err(failed) => {
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

    /// The end of an exchange whose time has run out before an answer began.
    fn late(&self, limit: Limit, unanswered: Unanswered<'_>, x: &mut Exchange) -> LocalError {
        let (counted, named) = match limit {
            Limit::Idle => {
                x.scope().timed_out(TimeLimit::Idle);
                // Nobody but the caller was waited for.
                drop(unanswered.over());
                return LocalError::RequestStalled;
            }
            Limit::PerTry => (TimeLimit::PerTry, "time of one try"),
            Limit::Request => (TimeLimit::Request, "request's timeout"),
            Limit::Caller => (TimeLimit::Request, "caller's deadline"),
        };
        x.scope().timed_out(counted);
        if limit == Limit::Caller {
            drop(unanswered);
        } else {
            unanswered.late();
        }
        LocalError::Timeout {
            service: self.inlet.service(),
            limit: named,
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

    fn error(&self) -> LocalError {
        let (service, known) = (self.inlet.service(), &self.plan.upstream.port.endpoints);
        match &self.last {
            Some((endpoint, failed)) => failed.told(service, endpoint.address(), known),
            None => LocalError::NoEndpoint { service },
        }
    }
}
