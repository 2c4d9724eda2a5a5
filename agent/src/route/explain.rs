//! Why a request goes where it goes.

use std::{fmt, sync::Arc};

use http::request::Parts;

use super::{Table, request::Request};
use crate::model::{Match, PathMatch, RouteKind, ValueMatch};

/// One match of one rule, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// `namespace/name`.
    pub route: Arc<str>,
    pub rule_name: Option<Arc<str>>,
    /// Position of the rule in its route, from 0.
    pub rule: usize,
    /// What the match asks for: `path prefix /a, header version = v2`.
    pub wants: String,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Chosen,
    /// It matches too; one before it has been chosen.
    Outranked,
    /// Each condition that does not hold.
    No(Vec<String>),
}

/// All matches of all rules in order of precedence. At most one is [`Verdict::Chosen`].
pub fn explain(table: &Table, head: &Parts) -> Vec<Explained> {
    let request = Request::new(head);
    let chosen = table.first(&request);
    let matches = table.matches.iter().zip(&table.rule_of).enumerate();
    let explained = matches.map(|(position, (wanted, rule))| {
        let rule = &table.rules[*rule];
        let mut faults = faults(&request, wanted);
        if rule.kind == RouteKind::Grpc && request.call.is_none() {
            faults.insert(0, "is not a gRPC call".to_owned());
        }
        Explained {
            route: rule.route.clone(),
            rule_name: rule.rule_name.clone(),
            rule: rule.position,
            wants: Wants(wanted).to_string(),
            verdict: match chosen {
                Some(chosen) if chosen == position => Verdict::Chosen,
                _ if faults.is_empty() => Verdict::Outranked,
                _ => Verdict::No(faults),
            },
        }
    });
    explained.collect()
}

fn faults(request: &Request<'_>, wanted: &Match) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some(path) = &wanted.path
        && !request.path_is(path)
    {
        faults.push(format!("path is {}", request.path));
    }
    if let Some(method) = &wanted.method
        && request.head.method != *method
    {
        faults.push(format!("method is {}", request.head.method));
    }
    for (name, value) in &wanted.headers {
        if !request.header_is(name, value) {
            faults.push(match request.header(name) {
                Some(value) => format!("header {name} is {}", String::from_utf8_lossy(&value)),
                None => format!("header {name} is not there"),
            });
        }
    }
    for (name, value) in &wanted.query {
        if !request.query_is(name, value) {
            faults.push(match request.query(name) {
                Some(value) => format!("query parameter {name} is {value}"),
                None => format!("query parameter {name} is not there"),
            });
        }
    }
    faults
}

/// A match in words.
struct Wants<'m>(&'m Match);

impl fmt::Display for Wants<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Match {
            path,
            method,
            headers,
            query,
        } = self.0;
        let mut parts = Vec::new();
        parts.extend(path.as_ref().map(path_words));
        parts.extend(method.as_ref().map(|method| format!("method {method}")));
        parts.extend(
            headers
                .iter()
                .map(|(name, value)| format!("header {name} {}", Value(value))),
        );
        parts.extend(
            query
                .iter()
                .map(|(name, value)| format!("query {name} {}", Value(value))),
        );
        if parts.is_empty() {
            return f.write_str("everything");
        }
        f.write_str(&parts.join(", "))
    }
}

fn path_words(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => format!("path = {path}"),
        PathMatch::Prefix(prefix) if prefix.is_empty() => "path prefix /".to_owned(),
        PathMatch::Prefix(prefix) => format!("path prefix {prefix}"),
        PathMatch::Regex(pattern) => format!("path ~ {}", pattern.text()),
        PathMatch::Grpc { service, method } => {
            let words = [("service", service), ("method", method)];
            let words = words.iter().filter_map(|(word, value)| {
                let value = value.as_ref()?;
                Some(format!("gRPC {word} {}", Value(value)))
            });
            words.collect::<Vec<_>>().join(", ")
        }
    }
}

struct Value<'v>(&'v ValueMatch);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ValueMatch::Exact(text) => write!(f, "= {text}"),
            ValueMatch::Regex(pattern) => write!(f, "~ {}", pattern.text()),
        }
    }
}
