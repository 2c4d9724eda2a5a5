//! Where a service's requests go instead of to its own endpoints: the Gateway API's HTTPRoute and GRPCRoute on a
//! Service, as checked data. What it means is the `route` room's.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{Cors, Pattern, ServicePortName};

/// One HTTPRoute or GRPCRoute, as it applies to one service port.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub kind: RouteKind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// Seconds since the epoch; older routes win where matches are equal. Zero in files.
    pub created: u64,
    pub rules: Vec<Rule>,
}

impl Route {
    /// All ports to which it sends requests, copies too.
    pub fn backends(&self) -> impl Iterator<Item = &ServicePortName> {
        let counts = |rule: &&Rule| rule.fault.is_none();
        self.rules.iter().filter(counts).flat_map(|rule| {
            let own = rule.backends.iter().flat_map(|backend| &backend.filters);
            let mirrors = rule.filters.iter().chain(own).filter_map(|filter| match filter {
                Filter::Mirror { target, .. } => Some(target),
                _ => None,
            });
            let backends = rule.backends.iter().filter(|backend| backend.fault.is_none());
            backends.map(|backend| &backend.target).chain(mirrors)
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    Http,
    Grpc,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: Option<Arc<str>>,
    /// Any of them; none means every request.
    pub matches: Vec<Match>,
    pub filters: Vec<Filter>,
    /// Chosen by weight. Empty without a redirect: every request is refused with 500.
    pub backends: Vec<Backend>,
    pub timeouts: RuleTimeouts,
    /// `None`: the service's policy.
    pub retry: Option<RuleRetry>,
    /// Why it is not in force as it is written, while other rules of its route are.
    pub fault: Option<RuleFault>,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleFault {
    /// Its conditions cannot be read: it matches nothing, and keeps its position in the route.
    Matches,
    /// Something else: the requests that it matches are refused, for this reason. It has no filters and no backends.
    Refused(Arc<str>),
}

/// All of the conditions that are there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    pub path: Option<PathMatch>,
    pub method: Option<Method>,
    pub headers: Vec<(HeaderName, ValueMatch)>,
    pub query: Vec<(Arc<str>, ValueMatch)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    Exact(Arc<str>),
    /// By path elements: `/a` matches `/a` and `/a/b`, not `/ab`. Stored without a trailing slash, `/` as empty.
    Prefix(Arc<str>),
    Regex(Pattern),
    /// A gRPC call: `/service/method`. At least one is given.
    Grpc {
        service: Option<ValueMatch>,
        method: Option<ValueMatch>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatch {
    Exact(Arc<str>),
    Regex(Pattern),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Port 0, which no service has, where there is a `fault`.
    pub target: ServicePortName,
    /// Why it can be no backend: its share of the requests is refused, for this reason.
    pub fault: Option<Arc<str>>,
    /// Relative to the other backends; zero gets none.
    pub weight: u32,
    pub filters: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    RequestHeaders(HeaderChange),
    ResponseHeaders(HeaderChange),
    UrlRewrite {
        hostname: Option<HeaderValue>,
        path: Option<PathChange>,
    },
    Redirect(Redirect),
    Cors(Arc<Cors>),
    Mirror {
        target: ServicePortName,
        share: Share,
    },
}

/// In this order: set, add, remove.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderChange {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PathChange {
    Full(Arc<str>),
    /// Replaces the matched prefix.
    Prefix(Arc<str>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub scheme: Option<Arc<str>>,
    pub hostname: Option<Arc<str>>,
    pub port: Option<u16>,
    pub path: Option<PathChange>,
    pub status: StatusCode,
}

/// A part of the requests: `numerator / denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub numerator: u32,
    pub denominator: u32,
}

/// `None`: the service's policy. Zero: no timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleTimeouts {
    /// The whole exchange.
    pub request: Option<Duration>,
    /// Each attempt.
    pub backend_request: Option<Duration>,
}

/// GEP-1731.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRetry {
    /// All calls of the rule may be done twice.
    pub idempotent: bool,
    pub codes: Vec<StatusCode>,
    pub attempts: Option<u32>,
    pub backoff: Option<Duration>,
}
