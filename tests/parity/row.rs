//! A row of the table: what the endpoints do, under which policy, what is called, and what is to come of it.

use std::time::Duration;

use derny_tests::calls::{Call, Protocol};

use crate::{policy::Policy, script::Script};

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) call: Call,
    pub(crate) script: Script,
    pub(crate) policy: Policy,
    pub(crate) traffic: Traffic,
    pub(crate) expect: Expect,
    pub(crate) within: Vec<Bound>,
}

/// Bounds of a time that was measured, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) what: &'static str,
    pub(crate) least: u64,
    pub(crate) most: u64,
    pub(crate) of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Both,
    Derny,
}

/// How often is called, and what is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Traffic {
    /// Once: the answer, and what the endpoints saw.
    One,
    /// Once, and the first endpoint begins to listen so long after.
    OneBefore(Duration),
    /// So many at the same time: the answers, and what the endpoints saw.
    AtOnce(usize),
    /// The same after one call that has opened a connection.
    AtOnceWarm(usize),
    /// So many, one after the other: how many fail.
    InTurn(usize),
    /// One every 20 ms for so long.
    Paced(Duration, Look),
}

/// What is looked at over a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Look {
    /// After how many requests the first endpoint got none for half a second, again and again, and for how long.
    Ejections,
    /// Which endpoints still get requests at the end.
    Used,
    /// After how many failed checks the first endpoint left, and after how many good ones it was back.
    Checks,
    /// How long after the first endpoint's port closed it left, and how long after it opened again it was back.
    Closed { from: Duration, until: Duration },
}

/// The words of what is observed. `…` at the end stands for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Same(&'static str),
    Differs {
        derny: &'static str,
        envoy: &'static str,
        why: Why,
    },
}

/// Every difference that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    StatusInTrailers,
    HeldHeaders,
    DefaultTimeout,
    HalfOpen,
    PerEndpoint,
    LostConnection,
    Pushback,
    LocalErrors,
    TimeoutStatus,
    CheckAnswers,
}

impl Why {
    /// The word in the table.
    pub(crate) fn verdict(self) -> &'static str {
        match self {
            Self::StatusInTrailers
            | Self::HeldHeaders
            | Self::DefaultTimeout
            | Self::HalfOpen
            | Self::PerEndpoint => "better",
            Self::LostConnection
            | Self::Pushback
            | Self::LocalErrors
            | Self::TimeoutStatus
            | Self::CheckAnswers => "by decision",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::StatusInTrailers => "A gRPC call is judged by its end",
            Self::HeldHeaders => "Headers wait for a status right behind them",
            Self::DefaultTimeout => "The default timeout ends with the headers",
            Self::HalfOpen => "One request decides on the return",
            Self::PerEndpoint => "An endpoint has a bound of its own",
            Self::LostConnection => "A lost connection counts as the answer that the caller would get",
            Self::Pushback => "`grpc-retry-pushback-ms` is honoured",
            Self::LocalErrors => "Resets and timeouts are local errors in a row",
            Self::CheckAnswers => "`unhealthyThreshold` counts bad answers too",
            Self::TimeoutStatus => "A timeout is DEADLINE_EXCEEDED to a gRPC caller",
        }
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::StatusInTrailers => {
                "Most gRPC servers send response headers first and the status in trailers. Envoy decides on retry and \
                 ejection by the headers, so it sees those failures only of servers that answer trailers-only."
            }
            Self::HeldHeaders => {
                "While a gRPC retry is possible, Derny keeps response headers back for at most `holdHeaders` (20 ms). \
                 A status that comes within that can be retried; one that comes later is passed on as it is."
            }
            Self::DefaultTimeout => {
                "Envoy's 15 s cut Server-Sent Events and long downloads. Where `timeouts.request` is left out, Derny's \
                 15 s run until the response headers. Where it is set, both bound the whole exchange."
            }
            Self::HalfOpen => {
                "After an ejection Envoy gives an endpoint its full share and needs as many failures again; measured, \
                 it needs more (21 instead of 5; its issue 40697). Derny sends one request. When that fails, the endpoint \
                 is out again, for longer."
            }
            Self::PerEndpoint => {
                "`perEndpoint.maxRequests` passes over a full endpoint, and refuses at once when all are full. \
                 Envoy bounds requests for the cluster as a whole."
            }
            Self::LostConnection => {
                "Where a policy names `unavailable`, or `503` and the method is idempotent, requests are retried whose \
                 connection ended before an answer: a replica that is killed costs no call. Envoy's words of the same \
                 names look at responses only. Without them in `on`, Derny does as Envoy (the next row). See \
                 [retries](decisions/retries.md)."
            }
            Self::Pushback => {
                "A gRPC server that asks for time, or forbids retries, means whoever retries (gRFC A6). Envoy knows \
                 the header only where it is named under `rate_limited_retry_back_off`, in seconds."
            }
            Self::LocalErrors => {
                "With `splitLocalOrigin`, Envoy takes each connection that a request gets for a local success, which \
                 ends the row: only failed connects ever make `consecutive_local_origin_failure` in a row, although its \
                 documentation names timeouts and resets too. In Derny they count."
            }
            Self::CheckAnswers => {
                "The threshold keeps one bad answer from taking an endpoint out. Envoy counts only checks without an \
                 answer towards it, and HTTP statuses where `retriable_statuses` names them."
            }
            Self::TimeoutStatus => {
                "To HTTP both say 504. For gRPC, Envoy maps the 504 of its `timeout` and `per_try_timeout` to \
                 UNAVAILABLE, which many callers retry by themselves; Derny says DEADLINE_EXCEEDED. For a \
                 `grpc-timeout` of the caller's both do."
            }
        }
    }
}

