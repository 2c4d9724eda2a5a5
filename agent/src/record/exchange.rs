//! One request from its headers to the end of its response. Opened when it starts, recorded when dropped, so that
//! no way out can forget to.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, header, request, uri::PathAndQuery};
use tokio::time::Instant;

use super::{
    access_log::micros,
    json::Object,
    labels::{Flag, NO_STANDARD, Outcome, Spoken, grpc_status_of},
    line::Line,
    outcomes::Counted,
    recorder::Recorder,
    scope::Scope,
};
use crate::share;

/// What will be counted and logged of one request.
#[derive(Debug)]
pub struct Exchange {
    recorder: Rc<Recorder>,
    pub(super) line: Rc<Line>,
    pub(super) spoken: Spoken,
    pub(super) started: Instant,
    pub(super) method: Method,
    pub(super) path: Option<PathAndQuery>,
    pub(super) authority: Option<HeaderValue>,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) request_id: Option<HeaderValue>,
    pub(super) traceparent: Option<HeaderValue>,
    pub(super) outcome: Outcome,
    /// What stands when the response goes out whole.
    complete_flag: Flag,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) route: Option<Arc<str>>,
    pub(super) attempts: u32,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// From the start to the response's headers.
    pub(super) first_answer: Option<Duration>,
}

impl Exchange {
    /// Everything is held by reference count; nothing of the request is copied.
    pub fn begin(recorder: Rc<Recorder>, line: Rc<Line>, spoken: Spoken, head: &request::Parts) -> Box<Self> {
        let authority = head.headers.get(header::HOST).cloned().or_else(|| {
            let authority = head.uri.authority()?;
            HeaderValue::from_str(authority.as_str()).ok()
        });
        Box::new(Self {
            recorder,
            line,
            spoken,
            started: share::now(),
            method: head.method.clone(),
            path: head.uri.path_and_query().cloned(),
            authority,
            user_agent: head.headers.get(header::USER_AGENT).cloned(),
            request_id: None,
            traceparent: head.headers.get("traceparent").cloned(),
            // What stands when nothing else is said before the end: the caller went away.
            outcome: Outcome {
                code: 0,
                grpc_status: None,
                flag: Flag::DownstreamConnectionTermination,
            },
            complete_flag: Flag::None,
            endpoint: None,
            route: None,
            attempts: 0,
            received: 0,
            sent: 0,
            first_answer: None,
        })
    }

    pub fn scope(&self) -> &Rc<Scope> {
        &self.line.scope
    }

    pub fn spoken(&self) -> Spoken {
        self.spoken
    }

    pub fn elapsed(&self) -> Duration {
        share::now() - self.started
    }

    pub fn identified(&mut self, request_id: HeaderValue) {
        self.request_id = Some(request_id);
    }

    /// A route of the service has been chosen.
    pub fn routed(&mut self, route: Arc<str>) {
        self.route = Some(route);
    }

    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint
    }

    pub fn grpc_status(&self) -> Option<u16> {
        self.outcome.grpc_status
    }

    /// The request goes to `endpoint`, for the first time or again.
    pub fn attempt(&mut self, endpoint: SocketAddr) {
        self.endpoint = Some(endpoint);
        self.attempts += 1;
        if self.attempts > 1 {
            self.line.scope.retried();
        }
    }

    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    pub fn received(&mut self, bytes: u64) {
        self.received = bytes;
    }

    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// It goes to the service's own address: who answers for that is not known.
    pub fn endpoints_unknown(&mut self) {
        self.complete_flag = Flag::EndpointsUnknown;
    }

    /// Response headers go to the caller.
    pub fn answered(&mut self, code: u16, headers: &HeaderMap) {
        self.outcome.code = code;
        self.first_answer = Some(share::now() - self.started);
        self.trailers(headers);
    }

    /// Headers or trailers that may tell the gRPC status.
    pub fn trailers(&mut self, headers: &HeaderMap) {
        if self.spoken == Spoken::Grpc
            && let Some(status) = headers.get("grpc-status")
        {
            let number = status.to_str().ok().and_then(|s| s.parse().ok());
            self.outcome.grpc_status = Some(number.unwrap_or(NO_STANDARD));
        }
    }

    /// The response went out whole. A flag that was set for it stays.
    pub fn complete(&mut self) {
        if self.spoken == Spoken::Grpc && self.outcome.grpc_status.is_none() {
            self.outcome.grpc_status = Some(grpc_status_of(self.outcome.code));
        }
        if self.outcome.flag == Flag::DownstreamConnectionTermination {
            self.outcome.flag = self.complete_flag;
        }
    }

    /// The engine answered by itself. A reason that was given before (retries used up) says more than `flag`.
    pub fn refused(&mut self, flag: Flag) {
        if self.outcome.flag == Flag::DownstreamConnectionTermination {
            self.outcome.flag = flag;
            self.complete_flag = flag;
        }
    }

    /// It ended otherwise.
    pub fn failed(&mut self, flag: Flag) {
        self.outcome.flag = flag;
    }

    /// Its line of the access log.
    fn write(&self, took: Duration) {
        let (x, log) = (self, &self.recorder.log);
        log.write(&x.line.lines, |o| {
            log.head(o, &x.line, x.started, x.endpoint);
            if let Some(route) = &x.route {
                o.text("route", route.as_bytes());
            }
            o.text("method", x.method.as_str().as_bytes());
            o.text("path", x.path.as_ref().map_or("/", |p| p.as_str()).as_bytes());
            header(o, "authority", x.authority.as_ref());
            o.text("protocol", x.spoken.as_str().as_bytes());
            o.number("code", x.outcome.code.into());
            if let Some(status) = x.outcome.grpc_status.filter(|status| *status != NO_STANDARD) {
                o.number("grpc_status", status.into());
            }
            o.text("flags", x.outcome.flag.as_str().as_bytes());
            o.number("bytes_received", x.received);
            o.number("bytes_sent", x.sent);
            o.millis("duration_ms", micros(took));
            if let Some(first) = x.first_answer {
                o.millis("upstream_ms", micros(first));
            }
            o.number("attempts", x.attempts.into());
            header(o, "user_agent", x.user_agent.as_ref());
            header(o, "request_id", x.request_id.as_ref());
            if let Some(id) = x.traceparent.as_ref().and_then(|t| t.as_bytes().get(3..35)) {
                o.text("trace_id", id);
            }
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let took = share::now() - self.started;
        let counted = self
            .line
            .scope
            .request(self.spoken, self.outcome, took, self.received, self.sent);
        if counted == Counted::Beyond {
            self.recorder.counters.outcome_beyond();
        }
        self.write(took);
    }
}

fn header(o: &mut Object<'_>, name: &str, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        o.text(name, value.as_bytes());
    }
}
