//! A rule of an HTTPRoute in the making.

use serde_json::Value;

use super::{precedence::Match, reading::Node, retry::Retry};

/// A route, carried over.
#[derive(Debug)]
pub(super) struct Route<'a> {
    pub(super) node: Node<'a>,
    pub(super) matching: Match,
    pub(super) filters: Vec<Value>,
    pub(super) backends: Vec<Backend<'a>>,
    /// Clusters that get a copy.
    pub(super) mirrors: Vec<Mirror<'a>>,
    /// `RouteAction.timeout`
    pub(super) request: Option<String>,
    /// `RouteAction.idle_timeout`
    pub(super) idle: Option<String>,
    pub(super) retry: Option<Retry<'a>>,
    /// `loadBalancer.hashOn`
    pub(super) hash_on: Option<Value>,
    /// For how many of the requests that match it is, when not for all.
    pub(super) share: Option<Share<'a>>,
}

/// `RouteMatch.runtime_fraction`
#[derive(Debug)]
pub(super) struct Share<'a> {
    pub(super) node: Node<'a>,
    pub(super) numerator: u64,
    pub(super) denominator: u64,
}

#[derive(Debug)]
pub(super) struct Backend<'a> {
    pub(super) cluster: &'a str,
    pub(super) weight: Option<u64>,
    pub(super) filters: Vec<Value>,
}

#[derive(Debug)]
pub(super) struct Mirror<'a> {
    pub(super) node: Node<'a>,
    pub(super) cluster: &'a str,
    /// Of how many requests, when not of all.
    pub(super) fraction: Option<(u64, u64)>,
}

impl Route<'_> {
    /// Every request goes to one cluster as it is: nothing that a route is needed for.
    pub(super) fn is_plain(&self) -> bool {
        self.matching.is_any()
            && self.filters.is_empty()
            && self.mirrors.is_empty()
            && matches!(self.backends.as_slice(), [only] if only.filters.is_empty())
    }
}
