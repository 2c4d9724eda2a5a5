//! Which match wins when several do: the Gateway API's order, as an `Ord`.

use std::cmp::Reverse;

use crate::model::{Match, PathMatch, Route, ValueMatch};

/// The smallest comes first. What the specification leaves open (regular expressions) is decided in [`PathRank`].
///
/// Where a match stands in its rule decides last; that changes which of a rule's matches is named, not the rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence {
    specific: Reverse<Specific>,
    created: u64,
    /// `namespace/name`.
    route: String,
    rule: usize,
    at: usize,
}

/// The largest wins.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Specific {
    path: PathRank,
    method: bool,
    headers: usize,
    query: usize,
}

/// Lengths are in characters. A regular expression is more specific than a prefix, since it would otherwise be dead
/// beside a catch-all, and the longer expression more than the shorter.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Prefix(usize),
    Regex(usize),
    Exact(usize),
    Grpc { service: ValueRank, method: ValueRank },
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ValueRank {
    Any,
    Regex(usize),
    Exact(usize),
}

impl Precedence {
    /// Of the match `at` in the rule `rule` of a route.
    pub(super) fn new(route: &Route, rule: usize, at: usize, wanted: &Match) -> Self {
        Self {
            specific: Reverse(Specific {
                path: PathRank::new(wanted.path.as_ref()),
                method: wanted.method.is_some(),
                headers: wanted.headers.len(),
                query: wanted.query.len(),
            }),
            created: route.created,
            route: format!("{}/{}", route.namespace, route.name),
            rule,
            at,
        }
    }
}

impl PathRank {
    fn new(wanted: Option<&PathMatch>) -> Self {
        match wanted {
            None => Self::Prefix(0),
            Some(PathMatch::Prefix(prefix)) => Self::Prefix(prefix.chars().count()),
            Some(PathMatch::Regex(pattern)) => Self::Regex(pattern.text().chars().count()),
            Some(PathMatch::Exact(path)) => Self::Exact(path.chars().count()),
            Some(PathMatch::Grpc { service, method }) => Self::Grpc {
                service: ValueRank::new(service.as_ref()),
                method: ValueRank::new(method.as_ref()),
            },
        }
    }
}

impl ValueRank {
    fn new(wanted: Option<&ValueMatch>) -> Self {
        match wanted {
            None => Self::Any,
            Some(ValueMatch::Regex(pattern)) => Self::Regex(pattern.text().chars().count()),
            Some(ValueMatch::Exact(text)) => Self::Exact(text.chars().count()),
        }
    }
}
