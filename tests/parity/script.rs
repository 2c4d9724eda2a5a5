//! What the endpoints of a row do.

use std::time::Duration;

use derny_tests::calls::Protocol;

/// How one request is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// 200, or a whole gRPC answer with status 0.
    Good,
    /// An HTTP status, with a header.
    Status(u16, Option<(&'static str, &'static str)>),
    /// A gRPC status, with a header beside it.
    Grpc(u16, At, Option<(&'static str, &'static str)>),
    /// The connection ends without a byte of an answer: orderly.
    Close,
    /// … and with a TCP reset.
    Rst,
    /// What comes is not HTTP.
    Garbage,
    /// The stream is reset before any headers.
    Reset(h2::Reason),
    /// Headers and part of a body, then the stream is reset, or the connection of HTTP/1.1.
    BreakOff,
    /// Good, after so long.
    After(Duration),
    /// Headers at once, then so many pieces of a body, one each time.
    Trickle(u32, Duration),
}

/// Where a gRPC status stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Trailers-only.
    Headers,
    /// So long behind the headers.
    Trailers(Duration),
    /// Behind a message.
    Message,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Endpoint {
    /// Its n-th request is answered by the n-th step, later ones by the last.
    Answers(Vec<Step>),
    /// Nothing listens until the row says so.
    Refuses,
    /// SYNs are dropped.
    Blackhole,
}

/// What active checks of the first endpoint find. Others pass always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probes {
    /// So many pass after the row's first call,
    pub(crate) good: usize,
    /// then so many fail, and then all pass.
    pub(crate) bad: usize,
    pub(crate) fault: ProbeFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeFault {
    /// 503.
    Status,
    /// No answer for a second.
    Hangs,
    /// `grpc.health.v1` says NOT_SERVING.
    NotServing,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Script {
    pub(crate) endpoints: Vec<Endpoint>,
    /// The steps of the first endpoint are those of the row: its n-th request, wherever it arrives.
    pub(crate) shared: bool,
    pub(crate) probes: Option<Probes>,
    /// How many endpoints, counted from the first, fail their checks.
    pub(crate) sick: usize,
}

impl Script {
    pub(crate) fn of(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            shared: false,
            probes: None,
            sick: 1,
        }
    }

    /// Three endpoints that share these steps; what comes after them is good.
    pub(crate) fn then_good(steps: impl Into<Vec<Step>>) -> Self {
        let mut steps = steps.into();
        steps.push(Step::Good);
        Self::shared(3, steps)
    }

    /// Three endpoints that always do this.
    pub(crate) fn always(step: Step) -> Self {
        Self::shared(3, vec![step])
    }

    /// So many endpoints that share these steps, the last again and again.
    pub(crate) fn shared(endpoints: usize, steps: Vec<Step>) -> Self {
        Self {
            shared: true,
            ..Self::of(vec![Endpoint::Answers(steps); endpoints])
        }
    }

    /// The first of so many endpoints does this, the others are good.
    pub(crate) fn one_of(endpoints: usize, first: Endpoint) -> Self {
        let mut all = vec![Endpoint::Answers(vec![Step::Good]); endpoints];
        all[0] = first;
        Self::of(all)
    }

    /// So many good endpoints whose first `sick` are found like this by checks.
    pub(crate) fn checked(endpoints: usize, sick: usize, good: usize, bad: usize, fault: ProbeFault) -> Self {
        Self {
            probes: Some(Probes { good, bad, fault }),
            sick,
            ..Self::of(vec![Endpoint::Answers(vec![Step::Good]); endpoints])
        }
    }
}

impl Step {
    /// What `Good` is to a caller of this protocol.
    pub(crate) fn in_words_of(self, protocol: Protocol) -> Self {
        match (self, protocol) {
            (Self::Good, Protocol::Grpc) => Self::Grpc(0, At::Message, None),
            (Self::Good, _) => Self::Status(200, None),
            (other, _) => other,
        }
    }
}
