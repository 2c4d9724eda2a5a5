//! Against the specification's sentences, and against a scan that knows no index.

mod changes;
mod naive;
mod precedence;

use std::sync::Arc;

use http::{Method, Request, request::Parts};

use super::Table;
use crate::model::{
    Backend, Filter, Match, PathMatch, Pattern, Route, RouteKind, Rule, RuleTimeouts, ServiceName,
    ServicePortName, ValueMatch,
};

fn head(uri: &str) -> Parts {
    Request::get(uri).body(()).unwrap().into_parts().0
}

fn with_header(mut head: Parts, name: &'static str, value: &str) -> Parts {
    head.headers.append(name, value.parse().unwrap());
    head
}

/// A call of `/service/method`.
fn call(path: &str) -> Parts {
    let head = head(&format!("http://echo{path}"));
    let mut head = with_header(head, "content-type", "application/grpc+proto");
    head.method = Method::POST;
    head
}

fn exact(path: &str) -> Match {
    of_path(PathMatch::Exact(path.into()))
}

fn prefix(path: &str) -> Match {
    of_path(PathMatch::Prefix(path.into()))
}

fn regex(text: &str) -> Match {
    of_path(PathMatch::Regex(Pattern::new(text).unwrap()))
}

fn grpc(service: Option<&str>, method: Option<&str>) -> Match {
    let value = |text: Option<&str>| text.map(|text| ValueMatch::Exact(text.into()));
    of_path(PathMatch::Grpc {
        service: value(service),
        method: value(method),
    })
}

fn of_path(path: PathMatch) -> Match {
    Match {
        path: Some(path),
        ..Match::default()
    }
}

impl Match {
    fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        let name = http::HeaderName::from_static(name);
        self.headers.push((name, ValueMatch::Exact(value.into())));
        self
    }

    fn param(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.into(), ValueMatch::Exact(value.into())));
        self
    }
}

fn target(name: &str) -> ServicePortName {
    ServicePortName {
        service: ServiceName {
            namespace: "demo".into(),
            name: name.into(),
        },
        port: 80,
    }
}

fn backend(name: &str, weight: u32) -> Backend {
    Backend {
        target: target(name),
        fault: None,
        weight,
        filters: Vec::new(),
    }
}

/// A rule that is told by its name.
fn rule(name: &str, matches: Vec<Match>) -> Rule {
    Rule {
        name: Some(name.into()),
        matches,
        filters: Vec::new(),
        backends: vec![backend(name, 1)],
        timeouts: RuleTimeouts::default(),
        retry: None,
        fault: None,
    }
}

fn route(kind: RouteKind, name: &str, created: u64, rules: Vec<Rule>) -> Arc<Route> {
    Arc::new(Route {
        kind,
        namespace: "demo".into(),
        name: name.into(),
        created,
        rules,
    })
}

/// One HTTPRoute with a rule for each match, named by the match's position.
fn table(matches: Vec<Match>) -> Table {
    Table::new(&[route(RouteKind::Http, "r", 0, rules(matches))])
}

fn rules(matches: Vec<Match>) -> Vec<Rule> {
    let matches = matches.into_iter().enumerate();
    matches
        .map(|(index, wanted)| rule(&index.to_string(), vec![wanted]))
        .collect()
}

/// The name of the rule that `head` gets.
fn chosen<'t>(table: &'t Table, head: &Parts) -> Option<&'t str> {
    table
        .choose(head)
        .and_then(|chosen| chosen.rule.rule_name.as_deref())
}

#[track_caller]
fn check(table: &Table, head: &Parts, expect: Option<&str>) {
    assert_eq!(chosen(table, head), expect, "{head:?}\n{table:#?}");
}

/// A rule's filters and nothing else.
fn filtering(filters: Vec<Filter>) -> Table {
    let rule = Rule {
        filters,
        ..rule("0", vec![prefix("/foo")])
    };
    Table::new(&[route(RouteKind::Http, "r", 0, vec![rule])])
}
