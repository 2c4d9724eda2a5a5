//! All routes of a service port, compiled once.

use std::{collections::BTreeMap, sync::Arc};

use http::request::Parts;

use super::{index::Index, precedence::Precedence, request::Request};
use crate::model::{Backend, Filter, Match, PathMatch, Route, RouteKind, RuleFault, RuleRetry, RuleTimeouts};

/// The routes of one service port that count for the same callers.
#[derive(Debug, Default)]
pub struct Table {
    pub(super) rules: Vec<CompiledRule>,
    /// In order of precedence, each with the rule that it is of.
    pub(super) matches: Vec<Match>,
    pub(super) rule_of: Vec<usize>,
    index: Index,
    ignored: Vec<Arc<str>>,
    has_routes: bool,
}

/// What to do with the requests of a rule.
#[derive(Clone, Debug)]
pub struct CompiledRule {
    /// `namespace/name`, the label of metrics and log.
    pub route: Arc<str>,
    pub kind: RouteKind,
    pub rule_name: Option<Arc<str>>,
    /// Position of the rule in its route, from 0.
    pub position: usize,
    pub filters: Vec<Filter>,
    /// With their own filters, which come after the rule's.
    pub backends: Vec<Backend>,
    /// Why its requests are refused; then it has no backends.
    pub refused: Option<Arc<str>>,
    pub timeouts: RuleTimeouts,
    /// `None`: the service's policy.
    pub retry: Option<RuleRetry>,
    total_weight: u64,
}

/// The rule that a request belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'t> {
    pub rule: &'t CompiledRule,
    /// The prefix that matched, as in [`PathMatch::Prefix`]; what a prefix rewrite replaces.
    pub matched_prefix: Option<&'t str>,
}

impl Table {
    /// Routes of both kinds may be given. As the Gateway API says (GEP-1426, route types), the more specific kind
    /// then counts alone: GRPCRoutes are served and HTTPRoutes are [`ignored`](Self::ignored).
    pub fn new(routes: &[Arc<Route>]) -> Self {
        let kind = routes.iter().map(|route| route.kind).max();
        let mut rules = Vec::new();
        let mut sorted = BTreeMap::new();
        let everything = [Match::default()];
        for route in routes.iter().filter(|route| Some(route.kind) == kind) {
            let label: Arc<str> = label(route);
            for (position, rule) in route.rules.iter().enumerate() {
                let refused = match &rule.fault {
                    None => None,
                    Some(RuleFault::Refused(reason)) => Some(reason.clone()),
                    Some(RuleFault::Matches) => continue,
                };
                let matches = match rule.matches.as_slice() {
                    [] => &everything,
                    some => some,
                };
                for (at, wanted) in matches.iter().enumerate() {
                    sorted
                        .entry(Precedence::new(route, position, at, wanted))
                        .or_insert((wanted, rules.len()));
                }
                rules.push(CompiledRule {
                    route: label.clone(),
                    kind: route.kind,
                    rule_name: rule.name.clone(),
                    position,
                    filters: rule.filters.clone(),
                    backends: rule.backends.clone(),
                    refused,
                    timeouts: rule.timeouts,
                    retry: rule.retry.clone(),
                    total_weight: rule.backends.iter().map(|b| u64::from(b.weight)).sum(),
                });
            }
        }
        let (matches, rule_of): (Vec<Match>, _) = sorted
            .into_values()
            .map(|(wanted, rule)| (wanted.clone(), rule))
            .unzip();
        let ignored = routes.iter().filter(|route| Some(route.kind) != kind);
        Self {
            index: Index::new(&matches),
            rules,
            matches,
            rule_of,
            ignored: ignored.map(|route| label(route)).collect(),
            has_routes: !routes.is_empty(),
        }
    }

    /// No route at all: requests go to the service's own endpoints.
    pub fn is_empty(&self) -> bool {
        !self.has_routes
    }

    /// HTTPRoutes (`namespace/name`) that do not count, since the port has GRPCRoutes.
    pub fn ignored(&self) -> &[Arc<str>] {
        &self.ignored
    }

    /// The rule that wins, or `None` when no rule matches.
    pub fn choose<'t>(&'t self, head: &Parts) -> Option<Chosen<'t>> {
        self.first(&Request::new(head)).map(|position| Chosen {
            rule: &self.rules[self.rule_of[position]],
            matched_prefix: match &self.matches[position].path {
                None => Some(""),
                Some(PathMatch::Prefix(prefix)) => Some(prefix),
                Some(_) => None,
            },
        })
    }

    /// A GRPCRoute speaks of gRPC calls only; anything else finds nothing in it.
    pub(super) fn first(&self, request: &Request<'_>) -> Option<usize> {
        let grpc = self.rules.first()?.kind == RouteKind::Grpc;
        if grpc && request.call.is_none() {
            return None;
        }
        self.index.first(request, &self.matches)
    }
}

fn label(route: &Route) -> Arc<str> {
    format!("{}/{}", route.namespace, route.name).into()
}

impl CompiledRule {
    /// One of the backends, by weight. `None` when there is none with a weight: the request is answered with 500, as it
    /// is when the backend has a fault.
    pub fn backend(&self, rng: &mut fastrand::Rng) -> Option<&Backend> {
        if let [only] = self.backends.as_slice() {
            return (only.weight > 0).then_some(only);
        }
        if self.total_weight == 0 {
            return None;
        }
        let mut left = rng.u64(0..self.total_weight);
        self.backends.iter().find(|backend| {
            let weight = u64::from(backend.weight);
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        })
    }
}