/// A row of one GET (or gRPC call).
pub(crate) fn row(
    name: &'static str,
    protocol: Protocol,
    script: Script,
    policy: Policy,
    expect: Expect,
) -> Row {
    let call = Call {
        id: 0,
        target: String::new(),
        protocol,
        method: "GET".to_owned(),
        path: "/".to_owned(),
        headers: Default::default(),
        body_bytes: 0,
    };
    Row {
        name,
        call,
        script,
        policy,
        traffic: Traffic::One,
        expect,
        within: Vec::new(),
    }
}

/// Whether `words` are what is `wanted`.
pub(crate) fn matches(wanted: &str, words: &str) -> bool {
    match wanted.strip_suffix('…') {
        Some(begin) => words.starts_with(begin),
        None => words == wanted,
    }
}

pub(crate) fn same(words: &'static str) -> Expect {
    Expect::Same(words)
}

pub(crate) fn differs(why: Why, derny: &'static str, envoy: &'static str) -> Expect {
    Expect::Differs { derny, envoy, why }
}

impl Row {
    pub(crate) fn traffic(mut self, traffic: Traffic) -> Self {
        self.traffic = traffic;
        self
    }

    pub(crate) fn post(mut self, body_bytes: usize) -> Self {
        self.call.method = "POST".to_owned();
        self.call.body_bytes = body_bytes;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.call.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// `what` takes from `least` to `most` milliseconds.
    pub(crate) fn within(mut self, what: &'static str, least: u64, most: u64) -> Self {
        self.within.push(Bound {
            what,
            least,
            most,
            of: Of::Both,
        });
        self
    }

    /// The same for Derny alone, where Envoy differs.
    pub(crate) fn derny_within(mut self, what: &'static str, least: u64, most: u64) -> Self {
        self.within.push(Bound {
            what,
            least,
            most,
            of: Of::Derny,
        });
        self
    }

    /// What is expected of Derny and of Envoy.
    pub(crate) fn words(&self) -> [&'static str; 2] {
        match self.expect {
            Expect::Same(words) => [words, words],
            Expect::Differs { derny, envoy, .. } => [derny, envoy],
        }
    }

    pub(crate) fn verdict(&self) -> &'static str {
        match self.expect {
            Expect::Same(_) => "same",
            Expect::Differs { why, .. } => why.verdict(),
        }
    }
}
